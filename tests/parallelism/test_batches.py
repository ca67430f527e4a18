"""A batch that grows: its sizes, no sample twice, and exact when continued."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallelism.batches import Batches, Ramp

RAMP = Ramp(start=2, increment=2, samples=12)


def test_steps_and_samples_of_a_ramp() -> None:
    batches = Batches(global_batch_size=8, ramp=RAMP)
    assert [batches.size(step) for step in range(1, 8)] == [2, 2, 4, 6, 8, 8, 8]
    assert [batches.end(step) for step in range(8)] == [0, 2, 4, 8, 14, 22, 30, 38]
    assert (batches.sizes, batches.ramp_steps) == ([2, 4, 6, 8], 4)
    assert Batches(global_batch_size=8).end(3) == 24


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 6), st.integers(0, 200))
@settings(deadline=None, max_examples=40)
def test_sizes_follow_the_samples_read_so_far(start: int, increment: int, rises: int, samples: int) -> None:
    """As Megatron's --rampup-batch-size says it: by the samples consumed before a step."""
    whole = start + increment * rises
    batches, consumed = (
        Batches(global_batch_size=whole, ramp=Ramp(start=start, increment=increment, samples=samples)),
        0,
    )
    for step in range(1, 60):
        risen = rises if consumed >= samples else consumed // Fraction(samples, rises)
        assert batches.size(step) == start + increment * risen
        consumed += batches.size(step)
        assert batches.end(step) == consumed


@pytest.mark.parametrize("ramp", [Ramp(start=8, increment=2, samples=1), Ramp(start=3, increment=2, samples=1)])
def test_a_ramp_that_does_not_arrive_is_refused(ramp: Ramp) -> None:
    (line,) = ramp.problems(8)
    assert line.startswith("must rise from below global_batch_size 8 to it in whole increments, but")
    assert not list(RAMP.problems(8))


def test_a_ramp_is_the_same_under_another_layout_and_continued(
    start_training: Callable[..., Any], tmp_path: Path
) -> None:
    ramp: dict[str, Any] = {"rampup_batch_size": RAMP, "micro_batch_size": 1, "train_iters": 7}
    whole = start_training(tmp_path / "whole", **ramp)
    whole.wait()
    assert len(whole.values()) == 7
    two = start_training(tmp_path / "two", world_size=2, **ramp)
    two.wait()
    assert all(abs(two.values()[step] - loss) < 5e-6 for step, loss in whole.values().items())
    start_training(tmp_path / "cut", **ramp | {"train_iters": 3}).wait()
    again = start_training(tmp_path / "cut", **ramp)
    again.wait()
    assert again.values() == {step: loss for step, loss in whole.values().items() if step > 3}

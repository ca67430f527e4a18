"""The pipeline's schedule: every pass once and in order, the closed form's bubble, and what uneven stages do to it."""

from itertools import pairwise

import pytest

from parallelism.cost.schedule import StageSeconds, Timeline, simulate
from parallelism.cost.waiting import chunks_in_flight
from parallelism.layout import Layout

SIZES = [(1, 4, 1), (2, 2, 1), (4, 16, 1), (8, 8, 1), (4, 3, 1), (2, 4, 2), (4, 4, 2), (4, 16, 4), (8, 32, 2)]


def _even(stages: int, microbatches: int, chunks: int) -> Timeline:
    seconds = [StageSeconds(forward=1.0, backward=2.0)] * stages
    return simulate(seconds, num_microbatches=microbatches, num_model_chunks=chunks)


@pytest.mark.parametrize(("stages", "microbatches", "chunks"), SIZES)
def test_even_stages_wait_as_long_as_the_closed_form_says(stages: int, microbatches: int, chunks: int) -> None:
    layout = Layout(
        world_size=stages,
        global_batch_size=microbatches,
        seq_length=2,
        pipeline_model_parallel_size=stages,
        virtual_pipeline_model_parallel_size=chunks if chunks > 1 else None,
    )
    timeline = _even(stages, microbatches, chunks)
    assert timeline.bubble_fraction == pytest.approx(layout.bubble_fraction)
    assert timeline.end == pytest.approx(3 * (microbatches + (stages - 1) / chunks))


@pytest.mark.parametrize(("stages", "microbatches", "chunks"), SIZES)
def test_every_pass_happens_once_and_after_what_it_needs(stages: int, microbatches: int, chunks: int) -> None:
    events = _even(stages, microbatches, chunks).events
    ends = {(event.stage, event.kind, event.microbatch, event.chunk): event.end for event in events}
    assert len(ends) == len(events) == 2 * stages * microbatches * chunks
    for event in events:
        if event.kind == "backward":
            assert ends[event.stage, "forward", event.microbatch, event.chunk] <= event.start
        elif event.stage > 0:
            assert ends[event.stage - 1, "forward", event.microbatch, event.chunk] <= event.start
    for stage in range(stages):
        own = [event for event in events if event.stage == stage]
        assert all(first.end <= second.start for first, second in pairwise(own))


@pytest.mark.parametrize(("stages", "microbatches", "chunks"), SIZES)
def test_as_many_passes_are_in_flight_as_the_memory_model_counts(stages: int, microbatches: int, chunks: int) -> None:
    layout = Layout(
        world_size=stages,
        global_batch_size=microbatches,
        seq_length=2,
        pipeline_model_parallel_size=stages,
        virtual_pipeline_model_parallel_size=chunks if chunks > 1 else None,
    )
    events = _even(stages, microbatches, chunks).events
    for stage in range(stages):
        waiting, most = 0, 0
        for event in events:
            if event.stage == stage:
                waiting += 1 if event.kind == "forward" else -1
                most = max(most, waiting)
        assert most == chunks_in_flight(layout, stage=stage)


def test_the_slowest_stage_sets_the_pace() -> None:
    slow = StageSeconds(forward=2.0, backward=4.0)
    quick = StageSeconds(forward=1.0, backward=2.0)
    timeline = simulate([quick, slow, quick], num_microbatches=8)
    # Forward on the first stage, a second's wait for the first gradient, backward on the first stage.
    assert timeline.busy(1) == 8 * 6
    assert timeline.end == 1 + 8 * 6 + 1 + 2
    assert timeline.bubble_fraction == pytest.approx(4 / 52)


def test_a_slow_last_stage_waits_for_the_others_once() -> None:
    quick, slow = StageSeconds(forward=1.0, backward=1.0), StageSeconds(forward=3.0, backward=3.0)
    timeline = simulate([quick, quick, quick, slow], num_microbatches=4)
    assert timeline.end == 3 + 4 * 6 + 3

"""The plan of a campaign: figures worked out by hand, and a simulation of what the closed form says."""

import math
import random
from dataclasses import replace
from datetime import datetime
from statistics import fmean, quantiles
from typing import Any

import pytest

from parallelism.cost.campaign import (
    DAY_S,
    FAILURES_PER_GPU_DAY,
    Campaign,
    best_interval,
    checkpoint_bytes,
    forecast,
    goodput,
)
from parallelism.presets import VOCAB_SIZES, preset

START = datetime(2026, 1, 1)  # noqa: DTZ001 - a plan has no time zone
CAMPAIGN = Campaign(
    tokens=1e12,
    tokens_per_step=256 * 4096,
    step_s=2.5,
    flops_per_step=2e17,
    gpus=256,
    checkpoint_bytes=460e9,
    storage_gb_per_s=10,
    watts=700,
    start=START,
    deadline=datetime(2026, 1, 31),  # noqa: DTZ001
)


def test_figures_by_hand() -> None:
    """1e12 / (256 x 4096) = 953,675 steps of 2.5 s are 27.595 days; 419 / (54 x 16,384) x 256 failures a day."""
    found = forecast(CAMPAIGN)
    assert found.steps == 953_675
    assert found.tokens_per_day == pytest.approx(36.24e9, rel=1e-3)
    assert CAMPAIGN.productive_s / DAY_S == pytest.approx(27.595, abs=0.001)
    assert CAMPAIGN.failure_s / DAY_S == pytest.approx(8.248, abs=0.001)
    assert CAMPAIGN.save_s == 46
    # Young: sqrt(2 x 46 x 712,651 s) = 8,097 s; Daly adds a little and takes off the checkpoint itself.
    assert found.interval_s == pytest.approx(8066, abs=2)
    assert found.interval_steps == 3227
    # By the first order: 46 / 8066 for checkpoints, (900 + 8112 / 2) / 712,651 for failures.
    assert found.goodput == pytest.approx(1 / (1 + 46 / 8066 + (900 + 4056) / 712_651), abs=2e-4)
    assert found.days == pytest.approx(27.595 / found.goodput, abs=0.001)
    assert found.failures == pytest.approx(found.days / 8.248, rel=1e-3)
    assert found.gpu_hours == pytest.approx(found.days * 24 * 256)
    assert found.energy_mwh == pytest.approx(found.gpu_hours * 700 * 1.3 / 1e6)
    assert found.model_flops == 953_675 * 2e17
    assert found.days_low < found.days < found.days_high
    assert (found.finish - START).total_seconds() == pytest.approx(found.days * DAY_S)
    assert found.in_time is not None
    assert found.in_time > 0.99
    assert found.effective_tokens_per_day == pytest.approx(found.tokens_per_day * found.goodput)


def test_a_failure_rate_is_what_was_published() -> None:
    assert pytest.approx(419 / 54 / 16_384) == FAILURES_PER_GPU_DAY


def test_checkpoint_of_a_32b_model() -> None:
    size = checkpoint_bytes(preset("dense_32b"), vocab_size=VOCAB_SIZES["dense_32b"])
    assert size / 1e9 == pytest.approx(14 * 32.76, rel=2e-3)
    small = checkpoint_bytes(preset("demo"), vocab_size=512, precision="fp32")
    assert small == 12 * preset("demo").parameters(512)


def test_no_deadline_and_one_that_cannot_be_met() -> None:
    assert forecast(replace(CAMPAIGN, deadline=None)).in_time is None
    assert forecast(replace(CAMPAIGN, deadline=datetime(2026, 1, 20))).in_time == 0  # noqa: DTZ001


def test_the_best_interval_is_best() -> None:
    harsh = replace(CAMPAIGN, gpus=16_384, storage_gb_per_s=2)
    best = goodput(harsh, interval_s=best_interval(harsh))
    assert best >= max(goodput(harsh, interval_s=best_interval(harsh) * factor) for factor in (0.5, 0.8, 1.25, 2))


def test_limits_of_the_interval() -> None:
    """Saving as long as the time between failures, and a checkpoint that costs nothing."""
    assert best_interval(replace(CAMPAIGN, storage_gb_per_s=1e-4)) == pytest.approx(4.6e6)
    free = replace(CAMPAIGN, stall_s=0.0)
    assert best_interval(free) == free.save_s
    assert goodput(free, interval_s=best_interval(free)) > forecast(CAMPAIGN).goodput


def test_closed_form_agrees_with_a_simulation() -> None:
    """4,096 GPUs: two failures a day, and days of training that are lived through 200 times."""
    many = replace(CAMPAIGN, gpus=4096, step_s=0.25, tokens=5e12)
    found, draw = forecast(many), random.Random(1)
    days = [_lived(many, interval_s=found.interval_s, draw=draw) / DAY_S for _ in range(200)]
    assert fmean(days) == pytest.approx(found.days, rel=0.003)
    low, high = quantiles(days, n=20)[0], quantiles(days, n=20)[-1]
    assert high - low == pytest.approx(found.days_high - found.days_low, rel=0.3)
    assert low == pytest.approx(found.days_low, rel=0.01)
    assert high == pytest.approx(found.days_high, rel=0.01)


def _lived(campaign: Campaign, *, interval_s: float, draw: random.Random) -> float:
    """Seconds until all pieces are done; a failure throws back to the last checkpoint, in a restart too."""
    wall, next_failure = 0.0, draw.expovariate(1 / campaign.failure_s)
    for _ in range(math.ceil(campaign.productive_s / interval_s)):
        needed = interval_s + campaign.stalled_s
        while wall + needed > next_failure:
            wall = next_failure
            next_failure = wall + draw.expovariate(1 / campaign.failure_s)
            needed = interval_s + campaign.stalled_s + campaign.restart_s
        wall += needed
    return wall


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("step_s", 0, "step_s must be above 0, but is 0; set what is expected"),
        ("failures_per_gpu_day", 0, "failures_per_gpu_day must be above 0, but is 0"),
        ("pue", 0.9, "pue must be at least 1, but is 0.9; it is the building's power over the computers'"),
    ],
)
def test_sizes_that_cannot_be(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CAMPAIGN, **{name: value})

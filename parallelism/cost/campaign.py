"""The plan of a whole training campaign: days, failures, checkpoints, goodput, finish date, GPU-hours and energy."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import NormalDist

from parallelism.layout import Precision
from parallelism.presets import ModelShape

DAY_S = 86_400.0
FAILURES_PER_GPU_DAY = 419 / (54 * 16_384)
"""Unexpected interruptions of Llama 3 405B: 419 in 54 days on 16,384 H100 (Dubey et al. 2024, arXiv:2407.21783,
section 3.3.4): 4.7e-4 for each GPU and day, on 256 GPUs one in 8 days."""

_TAIL = 0.05
"""What is left out on each side of an interval: 5 to 95 %."""


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """What is to be trained, and what it meets on the way.

    Attributes:
        tokens: to train on in all.
        tokens_per_step: samples of a step x sequence length.
        step_s: seconds of a step.
        flops_per_step: model FLOPs of a step over all ranks (`step_flops`).
        gpus: devices at work.
        checkpoint_bytes: of one checkpoint (`checkpoint_bytes`).
        storage_gb_per_s: what all ranks together write, in 1e9 bytes per second.
        stall_s: seconds that training waits for a checkpoint; None: for all of its saving (not asynchronous).
        restart_s: from a failure to the next step: noticing, queue, start, loading.
        failures_per_gpu_day: unexpected ends of the job for each device and day.
        watts: power of one device; of its share of the node, where that is known.
        pue: power of the building over power of its computers.
        save_interval: steps between two checkpoints, as the run has them, if it is to be judged too.
        start, deadline: of the campaign.
    """

    tokens: float
    tokens_per_step: int
    step_s: float
    flops_per_step: float
    gpus: int
    checkpoint_bytes: float
    storage_gb_per_s: float
    stall_s: float | None = None
    restart_s: float = 900.0
    failures_per_gpu_day: float = FAILURES_PER_GPU_DAY
    watts: float
    pue: float = 1.3
    save_interval: int | None = None
    start: datetime
    deadline: datetime | None = None

    def __post_init__(self) -> None:
        """Refuses sizes that nothing can be planned from.

        Raises:
            ValueError: a size is not above 0, or PUE is below 1; the message says which.
        """
        above = ("tokens", "tokens_per_step", "step_s", "gpus", "storage_gb_per_s", "failures_per_gpu_day", "watts")
        for name in above:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, but is {getattr(self, name)}; set what is expected")
        if self.pue < 1:
            raise ValueError(
                f"pue must be at least 1, but is {self.pue}; it is the building's power over the computers'"
            )

    @property
    def save_s(self) -> float:
        """Seconds to write a checkpoint."""
        return self.checkpoint_bytes / (self.storage_gb_per_s * 1e9)

    @property
    def stalled_s(self) -> float:
        """Seconds that training waits for a checkpoint."""
        return self.save_s if self.stall_s is None else min(self.stall_s, self.save_s)

    @property
    def failure_s(self) -> float:
        """Mean seconds between failures of the whole job."""
        return DAY_S / (self.failures_per_gpu_day * self.gpus)

    @property
    def productive_s(self) -> float:
        """Seconds of the steps alone."""
        return math.ceil(self.tokens / self.tokens_per_step) * self.step_s


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a campaign will come to; intervals are 5 to 95 %.

    Attributes:
        steps: optimizer steps.
        tokens_per_day: while nothing fails; `effective_tokens_per_day`: with all losses.
        checkpoint_bytes, save_s, stalled_s: of one checkpoint, its writing, and how long training waits for it.
        interval_s, interval_steps: best work between two checkpoints.
        goodput: productive GPU-hours over allocated GPU-hours, with the best interval, as all that follows.
        own_goodput: the same with the run's save_interval; None without one.
        failures: expected number.
        days, days_low, days_high: from start to finish.
        finish, finish_low, finish_high: the same as dates.
        in_time: probability of finishing before the deadline; None without one.
        gpu_hours, energy_mwh: allocated, expected.
        model_flops: of the whole training, recomputation left out.
    """

    steps: int
    tokens_per_day: float
    effective_tokens_per_day: float
    checkpoint_bytes: float
    save_s: float
    stalled_s: float
    interval_s: float
    interval_steps: int
    goodput: float
    own_goodput: float | None
    failures: float
    days: float
    days_low: float
    days_high: float
    finish: datetime
    finish_low: datetime
    finish_high: datetime
    in_time: float | None
    gpu_hours: float
    energy_mwh: float
    model_flops: float


def checkpoint_bytes(shape: ModelShape, *, vocab_size: int, precision: Precision = "bf16") -> int:
    """Returns the bytes of one checkpoint: weights, and the optimizer's fp32 weights and two moments.

    14 bytes a parameter in bf16; 12 in fp32, whose weights are the optimizer's own. Pad `vocab_size` first, if wanted.
    """
    return (14 if precision == "bf16" else 12) * shape.parameters(vocab_size)


def forecast(campaign: Campaign) -> Forecast:
    """Returns what a campaign will come to, with the best checkpoint interval."""
    interval = best_interval(campaign)
    share = goodput(campaign, interval_s=interval)
    expected = campaign.productive_s / share
    spread = _deviation(campaign, interval_s=interval, wall_s=expected)
    normal = NormalDist(expected, spread)
    clean = campaign.productive_s * (1 + campaign.stalled_s / interval)
    low, high = max(clean, normal.inv_cdf(_TAIL)), normal.inv_cdf(1 - _TAIL)
    saving = campaign.save_interval
    own = goodput(campaign, interval_s=saving * campaign.step_s) if saving else None
    steps, finish = math.ceil(campaign.tokens / campaign.tokens_per_step), campaign.start
    hours = expected / 3600 * campaign.gpus
    rate = campaign.tokens_per_step / campaign.step_s * DAY_S
    return Forecast(
        steps=steps,
        tokens_per_day=rate,
        effective_tokens_per_day=rate * share,
        checkpoint_bytes=campaign.checkpoint_bytes,
        save_s=campaign.save_s,
        stalled_s=campaign.stalled_s,
        interval_s=interval,
        interval_steps=max(1, round(interval / campaign.step_s)),
        goodput=share,
        own_goodput=own,
        failures=expected / campaign.failure_s,
        days=expected / DAY_S,
        days_low=low / DAY_S,
        days_high=high / DAY_S,
        finish=finish + timedelta(seconds=expected),
        finish_low=finish + timedelta(seconds=low),
        finish_high=finish + timedelta(seconds=high),
        in_time=_in_time(campaign, normal, clean=clean),
        gpu_hours=hours,
        energy_mwh=hours * campaign.watts * campaign.pue / 1e6,
        model_flops=steps * campaign.flops_per_step,
    )


def best_interval(campaign: Campaign) -> float:
    """Returns the seconds of work between two checkpoints that waste least.

    Source: Daly 2006, "A higher order estimate of the optimum checkpoint interval for restart dumps", equation 37;
    its first term is Young's 1974, sqrt(2 x stall x time between failures). No shorter than a checkpoint takes to
    write, and no shorter than a step.
    """
    stall, between = campaign.stalled_s, campaign.failure_s
    if stall >= 2 * between:
        best = between
    else:
        ratio = stall / (2 * between)
        best = math.sqrt(2 * stall * between) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - stall
    return max(best, campaign.save_s, campaign.step_s)


def goodput(campaign: Campaign, *, interval_s: float) -> float:
    """Returns the expected share of time that is productive, failures being a Poisson process.

    A piece of `interval_s` of work and its checkpoint takes M e^(R/M) (e^((interval + stall)/M) - 1) on average (Daly
    2006, equation 13), M between failures and R to restart; restarts and checkpoints can fail too. While a checkpoint
    is still being written beside training, the one before it is the last: that much more is lost, counted in R.
    """
    between = campaign.failure_s
    piece = math.expm1((interval_s + campaign.stalled_s) / between) * between * math.exp(_restart(campaign) / between)
    return interval_s / piece


def _restart(campaign: Campaign) -> float:
    return campaign.restart_s + campaign.save_s - campaign.stalled_s


def _deviation(campaign: Campaign, *, interval_s: float, wall_s: float) -> float:
    """Standard deviation of the whole time: a Poisson number of failures, each R and a uniform part of a piece."""
    restart, piece = _restart(campaign), interval_s + campaign.stalled_s
    squares = restart**2 + restart * piece + piece**2 / 3
    return math.sqrt(wall_s / campaign.failure_s * squares)


def _in_time(campaign: Campaign, normal: NormalDist, *, clean: float) -> float | None:
    if campaign.deadline is None:
        return None
    left = (campaign.deadline - campaign.start).total_seconds()
    return 0.0 if left < clean else normal.cdf(left)

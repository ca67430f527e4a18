"""The whole training that a plan is for: days, failures, checkpoints, GPU-hours and energy, in words and as metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from evaluation.report import amount, figure, percent
from parallelism.cost.campaign import Campaign, Forecast, checkpoint_bytes, forecast
from parallelism.cost.flops import step_flops
from parallelism.planner import Job, Plan
from parallelism.presets import padded_vocab_size

_NEVER = datetime(2000, 1, 1, tzinfo=UTC)
"""A begin that nothing is said of: without one, no date is told."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a training meets on the way, as the plan section says; and when it starts and must end, if that is known."""

    train_iters: int
    save_interval: int
    storage_gb_per_s: float
    stall_s: float | None
    restart_s: float
    failures_per_gpu_day: float
    watts: float | None
    pue: float
    start: datetime | None = None
    deadline: date | None = None


def campaign(job: Job, planned: Plan, *, terms: Terms) -> Forecast | None:
    """Returns what a training with a layout comes to; None where no time can be told."""
    if planned.time is None or job.device is None:
        return None
    layout, start = planned.layout, terms.start or _NEVER
    per_step = layout.global_batch_size * layout.seq_length
    padded = padded_vocab_size(job.vocab_size)
    return forecast(
        Campaign(
            tokens=terms.train_iters * per_step,
            tokens_per_step=per_step,
            step_s=planned.time.step,
            flops_per_step=step_flops(job.shape, layout=layout, vocab_size=job.vocab_size),
            gpus=layout.world_size,
            checkpoint_bytes=checkpoint_bytes(job.shape, vocab_size=padded, precision=job.precision),
            storage_gb_per_s=terms.storage_gb_per_s,
            stall_s=terms.stall_s,
            restart_s=terms.restart_s,
            failures_per_gpu_day=terms.failures_per_gpu_day,
            watts=terms.watts or job.device.watts,
            pue=terms.pue,
            save_interval=terms.save_interval,
            start=start,
            deadline=_end_of(terms.deadline, start) if terms.start else None,
        )
    )


def in_words(forecasts: Sequence[Forecast | None], *, terms: Terms) -> dict[str, list[str]]:
    """Returns what trainings come to, name -> one value each; empty where none can be told."""
    found = [_words(each, terms=terms) if each else {} for each in forecasts]
    names = next((list(words) for words in found if words), [])
    return {name: [words.get(name, "-") for words in found] for name in names}


def metrics(found: Forecast | None) -> dict[str, float]:
    """Returns the headline figures of a training."""
    if found is None:
        return {}
    return {
        "campaign/days": found.days,
        "campaign/goodput": found.goodput,
        "campaign/failures": found.failures,
        "campaign/checkpoint_interval_steps": float(found.interval_steps),
        "campaign/gpu_hours": found.gpu_hours,
        "campaign/energy_mwh": found.energy_mwh,
    }


def _words(found: Forecast, *, terms: Terms) -> Mapping[str, str]:
    watts = found.energy_mwh * 1e6 / found.gpu_hours
    own = f"; {percent(found.own_goodput)} with the run's save_interval" if found.own_goodput else ""
    words = {
        "steps": f"{found.steps:,}",
        "tokens a day": amount(found.tokens_per_day),
        "with saves, failures": amount(found.effective_tokens_per_day),
        "days": f"{found.days:.1f} ({found.days_low:.1f} to {found.days_high:.1f} in 90 % of cases)",
        "GPU-hours": f"{found.gpu_hours:,.0f}",
        "energy": f"{figure(found.energy_mwh)} MWh ({watts:,.0f} W a GPU, building included)",
        "failures": f"{figure(found.failures)} expected",
        "goodput": percent(found.goodput) + own,
        "a checkpoint": (
            f"{figure(found.checkpoint_bytes / 1e9)} GB, {figure(found.save_s)} s to write; "
            f"waited for {figure(found.stalled_s)} s"
        ),
        "best save_interval": (
            f"{found.interval_steps:,} steps ({_duration(found.interval_s)}); the run's is {terms.save_interval:,}"
        ),
        "model FLOPs": f"{found.model_flops:.3g}",
    }
    if terms.start:
        words["finish, if started now"] = (
            f"{found.finish:%Y-%m-%d} ({found.finish_low:%m-%d} to {found.finish_high:%m-%d})"
        )
    if found.in_time is not None and terms.deadline:
        words[f"in time for {terms.deadline}"] = f"with a probability of {percent(found.in_time)}"
    return words


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


def _end_of(day: date | None, start: datetime) -> datetime | None:
    """A deadline is met until the end of its day, where the run starts."""
    return datetime.combine(day, time.max, tzinfo=start.tzinfo) if day else None

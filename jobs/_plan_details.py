"""What a plan says: the run's own layout and the planner's, judged and written down as JSON values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jobs import _campaign
from jobs._campaign import Terms
from parallelism.cost.flops import FLOP_CONVENTION, step_flops
from parallelism.cost.memory import GIB, Memory, stage_parameters
from parallelism.cost.traffic import stage_traffic
from parallelism.kernels import PACKAGES, paths
from parallelism.layout import problems, warnings
from parallelism.planner import HEADROOM, Job, Plan, Search, misfit, nearest, plan, search, stage_seconds

_SECONDS_A_DAY = 86_400
_POINTS = 400
"""Of the layouts that fit, about so many are points of the picture."""

_DIGITS = 6
"""Of GiB: to the KiB, as a toy model has few MiB."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A run's own layout, and what the search for others found."""

    job: Job
    own: Plan
    found: Search

    @property
    def misfit(self) -> list[str]:
        """Why the run's own layout does not fit; empty when it does."""
        return misfit(self.job, self.own)


def judge(job: Job) -> Judged:
    """Judges the run's own layout, and every other one.

    Raises:
        ValueError: the run's own layout cannot be, whatever its devices.
    """
    found = problems(job.shape, layout=job.layout, vocab_size=job.vocab_size)
    if found:
        raise ValueError("pretrain's layout must be possible, but:\n" + "\n".join(found))
    return Judged(job=job, own=plan(job, layout=job.layout), found=search(job))


def require_fit(judged: Judged) -> None:
    """Checks that the run's own layout fits.

    Raises:
        ValueError: it does not; the message names the nearest that do.
    """
    job, own = judged.job, judged.own
    if not judged.misfit:
        return
    needs = ", ".join(f"stage {number} {memory.total / GIB:.1f}" for number, memory in enumerate(own.stages))
    near = nearest(job.layout, judged.found.fitting, count=3)
    names = [f"{item.layout.describe()} ({item.peak / GIB:.1f} GiB)" for item in near]
    advice = f"use {'; or '.join(names)}" if near else "use more GPUs, larger ones or a smaller model"
    raise ValueError(
        f"pretrain's layout {job.layout.describe()} must fit into {job.memory_gib:.1f} GiB a rank less "
        f"{job.reserve_gib:.1f} GiB reserve, but needs, in GiB: {needs}; {advice}"
    )


def metrics(judged: Judged, *, terms: Terms) -> dict[str, float]:
    """Returns the headline figures of the run's own layout."""
    job, own = judged.job, judged.own
    flops = step_flops(job.shape, layout=job.layout, vocab_size=job.vocab_size)
    found = {
        "parameters": float(job.shape.parameters(job.vocab_size)),
        "flops_per_step": float(flops),
        "peak_gib": own.peak / GIB,
        "memory_used": own.peak / job.budget,
        "bubble_fraction": job.layout.bubble_fraction,
    }
    mfu = _mfu(job, own)
    if own.time is None or mfu is None:
        return found
    seconds, ranks = own.time.step, job.layout.world_size
    return found | {
        "step_time_s": seconds,
        "tokens_per_day": job.layout.global_batch_size * job.layout.seq_length * _SECONDS_A_DAY / seconds,
        "mfu": mfu,
        "gpu_hours": terms.train_iters * seconds * ranks / 3600,
        **_campaign.metrics(_campaign.campaign(job, own, terms=terms)),
    }


def details(judged: Judged, *, count: int, here: bool, terms: Terms) -> dict[str, Any]:
    """Returns all that is known, as JSON values.

    Args:
        judged: the run's own layout and the others.
        count: how many of the layouts that fit are listed.
        here: whether training runs on this machine, whose packages are known.
        terms: what the whole training meets on the way.
    """
    job, found = judged.job, judged.found
    chosen, best = found.chosen, found.fitting[0] if found.fitting else None
    return {
        **_choice(job, judged.own),
        "flops_per_step": step_flops(job.shape, layout=job.layout, vocab_size=job.vocab_size),
        "memory_gib": job.memory_gib,
        "reserve_gib": job.reserve_gib,
        "traffic": _traffic(job),
        "campaign": _campaigns(judged, terms),
        "kernels": _kernels(here=here),
        "assumptions": _assumptions(job),
        "warnings": [*warnings(job.layout), *_tight(judged)],
        "chosen": _choice(job, chosen) if chosen else None,
        "tried": found.tried,
        "fitting": len(found.fitting),
        "alternatives": _rows(found.fitting[:count], best),
        "front": _rows(found.front, best),
        "cloud": [
            (round(item.peak / GIB, _DIGITS), round(item.cost / found.fitting[0].cost, 4))
            for item in found.fitting[:: max(1, len(found.fitting) // _POINTS)]
        ],
        "refused": [asdict(item) for item in found.refused],
    }


def _tight(judged: Judged) -> list[str]:
    """What fits by less than the memory model can tell."""
    left = 1 - judged.own.peak / judged.job.budget
    if not 0 <= left < HEADROOM:
        return []
    line = (
        f"the fullest rank leaves {left:.1%} of its room, where the memory model may err by {HEADROOM:.0%}; "
        "use a smaller micro_batch_size, recomputation or more parallel ranks"
    )
    return [line]


def _choice(job: Job, planned: Plan) -> dict[str, Any]:
    """A layout and what it costs."""
    layout = planned.layout
    sizes = stage_parameters(job.shape, layout=layout, vocab_size=job.vocab_size)
    rows = zip(sizes, planned.stages, strict=True)
    return {
        "layout": {**asdict(layout), "name": layout.describe()},
        "computed": {
            "data_parallel_size": layout.data_parallel_size,
            "num_microbatches": layout.num_microbatches,
            "bubble_fraction": layout.bubble_fraction,
        },
        "fits": not misfit(job, planned),
        "stages": [{"stage": number, "parameters": size, **_gib(memory)} for number, (size, memory) in enumerate(rows)],
        "time_s": {**asdict(planned.time), "step": planned.time.step} if planned.time else "measured at run time",
        "mfu": _mfu(job, planned),
        "passes": [(stage.forward, stage.backward) for stage in stage_seconds(job, planned)],
    }


def _mfu(job: Job, planned: Plan) -> float | None:
    """Model FLOPs over time and peak; None where no time can be told."""
    if planned.time is None or job.device is None:
        return None
    flops = step_flops(job.shape, layout=planned.layout, vocab_size=job.vocab_size)
    return flops / planned.time.step / planned.layout.world_size / (job.device.peak_tflops * 1e12)


def _traffic(job: Job) -> list[dict[str, Any]]:
    return [
        {"stage": number, **asdict(item)}
        for number in range(job.layout.pipeline_model_parallel_size)
        for item in stage_traffic(
            job.shape, layout=job.layout, vocab_size=job.vocab_size, stage=number, precision=job.precision
        )
    ]


def _gib(memory: Memory) -> Mapping[str, float]:
    parts = {**asdict(memory), "state": memory.state, "total": memory.total}
    return {f"{name}_gib": round(size / GIB, _DIGITS) for name, size in parts.items()}


def _rows(plans: Sequence[Plan], best: Plan | None) -> list[dict[str, Any]]:
    return [
        {
            "layout": item.layout.describe(),
            "peak_gib": round(item.peak / GIB, _DIGITS),
            "bubble_fraction": round(item.layout.bubble_fraction, 4),
            "slower_than_best": round(item.cost / best.cost, 3),
            "step_time_s": item.time.step if item.time else None,
        }
        for item in plans
        if best
    ]


def _campaigns(judged: Judged, terms: Terms) -> dict[str, list[str]]:
    """What the whole training takes with the run's own layout, if it fits, and with the planner's, if it is another."""
    job, own, chosen = judged.job, judged.own, judged.found.chosen
    forecasts = [None if judged.misfit else _campaign.campaign(job, own, terms=terms)]
    if chosen and chosen.layout != own.layout:
        forecasts.append(_campaign.campaign(job, chosen, terms=terms))
    return _campaign.in_words(forecasts, terms=terms)


def _kernels(*, here: bool) -> list[str]:
    """Which code will run the heavy operations; on another machine, what that depends on."""
    if here:
        return [f"{kernel}." for kernel in paths()]
    only = {package: paths({package}.__contains__) for package in PACKAGES}
    lines = []
    for index, plain in enumerate(paths(set[str]().__contains__)):
        used = {package: kernels[index].used for package, kernels in only.items()}
        found = [f"{name} where {package} is importable" for package, name in used.items() if name != plain.used]
        told = f"{plain.operation}: {', '.join(found)}, else {plain.used}; known when the job starts"
        lines.append(f"{told if found else plain}.")
    return lines


def _assumptions(job: Job) -> list[str]:
    lines = [f"FLOPs: {FLOP_CONVENTION}."]
    device = job.device
    if device is None or not job.timed:
        lines.append("Speed: measured at run time; layouts are ranked by the FLOPs of the slowest rank and its waits.")
        return lines
    computing = "a roofline fitted to published runs (docs/benchmarks/planner-time.md)"
    if job.efficiency is not None:
        computing = f"{job.efficiency:.0%} of the peak while computing, as given"
    lines.append(
        f"Speed: {computing}; peak {device.peak_tflops:g} TFLOP/s, memory {device.hbm_gb_per_s:g} GB/s, "
        f"{device.node_gb_per_s:g} GB/s inside a node, {device.network_gb_per_s:g} GB/s between nodes."
    )
    return lines

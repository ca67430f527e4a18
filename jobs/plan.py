"""plan: does pretrain's layout fit its devices, what does it cost, and which layouts would be better."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, ClassVar, cast

from pydantic import Field

from jobs._stage import Context, Outcome, Stage, StageConfig
from jobs.pretrain import PretrainConfig
from parallelism.alternatives import Job, Plan, Refusal, alternatives, misfit, nearest, plan
from parallelism.cost.devices import DEVICES, Device
from parallelism.cost.flops import FLOP_CONVENTION, step_flops
from parallelism.cost.memory import GIB, stage_parameters
from parallelism.cost.traffic import stage_traffic
from parallelism.layout import problems, warnings

CPU = "cpu"
_GPU_RESERVE_GIB, _CPU_RESERVE_GIB = 6.0, 1.0
_SECONDS_A_DAY = 86_400
_KNOWN = ", ".join(DEVICES)


class PlanConfig(StageConfig):
    """The `plan:` section.

    Attributes:
        gpu: a device of parallelism/cost/devices.py; "cpu" for processes on a machine without one; or any name, with
            memory_gib and peak_tflops given here.
        memory_gib: memory of one device, instead of the table's.
        peak_tflops: dense bf16 peak of one device, instead of the table's.
        reserve_gib: what the driver's context, communication buffers, workspaces and fragmentation take; 6 on a
            GPU and 1 in a CPU process unless given.
        efficiency: assumed share of the peak that a GPU reaches while it computes, waits left out.
        alternatives: how many layouts that fit are listed.
    """

    reads: ClassVar[tuple[str, ...]] = ("pretrain",)

    gpu: str = CPU
    memory_gib: float | None = Field(default=None, gt=0)
    peak_tflops: float | None = Field(default=None, gt=0)
    reserve_gib: float | None = Field(default=None, ge=0)
    efficiency: float = Field(default=0.6, gt=0, le=1)
    alternatives: int = Field(default=10, ge=1, le=100)

    def problems(self, context: Context) -> Iterable[str]:
        """Yields a device that is neither in the table nor described, or a CPU for a job that asks for GPUs."""
        training = context.sections.get("pretrain")
        gpus = training.resources.gpus_per_node if training else 0
        if self.gpu == CPU and gpus:
            yield f"gpu: must name the GPU, as pretrain asks for {gpus} a node, but is 'cpu'; choose one of {_KNOWN}"
        if self.gpu in (CPU, *DEVICES) or (self.memory_gib and self.peak_tflops):
            return
        yield f"gpu: must be cpu, {_KNOWN}, but is {self.gpu!r}; choose one, or give memory_gib and peak_tflops too"


def run(config: PlanConfig, stage: Stage) -> Outcome:
    """Plans the pretrain section, writes plan.json, and fails where training could not start.

    Raises:
        ValueError: the layout has problems, or does not fit: with the reasons and the nearest layouts that fit.
    """
    from slurm.files import read_json, sha256_file, write_json

    section = cast(PretrainConfig, stage.sections["pretrain"])
    manifest = read_json(stage.root / "tokenize" / "manifest.json")
    job = job_of(config, section, vocab_size=manifest["vocab_size"], site_mem_gb=stage.site.mem_gb)
    found = problems(job.shape, layout=job.layout, vocab_size=job.vocab_size)
    if found:
        raise ValueError("pretrain's layout must be possible, but:\n" + "\n".join(found))
    chosen = plan(job, layout=job.layout)
    fitting, refused = alternatives(job)
    path = stage.folder / "plan.json"
    details = _details(job, chosen, fitting[: config.alternatives], refused)
    write_json(path, details)
    _require_fit(job, chosen, fitting)
    metrics = _metrics(job, chosen, train_iters=section.train_iters)
    return Outcome(metrics=metrics, outputs={path.name: sha256_file(path)}, details=details)


def job_of(config: PlanConfig, section: PretrainConfig, *, vocab_size: int, site_mem_gb: float) -> Job:
    """Returns what the pretrain section asks for, on the device of the plan section.

    A CPU process may use an equal share of what the job asks of a node, or of what the site gives.
    """
    ranks = section.resources.tasks_per_node
    known = DEVICES.get(config.gpu)
    share = (section.resources.mem_gb or site_mem_gb) * 1e9 / GIB / ranks
    memory = config.memory_gib or (known.memory_gib if known else share)
    reserve = _CPU_RESERVE_GIB if config.gpu == CPU else _GPU_RESERVE_GIB
    return Job(
        shape=section.shape,
        vocab_size=vocab_size,
        precision=section.precision,
        layout=section.layout,
        gpus_per_node=ranks,
        memory_gib=memory,
        reserve_gib=reserve if config.reserve_gib is None else config.reserve_gib,
        device=None if config.gpu == CPU else _device(config),
        efficiency=config.efficiency,
    )


def _device(config: PlanConfig) -> Device:
    """The table's device with what the section gives instead; one not in the table has the slowest links there."""
    base = DEVICES.get(config.gpu, DEVICES["a100_80gb"])
    return Device(
        memory_gib=config.memory_gib or base.memory_gib,
        peak_tflops=config.peak_tflops or base.peak_tflops,
        node_gb_per_s=base.node_gb_per_s,
        network_gb_per_s=base.network_gb_per_s,
    )


def _require_fit(job: Job, chosen: Plan, fitting: list[Plan]) -> None:
    if not misfit(job, chosen):
        return
    stages = enumerate(chosen.stages)
    needs = ", ".join(f"stage {number} {memory.total / GIB:.1f}" for number, memory in stages)
    near = [f"{item.layout.describe()} ({item.peak / GIB:.1f} GiB)" for item in nearest(job.layout, fitting, count=3)]
    advice = f"use {'; or '.join(near)}" if near else "use more GPUs, larger ones or a smaller model"
    raise ValueError(
        f"pretrain's layout {job.layout.describe()} must fit into {job.memory_gib:.1f} GiB a rank less "
        f"{job.reserve_gib:.1f} GiB reserve, but needs, in GiB: {needs}; {advice}"
    )


def _metrics(job: Job, chosen: Plan, *, train_iters: int) -> dict[str, float]:
    flops = step_flops(job.shape, layout=job.layout, vocab_size=job.vocab_size)
    metrics = {
        "parameters": float(job.shape.parameters(job.vocab_size)),
        "flops_per_step": float(flops),
        "peak_gib": chosen.peak / GIB,
        "memory_used": chosen.peak / job.budget,
        "bubble_fraction": job.layout.bubble_fraction,
    }
    if chosen.time is None or job.device is None:
        return metrics
    seconds, ranks = chosen.time.step, job.layout.world_size
    return metrics | {
        "step_time_s": seconds,
        "tokens_per_day": job.layout.global_batch_size * job.layout.seq_length * _SECONDS_A_DAY / seconds,
        "mfu": flops / seconds / ranks / (job.device.peak_tflops * 1e12),
        "gpu_hours": train_iters * seconds * ranks / 3600,
    }


def _details(job: Job, chosen: Plan, fitting: list[Plan], refused: list[Refusal]) -> dict[str, Any]:
    sizes = stage_parameters(job.shape, layout=job.layout, vocab_size=job.vocab_size)
    return {
        "layout": {**asdict(job.layout), "name": job.layout.describe()},
        "computed": {
            "data_parallel_size": job.layout.data_parallel_size,
            "num_microbatches": job.layout.num_microbatches,
        },
        "memory_gib": job.memory_gib,
        "reserve_gib": job.reserve_gib,
        "stages": [
            {"stage": number, "parameters": count, **_gib(chosen, number)} for number, count in enumerate(sizes)
        ],
        "traffic": [
            {"stage": number, **asdict(item)}
            for number in range(len(sizes))
            for item in stage_traffic(
                job.shape, layout=job.layout, vocab_size=job.vocab_size, stage=number, precision=job.precision
            )
        ],
        "time_s": {**asdict(chosen.time), "step": chosen.time.step} if chosen.time else "measured at run time",
        "assumptions": _assumptions(job, chosen),
        "warnings": warnings(job.layout),
        "alternatives": [_row(item, fitting[0]) for item in fitting],
        "refused": [asdict(item) for item in refused],
    }


def _gib(chosen: Plan, number: int) -> Mapping[str, float]:
    memory = chosen.stages[number]
    parts = {**asdict(memory), "state": memory.state, "total": memory.total}
    return {f"{name}_gib": round(size / GIB, 3) for name, size in parts.items()}


def _row(item: Plan, best: Plan) -> dict[str, Any]:
    return {
        "layout": item.layout.describe(),
        "peak_gib": round(item.peak / GIB, 2),
        "bubble_fraction": round(item.layout.bubble_fraction, 4),
        "slower_than_best": round(item.cost[0] / best.cost[0], 3),
        "step_time_s": item.time.step if item.time else None,
    }


def _assumptions(job: Job, chosen: Plan) -> list[str]:
    device = job.device
    speed = "Speed: measured at run time; layouts are ranked by the FLOPs of the slowest rank and its waits."
    if device and chosen.time:
        speed = (
            f"Speed: {job.efficiency:.0%} of {device.peak_tflops:g} TFLOP/s while computing; "
            f"{device.node_gb_per_s:g} GB/s inside a node, {device.network_gb_per_s:g} GB/s between nodes; "
            "data-parallel transfers hide behind one microbatch, others behind nothing."
        )
    return [f"FLOPs: {FLOP_CONVENTION}.", speed]

"""Which layouts of a job fit its devices, ranked; and why the others are refused."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from parallelism.cost.devices import Device
from parallelism.cost.flops import stage_flops
from parallelism.cost.memory import GIB, Memory, stage_memory
from parallelism.cost.time import Time, step_time
from parallelism.layout import Layout, Precision, candidates, problems
from parallelism.presets import ModelShape


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be laid out: a model, its tokens and numbers, and the device that each rank has.

    Attributes:
        layout: the chosen sizes; alternatives have the same ranks, samples and tokens.
        gpus_per_node: ranks on one node.
        memory_gib: of one device.
        reserve_gib: of it, what is not for tensors: the driver's context, buffers, workspaces, fragmentation.
        device: None on a CPU, whose speed is measured at run time; a GPU's peak is known for bf16 only.
        efficiency: assumed share of the device's peak while it computes.
    """

    shape: ModelShape
    vocab_size: int
    precision: Precision
    layout: Layout
    gpus_per_node: int
    memory_gib: float
    reserve_gib: float
    device: Device | None
    efficiency: float

    @property
    def budget(self) -> float:
        """Bytes that tensors may take on one rank."""
        return (self.memory_gib - self.reserve_gib) * GIB


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A layout without problems and what it costs.

    Attributes:
        stages: the memory of one rank of each pipeline stage.
        work: FLOPs of the slowest rank in one step, its waits for the pipeline counted as if it computed.
        time: of one step, where it can be told before measuring.
    """

    layout: Layout
    stages: tuple[Memory, ...]
    work: float
    time: Time | None

    @property
    def peak(self) -> int:
        """Bytes on the fullest rank."""
        return max(memory.total for memory in self.stages)

    @property
    def cost(self) -> tuple[float, int]:
        """What layouts are ranked by: time, or work where no time can be told; then memory."""
        return (self.time.step if self.time else self.work, self.peak)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why layouts are out: one reason, how many candidates it meets, and one of them."""

    reason: str
    count: int
    example: str


def plan(job: Job, *, layout: Layout) -> Plan:
    """Returns the costs of a layout without problems."""
    shape, vocab_size = job.shape, job.vocab_size
    fused = job.device is not None
    stages = stage_memory(shape, layout=layout, vocab_size=vocab_size, precision=job.precision, fused=fused)
    slowest = max(stage_flops(shape, layout=layout, vocab_size=vocab_size))
    return Plan(
        layout=layout, stages=tuple(stages), work=slowest / (1 - layout.bubble_fraction), time=_time(job, layout=layout)
    )


def alternatives(job: Job) -> tuple[list[Plan], list[Refusal]]:
    """Returns the candidates that fit, best first, and the refusals of the others, most frequent first."""
    reasons: dict[str, list[str]] = {}
    fitting = []
    for layout in _candidates(job):
        found = problems(job.shape, layout=layout, vocab_size=job.vocab_size)
        if not found:
            planned = plan(job, layout=layout)
            found = misfit(job, planned)
            fitting += [] if found else [planned]
        for reason in found:
            reasons.setdefault(reason, []).append(layout.describe())
    refusals = [Refusal(reason=reason, count=len(met), example=met[0]) for reason, met in reasons.items()]
    return sorted(fitting, key=lambda item: item.cost), sorted(refusals, key=lambda item: -item.count)


def misfit(job: Job, planned: Plan) -> list[str]:
    """Returns why a plan does not fit its devices: nothing, or one line."""
    if planned.peak <= job.budget:
        return []
    return [f"must fit into {job.budget / GIB:.1f} GiB of a rank after the reserve, but needs more"]


def nearest(layout: Layout, plans: Iterable[Plan], *, count: int) -> list[Plan]:
    """Returns the plans that change least of `layout`, the faster of equals first."""

    def distance(planned: Plan) -> tuple[float, tuple[float, int]]:
        pairs = zip(_sizes(layout), _sizes(planned.layout), strict=True)
        return (sum(abs(math.log2(a / b)) for a, b in pairs), planned.cost)

    return sorted(plans, key=distance)[:count]


def _time(job: Job, *, layout: Layout) -> Time | None:
    if job.device is None or job.precision != "bf16":
        return None
    return step_time(
        job.shape,
        layout=layout,
        vocab_size=job.vocab_size,
        device=job.device,
        efficiency=job.efficiency,
        precision=job.precision,
    )


def _sizes(layout: Layout) -> tuple[int, ...]:
    return (
        layout.tensor_model_parallel_size,
        layout.pipeline_model_parallel_size,
        layout.num_model_chunks,
        layout.context_parallel_size,
        layout.micro_batch_size,
        2 if layout.recompute_granularity else 1,
    )


def _candidates(job: Job) -> Iterable[Layout]:
    return candidates(
        job.shape,
        world_size=job.layout.world_size,
        gpus_per_node=job.gpus_per_node,
        global_batch_size=job.layout.global_batch_size,
        seq_length=job.layout.seq_length,
    )

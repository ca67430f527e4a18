"""The planner: of all layouts of a job, which fit its devices, how fast each is, and why the others are refused."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from parallelism.candidates import candidates
from parallelism.cost.devices import Device
from parallelism.cost.flops import stage_flops
from parallelism.cost.memory import GIB, Memory, stage_memory
from parallelism.cost.roofline import SPEEDS, stage_works
from parallelism.cost.schedule import StageSeconds
from parallelism.cost.time import Time, step_time
from parallelism.layout import Layout, Precision, problems
from parallelism.presets import ModelShape

ALIKE = 0.01
"""Steps whose times differ by less than this share are alike to the planner, whose own error is larger."""

HEADROOM = 0.05
"""Share of the memory that the chosen layout leaves, where another does: as large as the memory model's own error."""

_MEMORY_STEP = 0.05
"""Of alike layouts one is taken for its memory only if that differs by such a share of what there is."""

_HOST_GPUS = 8
"""Devices whose fast links reach further than this reach beyond one host."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be laid out: a model, its tokens and numbers, and the device that each rank has.

    Attributes:
        layout: the run's own sizes; other layouts have the same ranks, samples and tokens.
        gpus_per_node: ranks on one node.
        memory_gib: of one device.
        reserve_gib: of it, what is not for tensors: the driver's context, buffers, workspaces, fragmentation.
        device: None on a CPU, whose speed is measured at run time; a GPU's peak is known for bf16 only.
        efficiency: share of the device's peak while it computes, where it has been measured.
    """

    shape: ModelShape
    vocab_size: int
    precision: Precision
    layout: Layout
    gpus_per_node: int
    memory_gib: float
    reserve_gib: float
    device: Device | None
    efficiency: float | None = None

    @property
    def budget(self) -> float:
        """Bytes that tensors may take on one rank."""
        return (self.memory_gib - self.reserve_gib) * GIB

    @property
    def timed(self) -> bool:
        """Says whether a step's time can be told before it is measured."""
        return self.device is not None and self.precision == "bf16"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A layout without problems and what it costs.

    Attributes:
        stages: the memory of one rank of each pipeline stage.
        time: of one step, where it can be told before measuring.
        cost: what layouts are ranked by: seconds of a step; where no time can be told, FLOPs of the slowest rank in
            one step, its waits for the pipeline counted as if it computed.
    """

    layout: Layout
    stages: tuple[Memory, ...]
    time: Time | None
    cost: float

    @cached_property
    def peak(self) -> int:
        """Bytes on the fullest rank."""
        return max(memory.total for memory in self.stages)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why layouts are out: one reason, how many candidates it meets, and one of them."""

    reason: str
    count: int
    example: str


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search found: `fitting` layouts, the best first; `refused`, the most frequent reason first."""

    fitting: tuple[Plan, ...]
    refused: tuple[Refusal, ...]
    tried: int
    budget: float

    @property
    def chosen(self) -> Plan | None:
        """The layout to take; None if none fits.

        Of those that leave HEADROOM, where there are any, and are alike to the fastest of them, the one that needs
        least memory. Work alone says nothing of exchanges: where no time can be told, the first.
        """
        roomy = [item for item in self.fitting if item.peak <= (1 - HEADROOM) * self.budget] or self.fitting
        if not roomy or roomy[0].time is None:
            return roomy[0] if roomy else None
        limit, step = roomy[0].cost * (1 + ALIKE), _MEMORY_STEP * self.budget
        alike = [item for item in roomy if item.cost <= limit]
        return min(alike, key=lambda item: (-int((roomy[0].peak - item.peak) / step), *_rank(item)))

    @property
    def front(self) -> tuple[Plan, ...]:
        """The Pareto front, fastest first: no other layout that fits is both faster and smaller than one of these."""
        found: list[Plan] = []
        for item in self.fitting:
            if not found or item.peak < found[-1].peak:
                found.append(item)
        return tuple(found)


def search(job: Job) -> Search:
    """Judges every layout worth comparing."""
    reasons: dict[str, list[Layout]] = {}
    fitting, tried = [], 0
    for layout in _candidates(job):
        tried += 1
        found = problems(job.shape, layout=layout, vocab_size=job.vocab_size)
        stages = () if found else _stages(job, layout=layout)
        found = found or _misfit(job, stages)
        fitting += [] if found else [_plan(job, layout=layout, stages=stages)]
        for reason in found:
            reasons.setdefault(reason, []).append(layout)
    refused = [Refusal(reason=reason, count=len(met), example=met[0].describe()) for reason, met in reasons.items()]
    return Search(
        fitting=tuple(sorted(fitting, key=_rank)),
        refused=tuple(sorted(refused, key=lambda item: -item.count)),
        tried=tried,
        budget=job.budget,
    )


def plan(job: Job, *, layout: Layout) -> Plan:
    """Returns the costs of a layout without problems, whether it fits or not."""
    return _plan(job, layout=layout, stages=_stages(job, layout=layout))


def stage_seconds(job: Job, planned: Plan) -> list[StageSeconds]:
    """Returns the forward and backward pass of one microbatch on each stage, for its schedule to be played through.

    Seconds, with the exchanges that nothing hides shared out by work; where no time can be told, FLOPs.
    """
    layout = planned.layout
    once = _works(job, layout=replace(layout, recompute_granularity=None))
    works = _works(job, layout=layout)
    scale, time = 1.0, planned.time
    if time is not None:
        once_a_step = time.bubble + time.data_parallel + time.optimizer
        scale = (time.step - once_a_step) / layout.num_microbatches / max(works)
    return [
        StageSeconds(forward=plain / 3 * scale, backward=(whole - plain / 3) * scale)
        for plain, whole in zip(once, works, strict=True)
    ]


def misfit(job: Job, planned: Plan) -> list[str]:
    """Returns why a plan does not fit its devices: nothing, or one line."""
    return _misfit(job, planned.stages)


def nearest(layout: Layout, plans: Iterable[Plan], *, count: int) -> list[Plan]:
    """Returns the plans that change least of `layout`, the faster of equals first."""

    def distance(planned: Plan) -> tuple[float, tuple[float, int, int]]:
        pairs = zip(_sizes(layout), _sizes(planned.layout), strict=True)
        return (sum(abs(math.log2(a / b)) for a, b in pairs), _rank(planned))

    return sorted(plans, key=distance)[:count]


def _rank(planned: Plan) -> tuple[float, int, int]:
    """By cost, then memory; where exchanges are not in the cost, whoever splits the model least comes first."""
    layout = planned.layout
    split = 0 if planned.time else layout.model_parallel_size * layout.expert_model_parallel_size
    return planned.cost, split, planned.peak


def _stages(job: Job, *, layout: Layout) -> tuple[Memory, ...]:
    fused = job.device is not None
    found = stage_memory(job.shape, layout=layout, vocab_size=job.vocab_size, precision=job.precision, fused=fused)
    return tuple(found)


def _misfit(job: Job, stages: Sequence[Memory]) -> list[str]:
    if max(memory.total for memory in stages) <= job.budget:
        return []
    return [f"must fit into {job.budget / GIB:.1f} GiB of a rank after the reserve, but needs more"]


def _plan(job: Job, *, layout: Layout, stages: tuple[Memory, ...]) -> Plan:
    time = _time(job, layout=layout)
    return Plan(layout=layout, stages=stages, time=time, cost=time.step if time else _work(job, layout=layout))


def _works(job: Job, *, layout: Layout) -> list[float]:
    """What one microbatch asks of one rank of each stage: seconds by the roofline, else FLOPs."""
    if job.device is None or not job.timed or job.efficiency is not None:
        flops = stage_flops(job.shape, layout=layout, vocab_size=job.vocab_size)
        return [count / layout.num_microbatches for count in flops]
    device = job.device
    speed = SPEEDS[device.family]
    works = stage_works(job.shape, layout=layout, vocab_size=job.vocab_size, device=device, speed=speed)
    return [work.compute + work.moving for work in works]


def _work(job: Job, *, layout: Layout) -> float:
    """FLOPs of the slowest rank, waits included; selective recomputation repeats the MLP's part of a forward pass."""
    slowest = max(stage_flops(job.shape, layout=layout, vocab_size=job.vocab_size))
    if layout.recompute_granularity == "selective":
        whole = replace(layout, recompute_granularity="full")
        last = job.shape.num_layers - 1
        share = 1 - job.shape.attention_matmul_parameters / job.shape.layer_matmul_parameters(last, active=True)
        again = max(stage_flops(job.shape, layout=whole, vocab_size=job.vocab_size)) - slowest
        slowest += round(share * again)
    return slowest / (1 - layout.bubble_fraction)


def _time(job: Job, *, layout: Layout) -> Time | None:
    if job.device is None or not job.timed:
        return None
    beyond = job.device.node_gpus > _HOST_GPUS
    return step_time(
        job.shape,
        layout=layout,
        vocab_size=job.vocab_size,
        device=job.device,
        efficiency=job.efficiency,
        precision=job.precision,
        node_gpus=None if beyond else job.gpus_per_node,
    )


def _sizes(layout: Layout) -> tuple[int, ...]:
    return (
        layout.tensor_model_parallel_size,
        layout.pipeline_model_parallel_size,
        layout.num_model_chunks,
        layout.context_parallel_size,
        layout.expert_model_parallel_size,
        layout.micro_batch_size,
        {None: 1, "selective": 2, "full": 4}[layout.recompute_granularity],
    )


def _candidates(job: Job) -> Iterable[Layout]:
    return candidates(
        job.shape,
        world_size=job.layout.world_size,
        gpus_per_node=job.gpus_per_node,
        global_batch_size=job.layout.global_batch_size,
        seq_length=job.layout.seq_length,
    )

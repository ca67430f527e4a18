"""How long a step takes: the slowest stage's computing, what of its transfers nothing hides, and its waits."""

from dataclasses import dataclass, field, replace

from parallelism.cost.devices import Device, Matmul
from parallelism.cost.flops import stage_flops
from parallelism.cost.network import Group, Links, groups, seconds
from parallelism.cost.roofline import SPEEDS, Speed, Work, stage_works
from parallelism.cost.traffic import Traffic, data_parameters, model_sizes, stage_traffic
from parallelism.layout import Layout, Precision
from parallelism.presets import ModelShape


@dataclass(frozen=True, kw_only=True)
class Time:
    """Seconds of one optimizer step on the slowest rank, by what they go into; they follow one another.

    Attributes:
        compute: matmuls and attention, recomputation included.
        moving: what is bound by memory: norms, activation functions, casts, the operands of narrow matmuls, launches.
        tensor_parallel, context_parallel, expert_parallel: exchanges that computing does not hide.
        pipeline_sends: activations and their gradients between stages.
        bubble: waits for the pipeline to fill and to drain.
        data_parallel: gradients and parameters, and a shared table, beyond what the backward pass hides.
        optimizer: Adam on this rank's part of the parameters.
    """

    compute: float
    moving: float = 0.0
    tensor_parallel: float
    context_parallel: float = 0.0
    expert_parallel: float = 0.0
    pipeline_sends: float
    bubble: float
    data_parallel: float
    optimizer: float = 0.0

    @property
    def step(self) -> float:
        """Seconds of the whole step."""
        busy = self.compute + self.moving + self.tensor_parallel + self.context_parallel + self.expert_parallel
        return busy + self.pipeline_sends + self.bubble + self.data_parallel + self.optimizer


@dataclass(frozen=True, kw_only=True)
class Stack:
    """What a training software does about transfers, and how fast its attention is.

    Attributes:
        tensor, context, expert: share of these exchanges that its computing does not hide.
        data: share of the gradients' and parameters' travel that the last microbatch hides, so far as it lasts.
        attention: seconds of its attention kernel, relative to the fitted model.
        links: how much of its links it reaches.
    """

    tensor: float = 0.6
    context: float = 1.0
    expert: float = 1.0
    data: float = 0.543
    attention: float = 1.0
    links: Links = field(default=Links(node=0.85, network=0.85, call_s=10e-6))


MEGATRON = Stack()
"""Our trainer: Megatron hides 4 of the 10 tensor exchanges of a layer behind the matmuls of the backward pass (the
second gather of inputs and the scatter of their gradients), and data-parallel traffic behind the last backward pass and
the next forward pass."""

_OPTIMIZER_BYTES = 34
"""Adam in mixed precision, per parameter: reads and writes fp32 weight and two moments (24), reads its gradient (4),
writes the bf16 weight (2), and the gradient's norm reads it once more (4)."""


def step_time(
    shape: ModelShape,
    *,
    layout: Layout,
    vocab_size: int,
    device: Device,
    efficiency: float | None = None,
    precision: Precision = "bf16",
    matmul: Matmul = "bf16",
    node_gpus: int | None = None,
    stack: Stack = MEGATRON,
    speed: Speed | None = None,
    shard_parameters: bool = False,
) -> Time:
    """Estimates a step's time from the slowest stage.

    Args:
        shape: The model.
        layout: Sizes without problems.
        vocab_size: Tokens of the tokenizer.
        device: Peaks and bandwidths.
        efficiency: Share of the peak that computing reaches, memory-bound work in it and waits left out, where it has
            been measured. None: the roofline fitted to published runs (docs/benchmarks/planner-time.md).
        precision: Of activations and parameters on their way.
        matmul: Number format of the layers' matmuls.
        node_gpus: Devices of one node; the device's own where None.
        stack: The training software.
        speed: What of the device's peaks is reached; its generation's where None.
        shard_parameters: FSDP, as in `stage_traffic`.
    """
    if efficiency is None:
        speed = speed or SPEEDS[device.family]
        speed = replace(speed, attention=speed.attention / stack.attention) if stack.attention != 1 else speed
        works = stage_works(shape, layout=layout, vocab_size=vocab_size, device=device, speed=speed, matmul=matmul)
    else:
        works = _flat_works(shape, layout=layout, vocab_size=vocab_size, device=device, efficiency=efficiency)
    return _step(
        shape,
        layout=layout,
        works=works,
        vocab_size=vocab_size,
        device=device,
        precision=precision,
        near=groups(layout, node_gpus=min(node_gpus or device.node_gpus, device.node_gpus)),
        stack=stack,
        shard_parameters=shard_parameters,
    )


def _flat_works(
    shape: ModelShape, *, layout: Layout, vocab_size: int, device: Device, efficiency: float
) -> tuple[Work, ...]:
    flops = stage_flops(shape, layout=layout, vocab_size=vocab_size)
    rate = device.peak_tflops * 1e12 * efficiency * layout.num_microbatches
    return tuple(Work(compute=size / rate, moving=0.0) for size in flops)


def _step(
    shape: ModelShape,
    *,
    layout: Layout,
    works: tuple[Work, ...],
    vocab_size: int,
    device: Device,
    precision: Precision,
    near: dict[str, Group],
    stack: Stack,
    shard_parameters: bool,
) -> Time:
    busy = [work.compute + work.moving for work in works]
    slowest = busy.index(max(busy))
    traffic = stage_traffic(
        shape,
        layout=layout,
        vocab_size=vocab_size,
        stage=slowest,
        precision=precision,
        shard_parameters=shard_parameters,
    )
    spent = _spent(traffic, near=near, device=device, links=stack.links)
    tensor, context, expert = spent["tensor"] * stack.tensor, spent["context"] * stack.context, spent["expert"]
    shared = tensor + context + expert * stack.expert + spent["pipeline"]
    times, work = layout.num_microbatches, works[slowest]
    # The other stages' part of one microbatch passes before the slowest begins and after it ends.
    others = sum(busy) - busy[slowest] + (len(busy) - 1) * shared / times
    data = spent["data"] + spent["expert_data"]
    hidden = stack.data * min(data, busy[slowest] * (times if shard_parameters else 1))
    return Time(
        compute=work.compute * times,
        moving=work.moving * times,
        tensor_parallel=tensor,
        context_parallel=context,
        expert_parallel=expert * stack.expert,
        pipeline_sends=spent["pipeline"],
        bubble=others / layout.num_model_chunks,
        data_parallel=data - hidden + spent["embedding"],
        optimizer=_optimizer(
            shape, layout=layout, vocab_size=vocab_size, device=device, stage=slowest, sharded=shard_parameters
        ),
    )


def _spent(traffic: list[Traffic], *, near: dict[str, Group], device: Device, links: Links) -> dict[str, float]:
    found = dict.fromkeys(near, 0.0)
    for item in traffic:
        found[item.group] += seconds(item, group=near[item.group], device=device, links=links)
    return found


def _optimizer(
    shape: ModelShape, *, layout: Layout, vocab_size: int, device: Device, stage: int, sharded: bool
) -> float:
    dense, experts = data_parameters(shape, layout=model_sizes(layout), vocab_size=vocab_size)[stage]
    own = float(dense + experts)
    if layout.use_distributed_optimizer or sharded:
        own = dense / (layout.data_parallel_size * layout.context_parallel_size)
        own += experts / layout.expert_data_parallel_size
    return _OPTIMIZER_BYTES * own / (device.hbm_gb_per_s * 1e9)

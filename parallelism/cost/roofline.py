"""What one microbatch costs one rank of a stage: matmuls at their peak, the rest at the memory's bandwidth."""

from collections.abc import Mapping
from dataclasses import dataclass

from parallelism.cost.devices import Device, Family, Matmul
from parallelism.cost.layers import stage_layers
from parallelism.cost.traffic import context_width
from parallelism.layout import Layout
from parallelism.presets import ModelShape, padded_vocab_size

_BACKWARD_MOVES = 1.6
"""Element-wise operations read and write so much more in backward: the saved input, the gradient in, the one out."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How much of its data sheet a generation of devices reaches; docs/benchmarks/planner-time.md says from what.

    Attributes:
        matmul: share of the peak of a matmul so large that its memory traffic does not show, by number format.
        attention: share of the bf16 peak of a flash attention kernel, whose backward pass does 2.5 forward passes.
        memory: share of the memory's bandwidth.
        layer_s: seconds that a layer costs in each pass beyond its arithmetic and traffic: launches and gaps.
        experts_s: the same for each expert that a rank has.
    """

    matmul: Mapping[Matmul, float]
    attention: float
    memory: float
    layer_s: float
    experts_s: float


_SHARED = {"memory": 0.82, "layer_s": 50e-6, "experts_s": 100e-6}

SPEEDS: Mapping[Family, Speed] = {
    "ampere": Speed(matmul={"bf16": 0.798}, attention=0.545, **_SHARED),
    "hopper": Speed(matmul={"bf16": 0.844, "fp8": 0.687}, attention=0.343, **_SHARED),
    "blackwell": Speed(matmul={"bf16": 0.524, "fp8": 0.9, "fp4": 0.626}, attention=0.451, **_SHARED),
}
"""Fitted to half of the published rows by `benchmarks/planner_time.py --fit`."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Seconds of one microbatch, forward and backward: in matmuls and attention, and in moving memory."""

    compute: float
    moving: float


@dataclass(frozen=True, kw_only=True)
class _Pass:
    """What one forward pass of one microbatch through one layer does on one rank.

    Attributes:
        kernels_s: seconds beyond arithmetic and traffic.
        matmuls: FLOPs of the matmuls with weights.
        attention: FLOPs of attention's two products, the causal half.
        weights: parameters that it reads.
        inputs, outputs: elements of all matmuls.
        moved: elements that element-wise operations read and write.
    """

    kernels_s: float
    matmuls: float
    attention: float = 0.0
    weights: float
    inputs: float
    outputs: float
    moved: float


def stage_works(
    shape: ModelShape, *, layout: Layout, vocab_size: int, device: Device, speed: Speed, matmul: Matmul = "bf16"
) -> tuple[Work, ...]:
    """Returns the work of one rank of each pipeline stage on one microbatch, all its chunks together."""
    full, again = layout.recompute_granularity == "full", layout.recompute_granularity is not None
    attention = _seconds(
        _attention(shape, layout=layout, speed=speed), again=full, device=device, speed=speed, matmul=matmul
    )
    mlp = _seconds(_mlp(shape, layout=layout, speed=speed), again=again, device=device, speed=speed, matmul=matmul)
    experts = _seconds(
        _experts(shape, layout=layout, speed=speed), again=again, device=device, speed=speed, matmul=matmul
    )
    last = _output(shape, layout=layout, vocab_size=vocab_size)
    output = _seconds(last, again=False, device=device, speed=speed, matmul="bf16")
    kinds = stage_layers(shape, layout=layout)
    works = []
    for stage, (few, many) in enumerate(kinds):
        parts = [(few + many, attention), (few, mlp), (many, experts), (int(stage == len(kinds) - 1), output)]
        compute, moving = (sum(count * part[index] for count, part in parts) for index in (0, 1))
        works.append(Work(compute=compute, moving=moving))
    return tuple(works)


def _seconds(work: _Pass, *, again: bool, device: Device, speed: Speed, matmul: Matmul) -> tuple[float, float]:
    """(seconds of computing, seconds of moving memory) of forward, backward and, with `again`, recomputation.

    Backward is two matmuls for each of forward, the second adding to fp32 gradients. Formats below bf16 read their
    operands as bytes after a cast that writes them twice, the second time transposed.
    """
    peak, narrow = device.matmul_tflops(matmul) * 1e12 * speed.matmul[matmul], matmul != "bf16"
    compute = (3 + again) * work.matmuls / peak
    compute += (3.5 + again) * work.attention / (device.peak_tflops * 1e12 * speed.attention)
    operand, cast = (1, 1) if narrow else (2, 0)
    forward = operand * (work.weights + work.inputs) + 2 * work.outputs + cast * work.inputs
    inputs = operand * (work.weights + work.outputs) + 2 * work.inputs + cast * work.outputs
    weights = operand * (work.inputs + work.outputs) + 8 * work.weights
    moved = 2 * work.moved * (1 + again + _BACKWARD_MOVES)
    moving = (forward * (1 + again) + inputs + weights + moved) / (device.hbm_gb_per_s * 1e9 * speed.memory)
    return compute, moving + work.kernels_s * (2 + again)


def _attention(shape: ModelShape, *, layout: Layout, speed: Speed) -> _Pass:
    """A norm, the projections, rotation of queries and keys, attention, the way back and the sum."""
    tensor, tokens, hidden = layout.tensor_model_parallel_size, layout.rank_tokens, shape.hidden_size
    weights = shape.attention_matmul_parameters / tensor
    keys = context_width(shape)
    heads = (shape.query_size + keys + shape.attention_size) / tensor
    return _Pass(
        kernels_s=speed.layer_s / 2,
        matmuls=2 * tokens * weights,
        attention=tokens * layout.seq_length * (shape.query_size + shape.attention_size) / tensor,
        weights=weights,
        inputs=tokens * (hidden + shape.attention_size / tensor),
        outputs=tokens * (hidden + (shape.query_size + keys) / tensor),
        moved=5 * hidden * layout.sharded_tokens + tokens * heads * 2,
    )


def _mlp(shape: ModelShape, *, layout: Layout, speed: Speed) -> _Pass:
    """A norm, gate and up, their product, down and the sum."""
    width = shape.ffn_hidden_size / layout.tensor_model_parallel_size
    return _gated(shape, width=width, layout=layout, kernels_s=speed.layer_s / 2)


def _gated(shape: ModelShape, *, width: float, layout: Layout, kernels_s: float) -> _Pass:
    tokens, hidden = layout.rank_tokens, shape.hidden_size
    weights = 3 * hidden * width
    return _Pass(
        kernels_s=kernels_s,
        matmuls=2 * tokens * weights,
        weights=weights,
        inputs=tokens * (hidden + width),
        outputs=tokens * (2 * width + hidden),
        moved=5 * hidden * layout.sharded_tokens + 3 * tokens * width,
    )


def _experts(shape: ModelShape, *, layout: Layout, speed: Speed) -> _Pass:
    """Router, the experts that tokens chose, evenly loaded, and the shared ones; tokens are sorted there and back."""
    if shape.experts is None:
        return _Pass(kernels_s=0, matmuls=0, weights=0, inputs=0, outputs=0, moved=0)
    hidden, width = shape.hidden_size, shape.experts.moe_ffn_hidden_size
    tensor, own = layout.tensor_model_parallel_size, layout.sharded_tokens
    chosen, count = own * shape.experts.moe_router_topk, shape.experts.num_moe_experts
    width_shared = shape.experts.moe_shared_expert_intermediate_size / tensor
    kernels_s = speed.layer_s / 2 + speed.experts_s * (count // layout.expert_model_parallel_size)
    shared = _gated(shape, width=width_shared, layout=layout, kernels_s=kernels_s)
    local = count // layout.expert_model_parallel_size * shape.expert_parameters
    return _Pass(
        kernels_s=shared.kernels_s,
        matmuls=shared.matmuls + 2 * (chosen * shape.expert_parameters + own * hidden * count),
        weights=shared.weights + hidden * count + local,
        inputs=shared.inputs + own * hidden + chosen * (hidden + width),
        outputs=shared.outputs + own * count + chosen * (2 * width + hidden),
        moved=shared.moved + chosen * (8 * hidden + 3 * width),
    )


def _output(shape: ModelShape, *, layout: Layout, vocab_size: int) -> _Pass:
    """The last norm, the logits and the loss, which reads and writes them as fp32."""
    rows = padded_vocab_size(vocab_size) / layout.tensor_model_parallel_size
    tokens, hidden = layout.rank_tokens, shape.hidden_size
    return _Pass(
        kernels_s=0.0,
        matmuls=2 * tokens * hidden * rows,
        weights=hidden * rows,
        inputs=tokens * hidden,
        outputs=tokens * rows,
        moved=2 * hidden * layout.sharded_tokens + 5 * tokens * rows,
    )

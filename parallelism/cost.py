"""What a layout costs: parameters and memory per rank, FLOPs, traffic between ranks and time.

"tokens" below are micro_batch_size x seq_length / context_parallel_size: what one rank works on at a time.
docs/planning.md compares every figure made here with a measurement.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from parallelism.layout import Layout, Precision
from parallelism.presets import ModelShape, padded_vocab_size

FLOP_CONVENTION = (
    "matmuls only: 6 FLOPs per parameter and token (output layer in, embedding table out) plus causal attention at "
    "half of the full square, 6 x layers x heads x head width x seq_length per token; recomputation is not counted"
)
GIB = 2**30
_BYTES: Mapping[Precision, int] = {"bf16": 2, "fp32": 4}


@dataclass(frozen=True, kw_only=True)
class Device:
    """An accelerator as its vendor describes it.

    Attributes:
        memory_gib: memory a process can use, in GiB, before the context of the driver.
        peak_tflops: dense bf16 matmul peak.
        node_gb_per_s: bandwidth between two devices of one node, one direction, in 1e9 bytes per second.
        network_gb_per_s: a device's share of its node's network, one direction, in 1e9 bytes per second.
    """

    memory_gib: float
    peak_tflops: float
    node_gb_per_s: float
    network_gb_per_s: float


DEVICES: Mapping[str, Device] = {
    "a100_40gb": Device(memory_gib=39.4, peak_tflops=312, node_gb_per_s=300, network_gb_per_s=25),
    "a100_80gb": Device(memory_gib=79.2, peak_tflops=312, node_gb_per_s=300, network_gb_per_s=25),
    "h100": Device(memory_gib=79.1, peak_tflops=989, node_gb_per_s=450, network_gb_per_s=50),
    "h200": Device(memory_gib=139.0, peak_tflops=989, node_gb_per_s=450, network_gb_per_s=50),
    "b200": Device(memory_gib=178.0, peak_tflops=2250, node_gb_per_s=900, network_gb_per_s=50),
}


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one rank of a pipeline stage at the step's peak."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def state(self) -> int:
        """Bytes held from step to step: parameters, gradients, optimizer."""
        return self.parameters + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        """Bytes at the peak of a step."""
        return self.state + self.activations


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """One kind of exchange of one rank in one optimizer step; `bytes` counts whole (gathered) tensors."""

    group: str
    operation: str
    calls: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Time:
    """Seconds of one optimizer step on the slowest rank, by what they go into; they follow one another."""

    compute: float
    tensor_parallel: float
    pipeline_sends: float
    bubble: float
    data_parallel: float

    @property
    def step(self) -> float:
        """Seconds of the whole step."""
        return self.compute + self.tensor_parallel + self.pipeline_sends + self.bubble + self.data_parallel


def stage_parameters(shape: ModelShape, *, layout: Layout, vocab_size: int) -> list[int]:
    """Returns the parameters on one rank of each pipeline stage; norms are whole on every rank.

    The embedding is on the first stage, the last norm and the output layer on the last. With shared tables and
    more than one stage Megatron keeps a second copy of the table on the last stage, which is counted.
    """
    tensor, stages = layout.tensor_model_parallel_size, layout.pipeline_model_parallel_size
    norms = 2 * shape.hidden_size
    layer = (shape.layer_parameters - norms) // tensor + norms
    sizes = [shape.num_layers // stages * layer] * stages
    table = padded_vocab_size(vocab_size) // tensor * shape.hidden_size
    sizes[0] += table
    sizes[-1] += shape.hidden_size
    if stages > 1 or not shape.share_embeddings_and_output_weights:
        sizes[-1] += table
    return sizes


def stage_memory(
    shape: ModelShape, *, layout: Layout, vocab_size: int, precision: Precision = "bf16", fused: bool = True
) -> list[Memory]:
    """Returns the peak memory of one rank of each pipeline stage.

    bf16 keeps 2 bytes of parameters, 4 of fp32 gradients and 12 of optimizer (fp32 parameters and two Adam
    moments); fp32 keeps 4 + 4 + 8. The distributed optimizer divides its part by data x context parallel size.
    `fused` says that norm and SwiGLU are single kernels, as on a GPU, which keep less for the backward pass.
    """
    shards = layout.data_parallel_size * layout.context_parallel_size if layout.use_distributed_optimizer else 1
    sizes = stage_parameters(shape, layout=layout, vocab_size=vocab_size)
    layer = layer_activations(shape, layout=layout, precision=precision, fused=fused)
    return [
        Memory(
            parameters=count * _BYTES[precision],
            gradients=count * 4,
            optimizer=count * (12 if precision == "bf16" else 8) // shards,
            activations=_activations(
                shape, layout=layout, vocab_size=vocab_size, element=_BYTES[precision], stage=stage, layer=layer
            ),
        )
        for stage, count in enumerate(sizes)
    ]


def chunks_in_flight(layout: Layout, *, stage: int) -> int:
    """Returns how many forward passes of a model chunk wait for their backward pass at the peak of a stage.

    Source: the warm-up of Megatron's 1F1B and interleaved schedules, plus the forward pass that follows it.
    """
    stages, chunks = layout.pipeline_model_parallel_size, layout.num_model_chunks
    behind = stages - stage - 1
    warmup = behind if chunks == 1 else 2 * behind + (chunks - 1) * stages
    return min(warmup + 1, layout.num_microbatches * chunks)


def layer_activations(shape: ModelShape, *, layout: Layout, precision: Precision = "bf16", fused: bool = True) -> int:
    """Returns the bytes that one layer keeps for the backward pass of one microbatch.

    Norms: input, output and 1/rms; not fused, the input as fp32 and the normalized value as fp32 too. Attention
    (flash or PyTorch's own, without the square matrix): qkv, rotated q and k, output, log-sum-exp, and the rotary
    tables, which Megatron makes anew in every layer. MLP: gate and up projection and SiLU(gate) x up; not fused,
    SiLU(gate) and a copy of up too.
    """
    element, tensor = _BYTES[precision], layout.tensor_model_parallel_size
    tokens = _tokens(layout)
    norm = (2 * element if fused else 8 + element) * shape.hidden_size + 4
    keys = shape.num_query_groups * shape.kv_channels
    attention = element * (shape.qkv_size + keys + 2 * shape.attention_size) + 4 * shape.num_attention_heads
    mlp = (3 if fused else 5) * element * shape.ffn_hidden_size
    rotary = 4 * element * shape.kv_channels * tokens // layout.micro_batch_size
    return 2 * norm * _sharded(tokens, layout) + (attention + mlp) * tokens // tensor + rotary


def flops_per_token(shape: ModelShape, *, seq_length: int, vocab_size: int) -> int:
    """Returns the FLOPs of forward and backward per token, by FLOP_CONVENTION; `vocab_size` rows as given."""
    attention = 6 * shape.num_layers * shape.attention_size * seq_length
    return 6 * (shape.num_layers * shape.layer_matmul_parameters + vocab_size * shape.hidden_size) + attention


def step_flops(shape: ModelShape, *, layout: Layout, vocab_size: int) -> int:
    """Returns the FLOPs of one optimizer step over all ranks, by FLOP_CONVENTION, padded vocabulary."""
    tokens = layout.global_batch_size * layout.seq_length
    return tokens * flops_per_token(shape, seq_length=layout.seq_length, vocab_size=padded_vocab_size(vocab_size))


def stage_flops(shape: ModelShape, *, layout: Layout, vocab_size: int) -> list[int]:
    """Returns the FLOPs that one rank of each stage does in one step: FLOP_CONVENTION plus recomputation."""
    layers = flops_per_token(shape, seq_length=layout.seq_length, vocab_size=0) // layout.pipeline_model_parallel_size
    passes = 4 if layout.recompute_granularity else 3
    sizes = [layers * passes // 3] * layout.pipeline_model_parallel_size
    sizes[-1] += 6 * padded_vocab_size(vocab_size) * shape.hidden_size
    tokens = layout.num_microbatches * _tokens(layout)
    return [size * tokens // layout.tensor_model_parallel_size for size in sizes]


def stage_traffic(
    shape: ModelShape, *, layout: Layout, vocab_size: int, stage: int, precision: Precision = "bf16"
) -> list[Traffic]:
    """Returns what one rank of a stage exchanges in one step, kind by kind; all-reduced scalars are left out."""
    element = _BYTES[precision]
    found = [
        *_tensor_traffic(shape, layout=layout, stage=stage, element=element),
        *_pipeline_traffic(shape, layout=layout, stage=stage, element=element),
    ]
    if layout.data_parallel_size * layout.context_parallel_size > 1:
        count = stage_parameters(shape, layout=layout, vocab_size=vocab_size)[stage]
        found += _data_traffic(count, layout=layout, element=element)
    return found


def step_time(
    shape: ModelShape,
    *,
    layout: Layout,
    vocab_size: int,
    device: Device,
    efficiency: float,
    precision: Precision = "bf16",
) -> Time:
    """Estimates a step's time from the slowest stage.

    Tensor and pipeline traffic is taken as exposed. Data-parallel traffic hides behind the first forward and the
    last backward pass, as the trainer overlaps them; what is longer than that is exposed.

    Args:
        shape: The model.
        layout: Sizes without problems.
        vocab_size: Tokens of the tokenizer.
        device: Peak and bandwidths; tensor parallel groups are inside a node, the others cross the network.
        efficiency: Share of the peak that computing reaches, waits left out: an assumption, to be measured.
        precision: Of activations and parameters on their way.
    """
    flops = stage_flops(shape, layout=layout, vocab_size=vocab_size)
    slowest = flops.index(max(flops))
    traffic = stage_traffic(shape, layout=layout, vocab_size=vocab_size, stage=slowest, precision=precision)
    compute = flops[slowest] / (device.peak_tflops * 1e12 * efficiency)
    tensor = _seconds(traffic, "tensor", ranks=layout.tensor_model_parallel_size, rate=device.node_gb_per_s)
    sends = _seconds(traffic, "pipeline", ranks=1, rate=device.network_gb_per_s)
    replicas = layout.data_parallel_size * layout.context_parallel_size
    data = _seconds(traffic, "data", ranks=replicas, rate=device.network_gb_per_s)
    exposed = max(0.0, data - compute / layout.num_microbatches)
    busy = compute + tensor + sends
    bubble = busy * layout.bubble_fraction / (1 - layout.bubble_fraction)
    return Time(compute=compute, tensor_parallel=tensor, pipeline_sends=sends, bubble=bubble, data_parallel=exposed)


def _activations(shape: ModelShape, *, layout: Layout, vocab_size: int, element: int, stage: int, layer: int) -> int:
    """What waits for backward at a stage's peak, plus the larger of the logits and one layer's backward."""
    tensor, tokens = layout.tensor_model_parallel_size, _tokens(layout)
    layers = shape.num_layers // (layout.pipeline_model_parallel_size * layout.num_model_chunks)
    boundary = element * shape.hidden_size * _sharded(tokens, layout)
    kept = boundary if layout.recompute_granularity else layer
    waiting = chunks_in_flight(layout, stage=stage) * (layers * kept + 2 * boundary)
    backward = 4 * element * tokens * shape.ffn_hidden_size // tensor + element * tokens * shape.hidden_size
    backward += layer if layout.recompute_granularity else 0
    if stage < layout.pipeline_model_parallel_size - 1:
        return waiting + backward
    # The last norm, then the logits as computed and as fp32; they are gone before a layer's backward begins.
    logits = 6 * boundary + (element + 4) * tokens * padded_vocab_size(vocab_size) // tensor
    return waiting + max(logits, backward)


def _tensor_traffic(shape: ModelShape, *, layout: Layout, stage: int, element: int) -> list[Traffic]:
    """Sequence parallel gathers and scatters the residual stream around attention and MLP, else all-reduces."""
    if layout.tensor_model_parallel_size == 1:
        return []
    layers = shape.num_layers // layout.pipeline_model_parallel_size
    first, last = stage == 0, stage == layout.pipeline_model_parallel_size - 1
    again = 2 * layers if layout.recompute_granularity else 0
    size = element * shape.hidden_size * _tokens(layout)
    if layout.sequence_parallel:
        # Backward gathers the inputs of qkv and fc1 once more, for their weight gradients.
        calls = {
            "all-gather": 6 * layers + again + first + 2 * last,
            "reduce-scatter": 4 * layers + again + first + last,
        }
    else:
        calls = {"all-reduce": 4 * layers + again + first + last}
    times = layout.num_microbatches
    return [
        Traffic(group="tensor", operation=name, calls=count * times, bytes=count * times * size)
        for name, count in calls.items()
    ]


def _pipeline_traffic(shape: ModelShape, *, layout: Layout, stage: int, element: int) -> list[Traffic]:
    """Every chunk sends its output on and its input's gradient back, except at the two ends of the model."""
    if layout.pipeline_model_parallel_size == 1:
        return []
    ends = (stage == 0) + (stage == layout.pipeline_model_parallel_size - 1)
    calls = (2 * layout.num_model_chunks - ends) * layout.num_microbatches
    size = element * shape.hidden_size * _sharded(_tokens(layout), layout)
    return [Traffic(group="pipeline", operation=name, calls=calls, bytes=calls * size) for name in ("send", "receive")]


def _data_traffic(parameters: int, *, layout: Layout, element: int) -> list[Traffic]:
    if not layout.use_distributed_optimizer:
        return [Traffic(group="data", operation="all-reduce", calls=1, bytes=4 * parameters)]
    return [
        Traffic(group="data", operation="reduce-scatter", calls=1, bytes=4 * parameters),
        Traffic(group="data", operation="all-gather", calls=1, bytes=element * parameters),
    ]


def _seconds(traffic: list[Traffic], group: str, *, ranks: int, rate: float) -> float:
    """Seconds of a group's traffic at `rate` GB/s: a ring moves (n-1)/n of a tensor, an all-reduce twice that."""
    share = (ranks - 1) / ranks if ranks > 1 else 1
    weights = {"all-reduce": 2 * share, "receive": 0.0, "send": 1.0}  # Links carry both directions at once.
    moved = sum(item.bytes * weights.get(item.operation, share) for item in traffic if item.group == group)
    return moved / (rate * 1e9)


def _tokens(layout: Layout) -> int:
    return layout.micro_batch_size * layout.seq_length // layout.context_parallel_size


def _sharded(tokens: int, layout: Layout) -> int:
    return tokens // layout.tensor_model_parallel_size if layout.sequence_parallel else tokens

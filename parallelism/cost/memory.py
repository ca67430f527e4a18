"""What lies in the memory of one rank at the step's peak: parameters, gradients, optimizer, activations."""

from dataclasses import dataclass

from parallelism.layout import BYTES, Layout, Precision
from parallelism.presets import ModelShape, padded_vocab_size

GIB = 2**30


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


def stage_parameters(shape: ModelShape, *, layout: Layout, vocab_size: int) -> list[int]:
    """Returns the parameters on one rank of each pipeline stage; norms are whole on every rank.

    The embedding is on the first stage, the last norm and the output layer on the last. With shared tables and
    more than one stage Megatron keeps a second copy of the table on the last stage, which is counted.
    """
    tensor, stages = layout.tensor_model_parallel_size, layout.pipeline_model_parallel_size
    sizes = [
        sum(_layer_parameters(shape, layer, layout=layout) for layer in layers)
        for layers in stage_layers(layout, shape.num_layers)
    ]
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
            parameters=count * BYTES[precision],
            gradients=count * 4,
            optimizer=count * (12 if precision == "bf16" else 8) // shards,
            activations=_activations(
                shape, layout=layout, vocab_size=vocab_size, element=BYTES[precision], stage=stage, layer=layer
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
    element, tensor = BYTES[precision], layout.tensor_model_parallel_size
    tokens = layout.rank_tokens
    norm = (2 * element if fused else 8 + element) * shape.hidden_size + 4
    keys = shape.num_query_groups * shape.kv_channels
    attention = element * (shape.qkv_size + keys + 2 * shape.attention_size) + 4 * shape.num_attention_heads
    mlp = (3 if fused else 5) * element * shape.ffn_hidden_size
    rotary = 4 * element * shape.kv_channels * tokens // layout.micro_batch_size
    return 2 * norm * layout.sharded_tokens + (attention + mlp) * tokens // tensor + rotary


def _activations(shape: ModelShape, *, layout: Layout, vocab_size: int, element: int, stage: int, layer: int) -> int:
    """What waits for backward at a stage's peak, plus the larger of the logits and one layer's backward."""
    tensor, tokens = layout.tensor_model_parallel_size, layout.rank_tokens
    layers = shape.num_layers // (layout.pipeline_model_parallel_size * layout.num_model_chunks)
    boundary = element * shape.hidden_size * layout.sharded_tokens
    kept = boundary if layout.recompute_granularity == "full" else layer
    waiting = chunks_in_flight(layout, stage=stage) * (layers * kept + 2 * boundary)
    backward = 4 * element * tokens * shape.ffn_hidden_size // tensor + element * tokens * shape.hidden_size
    backward += layer if layout.recompute_granularity == "full" else 0
    if stage < layout.pipeline_model_parallel_size - 1:
        return waiting + backward
    # The last norm, then the logits as computed and as fp32; they are gone before a layer's backward begins.
    logits = 6 * boundary + (element + 4) * tokens * padded_vocab_size(vocab_size) // tensor
    return waiting + max(logits, backward)


def stage_layers(layout: Layout, num_layers: int) -> list[list[int]]:
    """Returns the numbers of the layers on each pipeline stage; with virtual stages, those of all its chunks."""
    stages, chunks = layout.pipeline_model_parallel_size, layout.num_model_chunks
    size = num_layers // (stages * chunks)
    return [
        [(chunk * stages + stage) * size + layer for chunk in range(chunks) for layer in range(size)]
        for stage in range(stages)
    ]


def _layer_parameters(shape: ModelShape, layer: int, *, layout: Layout) -> int:
    """Parameters of one layer on one rank: norms, router and the latent's way down are whole on every rank."""
    tensor, bias = layout.tensor_model_parallel_size, shape.qkv_size if shape.add_qkv_bias else 0
    norms = shape.layer_vector_parameters - bias
    down = 0
    if shape.latent:
        down = shape.hidden_size * (shape.latent.kv_lora_rank + shape.latent.qk_pos_emb_head_dim)
    size = norms + down + (shape.attention_matmul_parameters - down + bias) // tensor
    if shape.experts is None or not shape.has_experts(layer):
        return size + shape.mlp_parameters // tensor
    local = shape.experts.num_moe_experts // layout.expert_model_parallel_size
    router = shape.hidden_size * shape.experts.num_moe_experts
    return size + router + shape.shared_expert_parameters // tensor + local * shape.expert_parameters

"""FLOPs of a step, of the whole model and of one rank."""

from parallelism.cost.memory import stage_layers
from parallelism.layout import Layout
from parallelism.presets import ModelShape, padded_vocab_size

FLOP_CONVENTION = (
    "matmuls only: 6 FLOPs per parameter and token (output layer in, embedding table out) plus causal attention at "
    "half of the full square, 6 x layers x heads x head width x seq_length per token; recomputation is not counted"
)


def flops_per_token(shape: ModelShape, *, seq_length: int, vocab_size: int) -> int:
    """Returns the FLOPs of forward and backward per token, by FLOP_CONVENTION; `vocab_size` rows as given."""
    layers = sum(layer_flops(shape, layer, seq_length=seq_length) for layer in range(shape.num_layers))
    return layers + 6 * vocab_size * shape.hidden_size


def layer_flops(shape: ModelShape, layer: int, *, seq_length: int) -> int:
    """Returns the FLOPs of forward and backward of one layer per token, by FLOP_CONVENTION."""
    attention = 3 * (shape.query_size + shape.attention_size) * seq_length
    return 6 * shape.layer_matmul_parameters(layer, active=True) + attention


def step_flops(shape: ModelShape, *, layout: Layout, vocab_size: int) -> int:
    """Returns the FLOPs of one optimizer step over all ranks, by FLOP_CONVENTION, padded vocabulary."""
    tokens = layout.global_batch_size * layout.seq_length
    return tokens * flops_per_token(shape, seq_length=layout.seq_length, vocab_size=padded_vocab_size(vocab_size))


def stage_flops(shape: ModelShape, *, layout: Layout, vocab_size: int) -> list[int]:
    """Returns the FLOPs that one rank of each stage does in one step: FLOP_CONVENTION plus recomputation."""
    passes = 4 if layout.recompute_granularity == "full" else 3
    sizes = [
        sum(layer_flops(shape, layer, seq_length=layout.seq_length) for layer in layers) * passes // 3
        for layers in stage_layers(layout, shape.num_layers)
    ]
    sizes[-1] += 6 * padded_vocab_size(vocab_size) * shape.hidden_size
    tokens = layout.num_microbatches * layout.rank_tokens
    return [size * tokens // layout.tensor_model_parallel_size for size in sizes]

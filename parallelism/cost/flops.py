"""FLOPs of a step by a named convention, of the whole model and of one rank."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from parallelism.cost.layers import Kinds, stage_layers
from parallelism.layout import Layout
from parallelism.presets import ModelShape, padded_vocab_size


@dataclass(frozen=True, kw_only=True)
class Convention:
    """What is counted as a FLOP of training: only matmuls, output layer in, embedding table out.

    Attributes:
        name: as it is printed beside a figure.
        causal: attention at half of the full square, which a causal kernel computes.
        recompute: hardware FLOPs: the layers' forward pass that full recomputation repeats counts too.
        passes: matmuls per weight, of 2 FLOPs each: forward, input gradient, weight gradient. Frozen weights (LoRA)
            need 2.
    """

    name: str
    causal: bool
    recompute: bool = False
    passes: int = 3


CAUSAL = Convention(name="model FLOPs, causal half", causal=True)
SQUARE = Convention(name="model FLOPs, full square", causal=False)
HARDWARE_CAUSAL = Convention(name="hardware FLOPs, causal half", causal=True, recompute=True)
HARDWARE_SQUARE = Convention(name="hardware FLOPs, full square", causal=False, recompute=True)
FROZEN = Convention(name="frozen weights, causal half", causal=True, passes=2)

CONVENTIONS: Mapping[str, Convention] = {
    convention.name: convention for convention in (CAUSAL, SQUARE, HARDWARE_CAUSAL, HARDWARE_SQUARE, FROZEN)
}
"""Who prints what: Megatron-Bridge the causal half; NeMo until 24.07, Megatron-LM's table, LLM-Foundry and nanotron the
full square; Narayanan et al. 2021 and BLOOM the full square with recomputation (96 B s l h² (1 + s/6h + V/16lh))."""

FLOP_CONVENTION = (
    "matmuls only: 6 FLOPs per parameter and token (output layer in, embedding table out) plus causal attention at "
    "half of the full square, 6 x layers x heads x head width x seq_length per token; recomputation is not counted"
)
"""CAUSAL in words."""


def flops_per_token(shape: ModelShape, *, seq_length: int, vocab_size: int, convention: Convention = CAUSAL) -> int:
    """Returns the FLOPs of forward and backward per token; `vocab_size` rows as given (pad first, if wanted)."""
    kinds = shape.num_layers - shape.num_moe_layers, shape.num_moe_layers
    layers = _layers(shape, kinds, seq_length=seq_length, convention=convention)
    return layers + 2 * convention.passes * vocab_size * shape.hidden_size


@lru_cache(maxsize=4096)
def layer_flops(shape: ModelShape, layer: int, *, seq_length: int, convention: Convention = CAUSAL) -> int:
    """Returns the FLOPs of forward and backward of one layer per token.

    With experts only those that see the token count. Attention's two products cost as much as their widths: queries
    for the scores, values for the sum (they differ in latent attention).
    """
    passes = convention.passes + convention.recompute
    # Attention has no weights: even where all weights are frozen both its inputs need gradients.
    square = 2 * (3 + convention.recompute) * (shape.query_size + shape.attention_size) * seq_length
    attention = square // 2 if convention.causal else square
    return 2 * passes * shape.layer_matmul_parameters(layer, active=True) + attention


def step_flops(shape: ModelShape, *, layout: Layout, vocab_size: int, convention: Convention = CAUSAL) -> int:
    """Returns the FLOPs of one optimizer step over all ranks, padded vocabulary."""
    tokens = layout.global_batch_size * layout.seq_length
    padded = padded_vocab_size(vocab_size)
    return tokens * flops_per_token(shape, seq_length=layout.seq_length, vocab_size=padded, convention=convention)


def stage_flops(shape: ModelShape, *, layout: Layout, vocab_size: int) -> list[int]:
    """Returns the FLOPs that one rank of each stage does in one step: causal half, plus full recomputation."""
    convention = HARDWARE_CAUSAL if layout.recompute_granularity == "full" else CAUSAL
    sizes = [
        _layers(shape, kinds, seq_length=layout.seq_length, convention=convention)
        for kinds in stage_layers(shape, layout=layout)
    ]
    sizes[-1] += 6 * padded_vocab_size(vocab_size) * shape.hidden_size
    tokens = layout.num_microbatches * layout.rank_tokens
    return [size * tokens // layout.tensor_model_parallel_size for size in sizes]


def _layers(shape: ModelShape, kinds: Kinds, *, seq_length: int, convention: Convention) -> int:
    """FLOPs per token of (dense layers, layers with experts); all of a kind are alike."""
    return sum(
        count * layer_flops(shape, layer, seq_length=seq_length, convention=convention)
        for layer, count in zip((0, shape.num_layers - 1), kinds, strict=True)
        if count
    )

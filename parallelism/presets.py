"""Named model sizes: the shape of a decoder, without its vocabulary (which the tokenizer decides)."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

VOCAB_MULTIPLE = 128
"""Embedding tables are padded to a multiple of this. Megatron's own rule multiplies it by
tensor_model_parallel_size; this does not, so that a checkpoint has the same shapes under every layout."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A Llama-like decoder: RMSNorm, rotary positions, grouped-query attention, gated SiLU MLP, no biases.

    Names are Megatron's. `num_query_groups` is the number of key/value heads, `kv_channels` the width of one
    head; `add_qkv_bias` adds the one bias there may be.
    """

    num_layers: int
    hidden_size: int
    ffn_hidden_size: int
    num_attention_heads: int
    num_query_groups: int
    kv_channels: int
    max_position_embeddings: int
    rotary_base: int = 10_000
    layernorm_epsilon: float = 1e-5
    share_embeddings_and_output_weights: bool = False
    add_qkv_bias: bool = False

    @property
    def qkv_size(self) -> int:
        """Width of the fused query, key and value projection: (heads + 2 x groups) x head width."""
        return (self.num_attention_heads + 2 * self.num_query_groups) * self.kv_channels

    @property
    def attention_size(self) -> int:
        """Width of the attention's output before its projection: heads x head width."""
        return self.num_attention_heads * self.kv_channels

    @property
    def layer_matmul_parameters(self) -> int:
        """Parameters of one layer that take part in a matmul: qkv, proj, gate and up, down."""
        return self.hidden_size * (self.qkv_size + self.attention_size + 3 * self.ffn_hidden_size)

    @property
    def layer_parameters(self) -> int:
        """All parameters of one layer: the matmuls, the q, k, v bias and two norms."""
        bias = self.qkv_size if self.add_qkv_bias else 0
        return self.layer_matmul_parameters + bias + 2 * self.hidden_size

    def parameters(self, vocab_size: int) -> int:
        """Parameters of the whole model, with tables of `vocab_size` rows as given (pad first, if wanted)."""
        tables = 1 if self.share_embeddings_and_output_weights else 2
        return tables * vocab_size * self.hidden_size + self.num_layers * self.layer_parameters + self.hidden_size


def padded_vocab_size(vocab_size: int) -> int:
    """Rows of the embedding tables: `vocab_size` rounded up to a multiple of VOCAB_MULTIPLE."""
    return -(-vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


def preset(name: str) -> ModelShape:
    """Returns the model size of that name.

    Raises:
        ValueError: no such size; the message names the nearest ones.
    """
    if name in PRESETS:
        return PRESETS[name]
    near = get_close_matches(name, PRESETS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(PRESETS)}"
    raise ValueError(f"model must be a named size, but {name!r} is not one; {hint}")


PRESETS: Mapping[str, ModelShape] = {
    # Small enough for two CPU cores, and still divisible by 2 in every direction.
    "demo": ModelShape(
        num_layers=4,
        hidden_size=128,
        ffn_hidden_size=384,
        num_attention_heads=4,
        num_query_groups=2,
        kv_channels=32,
        max_position_embeddings=2048,
    ),
    # The shape of Llama 3.2 1B.
    "dense_1b": ModelShape(
        num_layers=16,
        hidden_size=2048,
        ffn_hidden_size=8192,
        num_attention_heads=32,
        num_query_groups=8,
        kv_channels=64,
        max_position_embeddings=131_072,
        rotary_base=500_000,
        share_embeddings_and_output_weights=True,
    ),
    # The shape of Mistral 7B v0.3.
    "dense_7b": ModelShape(
        num_layers=32,
        hidden_size=4096,
        ffn_hidden_size=14_336,
        num_attention_heads=32,
        num_query_groups=8,
        kv_channels=128,
        max_position_embeddings=32_768,
        rotary_base=1_000_000,
    ),
    # The shape of Qwen2.5 32B.
    "dense_32b": ModelShape(
        num_layers=64,
        hidden_size=5120,
        ffn_hidden_size=27_648,
        num_attention_heads=40,
        num_query_groups=8,
        kv_channels=128,
        max_position_embeddings=131_072,
        rotary_base=1_000_000,
        add_qkv_bias=True,
    ),
}

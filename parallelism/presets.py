"""Named model sizes: the shape of a decoder, without its vocabulary (which the tokenizer decides)."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

VOCAB_MULTIPLE = 128
"""Embedding tables are padded to a multiple of this. Megatron's own rule multiplies it by
tensor_model_parallel_size; this does not, so that a checkpoint has the same shapes under every layout."""


@dataclass(frozen=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434): keys and values from one narrow vector per token.

    `qk_head_dim` is the part of a query's or key's width without a position, `qk_pos_emb_head_dim` the rotated part.
    """

    kv_lora_rank: int
    qk_head_dim: int
    qk_pos_emb_head_dim: int
    v_head_dim: int

    @property
    def query_width(self) -> int:
        """Width of one query or key."""
        return self.qk_head_dim + self.qk_pos_emb_head_dim


@dataclass(frozen=True, kw_only=True)
class Experts:
    """A mixture of experts in place of the MLP, after the first `first_k_dense` layers.

    Routing is DeepSeek-V3's (arXiv:2412.19437): sigmoid scores, a bias per expert that only decides who is chosen and
    is moved against the load, `moe_router_topk` experts per token weighted by their scores, which are normalised and
    multiplied by `moe_router_topk_scaling_factor`; shared experts see every token.
    """

    num_moe_experts: int
    moe_router_topk: int
    moe_ffn_hidden_size: int
    moe_shared_expert_intermediate_size: int
    first_k_dense: int = 1
    moe_router_topk_scaling_factor: float = 1.0
    moe_router_bias_update_rate: float = 1e-3


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A decoder: RMSNorm, rotary positions, gated SiLU MLP or experts, grouped-query or latent attention.

    Names are Megatron's. `num_query_groups` is the number of key/value heads, `kv_channels` the width of one
    head; both say nothing where `latent` is given. `add_qkv_bias` adds the one bias there may be.
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
    latent: LatentAttention | None = None
    experts: Experts | None = None

    @property
    def qkv_size(self) -> int:
        """Width of the fused query, key and value projection: (heads + 2 x groups) x head width."""
        return (self.num_attention_heads + 2 * self.num_query_groups) * self.kv_channels

    @property
    def query_size(self) -> int:
        """Width of all queries: heads x head width; the cost of attention's scores."""
        return self.num_attention_heads * (self.latent.query_width if self.latent else self.kv_channels)

    @property
    def attention_size(self) -> int:
        """Width of the attention's output before its projection: heads x width of a value."""
        return self.num_attention_heads * (self.latent.v_head_dim if self.latent else self.kv_channels)

    @property
    def attention_matmul_parameters(self) -> int:
        """Parameters of one attention that take part in a matmul; latent: q, kv down, kv up, proj."""
        if self.latent is None:
            return self.hidden_size * (self.qkv_size + self.attention_size)
        latent, heads = self.latent, self.num_attention_heads
        down = self.hidden_size * (latent.kv_lora_rank + latent.qk_pos_emb_head_dim)
        up = latent.kv_lora_rank * heads * (latent.qk_head_dim + latent.v_head_dim)
        return self.hidden_size * (self.query_size + self.attention_size) + down + up

    @property
    def mlp_parameters(self) -> int:
        """Parameters of a dense layer's MLP: gate and up, down."""
        return 3 * self.hidden_size * self.ffn_hidden_size

    @property
    def expert_parameters(self) -> int:
        """Parameters of one routed expert; 0 for a dense model."""
        return 3 * self.hidden_size * self.experts.moe_ffn_hidden_size if self.experts else 0

    @property
    def shared_expert_parameters(self) -> int:
        """Parameters of a layer's shared experts; 0 for a dense model."""
        return 3 * self.hidden_size * self.experts.moe_shared_expert_intermediate_size if self.experts else 0

    @property
    def buffers(self) -> int:
        """Numbers that are saved with the weights and not learned by gradient: the routers' biases."""
        return self.experts.num_moe_experts * self.num_moe_layers if self.experts else 0

    @property
    def num_moe_layers(self) -> int:
        """Layers with experts."""
        return sum(map(self.has_experts, range(self.num_layers)))

    def has_experts(self, layer: int) -> bool:
        """Says whether layer number `layer`, from 0, has experts in place of its MLP."""
        return self.experts is not None and layer >= self.experts.first_k_dense

    def layer_matmul_parameters(self, layer: int, *, active: bool = False) -> int:
        """Parameters of a layer that take part in a matmul; `active`: only of the experts that see one token."""
        if self.experts is None or not self.has_experts(layer):
            return self.attention_matmul_parameters + self.mlp_parameters
        seen = self.experts.moe_router_topk if active else self.experts.num_moe_experts
        router = self.hidden_size * self.experts.num_moe_experts
        return self.attention_matmul_parameters + router + seen * self.expert_parameters + self.shared_expert_parameters

    @property
    def layer_vector_parameters(self) -> int:
        """Parameters of a layer outside matmuls: two norms, the latent's norm, the q, k, v bias."""
        inner = self.latent.kv_lora_rank if self.latent else 0
        return 2 * self.hidden_size + inner + (self.qkv_size if self.add_qkv_bias else 0)

    def layer_parameters(self, layer: int, *, active: bool = False) -> int:
        """All parameters of a layer; `active`: only those that work on one token."""
        return self.layer_matmul_parameters(layer, active=active) + self.layer_vector_parameters

    def parameters(self, vocab_size: int, *, active: bool = False) -> int:
        """Parameters of the whole model, with tables of `vocab_size` rows as given (pad first, if wanted)."""
        tables = 1 if self.share_embeddings_and_output_weights else 2
        layers = sum(self.layer_parameters(layer, active=active) for layer in range(self.num_layers))
        return tables * vocab_size * self.hidden_size + layers + self.hidden_size


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
    # Latent attention and experts at the demo's size: two chosen of four, one shared.
    "demo_moe": ModelShape(
        num_layers=4,
        hidden_size=128,
        ffn_hidden_size=384,
        num_attention_heads=4,
        num_query_groups=4,
        kv_channels=32,
        max_position_embeddings=2048,
        layernorm_epsilon=1e-6,
        latent=LatentAttention(kv_lora_rank=64, qk_head_dim=32, qk_pos_emb_head_dim=16, v_head_dim=32),
        experts=Experts(
            num_moe_experts=4, moe_router_topk=2, moe_ffn_hidden_size=128, moe_shared_expert_intermediate_size=128
        ),
    ),
    # The shape of SmolLM2 135M.
    "smollm2_135m": ModelShape(
        num_layers=30,
        hidden_size=576,
        ffn_hidden_size=1536,
        num_attention_heads=9,
        num_query_groups=3,
        kv_channels=64,
        max_position_embeddings=8192,
        rotary_base=100_000,
        share_embeddings_and_output_weights=True,
    ),
    # A virtual cell of TranscriptFormer Sapiens' size (12 layers, 16 heads, 2048, 368M), in this decoder.
    "cell_368m": ModelShape(
        num_layers=12,
        hidden_size=2048,
        ffn_hidden_size=1600,
        num_attention_heads=16,
        num_query_groups=16,
        kv_channels=128,
        max_position_embeddings=4096,
        share_embeddings_and_output_weights=True,
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
    # The shape of Tri 21B.
    "tri_21b": ModelShape(
        num_layers=40,
        hidden_size=5120,
        ffn_hidden_size=27_392,
        num_attention_heads=32,
        num_query_groups=8,
        kv_channels=160,
        max_position_embeddings=32_768,
        rotary_base=1_000_000,
    ),
    # The shape of Gravity 16B A3B, the consortium's published model.
    "gravity_16b_a3b": ModelShape(
        num_layers=28,
        hidden_size=2048,
        ffn_hidden_size=8192,
        num_attention_heads=16,
        num_query_groups=16,
        kv_channels=128,
        max_position_embeddings=32_768,
        rotary_base=1_000_000,
        layernorm_epsilon=1e-6,
        latent=LatentAttention(kv_lora_rank=512, qk_head_dim=128, qk_pos_emb_head_dim=64, v_head_dim=128),
        experts=Experts(
            num_moe_experts=64,
            moe_router_topk=8,
            moe_ffn_hidden_size=1408,
            moe_shared_expert_intermediate_size=1408,
        ),
    ),
}

VOCAB_SIZES: Mapping[str, int] = {
    "demo": 2816,
    "demo_moe": 2816,
    "smollm2_135m": 49_152,
    "cell_368m": 23_829,
    "dense_1b": 128_256,
    "dense_7b": 32_768,
    "dense_32b": 152_064,
    "tri_21b": 124_416,
    "gravity_16b_a3b": 151_552,
}
"""Vocabulary of the model that each size is taken from: for planning before there is a tokenizer."""

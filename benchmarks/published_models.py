"""Shapes of public models that the rows name without their sizes: from each model's published config."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from parallelism.presets import Experts, LatentAttention, ModelShape


@dataclass(frozen=True, kw_only=True)
class QueryLatentShape(ModelShape):
    """Latent attention whose queries come from a narrow vector too, as in DeepSeek-V3; ours has none."""

    q_lora_rank: int

    @property
    def attention_matmul_parameters(self) -> int:
        """Parameters of one attention: the queries' way down and up in place of one projection."""
        direct = self.hidden_size * self.query_size
        return super().attention_matmul_parameters - direct + self.q_lora_rank * (self.hidden_size + self.query_size)


def _deepseek(
    *, layers: int, hidden: int, ffn: int, heads: int, experts: int, chosen: int, width: int, shared: int, dense: int
) -> ModelShape:
    return QueryLatentShape(
        num_layers=layers,
        hidden_size=hidden,
        ffn_hidden_size=ffn,
        num_attention_heads=heads,
        num_query_groups=heads,
        kv_channels=128,
        max_position_embeddings=163_840,
        q_lora_rank=1536,
        latent=LatentAttention(kv_lora_rank=512, qk_head_dim=128, qk_pos_emb_head_dim=64, v_head_dim=128),
        experts=Experts(
            num_moe_experts=experts,
            moe_router_topk=chosen,
            moe_ffn_hidden_size=width,
            moe_shared_expert_intermediate_size=shared,
            first_k_dense=dense,
        ),
    )


def _grouped(
    *, layers: int, hidden: int, heads: int, groups: int, head: int, experts: int, chosen: int, width: int
) -> ModelShape:
    return ModelShape(
        num_layers=layers,
        hidden_size=hidden,
        ffn_hidden_size=width,
        num_attention_heads=heads,
        num_query_groups=groups,
        kv_channels=head,
        max_position_embeddings=131_072,
        experts=Experts(
            num_moe_experts=experts,
            moe_router_topk=chosen,
            moe_ffn_hidden_size=width,
            moe_shared_expert_intermediate_size=0,
            first_k_dense=0,
        ),
    )


_V3 = _deepseek(layers=61, hidden=7168, ffn=18_432, heads=128, experts=256, chosen=8, width=2048, shared=2048, dense=3)

_V3_ROWS = 129_280

KNOWN: Mapping[str, tuple[ModelShape, int]] = {
    "deepseekv3_(w/o": (_V3, _V3_ROWS),
    "deepseekv3_l": (_V3, _V3_ROWS),
    "deepseekv3_tp": (_V3, _V3_ROWS),
    # Trained with one more layer that predicts the token after the next: its projection from two hidden states is as
    # large as 2 x hidden rows of a table, and it has logits of its own.
    "deepseekv3": (replace(_V3, num_layers=62), 2 * _V3_ROWS + 2 * _V3.hidden_size),
    "deepseekv2_lite": (
        ModelShape(
            num_layers=27,
            hidden_size=2048,
            ffn_hidden_size=10_944,
            num_attention_heads=16,
            num_query_groups=16,
            kv_channels=128,
            max_position_embeddings=163_840,
            latent=LatentAttention(kv_lora_rank=512, qk_head_dim=128, qk_pos_emb_head_dim=64, v_head_dim=128),
            experts=Experts(
                num_moe_experts=64,
                moe_router_topk=6,
                moe_ffn_hidden_size=1408,
                moe_shared_expert_intermediate_size=2816,
            ),
        ),
        102_400,
    ),
    "deepseekv2": (
        _deepseek(
            layers=60, hidden=5120, ffn=12_288, heads=128, experts=160, chosen=6, width=1536, shared=3072, dense=1
        ),
        102_400,
    ),
    "kimi_k2": (
        _deepseek(
            layers=61, hidden=7168, ffn=18_432, heads=64, experts=384, chosen=8, width=2048, shared=2048, dense=1
        ),
        163_840,
    ),
    "qwen3_30b_a3b": (
        _grouped(layers=48, hidden=2048, heads=32, groups=4, head=128, experts=128, chosen=8, width=768),
        151_936,
    ),
    "qwen3_235b_a22b": (
        _grouped(layers=94, hidden=4096, heads=64, groups=4, head=128, experts=128, chosen=8, width=1536),
        151_936,
    ),
    "mixtral_8x7b": (
        _grouped(layers=32, hidden=4096, heads=32, groups=8, head=128, experts=8, chosen=2, width=14_336),
        32_000,
    ),
    "mixtral_8x22b": (
        _grouped(layers=56, hidden=6144, heads=48, groups=8, head=128, experts=8, chosen=2, width=16_384),
        32_768,
    ),
    "gpt_oss_120b": (
        _grouped(layers=36, hidden=2880, heads=64, groups=8, head=64, experts=128, chosen=4, width=2880),
        201_088,
    ),
}
"""Model and vocabulary by how the row's name begins, in lower case with underscores."""

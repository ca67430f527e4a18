"""Latent attention whose gradients are right under tensor parallelism without TransformerEngine.

Legend: S sequence, B micro batch, L width of the latent and the rotated key together, T tensor parallel size.
"""

from typing import Any, cast

import torch
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_tensor_model_parallel_region,
    scatter_to_sequence_parallel_region,
)
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.multi_latent_attention import MLASelfAttention, MLASelfAttentionSubmodules
from torch import Tensor


class LatentAttention(MLASelfAttention):  # type: ignore[misc]  # Megatron ships no types
    """Multi-head latent attention, the way down divided over the tensor parallel ranks.

    Megatron 0.19.2 gathers the divided latent in a way that hands each rank only its own heads' gradient of the rotated
    key, which all heads share: with two or more tensor parallel ranks its weights learn from a part of the heads. Here
    the gradients of all heads are summed.
    """

    def _resolve_qk_norm_config(self, submodules: MLASelfAttentionSubmodules) -> dict[str, Any]:
        """Takes the norm of the latent and no other; Megatron's choice would put one before the queries too."""
        return {
            "linear_q_proj": submodules.linear_q_proj,
            "linear_q_up_proj": IdentityOp,
            "linear_kv_up_proj": submodules.linear_kv_up_proj,
            "q_layernorm": IdentityOp,
            "kv_layernorm": submodules.kv_layernorm,
        }

    def _qkv_down_projection(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (the input for the queries, the whole latent (S or S / T, B, L)); Megatron splits the latent."""
        narrow, _ = self.linear_kv_down_proj(hidden_states)
        config = self.config
        if config.tensor_model_parallel_size == 1:
            return hidden_states, narrow
        whole_SBL = gather_from_tensor_model_parallel_region(narrow)
        if config.sequence_parallel:  # what Megatron does with a share of the sequence sums over the heads
            return hidden_states, cast(Tensor, scatter_to_sequence_parallel_region(whole_SBL))
        latent, key = torch.split(whole_SBL, [config.kv_lora_rank, config.qk_pos_emb_head_dim], dim=-1)
        return hidden_states, torch.cat([latent, copy_to_tensor_model_parallel_region(key)], dim=-1)

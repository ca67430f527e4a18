"""Core attention by torch's scaled_dot_product_attention: flash kernels on a GPU, no sequence² matrix on a CPU.

Legend: S sequence, B micro batch, N query heads of this rank, G key/value groups of this rank, D head width.
"""

from typing import Any

from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


class CausalAttention(MegatronModule):  # type: ignore[misc]  # Megatron ships no types
    """Causal grouped-query attention over whole sequences; what Megatron's SelfAttention calls its core attention."""

    def __init__(
        self,
        config: TransformerConfig,
        *_: Any,
        softmax_scale: float | None = None,
        **__: Any,
    ) -> None:
        """Takes the arguments that Megatron builds core attention with.

        Raises:
            ValueError: the config asks for context parallelism.
        """
        super().__init__(config=config)
        if config.context_parallel_size != 1:
            raise ValueError(
                f"context_parallel_size must be 1 with this attention, but is {config.context_parallel_size}; use 1"
            )
        self.softmax_scale = softmax_scale

    def forward(self, query_SBND: Tensor, key_SBGD: Tensor, value_SBGD: Tensor, *_: Any, **__: Any) -> Tensor:
        """Returns the attended values, (S, B, N x D). No mask is read: a position sees itself and what is before it."""
        query, key, value = (tensor.permute(1, 2, 0, 3) for tensor in (query_SBND, key_SBGD, value_SBGD))
        attended_BNSD = scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=self.softmax_scale, enable_gqa=query.shape[1] != key.shape[1]
        )
        return attended_BNSD.permute(2, 0, 1, 3).flatten(2)

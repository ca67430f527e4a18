"""Core attention of every layer: what Megatron's attentions call between their projections, for all mask modes.

Which kernel runs is decided here and nowhere else. On a GPU, flash attention where all is one document, FlexAttention
for documents; on a CPU, tiles of matrix products, except for one long document in fp32, where torch's kernel is faster
(docs/benchmarks/xlda.md).

Legend: S sequence of this rank, B micro batch, N query heads of this rank, G key/value groups of this rank, D width of
queries and keys, E width of values (D except in latent attention), K keys of the whole sequence, R = N / G.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from parallelism import context, flex, tiles, visibility
from parallelism.tiles import Span


class CausalAttention(MegatronModule):  # type: ignore[misc]  # Megatron ships no types
    """Causal grouped-query attention over packed documents, also latent and context parallel.

    The ids of visibility.py come as the attention mask: it is the one tensor that Megatron hands to every layer,
    through recomputation too. They are those of whole sequences, under context parallelism as well.
    """

    def __init__(
        self,
        config: TransformerConfig,
        *_: Any,
        softmax_scale: float | None = None,
        pg_collection: Any = None,
        **__: Any,
    ) -> None:
        """Takes the arguments that Megatron builds core attention with."""
        super().__init__(config=config)
        self.softmax_scale = softmax_scale
        self._group: dist.ProcessGroup | None = None
        if config.context_parallel_size > 1:
            self._group = pg_collection.cp if pg_collection else parallel_state.get_context_parallel_group()

    def forward(
        self,
        query_SBND: Tensor,
        key_SBGD: Tensor,
        value_SBGE: Tensor,
        attention_mask: Tensor | None = None,
        *_: Any,
        **__: Any,
    ) -> Tensor:
        """Returns the attended values, (S, B, N x E); None as mask means that each sequence is one document.

        Raises:
            ValueError: the mask is not the ids of the batch.
        """
        key_KBGD, value_KBGE, spans = key_SBGD, value_SBGE, _whole(query_SBND)
        if self._group is not None:
            spans = context.spans(query_SBND.shape[0], rank=self._group.rank(), size=self._group.size())
            both = context.gathered(torch.cat([key_SBGD, value_SBGE], dim=3), self._group)
            key_KBGD, value_KBGE = both.split([key_SBGD.shape[3], value_SBGE.shape[3]], dim=3)
        if attention_mask is not None:
            visibility.check(attention_mask, batch=query_SBND.shape[1], length=key_KBGD.shape[0])
        attend = _on_gpu if query_SBND.is_cuda else _on_cpu
        return attend(query_SBND, key_KBGD, value_KBGE, ids=attention_mask, spans=spans, scale=self.softmax_scale)


def _whole(query_SBND: Tensor) -> tuple[Span, ...]:
    return context.spans(query_SBND.shape[0], rank=0, size=1)


def _on_cpu(
    query: Tensor, key: Tensor, value: Tensor, *, ids: Tensor | None, spans: Sequence[Span], scale: float | None
) -> Tensor:
    length, batch, heads, width = query.shape
    groups = key.shape[2]
    if ids is None and len(spans) == 1 and query.dtype == torch.float32 and length > tiles.KEPT_KEYS:
        query_BNSD, key_BGSD, value_BGSE = (part.permute(1, 2, 0, 3) for part in (query, key, value))
        return _flash(query_BNSD, key_BGSD, value_BGSE, scale=scale).permute(2, 0, 1, 3).flatten(2)
    scaled = query * (width**-0.5 if scale is None else scale)
    query_BGSRD = scaled.view(length, batch, groups, heads // groups, width).permute(1, 2, 0, 3, 4).contiguous()
    key_MKD, value_MKE = (part.permute(1, 2, 0, 3).contiguous().flatten(0, 1) for part in (key, value))
    attended_MSRE = tiles.attend(
        query_BGSRD.flatten(0, 1), key_MKD=key_MKD, value_MKE=value_MKE, plans=_plans(ids, spans=spans), ids_B3K=ids
    )
    return attended_MSRE.view(batch, groups, *attended_MSRE.shape[1:]).permute(2, 0, 1, 3, 4).flatten(2)


def _plans(ids: Tensor | None, *, spans: Sequence[Span]) -> list[tuple[tiles.Tile, ...]]:
    if ids is None:
        return [tiles.plan(None, spans=spans)]
    rows = ids.numpy()
    return visibility.per_batch(ids, kind=("tiles", spans), make=lambda: [tiles.plan(row, spans=spans) for row in rows])


def _on_gpu(
    query: Tensor, key: Tensor, value: Tensor, *, ids: Tensor | None, spans: Sequence[Span], scale: float | None
) -> Tensor:
    query_BNSD, key_BGKD, value_BGKE = (part.permute(1, 2, 0, 3) for part in (query, key, value))
    if ids is None and len(spans) == 1:
        attended = _flash(query_BNSD, key_BGKD, value_BGKE, scale=scale)
    else:
        known = _one_document(query.shape[1], len(key), query.device) if ids is None else ids
        mask = visibility.per_batch(known, kind=("flex", spans), make=lambda: flex.block_mask(known, spans=spans))
        attended = flex.attend(query_BNSD, key_BGKD=key_BGKD, value_BGKE=value_BGKE, mask=mask, scale=scale)
    return attended.permute(2, 0, 1, 3).flatten(2)


@functools.cache
def _one_document(batch: int, length: int, device: torch.device) -> Tensor:
    return torch.zeros(batch, 3, length, dtype=torch.int32, device=device)


def _flash(query_BNSD: Tensor, key_BGSD: Tensor, value_BGSE: Tensor, *, scale: float | None) -> Tensor:
    """One document a sequence; flash kernels want values as wide as keys: those of latent attention are filled up."""
    missing = key_BGSD.shape[3] - value_BGSE.shape[3]
    attended = scaled_dot_product_attention(
        query_BNSD,
        key_BGSD,
        pad(value_BGSE, (0, missing)) if missing else value_BGSE,
        is_causal=True,
        scale=scale,
        enable_gqa=query_BNSD.shape[1] != key_BGSD.shape[1],
    )
    return attended[..., : value_BGSE.shape[3]]

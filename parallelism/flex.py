"""Attention on a GPU by FlexAttention: the kernel skips blocks that hold nothing visible, from a table of blocks.

The table is made from the smallest and largest id of each block of tokens, so nothing of size S x S is ever made.

Legend: B micro batch, S queries of this rank, K keys of the whole sequence, I and J blocks of each.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import pad

from parallelism.tiles import Span
from parallelism.visibility import DOCUMENT, GROUP, LANGUAGE

BLOCK = 128


def block_mask(ids_B3K: Tensor, *, spans: Sequence[Span]) -> BlockMask:
    """Returns the rule of parallelism/visibility.py over these ids, for queries that lie at `spans`."""
    at_S = torch.cat([torch.arange(span.at, span.at + span.stop - span.start) for span in spans]).to(ids_B3K.device)
    query_ids_B3S = ids_B3K[:, :, at_S]

    def rule(row: Tensor, _: Tensor, query: Tensor, key: Tensor) -> Tensor:
        document, group, language = (
            query_ids_B3S[row, part, query] == ids_B3K[row, part, key] for part in (DOCUMENT, GROUP, LANGUAGE)
        )
        return (at_S[query] >= key) & group & (document | ~language)

    some_BIJ, every_BIJ = _blocks(query_ids_B3S, ids_B3K, at_S)
    partial, full = _listed(some_BIJ & ~every_BIJ), _listed(every_BIJ)
    lengths = (len(at_S), ids_B3K.shape[2])
    return BlockMask.from_kv_blocks(*partial, *full, BLOCK_SIZE=BLOCK, mask_mod=rule, seq_lengths=lengths)


def _blocks(query_ids_B3S: Tensor, ids_B3K: Tensor, at_S: Tensor) -> tuple[Tensor, Tensor]:
    """Returns bool (B, I, J) twice: blocks where something may be visible, and blocks where all is."""
    at_K = torch.arange(ids_B3K.shape[2], device=at_S.device)
    low, high = (edge[:, :, :, None] for edge in _edges(query_ids_B3S))
    low_key, high_key = (edge[:, :, None, :] for edge in _edges(ids_B3K))
    early, late = (edge[0, 0, :, None] for edge in _edges(at_S[None, None], outside=-1))
    early_key, late_key = (edge[0, 0] for edge in _edges(at_K[None, None], outside=len(at_K)))
    one, one_key = low == high, low_key == high_key
    same = one & one_key & (low == low_key)
    apart = (low > high_key) | (low_key > high)
    differ = one[:, LANGUAGE] & one_key[:, LANGUAGE] & apart[:, LANGUAGE]
    hidden = apart[:, GROUP] | (apart[:, DOCUMENT] & same[:, LANGUAGE])
    every = (late_key <= early) & same[:, GROUP] & (same[:, DOCUMENT] | differ)
    return (early_key <= late) & ~hidden, every


def _edges(values_BXN: Tensor, *, outside: int | None = None) -> tuple[Tensor, Tensor]:
    """Returns the smallest and the largest value of each block; the last block is filled with `outside` or its end."""
    missing = -values_BXN.shape[2] % BLOCK
    filler = values_BXN[:, :, -1:] if outside is None else torch.full_like(values_BXN[:, :, -1:], outside)
    whole = torch.cat([values_BXN, filler.expand(-1, -1, missing)], dim=2).unflatten(2, (-1, BLOCK))
    return whole.amin(3), whole.amax(3)


def _listed(chosen_BIJ: Tensor) -> tuple[Tensor, Tensor]:
    """Returns how many blocks each row of blocks has, and their numbers first, with one head dimension for all."""
    order = torch.argsort(chosen_BIJ.int(), dim=2, descending=True, stable=True)
    return chosen_BIJ.sum(2, dtype=torch.int32)[:, None], order.int()[:, None]


def attend(query_BNSD: Tensor, *, key_BGKD: Tensor, value_BGKE: Tensor, mask: BlockMask, scale: float | None) -> Tensor:
    """Returns the attended values, (B, N, S, E); values narrower than the keys (latent attention) are filled up."""
    missing = key_BGKD.shape[3] - value_BGKE.shape[3]
    attended = _kernel(query_BNSD.device.type)(
        query_BNSD,
        key_BGKD,
        pad(value_BGKE, (0, missing)) if missing else value_BGKE,
        block_mask=mask,
        scale=scale,
        enable_gqa=query_BNSD.shape[1] != key_BGKD.shape[1],
    )
    return cast(Tensor, attended)[..., : value_BGKE.shape[3]]


@functools.cache
def _kernel(device: str) -> Callable[..., Any]:
    """Returns the fused kernel; without a GPU the plain sums, which have no backward pass, for tests."""
    kernel: Callable[..., Any] = flex_attention
    return torch.compile(kernel, dynamic=False) if device == "cuda" else kernel

"""Attention on a CPU: a tile of queries at a time against the keys it may see, by matrix products; nothing is S x S.

torch's fused kernel on a CPU is about half as fast as these products in bf16 (docs/benchmarks/xlda.md). Keys that no
query of a tile may see are left out, so that work falls with the length of groups. The weights of a tile with few keys
are kept for the backward pass, those of others are computed again: memory grows with S, not with its square.

Legend: S queries of this rank, K keys of the whole sequence, M = micro batch x key/value groups, R query heads of a
group, D width of queries and keys, E width of values, T queries of a tile, L keys of a tile.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelism.visibility import DOCUMENT, GROUP, LANGUAGE, visible

_softmax_gradient = torch.ops.aten._softmax_backward_data  # noqa: SLF001 - what torch.softmax's own gradient calls

TILE = 128
"""Queries of a tile; 128 and 64 are the fastest of 32 to 512 (docs/benchmarks/xlda.md)."""

KEPT_KEYS = 1024
"""Scores against more keys than these are computed again in the backward pass: kept ones take heads x this a token."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """Queries start to stop of this rank, which lie at `at` of the sequence, and the keys first to last they may see.

    Attributes:
        masked: the rule must be looked up for each key; else all keys before `at` are visible and the rest is causal.
    """

    start: int
    stop: int
    at: int
    first: int
    masked: bool

    @property
    def last(self) -> int:
        """Where the keys end that its queries may see."""
        return self.at + self.stop - self.start


@dataclass(frozen=True, kw_only=True)
class Span:
    """Queries start to stop of this rank, neighbours in the sequence, that lie at `at` of it."""

    start: int
    stop: int
    at: int


def plan(ids_3K: NDArray[np.int32] | None, *, spans: Sequence[Span]) -> tuple[Tile, ...]:
    """Cuts the queries of one sequence into tiles; ids None means one document."""
    return tuple(tile for span in spans for tile in _tiles(ids_3K, span))


def _tiles(ids_3K: NDArray[np.int32] | None, span: Span) -> Iterator[Tile]:
    """Tiles end where a group ends, unless that makes them short: many short groups are masked in one tile."""
    stop = span.at + span.stop - span.start
    if ids_3K is None:
        edges = [*range(span.at, stop, TILE), stop]
    else:
        starts = np.flatnonzero(np.diff(ids_3K[GROUP])) + 1
        edges = [span.at]
        while edges[-1] < stop:
            most = min(edges[-1] + TILE, stop)
            ends = starts[(starts >= edges[-1] + TILE // 2) & (starts < most)]
            edges.append(int(ends[-1]) if len(ends) else most)
    for at, end in pairwise(edges):
        first, masked = _range(ids_3K, at, end)
        start = span.start + at - span.at
        yield Tile(start=start, stop=start + end - at, at=at, first=first, masked=masked)


def _range(ids_3K: NDArray[np.int32] | None, at: int, end: int) -> tuple[int, bool]:
    """Returns the first key that queries at to end can see, and whether any key between may be hidden from one."""
    if ids_3K is None:
        return 0, False
    first = int(np.searchsorted(ids_3K[GROUP], ids_3K[GROUP, at]))
    seen = ids_3K[:, first:end]
    documents = len(np.unique(seen[DOCUMENT]))
    return first, seen[GROUP, -1] != seen[GROUP, 0] or documents > len(np.unique(seen[LANGUAGE]))


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What is to be done: the tiles of all rows alike or of each, by which ids, and whether a gradient is wanted."""

    plans: Sequence[tuple[Tile, ...]]
    ids: Tensor | None
    keep: bool

    def keeps(self, tile: Tile) -> bool:
        """Says whether the tile's scores stay for the backward pass."""
        return self.keep and tile.last - tile.first <= KEPT_KEYS

    def parts(self, rows: int, *, heads: int) -> Iterator[tuple[slice, Tile, Tensor]]:
        """Yields (rows, tile, what is hidden of the tile's last keys: bool (T x R, L)) for every tile of every plan."""
        each = rows // len(self.plans)
        causal = torch.ones(TILE, TILE, dtype=torch.bool).triu(1)
        for number, tiles in enumerate(self.plans):
            for tile in tiles:
                size = tile.stop - tile.start
                looked_up = tile.masked and self.ids is not None
                hidden = ~_visible(self.ids[number], tile) if looked_up else causal[:size, :size]  # type: ignore[index]
                yield slice(number * each, (number + 1) * each), tile, hidden.repeat_interleave(heads, dim=0)


def attend(
    query_MSRD: Tensor,
    *,
    key_MKD: Tensor,
    value_MKE: Tensor,
    plans: Sequence[tuple[Tile, ...]],
    ids_B3K: Tensor | None,
) -> Tensor:
    """Returns the attended values, (M, S, R, E). Queries must be scaled; `plans` is one for all rows or one each."""
    wanted = torch.is_grad_enabled() and any(part.requires_grad for part in (query_MSRD, key_MKD, value_MKE))
    work = _Work(plans=plans, ids=ids_B3K, keep=wanted)
    return cast(Tensor, _Tiled.apply(query_MSRD, key_MKD, value_MKE, work))  # type: ignore[no-untyped-call]


class _Tiled(torch.autograd.Function):
    """All tiles, with the gradient written out: torch's own would keep every tile's scores twice."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, work: _Work) -> Tensor:
        out = query.new_empty(*query.shape[:3], value.shape[2])
        kept = []
        for rows, tile, hidden in work.parts(query.shape[0], heads=query.shape[2]):
            weights_MTL = _weights(query[rows], key[rows], tile, hidden)
            part = out[rows, tile.start : tile.stop]
            part.copy_(torch.bmm(weights_MTL, value[rows, tile.first : tile.last]).view(part.shape))
            if work.keeps(tile):
                kept.append(weights_MTL)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.work = work
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        remaining, gradient = iter(kept), gradients[0].contiguous()
        to_query = torch.empty_like(query)
        to_key, to_value = (torch.zeros_like(part, dtype=torch.float32) for part in (key, value))
        for rows, tile, hidden in ctx.work.parts(query.shape[0], heads=query.shape[2]):
            again = not ctx.work.keeps(tile)
            weights_MTL = _weights(query[rows], key[rows], tile, hidden) if again else next(remaining)
            queries_MTD, incoming_MTE = _rows(query[rows], tile), _rows(gradient[rows], tile)
            columns = slice(tile.first, tile.last)
            to_value[rows, columns] += torch.bmm(weights_MTL.transpose(1, 2), incoming_MTE)
            to_weights_MTL = torch.bmm(incoming_MTE, value[rows, columns].transpose(1, 2))
            to_scores_MTL = _softmax_gradient(to_weights_MTL, weights_MTL, -1, query.dtype)
            part = to_query[rows, tile.start : tile.stop]
            part.copy_(torch.bmm(to_scores_MTL, key[rows, columns]).view(part.shape))
            to_key[rows, columns] += torch.bmm(to_scores_MTL.transpose(1, 2), queries_MTD)
        return to_query, to_key.to(key.dtype), to_value.to(value.dtype), None


def _visible(ids_3K: Tensor, tile: Tile) -> Tensor:
    queries, keys = torch.arange(tile.at, tile.last), torch.arange(tile.first, tile.last)
    return visible(ids_3K[:, tile.at : tile.last], ids_3K[:, tile.first : tile.last], query_at_Q=queries, key_at_K=keys)


def _rows(whole_MSRX: Tensor, tile: Tile) -> Tensor:
    """Returns the tile's queries, the heads of each beside each other: (M, T x R, width)."""
    part = whole_MSRX[:, tile.start : tile.stop]
    return part.view(part.shape[0], -1, part.shape[3])


def _weights(query_MSRD: Tensor, key_MKD: Tensor, tile: Tile, hidden: Tensor) -> Tensor:
    scores = torch.bmm(_rows(query_MSRD, tile), key_MKD[:, tile.first : tile.last].transpose(1, 2))
    scores[:, :, -hidden.shape[1] :].masked_fill_(hidden, -math.inf)
    return torch.softmax(scores, -1)

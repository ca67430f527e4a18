"""Context parallelism: each rank holds two chunks of every sequence, one early and one late, so that all work alike.

A sequence is cut into 2C chunks; rank r of C holds chunks r and 2C - 1 - r (Megatron's zigzag). Queries stay where they
are, keys and values of the whole sequence are gathered, and their gradients are summed where they came from.

Legend: C ranks of the context group, S tokens of the whole sequence, H = S / C tokens of this rank.
"""

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from parallelism.tiles import Span


def chunks(*, rank: int, size: int) -> tuple[int, int]:
    """Returns the numbers of the two chunks that a rank holds."""
    return rank, 2 * size - 1 - rank


def local(whole: Tensor, *, rank: int, size: int, dim: int = 1) -> Tensor:
    """Returns this rank's share of a tensor along its sequence dimension.

    Raises:
        ValueError: the sequence cannot be cut into 2 x size chunks.
    """
    if size == 1:
        return whole
    if whole.shape[dim] % (2 * size):
        raise ValueError(
            f"seq_length must be a multiple of 2 x context_parallel_size = {2 * size}, but is {whole.shape[dim]}; "
            "change one of them"
        )
    parts = whole.chunk(2 * size, dim=dim)
    return torch.cat([parts[number] for number in chunks(rank=rank, size=size)], dim=dim)


def spans(length: int, *, rank: int, size: int) -> tuple[Span, ...]:
    """Returns where this rank's `length` tokens lie in the whole sequence."""
    if size == 1:
        return (Span(start=0, stop=length, at=0),)
    half = length // 2
    early, late = chunks(rank=rank, size=size)
    return Span(start=0, stop=half, at=early * half), Span(start=half, stop=length, at=late * half)


def gathered(local_HX: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Returns the whole sequence (S, ...), in order, of what each rank of the group holds."""
    return cast(Tensor, _Gathered.apply(local_HX, group))  # type: ignore[no-untyped-call]


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        by_rank = mine.new_empty(group.size() * mine.shape[0], *mine.shape[1:])
        dist.all_gather_into_tensor(by_rank, mine.contiguous(), group=group)
        early, late = by_rank.unflatten(0, (group.size(), 2, -1)).unbind(1)  # no table of places: a GPU waits for one
        return torch.cat([early, late.flip(0)]).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        size, whole = ctx.group.size(), gradients[0]
        early, late = whole.unflatten(0, (2, size, -1)).unbind(0)
        by_rank = torch.stack([early, late.flip(0)], dim=1).flatten(0, 2)
        mine = by_rank.new_empty(by_rank.shape[0] // size, *by_rank.shape[1:])
        dist.reduce_scatter_tensor(mine, by_rank, group=ctx.group)
        return mine, None

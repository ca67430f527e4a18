"""The first all-reduce: whether all ranks reach each other and agree, and how fast the network between them is."""

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from parallelism import device

_GPU_BYTES, _CPU_BYTES = 256 * 2**20, 4 * 2**20
_ROUNDS = 3
_PATTERN = 256  # each number of the data tells its place; sums of 5,000 ranks are still exact in fp32
_PROBE = 1024


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the ranks found together.

    Attributes:
        gb_per_s: bus bandwidth of an all-reduce in 10^9 bytes a second, as nccl-tests counts it: 2 (n - 1) / n times
            the size over the time, which is what each rank sends and receives at once.
        slowest: who sends to whom over the slowest link, while every rank sends to the next one.
        slowest_gb_per_s: how fast that one is.
    """

    gb_per_s: float
    slowest: str
    slowest_gb_per_s: float

    @property
    def metrics(self) -> dict[str, float]:
        """The figures, named as in the journal."""
        return {"job/allreduce_gb_per_s": self.gb_per_s, "job/slowest_link_gb_per_s": self.slowest_gb_per_s}

    def __str__(self) -> str:
        """Returns a line for the log."""
        return f"all-reduce: exact, {self.gb_per_s:.3g} GB/s; slowest: {self.slowest}, {self.slowest_gb_per_s:.3g} GB/s"


@dataclass(frozen=True, kw_only=True)
class _Told:
    """What one rank tells the others: its host, the number it put in, what came out wrong, and its seconds."""

    host: str
    number: int
    sum_is_wrong: bool
    received_is_wrong: bool
    sum_s: float
    receive_s: float


def check(*, within_s: float = 120.0) -> Report | None:
    """Adds up known numbers over all ranks, passes them to the next rank, and measures both. Every rank must call it.

    Args:
        within_s: seconds that the first, small sum may take.

    Returns:
        What was measured, the same on every rank; None where there is only one.

    Raises:
        RuntimeError: a rank is silent, or its numbers are wrong; names the ranks and their hosts.
    """
    if dist.get_world_size() == 1:
        return None
    _meet(within_s)
    own = _measured()
    told = [own] * dist.get_world_size()
    dist.all_gather_object(told, own)
    found = list(_wrong(told))
    if found:
        raise RuntimeError(
            f"every rank must get the exact sum of all, but {'; '.join(found)}; leave the node out and start again"
        )
    return _report(told)


def _meet(within_s: float) -> None:
    """Waits for all ranks, a limited time."""
    sent = torch.zeros(_PROBE, device=device.current())
    try:
        dist.all_reduce(sent, async_op=True).wait(timedelta(seconds=within_s))
        device.synchronize()
    except RuntimeError as error:
        said = str(error).partition("\n")[0]
        raise RuntimeError(
            f"all ranks must meet within {within_s:g} s, but {_name(dist.get_rank(), socket.gethostname())} waits: "
            f"{said}; look at the rank that does not say so, or at network_interface of the site"
        ) from error


def _measured() -> _Told:
    rank, count = dist.get_rank(), dist.get_world_size()
    pattern = _pattern()
    sent, received = torch.empty_like(pattern), torch.empty_like(pattern)
    sum_s, receive_s, sum_is_wrong, received_is_wrong = [], [], False, False
    for _ in range(_ROUNDS):
        torch.add(pattern, _number(rank), out=sent)
        number = int(sent[0])
        receive_s.append(_timed(lambda: _pass_on(sent, received)))
        received_is_wrong |= not torch.equal(received, pattern + (rank - 1) % count)
        sum_s.append(_timed(lambda: _sum(sent)))
        sum_is_wrong |= not torch.equal(sent, pattern * count + count * (count - 1) // 2)
    return _Told(
        host=socket.gethostname(),
        number=number,
        sum_is_wrong=sum_is_wrong,
        received_is_wrong=received_is_wrong,
        sum_s=min(sum_s),
        receive_s=min(receive_s),
    )


def _pattern() -> Tensor:
    return torch.arange(_PATTERN, dtype=torch.float32, device=device.current()).repeat(_bytes() // 4 // _PATTERN)


def _bytes() -> int:
    return _GPU_BYTES if device.has_gpu() else _CPU_BYTES


def _number(rank: int) -> int:
    """What a rank puts in: its own number, so that the sum is known and a wrong one tells whose it is."""
    return rank


def _sum(numbers: Tensor) -> None:
    dist.all_reduce(numbers)


def _pass_on(sent: Tensor, received: Tensor) -> None:
    """Sends to the next rank what the one before sends here: the only way to see one link alone."""
    rank, count = dist.get_rank(), dist.get_world_size()
    there = dist.P2POp(dist.isend, sent, (rank + 1) % count)
    here = dist.P2POp(dist.irecv, received, (rank - 1) % count)
    for work in dist.batch_isend_irecv([there, here]):
        work.wait()


def _timed(work: Callable[[], None]) -> float:
    dist.barrier()
    device.synchronize()
    started = time.perf_counter()
    work()
    device.synchronize()
    return time.perf_counter() - started


def _wrong(told: Sequence[_Told]) -> Iterator[str]:
    """Yields what went wrong, from its cause to what follows from it."""
    names = [_name(rank, one.host) for rank, one in enumerate(told)]
    for rank, one in enumerate(told):
        if one.number != rank:
            yield f"{names[rank]} put in {one.number}"
        if one.received_is_wrong:
            yield f"{names[rank]} received something else from {names[rank - 1]}"
    sums = [names[rank] for rank, one in enumerate(told) if one.sum_is_wrong]
    if sums:
        yield f"the sum is wrong on {', '.join(sums) if len(sums) < len(told) else 'every rank'}"


def _report(told: Sequence[_Told]) -> Report:
    count = len(told)
    slow = max(range(count), key=lambda rank: told[rank].receive_s)
    sender, receiver = ((rank % count, told[rank % count].host) for rank in (slow - 1, slow))
    return Report(
        gb_per_s=_bytes() * 2 * (count - 1) / count / max(one.sum_s for one in told) / 1e9,
        slowest=f"{_name(*sender)} to {_name(*receiver)}",
        slowest_gb_per_s=_bytes() / told[slow].receive_s / 1e9,
    )


def _name(rank: int, host: str) -> str:
    return f"rank {rank} on {host}"

"""Which rank is slow: each times the same small piece of work by itself, and the slowest is named with its host.

In a step every rank waits for the slowest, so step times are alike and tell nothing of who it was.
"""

import socket
import time
from dataclasses import dataclass
from statistics import median

import torch
import torch.distributed as dist

from parallelism import device

_GPU_SIZE, _CPU_SIZE, _CALLS = 4096, 384, 5


@dataclass(frozen=True, kw_only=True)
class Slowest:
    """The slowest rank of all, its host, its seconds, and how they compare with the median rank's."""

    rank: int
    host: str
    seconds: float
    ratio: float

    def __str__(self) -> str:
        return (
            f"slowest rank: {self.rank} on {self.host}, {self.seconds * 1e3:.2f} ms for the test piece, "
            f"{self.ratio:.2f} x the median rank"
        )


def time_piece(dtype: torch.dtype) -> float:
    """Returns the seconds that this rank's device takes for a square matmul in `dtype`: the median of a few."""
    size = _GPU_SIZE if device.has_gpu() else _CPU_SIZE
    left = torch.ones(size, size, device=device.current(), dtype=dtype)
    product, times = torch.empty_like(left), []
    torch.matmul(left, left, out=product)
    for _ in range(_CALLS):
        device.synchronize()
        started = time.perf_counter()
        torch.matmul(left, left, out=product)
        device.synchronize()
        times.append(time.perf_counter() - started)
    return median(times)


def slowest(seconds: float) -> Slowest:
    """Compares the `seconds` of all ranks; every rank must call it, and gets the same answer."""
    gathered: list[tuple[float, str]] = [(0.0, "")] * dist.get_world_size()
    dist.all_gather_object(gathered, (seconds, socket.gethostname()))
    rank = max(range(len(gathered)), key=lambda number: gathered[number][0])
    worst, host = gathered[rank]
    return Slowest(rank=rank, host=host, seconds=worst, ratio=worst / median(time for time, _ in gathered))

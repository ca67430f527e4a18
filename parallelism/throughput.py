"""How fast this machine is at best, and how fast training is beside it."""

import time
from dataclasses import dataclass, field
from statistics import median

import torch
import torch.distributed as dist
from torch import Tensor

from parallelism import device

_SECONDS, _ROUNDS = 0.1, 3
_GPU_SIZE, _CPU_SIZE = 8192, 1024
_WARM_UP_STEPS = 2


def matmul_peak(dtype: torch.dtype) -> float:
    """Measures the FLOP/s of square matmuls in `dtype`, summed over all ranks while all of them run at once.

    The best of a few rounds: MFU is a share of what these devices can do, not of what a data sheet says or a busy
    moment left. Every rank must call it.
    """
    size = _GPU_SIZE if device.has_gpu() else _CPU_SIZE
    left = torch.randn(size, size, device=device.current()).to(dtype)
    right, product = left.clone(), torch.empty_like(left)
    torch.matmul(left, right, out=product)
    device.synchronize()
    return max(_summed_rate(left, right, product) for _ in range(_ROUNDS))


def _summed_rate(left: Tensor, right: Tensor, product: Tensor) -> float:
    dist.barrier()
    calls, started = 0, time.perf_counter()
    while time.perf_counter() - started < _SECONDS:
        torch.matmul(left, right, out=product)
        device.synchronize()
        calls += 1
    own = calls * 2 * left.shape[0] ** 3 / (time.perf_counter() - started)
    total = torch.tensor(own, dtype=torch.float64, device=device.current())
    dist.all_reduce(total)
    return float(total)


@dataclass(frozen=True, kw_only=True)
class Meter:
    """Turns step times into rates.

    Attributes:
        tokens: tokens of one step of a full batch, over all ranks.
        flops: model FLOPs of one, over all ranks.
        peak: what all ranks together can do, FLOP/s.
        times: seconds of each step of a full batch so far, evaluation and saving left out.
    """

    tokens: int
    flops: int
    peak: float
    times: list[float] = field(default_factory=list)

    def add(self, seconds: float, *, share: float = 1.0) -> dict[str, float]:
        """Takes the time of one step, of `share` of the full batch; returns its figures, named as in the journal."""
        if share == 1:
            self.times.append(seconds)
        return self._rates(seconds, share=share)

    def typical(self) -> dict[str, float]:
        """Returns the figures of the median step of a full batch, the first ones left out; empty without any."""
        steady = self.times[_WARM_UP_STEPS:] or self.times
        return self._rates(median(steady)) if steady else {}

    def _rates(self, seconds: float, *, share: float = 1.0) -> dict[str, float]:
        tokens, flops = self.tokens * share, self.flops * share
        return {
            "train/step_time_s": seconds,
            "train/tokens_per_s": tokens / seconds,
            "train/tflops_per_s": flops / seconds / 1e12,
            "train/mfu": flops / seconds / self.peak,
        }

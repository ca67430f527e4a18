"""How a process becomes a rank: its place in the job, the group it joins, and how it is asked to stop."""

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

from parallelism import device

_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where this process stands: `rank` of `world_size` in the job, `local_rank` on its node.

    Attributes:
        rendezvous: where the ranks meet, as torch.distributed's init_method; None for a job of one process.
    """

    rank: int
    world_size: int
    local_rank: int
    rendezvous: str | None


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """Reads RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; without them this process is alone.

    Raises:
        ValueError: some of them are there and others are not, or they contradict each other.
    """
    if "RANK" not in environment and "WORLD_SIZE" not in environment:
        return Place(rank=0, world_size=1, local_rank=0, rendezvous=None)
    missing = [name for name in ("RANK", "WORLD_SIZE") if name not in environment]
    rank, world_size = int(environment.get("RANK", "0")), int(environment.get("WORLD_SIZE", "1"))
    if world_size > 1:
        missing += [name for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in environment]
    if missing:
        raise ValueError(
            "a launcher must set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, "
            f"but {missing[0]} is not set; start the job through slurm/submit.py or torchrun"
        )
    if not 0 <= rank < world_size:
        raise ValueError(f"RANK must be below WORLD_SIZE {world_size}, but is {rank}; correct the launcher")
    meeting = "env://" if world_size > 1 else None
    return Place(
        rank=rank, world_size=world_size, local_rank=int(environment.get("LOCAL_RANK", "0")), rendezvous=meeting
    )


@contextlib.contextmanager
def joined(here: Place) -> Iterator[None]:
    """Takes this rank's device and joins the other ranks; leaves them at the end.

    After an error nothing is waited for: the others learn of it from the closed connections.
    """
    device.use(here.local_rank)
    store = dist.HashStore() if here.rendezvous is None else None  # type: ignore[attr-defined]  # public, unlisted
    dist.init_process_group(
        device.backend(),
        init_method=here.rendezvous,
        store=store,
        rank=here.rank,
        world_size=here.world_size,
        timeout=_TIMEOUT,
        device_id=device.current() if device.has_gpu() else None,  # connects NCCL now, not in the first step
    )
    try:
        yield
    finally:
        dist.destroy_process_group()
        _end_threads()


def _end_threads() -> None:
    """Ends the threads of groups that Megatron's objects still hold; a fork that lacks them would wait for them."""
    if "megatron.core" in sys.modules:
        from parallelism._patches import release_groups

        release_groups()
    gc.collect()


@dataclass
class StopRequest:
    """Whether this process was asked to stop."""

    asked: bool = False


@contextlib.contextmanager
def stoppable() -> Iterator[StopRequest]:
    """Turns SIGTERM and SIGUSR2 (Slurm's early warning, where a job asks for it) into a request that steps look at."""
    request = StopRequest()

    def ask(*_: object) -> None:
        request.asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGUSR2)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

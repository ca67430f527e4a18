"""Ray for the length of one evaluation: a private cluster on this machine, or one that already runs."""

import logging
import math
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import ray

LOCAL = "local"
OBJECT_STORE_BYTES = 100_000_000  # questions and scores are small; Ray would take 30 % of the memory

_log = logging.getLogger(__name__)


@contextmanager
def cluster(*, workers: int, address: str = LOCAL) -> Iterator[None]:
    """Joins the Ray cluster at `address`, or starts one with `workers` CPUs, and leaves nothing of it behind.

    The private cluster asks every connection for a token, because Ray listens on all addresses of a machine. It keeps
    its files in a short folder of its own: a socket's path has at most 107 bytes, and a cluster that another program
    left must not be joined by chance.

    Raises:
        ConnectionError: no cluster answers at `address`.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    folder = Path(tempfile.mkdtemp(prefix="medscale-", dir="/tmp"))
    try:
        if address == LOCAL:
            _start(workers=workers, folder=folder)
        else:
            ray.init(address=address, log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def gpus_per_worker(workers: int, *, gpus: int) -> float:
    """Returns each worker's share of a GPU: 1, an equal part of one when workers share, 0 without GPUs.

    A worker never spans two GPUs, so 3 workers on 2 GPUs take half of one each: 2 thirds of one would fit only twice.
    """
    return 1 / math.ceil(workers / gpus) if gpus else 0.0


def places(workers: int, *, resources: Mapping[str, float]) -> tuple[int, float]:
    """Returns how many workers, one CPU each, a cluster of these resources can hold, and each one's share of a GPU.

    A worker more than there are CPUs would be waited for without end.

    Raises:
        RuntimeError: the cluster has no CPU.
    """
    cpus = int(resources.get("CPU", 0))
    if cpus < 1:
        raise RuntimeError(
            "the Ray cluster must have a CPU for a worker, but has none; start its nodes with --num-cpus"
        )
    if cpus < workers:
        _log.warning("%d workers were asked for, but the cluster has %d CPUs: so many score", workers, cpus)
    held = min(workers, cpus)
    return held, gpus_per_worker(held, gpus=int(resources.get("GPU", 0)))


def _start(*, workers: int, folder: Path) -> None:
    # Unset means token authentication; set to "token" after the import of Ray, only Ray's children would ask for one.
    os.environ.pop("RAY_AUTH_MODE", None)
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray keeps one in the home folder
    ray.init(
        address=LOCAL,
        num_cpus=workers,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=str(folder),
    )

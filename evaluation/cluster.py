"""Ray for the length of one evaluation: a private cluster on this machine, or one that already runs."""

import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

LOCAL = "local"
OBJECT_STORE_BYTES = 100_000_000  # questions and scores are small; Ray would take 30 % of the memory


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


def gpus_per_worker(workers: int) -> float:
    """Returns each worker's share of the cluster's GPUs: one at most, a fraction when workers share, 0 without GPUs."""
    gpus: float = ray.cluster_resources().get("GPU", 0.0)
    return min(1.0, gpus / workers)


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

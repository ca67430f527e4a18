"""Ray for the length of one evaluation: a private cluster on the nodes of the job, or one that already runs."""

import functools
import logging
import math
import os
import secrets
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray

from evaluation.meeting import Nodes
from evaluation.nodes import head

LOCAL = "local"

_log = logging.getLogger(__name__)


@contextmanager
def cluster(
    *, workers: int, address: str = LOCAL, gpus: int | None = None, nodes: Nodes | None = None
) -> Iterator[None]:
    """Joins the Ray cluster at `address`, or starts one on this machine or on `nodes`, and leaves nothing of it behind.

    The private cluster asks every connection for a token and keeps its files in a folder of its own on each node. It
    ends within seconds of this process, however that ends.

    Args:
        workers: CPUs of the private cluster on one machine.
        address: host:port, or 'local'.
        gpus: GPUs of the private cluster on one machine; None to take what Ray finds.
        nodes: this job's nodes, when there are several; on each of the others `serve` must run.

    Raises:
        ConnectionError: no cluster answers at `address`.
        RuntimeError: Ray did not start, or not all nodes joined.
    """
    if address != LOCAL:
        with _joined(address=address):
            yield
        return
    cpus, gpus, own = (workers, gpus, None) if nodes is None else (nodes.cpus, nodes.gpus, nodes.own_address())
    token = os.environ["RAY_AUTH_TOKEN"] = _token()
    with (
        head(cpus=cpus, gpus=gpus, address=own, token=token) as started,
        _joined(address=started.address, _temp_dir=str(started.folder)),
    ):
        if nodes is not None:
            nodes.announce(started.address, token=token)
            _gather(nodes, started.address)
        yield


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


@functools.cache
def _token() -> str:
    return secrets.token_hex(32)  # one a process, because Ray reads it once


@contextmanager
def _joined(**options: Any) -> Iterator[None]:
    """Connects this process to a cluster. Ray's own handler of SIGTERM, which it sets unasked, is taken out again."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        finally:
            signal.signal(signal.SIGTERM, before)
        yield
    except SystemExit as stop:
        if stop.code == signal.SIGTERM:  # Ray's handler was asked, while this process connected
            signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        ray.shutdown()


def _gather(nodes: Nodes, address: str) -> None:
    """Waits until every node has joined the cluster."""
    until = time.monotonic() + nodes.patience_s
    while len(came := sorted(node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"])) < nodes.count:
        if nodes.failures:
            raise RuntimeError(nodes.failures[0])
        if time.monotonic() > until:
            raise RuntimeError(
                f"{nodes.count} nodes must join Ray's head at {address} within {nodes.patience_s:g} s, but "
                f"{len(came)} came: {', '.join(came)}; see the logs of the other nodes' processes"
            )
        time.sleep(0.1)
    nodes.note_complete(came)

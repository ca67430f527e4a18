"""Ray on the nodes of one job: the head beside rank 0, a worker node beside every other rank, each with a keeper.

`python -m evaluation.nodes OPTIONS` is what the head's keeper runs: it starts the head and waits to be killed.
"""

import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from evaluation import keeper
from evaluation.meeting import COMPLETE, TOKEN, Nodes, following, head_of
from slurm.files import write_atomic

OBJECT_STORE_BYTES = 100_000_000  # questions and scores are small; Ray would take 30 % of the memory
START_S = 120.0
PREFIX = "medscale-ray-"
_FOLDERS = Path("/tmp")  # noqa: S108 - local to the node and short: a socket's path has at most 107 bytes
_log = logging.getLogger(__name__)
_ADDRESS, _RAY, _LOCK = "address", "ray", "lock"


@dataclass(frozen=True, kw_only=True)
class Head:
    """Ray's head on this node: `address` is host:port, `folder` is where Ray keeps its files."""

    address: str
    folder: Path


@dataclass(frozen=True, kw_only=True)
class _Kept:
    folder: Path
    keeper: "subprocess.Popen[str]"

    def require(self, what: str) -> None:
        """Raises a RuntimeError that begins with `what` if Ray has ended by itself."""
        if self.keeper.poll() is not None:
            said, _ = self.keeper.communicate()
            raise RuntimeError(f"{what}, but Ray ended; its last lines: {said.strip()}")


@contextmanager
def head(*, cpus: int, gpus: int | None, address: str | None, token: str) -> Iterator[Head]:
    """Starts Ray's head on this node, with no other clients than those that know `token`, and ends it.

    Args:
        cpus: how many actors of one CPU the node takes.
        gpus: likewise; None to take what Ray finds.
        address: this node's, for the others; None to let Ray choose.
        token: what every connection is asked for, because Ray listens on all addresses of a machine.

    Raises:
        RuntimeError: Ray did not start.
        TimeoutError: it did not start in time.
    """

    def command(folder: Path) -> list[str]:
        options = {"folder": str(folder), "cpus": cpus, "gpus": gpus, "address": address}
        return [sys.executable, "-m", "evaluation.nodes", json.dumps(options)]

    must = f"node {socket.gethostname()} must start Ray's head"
    with _kept(command, RAY_AUTH_TOKEN=token) as node:
        found, until = node.folder / _ADDRESS, time.monotonic() + START_S
        while not found.exists():
            node.require(must)
            if time.monotonic() > until:
                raise TimeoutError(f"{must} within {START_S:g} s, but it did not; see whether the node is overloaded")
            time.sleep(0.02)
        yield Head(address=found.read_text(), folder=node.folder / _RAY)


def serve(nodes: Nodes) -> None:
    """Is a worker node of the cluster whose head rank 0 starts, until rank 0 ends, however it does.

    Raises:
        RuntimeError: Ray on this node did not join the head.
        TimeoutError: rank 0 did not come.
        ConnectionError: this node cannot reach rank 0.
    """
    own = nodes.own_address()
    with following(nodes) as driver:
        address = head_of(nodes, driver)
        if address is None:
            return
        must = f"node {socket.gethostname()} must join Ray's head on node {driver.host} at {address}"
        with _kept(_join(nodes, head=address, own=own), RAY_AUTH_TOKEN_PATH=str(nodes.meeting / TOKEN)) as node:
            while driver.lives():
                try:
                    node.require(must)
                except RuntimeError as error:
                    if not (nodes.meeting / COMPLETE).exists():
                        raise
                    # An exit status would end the whole job, but the other nodes can score what is left.
                    _log.error("%s; the other nodes score on", error)  # noqa: TRY400 - the error says it
                    return


def _join(nodes: Nodes, *, head: str, own: str) -> Callable[[Path], list[str]]:
    gpus = [] if nodes.gpus is None else [f"--num-gpus={nodes.gpus}"]
    options = [
        f"--address={head}",
        f"--node-ip-address={own}",
        f"--num-cpus={nodes.cpus}",
        *gpus,
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        "--include-log-monitor=False",
        "--min-worker-port=0",  # free ports: two evaluations on one node must not meet
        "--max-worker-port=0",
        "--block",
    ]
    start = [sys.executable, "-m", "ray.scripts.scripts", "start"]
    return lambda folder: [*start, *options, f"--temp-dir={folder / _RAY}"]


@contextmanager
def _kept(command: Callable[[Path], Sequence[str]], **variables: str) -> Iterator[_Kept]:
    """Runs a node of Ray under a keeper, in a folder of its own; `variables` name the token."""
    _sweep()
    folder, lock = _own_folder()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_TOKEN")}
    environment = {**inherited, **variables, "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    arguments = [sys.executable, "-I", "-S", keeper.__file__, str(folder), *command(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        arguments, env=environment, stdin=pipe, stdout=pipe, text=True, pass_fds=(lock,), start_new_session=True
    ) as process:
        os.close(lock)
        yield _Kept(folder=folder, keeper=process)


def _own_folder() -> tuple[Path, int]:
    """Makes a private folder with a lock that is held from the moment it has its name; the keeper inherits it."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_FOLDERS))
    new = folder / "new"
    lock = os.open(new, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    new.rename(folder / _LOCK)
    return folder, lock


def _sweep() -> None:
    """Removes this user's folders whose keeper was killed with its node, as Slurm does at the end of a job."""
    for lock in _FOLDERS.glob(f"{PREFIX}*/{_LOCK}"):
        with suppress(OSError):  # in use, or another's sweep was faster
            if lock.parent.lstat().st_uid == os.getuid():
                with lock.open("r+") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(lock.parent)


def _hold_head(options: dict[str, Any]) -> None:
    folder = Path(options["folder"])
    ray.init(
        address="local",
        num_cpus=options["cpus"],
        num_gpus=options["gpus"],
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address=options["address"],
        _temp_dir=str(folder / _RAY),
    )
    write_atomic(folder / _ADDRESS, ray.get_runtime_context().gcs_address)
    while True:
        signal.pause()


if __name__ == "__main__":
    _hold_head(json.loads(sys.argv[1]))

"""Ray on the nodes of one job: the head beside rank 0, a worker node beside every other rank, each with a keeper.

`python -m evaluation.nodes head|worker OPTIONS` is what a keeper runs: it starts Ray and waits to be killed.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from evaluation import keeper
from evaluation.meeting import Nodes, following, wait_for_head
from slurm.files import write_atomic

OBJECT_STORE_BYTES = 100_000_000  # questions and scores are small; Ray would take 30 % of the memory
START_S = 300.0
_END_S = 20.0  # a keeper needs 0.1
_WORDS = 500  # characters of an error; the log has all
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
            raise RuntimeError(f"{what}, but Ray ended; its last word: {said.strip()[:_WORDS]}")


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
    must = f"node {socket.gethostname()} must start Ray's head"
    options = {"cpus": cpus, "gpus": gpus, "address": address}
    with _kept(_command("head", options), RAY_AUTH_TOKEN=token) as node:
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
    options = {"meeting": str(nodes.meeting), "cpus": nodes.cpus, "gpus": nodes.gpus, "address": nodes.own_address()}
    with following(nodes) as driver:
        try:
            with _kept(_command("worker", options), RAY_AUTH_TOKEN_PATH=str(nodes.token)) as node:
                while driver.lives():
                    node.require(f"node {socket.gethostname()} must take part in the Ray cluster of node {driver.host}")
        except RuntimeError as error:
            if not nodes.complete:
                nodes.note_failure(str(error))
                raise
            # The others score what is left. This rank stays: srun may end a step whose first rank has ended.
            _log.error("%s; the other nodes score on", error)
            while driver.lives():
                pass


def _command(role: str, options: Mapping[str, Any]) -> Callable[[Path], list[str]]:
    """Returns what gives, for a node's folder, the command that its keeper runs."""
    start = [sys.executable, "-m", "evaluation.nodes", role]
    return lambda folder: [*start, json.dumps({**options, "folder": str(folder)})]


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
        try:
            yield _Kept(folder=folder, keeper=process)
        finally:
            _dismiss(process)


def _dismiss(keeper: "subprocess.Popen[str]") -> None:
    assert keeper.stdin  # noqa: S101 - it is a pipe
    keeper.stdin.close()
    try:
        keeper.wait(_END_S)
    except subprocess.TimeoutExpired:  # a disk that hangs must not hold the stage
        keeper.kill()


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


def _hold_head(options: Mapping[str, Any]) -> None:
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


def _join_head(options: Mapping[str, Any]) -> None:
    from ray.scripts import scripts  # takes seconds, in which the head starts

    sys.argv = [
        "ray",
        "start",
        f"--address={wait_for_head(Path(options['meeting']))}",
        f"--node-ip-address={options['address']}",
        f"--num-cpus={options['cpus']}",
        *([] if options["gpus"] is None else [f"--num-gpus={options['gpus']}"]),
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--temp-dir={Path(options['folder'], _RAY)}",
        "--include-log-monitor=False",
        "--min-worker-port=0",  # free ports: two evaluations on one node must not meet
        "--max-worker-port=0",
        "--block",
    ]
    scripts.main()


if __name__ == "__main__":
    {"head": _hold_head, "worker": _join_head}[sys.argv[1]](json.loads(sys.argv[2]))

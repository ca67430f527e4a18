"""How the nodes of one job find rank 0, know that it lives, and learn where Ray's head is.

They meet in a folder that all of them see and nobody else: rank 0 writes there where it listens; every other rank
holds a connection to it. Nobody accepts those connections. The kernel answers them, and resets them when rank 0 is
gone, however it ended; so no rank waits for one that is dead, and rank 0 may take its time before it starts Ray.
"""

import os
import select
import socket
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from slurm.files import read_json, write_json

_DRIVER, _HEAD, _COMPLETE, _TOKEN = "driver.json", "head.json", "complete.json", "token"
_FAILED = "failed."
_LOOK_S = 0.5
_KEEPALIVE = {socket.TCP_KEEPIDLE: 5, socket.TCP_KEEPINTVL: 2, socket.TCP_KEEPCNT: 3}
"""Seconds without a sign, seconds between questions, questions: a node without power is given up after 11 s."""


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """The nodes of one job, one process on each.

    Attributes:
        count: how many there are.
        meeting: a folder that all of them see, of this execution of the job alone, for its user alone.
        cpus: CPUs of each node that score.
        gpus: GPUs of each node; None to take what Ray finds.
        interface: what they talk over, as NCCL_SOCKET_IFNAME says it; None for the address of the host's name.
        patience_s: how long one node waits for another to come.
    """

    count: int
    meeting: Path
    cpus: int
    gpus: int | None = None
    interface: str | None = None
    patience_s: float = 300.0

    @property
    def token(self) -> Path:
        """The file of the token that every connection to Ray needs."""
        return self.meeting / _TOKEN

    @property
    def complete(self) -> bool:
        """Whether all nodes have once joined the cluster."""
        return _read(self.meeting / _COMPLETE) is not None

    @property
    def failures(self) -> list[str]:
        """What other nodes have said of why they do not join."""
        return [read_json(path)["message"] for path in sorted(self.meeting.glob(f"{_FAILED}*.json"))]

    def announce(self, head: str, *, token: str) -> None:
        """Tells the other ranks, after the token, where Ray's head is (host:port)."""
        handle = os.open(self.token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(token)
        write_json(self.meeting / _HEAD, {"address": head})

    def note_complete(self, hosts: Sequence[str]) -> None:
        """Tells the other ranks that all nodes have joined the cluster."""
        write_json(self.meeting / _COMPLETE, {"nodes": hosts})

    def note_failure(self, message: str) -> None:
        """Tells rank 0 why this node does not join, so that it need not wait."""
        write_json(self.meeting / f"{_FAILED}{socket.gethostname()}.json", {"message": message})

    def own_address(self) -> str:
        """Returns this node's IPv4 address.

        Raises:
            RuntimeError: the node has no such interface, or other nodes cannot reach the address.
        """
        host = socket.gethostname()
        if self.interface is not None:
            return _interface_address(self.interface)
        address = socket.gethostbyname(host)
        if address.startswith("127."):
            raise RuntimeError(
                f"node {host} must have an address that other nodes reach, but its name means {address}; "
                f"set network_interface in the site file"
            )
        return address


@contextmanager
def leading(nodes: Nodes) -> Iterator[None]:
    """Lets the other ranks see, for the length of the block, that rank 0 lives and where it is.

    Raises:
        RuntimeError: the meeting is open to other users, or the node has no address.
    """
    _require_private(nodes.meeting)
    with socket.create_server((nodes.own_address(), 0), backlog=2 * nodes.count + 16) as listening:
        address, port = listening.getsockname()
        write_json(nodes.meeting / _DRIVER, {"host": socket.gethostname(), "address": address, "port": port})
        yield


@dataclass(frozen=True, kw_only=True)
class Driver:
    """Rank 0 as another rank sees it."""

    host: str
    connection: socket.socket

    def lives(self, wait_s: float = _LOOK_S) -> bool:
        """Returns whether rank 0 still lives after `wait_s` seconds; returns earlier when it does not."""
        if not select.select([self.connection], [], [], wait_s)[0]:
            return True
        try:
            return bool(self.connection.recv(1))
        except OSError:
            return False


@contextmanager
def following(nodes: Nodes) -> Iterator[Driver]:
    """Finds rank 0 and holds a connection to it.

    Raises:
        RuntimeError: the meeting is open to other users.
        TimeoutError: rank 0 did not say in time where it is.
        ConnectionError: this node cannot reach it.
    """
    _require_private(nodes.meeting)
    told = _told(nodes)
    place = told["address"], told["port"]
    try:
        connection = socket.create_connection(place, timeout=30)
    except OSError as error:
        raise ConnectionError(
            f"node {socket.gethostname()} must reach rank 0 on node {told['host']} at {place[0]}:{place[1]}, but "
            f"{error}; set network_interface in the site file to what the nodes talk over"
        ) from error
    with connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
        yield Driver(host=told["host"], connection=connection)


def wait_for_head(meeting: Path) -> str:
    """Waits until rank 0 has announced Ray's head and returns its host:port."""
    while (found := _read(meeting / _HEAD)) is None:
        time.sleep(_LOOK_S)
    return str(found["address"])


def _told(nodes: Nodes) -> Any:
    until = time.monotonic() + nodes.patience_s
    while (found := _read(nodes.meeting / _DRIVER)) is None:
        if time.monotonic() > until:
            raise TimeoutError(
                f"node {socket.gethostname()} must learn within {nodes.patience_s:g} s where rank 0 is, but "
                f"{nodes.meeting} does not say; see the log of rank 0, and whether its node sees the same folder"
            )
        time.sleep(_LOOK_S)
    return found


def _read(path: Path) -> Any:
    # The folder is listed, because NFS remembers for a minute that a file it was asked for is not there.
    return read_json(path) if path.name in os.listdir(path.parent) else None  # noqa: PTH208


def _require_private(meeting: Path) -> None:
    found = meeting.stat()
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077 or found.st_uid != os.getuid():
        raise RuntimeError(
            f"{meeting}: must be a folder of user {os.getuid()} with mode 0700, for a token is kept there, but it is "
            f"of user {found.st_uid} with mode {mode:04o}; remove it and run the stage again"
        )


def _interface_address(wanted: str) -> str:
    """Returns the first IPv4 address of an interface: names begin with `wanted`; =a,b exact names; ^a,b all others."""
    kind, names = (wanted[0], wanted[1:]) if wanted[0] in "=^" else ("", wanted)
    parts = tuple(names.split(","))
    for name, addresses in sorted(psutil.net_if_addrs().items()):
        found = [each.address for each in addresses if each.family == socket.AF_INET]
        named = name in parts if kind == "=" else name.startswith(parts)
        if found and named != (kind == "^"):
            return found[0]
    there = ", ".join(sorted(psutil.net_if_addrs()))
    raise RuntimeError(
        f"node {socket.gethostname()} must have the network interface {wanted} with an IPv4 address, but has {there}; "
        f"correct network_interface in the site file"
    )

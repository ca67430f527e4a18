"""The machines of the test cluster: namespaces of Linux, or this very machine where namespaces are forbidden.

Both kinds start machines, cut their power and end with the process that made them, even when that is killed.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

PLACES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAMESPACES = ["--net", "--mount", "--uts", "--pid"]


class ClusterError(RuntimeError):
    """The cluster does not do what it must."""


class UnavailableError(ClusterError):
    """This machine cannot have such a cluster: it lacks a program or a permission."""


class Machines(Protocol):
    """Machines by their names; the controller's is that of no name."""

    def enter(self, name: str | None = None) -> list[str]:
        """Returns the beginning of a command line whose rest runs on that machine."""

    def boot(self, name: str, address: str) -> None:
        """Starts a node and slurmd on it; run/NAME.pid appears."""

    def cut(self, name: str) -> None:
        """Ends every process of a node at once."""

    def stop(self) -> None:
        """Ends every process of the cluster and returns when none is left."""


@dataclass
class Namespaces:
    """Each machine has its own network, mounts, host name and process numbers; all are children of one process."""

    base: Path
    unshare: subprocess.Popen[str]
    first: int
    user: bool

    @classmethod
    def start(cls, base: Path) -> "Namespaces":
        """Makes the controller's machine, as root or in a user namespace.

        Raises:
            UnavailableError: this machine forbids it.
        """
        reasons = []
        for user in (False, True):
            unshare, answer = cls._attempt(base, user=user)
            if answer[:1] == ["ready"]:
                return cls(base, unshare, int(answer[1]), user)
            unshare.communicate()
            reasons.append(tail(base / "log/holder.out", lines=1))
        raise UnavailableError(
            f"namespaces must be allowed for machines of their own, but are not: {'; '.join(reasons)}"
        )

    @staticmethod
    def _attempt(base: Path, *, user: bool) -> tuple[subprocess.Popen[str], list[str]]:
        flags = [
            *NAMESPACES,
            "--fork",
            "--kill-child",
            *(["--user", "--map-current-user", "--keep-caps"] if user else []),
        ]
        with (base / "log/holder.out").open("a") as log:
            unshare = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", *flags, "bash", f"{base}/bin/holder"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the one who started us, who then stops the cluster
            )
        return unshare, pipe(unshare.stdout).readline().split()

    def enter(self, name: str | None = None) -> list[str]:
        target = self.first if name is None else self._node(name)
        user = ["--user", "--preserve-credentials"] if self.user else []
        return ["nsenter", f"--target={target}", *user, *NAMESPACES, "--root", "--wdns=/"]

    def boot(self, name: str, address: str) -> None:
        if (self.base / f"run/{name}.node").exists():
            raise ClusterError(f"{name} must have no power to be started, but runs; cut its power first")
        (self.base / f"run/{name}.pid").unlink(missing_ok=True)
        self._ask(f"start {name} {address}")

    def cut(self, name: str) -> None:
        process = self._node(name)
        self._ask(f"unplug {name}")  # first, so that nobody hears of the processes' end
        kill(process)
        (self.base / f"run/{name}.node").unlink()

    def stop(self) -> None:
        if self.unshare.poll() is None:
            os.kill(self.first, signal.SIGKILL)
            self.unshare.communicate()  # returns when the last process of all machines has ended

    def _node(self, name: str) -> int:
        path = self.base / f"run/{name}.node"
        if not path.exists():
            raise ClusterError(f"{name} must run, but has no power; start it first")
        return int(path.read_text())

    def _ask(self, request: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            pipe(self.unshare.stdin).write(f"{request}\n")
            pipe(self.unshare.stdin).flush()
        if not pipe(self.unshare.stdout).readline().startswith("done"):
            told = tail(self.base / "log/holder.out")
            raise ClusterError(f"the cluster's first process must do '{request}', but has ended: {told}")


@dataclass
class SharedMachine:
    """All nodes are this machine; a process belongs to a node if it, or what started it, writes that node's log."""

    base: Path
    slurmd: str
    guard: subprocess.Popen[bytes]

    @classmethod
    def start(cls, base: Path, *, slurmd: str) -> "SharedMachine":
        """Starts the process that ends the cluster when this one has ended."""
        (base / "proc").rmdir()
        (base / "proc").symlink_to("/proc")
        guard = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", sys.executable, __file__, str(base)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        pipe(guard.stdout).readline()
        return cls(base, slurmd, guard)

    def enter(self, name: str | None = None) -> list[str]:  # noqa: ARG002 - every node is here
        return []

    def boot(self, name: str, address: str) -> None:  # noqa: ARG002 - all have one address
        (self.base / f"run/{name}.pid").unlink(missing_ok=True)
        subprocess.run([f"{self.base}/bin/daemon", name, self.slurmd, "-D", "-N", name], check=True)

    def cut(self, name: str) -> None:
        end_all(lambda: family(lambda file: file in (f"{self.base}/log/{name}.log", f"{self.base}/log/{name}.out")))

    def stop(self) -> None:
        if self.guard.poll() is None:
            self.guard.terminate()
            self.guard.communicate()


def find_programs(names: Iterable[str]) -> dict[str, str]:
    """Returns the programs' paths, another cluster's wrappers left aside.

    Raises:
        UnavailableError: some are missing; all are named.
    """
    found = {name: shutil.which(name, path=PLACES) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        told = f"a Slurm cluster must have its programs installed, but these are missing: {', '.join(missing)}"
        raise UnavailableError(f"{told}; run: make slurm-packages (Debian, as root)")
    return {name: path for name, path in found.items() if path}


def free_ports(count: int) -> list[int]:
    """Returns ports of this machine that nobody listens on."""
    with contextlib.ExitStack() as open_ones:
        sockets = [open_ones.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def family(writes: Callable[[str], bool]) -> set[int]:
    """Returns the processes that write a file of which `writes` is true, and all that these started."""
    parents: dict[int, int] = {}
    found: set[int] = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if any(_is_written(link) and writes(str(link.readlink())) for link in (folder / "fd").iterdir()):
                found.add(int(folder.name))
    before = 0
    while len(found) > before:
        before = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found


def _is_written(link: Path) -> bool:
    """Tells whether a process may write what /proc/PID/fd/N stands for: whoever only reads a log is left alone."""
    flags = (link.parent.with_name("fdinfo") / link.name).read_text().partition("flags:")[2].split()[0]
    return int(flags, 8) & os.O_ACCMODE != os.O_RDONLY


def end_all(processes: Callable[[], set[int]]) -> None:
    """Kills until there is none; those that start meanwhile are found by the next look."""
    while left := processes():
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def pipe[Pipe: IO[bytes] | IO[str]](stream: Pipe | None) -> Pipe:
    """Returns the pipe of a process that was started with one."""
    assert stream is not None
    return stream


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Ends a process with a signal and returns when it has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        wait_for(lambda: not runs(pid), f"process {pid} ends")


def runs(pid: int) -> bool:
    """Tells whether a process has not ended; one that has may stay in the list until its parent asks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def tail(path: Path, lines: int = 5) -> str:
    """Returns the last lines of a log in one line."""
    return " | ".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "no log"


def wait_for(condition: Callable[[], bool], what: str, *, log: Path | None = None, timeout: float = 30) -> None:
    """Waits until `condition` holds.

    Raises:
        ClusterError: it does not within `timeout` seconds; the log's last lines say why.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            why = f": {tail(log)}" if log else ""
            raise ClusterError(f"{what}: must be so within {timeout:g} s, but is not{why}")
        time.sleep(0.01)


@contextlib.contextmanager
def removed_in_any_case(folder: Path) -> Iterator[Path]:
    """Removes a folder at the end, also when this process is killed."""
    script = 'read -r _; for i in 1 2 3 4 5; do rm -rf -- "$0" && exit; sleep 1; done'
    cleaner = subprocess.Popen(["sh", "-c", script, str(folder)], stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield folder
    finally:
        cleaner.communicate()


def guard(base: str) -> None:
    """Waits for SIGTERM, which comes when the cluster's owner ends, and ends the cluster."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    print("ready", flush=True)  # noqa: T201 - the one who started us waits for it
    try:
        while True:
            signal.pause()
    finally:
        end_all(lambda: family(lambda file: file.startswith(f"{base}/log/")))


if __name__ == "__main__":
    guard(sys.argv[1])

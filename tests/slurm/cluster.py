"""A real Slurm cluster on this machine, for tests: python tests/slurm/cluster.py --nodes 4 -- COMMAND.

Each node is a machine of its own as far as Linux can make one without root: its network, mounts, processes and host
name are in namespaces, so that killing one process is a power cut. Where namespaces are forbidden the nodes share this
machine's address. The cluster ends with the process that started it, whatever becomes of that one.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.slurm import cluster_config as config
else:

    def _beside(name: str) -> ModuleType:
        """Loads a file of this folder: tests are no package, and another distribution may call itself tests."""
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    config = _beside("cluster_config")

DAEMONS = ("slurmctld", "slurmd", "munged")
DATABASE = ("slurmdbd", "mariadbd", "mariadb-install-db")
SYSTEM = ("unshare", "nsenter", "setpriv", "ip", "setsid")
PLACES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAMESPACES = ["--net", "--mount", "--uts", "--pid"]


class ClusterError(RuntimeError):
    """The cluster cannot be had, or does not answer: what must hold, what was found."""


@dataclass
class Cluster:
    """A running cluster. Nodes are numbered from 1; `env` is for the environment of whoever is to use the cluster."""

    shape: config.Shape
    holder: subprocess.Popen[str]
    holder_pid: int
    user_namespace: bool
    stopped: list[int] = field(default_factory=list)

    @classmethod
    def start(
        cls,
        base: Path,
        *,
        nodes: int = 4,
        gpus: int = 8,
        accounting: bool = True,
        preempt_signal: bool = False,
        small_mb: int = 48,
    ) -> "Cluster":
        """Starts a cluster in the new folder `base` and waits until all nodes are idle.

        Args:
            base: its folder, removed by nobody; it must be empty, for jobs of an earlier cluster would be found.
            nodes: number of nodes.
            gpus: pretended GPUs of each node.
            accounting: whether sacct answers.
            preempt_signal: whether a preempted job gets its own --signal in place of SIGTERM.
            small_mb: size in MB of the file system at base/small, which the cluster's machines see.

        Raises:
            ClusterError: a program is missing or a daemon does not come up.
        """
        programs = find_programs(accounting=accounting)
        user = pwd.getpwuid(os.getuid()).pw_name
        shape = config.Shape(
            base=base,
            user=user,
            nodes=nodes,
            gpus=gpus,
            accounting=accounting,
            preempt_signal=preempt_signal,
            small_mb=small_mb,
            own_machines=True,
            programs=programs,
            ports=[54415, 54325] + nodes * [6818],
        )
        write_files(shape)
        cluster = cls(shape, *start_holder(shape))
        try:
            cluster._bring_up()
        except BaseException:
            cluster.stop()
            raise
        return cluster

    @property
    def base(self) -> Path:
        """The cluster's folder."""
        return self.shape.base

    @property
    def address(self) -> str:
        """Where jobs find what runs beside the controller."""
        return self.shape.address

    @property
    def env(self) -> dict[str, str]:
        """The variables that make Slurm's commands speak to this cluster."""
        return {
            "PATH": f"{self.base}/bin:{os.environ.get('PATH', PLACES)}",
            "SLURM_CONF": f"{self.base}/etc/slurm.conf",
        }

    def run(self, *command: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Runs a command on the controller's machine.

        Raises:
            ClusterError: it failed and `check` is set.
        """
        done = subprocess.run(
            [f"{self.base}/bin/inside", *command],
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        if check and done.returncode:
            told = (done.stderr or done.stdout).strip()
            raise ClusterError(f"{' '.join(command)}: must succeed, but ended with {done.returncode}: {told}")
        return done

    def _bring_up(self) -> None:
        enter = self._enter(self.holder_pid)
        write(self.base / "bin/inside", config.inside(self.shape, enter).encode(), 0o700)
        for name in config.CLIENTS:
            write(self.base / "bin" / name, config.client(self.shape, name).encode(), 0o700)
        self._daemon("munged", *munged(self.shape))
        wait_for((self.base / "run/munge.sock").exists, "munged listens", log=self.base / "log/munged.out")
        if self.shape.accounting:
            self._database()
        self.start_controller()
        for number in range(1, self.shape.nodes + 1):
            self.start_node(number)
        self.wait_idle()

    def _database(self) -> None:
        programs = self.shape.programs
        subprocess.run(
            [
                programs["mariadb-install-db"],
                f"--defaults-file={self.base}/etc/my.cnf",
                f"--user={self.shape.user}",
                "--auth-root-authentication-method=socket",
                f"--auth-root-socket-user={self.shape.user}",
                "--skip-test-db",
            ],
            check=True,
            capture_output=True,
        )
        self._daemon("mariadbd", programs["mariadbd"], f"--defaults-file={self.base}/etc/my.cnf", f"--user={self.shape.user}")
        wait_for((self.base / "run/mysql.sock").exists, "mariadbd listens", log=self.base / "log/mariadbd.log")
        self.start_dbd()
        self.run("sh", "-c", f"sacctmgr -i < {self.base}/etc/accounts")

    def start_dbd(self) -> None:
        self._daemon("slurmdbd", self.shape.programs["slurmdbd"], "-D")
        port = f"/dev/tcp/{self.address}/{self.shape.ports[1]}"
        self._answers("slurmdbd", "bash", "-c", f"<{port}")

    def start_controller(self) -> None:
        self._daemon("slurmctld", self.shape.programs["slurmctld"], "-D")
        self._answers("slurmctld", "sinfo")

    def start_node(self, number: int) -> None:
        name = f"n{number}"
        machine = self.base / f"run/{name}.node"
        machine.unlink(missing_ok=True)
        self._ask(f"start {name} {self.shape.node_address(number)}")
        wait_for(machine.exists, f"{name} is up", log=self.base / f"log/{name}.machine")
        self.start_slurmd(number)

    def start_slurmd(self, number: int) -> None:
        name = f"n{number}"
        self._daemon(name, self.shape.programs["slurmd"], "-D", "-N", name, machine=self._pid(f"{name}.node"))

    def kill_slurmd(self, number: int) -> None:
        kill(self._pid(f"n{number}.pid"))

    def kill_controller(self) -> None:
        kill(self._pid("slurmctld.pid"))

    def kill_dbd(self) -> None:
        kill(self._pid("slurmdbd.pid"))

    def power_cut(self, number: int) -> None:
        self._ask(f"unplug n{number}")
        kill(self._pid(f"n{number}.node"))

    def _ask(self, request: str) -> None:
        assert self.holder.stdin
        assert self.holder.stdout
        self.holder.stdin.write(request + "\n")
        self.holder.stdin.flush()
        answer = self.holder.stdout.readline()
        if not answer.startswith("done"):
            raise ClusterError(f"the cluster's first process must do '{request}', but is gone: {tail(self.base / 'log/holder')}")

    def _pid(self, name: str) -> int:
        return int((self.base / "run" / name).read_text())

    def _answers(self, daemon: str, *command: str) -> None:
        def answers() -> bool:
            return self.run(*command, check=False).returncode == 0

        wait_for(answers, f"{daemon} answers", log=self.base / f"log/{daemon}.log")

    def wait_idle(self, timeout: float = 60) -> None:
        def idle() -> bool:
            states = self.run("sinfo", "-h", "-N", "-o", "%T", check=False).stdout.split()
            return states.count("idle") == 2 * self.shape.nodes

        wait_for(idle, "every node is idle", log=self.base / "log/slurmctld.log", timeout=timeout)

    def _enter(self, pid: int) -> list[str]:
        user = ["--user", "--preserve-credentials"] if self.user_namespace else []
        return ["nsenter", f"--target={pid}", *user, *NAMESPACES]

    def _daemon(self, name: str, *command: str, machine: int | None = None) -> None:
        pid = self.base / f"run/{name}.pid"
        pid.unlink(missing_ok=True)
        subprocess.run(
            [*self._enter(machine or self.holder_pid), f"{self.base}/bin/daemon", name, *command],
            check=True,
            env={**os.environ, **self.env, "MYSQL_UNIX_PORT": f"{self.base}/run/mysql.sock"},
        )
        wait_for(pid.exists, f"{name} starts", log=self.base / f"log/{name}.out")

    def stop(self) -> None:
        self.holder.kill()
        self.holder.communicate()


def find_programs(*, accounting: bool) -> dict[str, str]:
    wanted = [*DAEMONS, *config.CLIENTS, *SYSTEM, *(DATABASE if accounting else ())]
    found = {name: shutil.which(name, path=PLACES) for name in wanted}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise ClusterError(f"a Slurm cluster needs {', '.join(missing)}, which this machine lacks; try: make slurm-packages")
    return {name: path for name, path in found.items() if path}


def write(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(exist_ok=True, mode=0o700)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(content)


def write_files(shape: config.Shape) -> None:
    shape.base.mkdir(exist_ok=True, parents=True, mode=0o700)
    shape.base.chmod(0o700)
    for name in ("run", "log", "state", "spool", "gpu", "small", "proc", "db"):
        (shape.base / name).mkdir(mode=0o700)
    for name in shape.names:
        (shape.base / "spool" / name).mkdir()
    for number in range(shape.gpus):
        (shape.base / f"gpu/nvidia{number}").symlink_to("/dev/null")
    for path, (content, mode) in config.files(shape).items():
        write(shape.base / path, content, mode)


def start_holder(shape: config.Shape) -> tuple[subprocess.Popen[str], int, bool]:
    for user in (False, True):
        flags = ["--user", "--map-current-user", "--keep-caps"] if user else []
        holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", *flags, *NAMESPACES, "--fork", "--kill-child",
             "bash", f"{shape.base}/bin/holder"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(shape.base / "log/holder").open("a"), text=True,
            start_new_session=True,
        )
        answer = holder.stdout.readline().split()
        if answer[:1] == ["ready"]:
            return holder, int(answer[1]), user
        holder.wait()
    raise ClusterError("namespaces: " + tail(shape.base / "log/holder"))


def munged(shape: config.Shape) -> list[str]:
    base = shape.base
    return [
        shape.programs["munged"], "--foreground", "--force", f"--socket={base}/run/munge.sock", f"--key-file={base}/etc/munge.key",
        f"--pid-file={base}/run/munged.own", f"--log-file={base}/log/munged.log", f"--seed-file={base}/run/munge.seed",
    ]


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), f"process {pid} ends")


def tail(path: Path, lines: int = 5) -> str:
    return " | ".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "no log"


def wait_for(condition: Callable[[], bool], what: str, *, log: Path | None = None, timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: must hold within {timeout:g} s, but does not: {tail(log) if log else ''}")
        time.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="medscale-slurm-") as folder:
        cluster = Cluster.start(Path(folder) / "cluster", nodes=options.nodes, gpus=options.gpus)
        try:
            return subprocess.run(options.command, env={**os.environ, **cluster.env}, check=False).returncode
        finally:
            cluster.stop()


if __name__ == "__main__":
    sys.exit(main())

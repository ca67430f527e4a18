"""A real Slurm cluster on this machine, for tests: python tests/slurm/cluster.py [--nodes 4] [--gpus 8] -- COMMAND.

munge, MariaDB, slurmdbd, slurmctld and one slurmd for each node, as on any cluster; only the GPUs are pretended. Each
node is a machine of its own as far as Linux can make one, root or not: killing one process is a power cut. Where
namespaces are forbidden all nodes are this machine. The cluster ends with the process that started it.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.slurm import cluster_config as config
    from tests.slurm import cluster_machines as machines
else:

    def _beside(name: str) -> ModuleType:
        """Loads a file of this folder: tests are no package, and other distributions call a package of theirs tests."""
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    config = _beside("cluster_config")
    machines = _beside("cluster_machines")

PROGRAMS = (*config.CLIENTS, "slurmctld", "slurmd", "munged", "unshare", "nsenter", "setpriv", "ip")
DATABASE = ("slurmdbd", "mariadbd", "mariadb-install-db", "my_print_defaults")


@dataclass
class Cluster:
    """A running cluster. Its nodes are numbered from 1; `env` is for whoever is to use it; log/ tells what happened.

    Attributes:
        shape: what it is.
        machines: what its nodes run on.
        forbidden: why its nodes are no machines of their own.
        seconds: how long its start took.
    """

    shape: config.Shape
    machines: machines.Machines
    forbidden: str = ""
    seconds: float = 0.0

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
        own_machines: bool | None = None,
    ) -> "Cluster":
        """Starts a cluster and waits until all nodes are idle. It ends when the calling thread does.

        Args:
            base: its folder, new or empty: where an earlier cluster has been, nodes wait for its jobs to end.
            nodes: number of nodes.
            gpus: pretended GPUs of each node.
            accounting: whether slurmdbd keeps accounts, so that sacct answers.
            preempt_signal: whether a preempted job gets its own --signal in place of SIGTERM.
            small_mb: size in MB of a file system at base/small, which only the cluster's machines see.
            own_machines: whether each node is a machine of its own; where that can be had unless given.

        Raises:
            UnavailableError: this machine lacks a program or a permission.
            ClusterError: a daemon does not come up.
        """
        began = time.monotonic()
        shape = config.Shape(
            base=base.absolute(),
            user=pwd.getpwuid(os.getuid()).pw_name,
            nodes=nodes,
            gpus=gpus,
            accounting=accounting,
            preempt_signal=preempt_signal,
            small_mb=small_mb,
            programs=machines.find_programs((*PROGRAMS, *(DATABASE if accounting else ()))),
        )
        make_folders(shape.base)
        cluster = _with_machines(shape, own_machines)
        try:
            cluster._bring_up()
        except BaseException as error:
            cluster.stop()
            if cluster.forbidden:
                raise machines.UnavailableError(
                    f"{cluster.forbidden}; nor do nodes that share it start: {error}"
                ) from error
            raise
        cluster.seconds = time.monotonic() - began
        return cluster

    @property
    def base(self) -> Path:
        """The cluster's folder."""
        return self.shape.base

    @property
    def address(self) -> str:
        """Where jobs find what runs on the controller's machine."""
        return self.shape.address

    @property
    def own_machines(self) -> bool:
        """Whether each node is a machine of its own; if not, there is no small file system either."""
        return self.shape.own_machines

    @property
    def env(self) -> dict[str, str]:
        """The variables with which Slurm's commands speak to this cluster."""
        path = f"{self.base}/bin:{os.environ.get('PATH', machines.PLACES)}"
        return {"PATH": path, "SLURM_CONF": f"{self.base}/etc/slurm.conf"}

    def run(self, *command: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Runs a command on the controller's machine, for at most `timeout` seconds.

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
            raise machines.ClusterError(
                f"{' '.join(command)}: must end with 0, but ended with {done.returncode}: {told}"
            )
        return done

    def pid(self, daemon: str) -> int:
        """Returns the process id of slurmctld, slurmdbd, mariadbd, munged or, by its node's name, a slurmd."""
        return int((self.base / f"run/{daemon}.pid").read_text())

    def kill_slurmd(self, number: int) -> None:
        """Kills the daemon of a node; its jobs stay."""
        machines.kill(self.pid(f"n{number}"))

    def start_slurmd(self, number: int) -> None:
        """Starts the daemon of a node again."""
        name = f"n{number}"
        self._daemon(name, self.shape.programs["slurmd"], "-D", "-N", name, machine=name)

    def power_cut(self, number: int) -> None:
        """Takes a node off the network and ends all its processes.

        Raises:
            ClusterError: it has no power already.
        """
        self.machines.cut(f"n{number}")

    def start_node(self, number: int) -> None:
        """Starts a node that had a power cut.

        Raises:
            ClusterError: it runs, or does not come up.
        """
        self._boot([number])

    def kill_controller(self) -> None:
        """Kills slurmctld."""
        machines.kill(self.pid("slurmctld"))

    def start_controller(self) -> None:
        """Starts slurmctld, which wants slurmdbd to run in its first minutes, and waits until it answers.

        Raises:
            ClusterError: it has ended or does not answer.
        """
        self._daemon("slurmctld", self.shape.programs["slurmctld"], "-D")
        self._listens("slurmctld", self.shape.ports[0])
        self.run("sinfo")

    def kill_dbd(self) -> None:
        """Kills slurmdbd."""
        machines.kill(self.pid("slurmdbd"))

    def start_dbd(self) -> None:
        """Starts slurmdbd and waits until it listens."""
        self._daemon("slurmdbd", self.shape.programs["slurmdbd"], "-D")
        self._listens("slurmdbd", self.shape.ports[1])

    def wait_idle(self, *, timeout: float = 60) -> None:
        """Waits until every node has registered and has no job."""

        def idle() -> bool:
            states = self.run("sinfo", "--noheader", "--Node", "--partition=train", "--format=%T", check=False)
            return states.stdout.split() == ["idle"] * self.shape.nodes

        machines.wait_for(idle, "every node is idle", log=self.base / "log/slurmctld.log", timeout=timeout)

    def stop(self) -> None:
        """Ends every process of the cluster at once; the logs stay."""
        self.machines.stop()
        shutil.rmtree(self.base / "db", ignore_errors=True)

    def _bring_up(self) -> None:
        write(self.base / "bin/inside", config.inside(self.shape, self.machines.enter()).encode(), 0o700)
        self._daemon("munged", *config.munged(self.shape))
        machines.wait_for((self.base / "run/munge.sock").exists, "munged listens", log=self.base / "log/munged.out")
        if self.shape.accounting:
            self._start_database()
        self.start_controller()
        self._boot(range(1, self.shape.nodes + 1))
        self.wait_idle()

    def _boot(self, numbers: Iterable[int]) -> None:
        names = {f"n{number}": self.shape.node_address(number) for number in numbers}
        for name, address in names.items():
            self.machines.boot(name, address)
        for name in names:
            pid, log = self.base / f"run/{name}.pid", self.base / f"log/{name}.machine"
            machines.wait_for(pid.exists, f"{name} is up", log=log)

    def _daemon(self, name: str, *command: str, machine: str | None = None) -> None:
        pid = self.base / f"run/{name}.pid"
        pid.unlink(missing_ok=True)
        subprocess.run([*self.machines.enter(machine), f"{self.base}/bin/daemon", name, *command], check=True)
        machines.wait_for(pid.exists, f"{name} starts", log=self.base / f"log/{name}.out")

    def _listens(self, daemon: str, port: int) -> None:
        log = self.base / f"log/{daemon}.log"

        def listens() -> bool:
            if not machines.runs(self.pid(daemon)):
                raise machines.ClusterError(f"{daemon} must run, but has ended: {machines.tail(log)}")
            return self.run("bash", "-c", f"</dev/tcp/{self.address}/{port}", check=False).returncode == 0

        machines.wait_for(listens, f"{daemon} listens", log=log)

    def _start_database(self) -> None:
        saved = saved_database(self.shape)
        if not saved.is_dir():
            self._make_database()
            with contextlib.suppress(OSError):  # what cannot be saved is made again, which takes some seconds
                save(self.base / "db", saved)
        else:
            shutil.copytree(saved, self.base / "db", dirs_exist_ok=True)
        self._start_mariadb()
        self.start_dbd()

    def _make_database(self) -> None:
        owner = ["--auth-root-authentication-method=socket", f"--auth-root-socket-user={self.shape.user}"]
        settings = [f"--defaults-file={self.base}/etc/my.cnf", f"--user={self.shape.user}"]
        make = [self.shape.programs["mariadb-install-db"], *settings, *owner, "--skip-test-db"]
        self.run(*make)
        self._start_mariadb()
        self.start_dbd()
        self.run("sh", "-c", f"sacctmgr --immediate < {self.base}/etc/accounts")
        for daemon in ("slurmdbd", "mariadbd"):
            machines.kill(self.pid(daemon), signal.SIGTERM)

    def _start_mariadb(self) -> None:
        settings = [f"--defaults-file={self.base}/etc/my.cnf", f"--user={self.shape.user}"]
        self._daemon("mariadbd", self.shape.programs["mariadbd"], *settings)
        machines.wait_for((self.base / "run/mysql.sock").exists, "mariadbd listens", log=self.base / "log/mariadbd.log")


def _with_machines(shape: config.Shape, own_machines: bool | None) -> Cluster:
    """Makes the controller's machine: one of its own where that is allowed, else this one."""
    forbidden = ""
    if own_machines is not False:
        write_files(shape)
        try:
            return Cluster(shape, machines.Namespaces.start(shape.base))
        except machines.UnavailableError as error:
            if own_machines:
                raise
            forbidden = str(error)
    shape = config.on_this_machine(shape, ports=machines.free_ports(shape.nodes + 2))
    write_files(shape)
    return Cluster(shape, machines.SharedMachine.start(shape.base, slurmd=shape.programs["slurmd"]), forbidden)


def make_folders(base: Path) -> None:
    """Makes the cluster's folders, which are its user's alone.

    Raises:
        ClusterError: the base has files, or its name does not suit Slurm and sockets.
    """
    if not re.fullmatch(r"[\w/.-]{1,80}", str(base)):
        raise machines.ClusterError(
            f"base: must be 80 letters at most, none of them special, but is {base}; shorten it"
        )
    base.mkdir(exist_ok=True, parents=True)
    if list(base.iterdir()):
        raise machines.ClusterError(f"base: must be an empty folder, but {base} has files; take a new one")
    base.chmod(0o700)
    for name in ("bin", "db", "etc", "gpu", "log", "proc", "run", "small", "spool", "state"):
        (base / name).mkdir()


def write_files(shape: config.Shape) -> None:
    """Writes every file of the cluster, each with its mode from the start."""
    for name in shape.names:
        (shape.base / "spool" / name).mkdir(exist_ok=True)
    for number in range(shape.gpus):
        link = shape.base / f"gpu/nvidia{number}"
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")  # Slurm wants a device; a plain file it refuses
    for path, (content, mode) in config.files(shape).items():
        write(shape.base / path, content, mode)


def write(path: Path, content: bytes, mode: int) -> None:
    """Writes a file that never had another mode."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)


def saved_database(shape: config.Shape) -> Path:
    """Returns where the database of a new cluster is kept: making it takes seconds, copying it none."""
    versions = [
        subprocess.run([shape.programs[name], "-V"], capture_output=True, text=True, check=True).stdout
        for name in ("mariadbd", "slurmctld")
    ]
    settings = config.my_cnf(replace(shape, base=Path("/")))
    key = hashlib.sha256("".join([*versions, settings, config.accounts(shape)]).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "medscale" / f"slurm-accounts-{key}"


def save(made: Path, saved: Path) -> None:
    """Copies a folder into the cache; of two that save at once, one does."""
    saved.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=saved.parent) as folder:
        copy = shutil.copytree(made, Path(folder) / "copy")
        copy.rename(saved)


def main() -> int:
    """Runs a command with a cluster of its own and returns the command's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--gpus", type=int, default=8, help="of each node")
    parser.add_argument("--shared", action="store_true", help="all nodes are this machine, as without namespaces")
    parser.add_argument("command", nargs="+")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with machines.removed_in_any_case(Path(tempfile.mkdtemp(prefix="medscale-slurm-"))) as folder:
        cluster = Cluster.start(
            folder, nodes=asked.nodes, gpus=asked.gpus, own_machines=False if asked.shared else None
        )
        try:
            command = ["setpriv", "--pdeathsig", "TERM", "--", *asked.command]
            return subprocess.run(command, env={**os.environ, **cluster.env}, check=False).returncode
        finally:
            cluster.stop()


if __name__ == "__main__":
    sys.exit(main())

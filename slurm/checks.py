"""What one node is asked before the first step. A check yields a line for each thing that must hold and does not."""

import errno
import os
import re
import resource
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slurm import network
from slurm.files import digest, sha256_file

SHARED_MEMORY_GB = 1.0  # what NCCL and Ray ask for; a container's default is 0.06
OPEN_FILES, SOCKETS_A_TASK = 1024, 8  # a rank holds a socket to every member of every group that it is in
WRITTEN_MB = 16
_GB, _MB = 1e9, 1e6
_VERSIONS = ("medscale", "torch", "megatron-core", "ray")
_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node of a job, as its checks see it.

    Attributes:
        attempt: the job's folder.
        spec: what the job asked for and what its site demands, from spec.json.
        facts: what was found; checks add to it.
        notes: lines that people should read, though nothing is wrong.
    """

    name: str
    attempt: Path
    spec: Mapping[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def tasks(self) -> int:
        """The processes that start on this node."""
        return -(-int(self.spec["tasks"]) // int(self.spec["nodes"]))


Check = Callable[[Node], Iterable[str]]


def node_name() -> str:
    """Returns what Slurm calls this node; the host's name without Slurm."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def spec_file(node: Node) -> Iterable[str]:
    """The digest of spec.json as this node reads it; the judge compares it: the folder must be one, shared by all."""
    node.facts["spec"] = sha256_file(node.attempt / "spec.json")
    return ()


def gpus(node: Node) -> Iterator[str]:
    """The GPUs that this job was given, and those of them that the driver answers for."""
    asked = node.spec["gpus_per_node"]
    if not asked:
        return
    given = _given_gpus({**os.environ, **node.spec.get("environment", {})})
    counts = {"Slurm gives": given, "the driver sees": _driver_gpus()}
    known = {whose: count for whose, count in counts.items() if count is not None}
    node.facts["gpus"] = min(known.values(), default=0)
    if node.facts["gpus"] != asked:
        seen = " and ".join(f"{whose} {count}" for whose, count in known.items()) or "none is given or seen"
        yield f"GPUs must be {asked}, but {seen}; correct gpus_per_node or gpu_request, or leave the node out"


def cpus(node: Node) -> Iterator[str]:
    """The CPUs that this process may run on; fewer than asked for is a wrong binding, or a node that is smaller."""
    asked, seen, there = node.tasks * node.spec.get("cpus_per_task", 1), len(os.sched_getaffinity(0)), os.cpu_count()
    node.facts["cpus"] = seen
    if seen < asked and seen == there:
        node.notes.append(f"{asked} CPUs were asked for, but the machine has {seen}: processes share them")
    elif seen < asked:
        yield (
            f"CPUs must be at least {asked} for the tasks of a node, but are {seen} of the machine's {there}; "
            "correct how srun binds them (--cpu-bind), or cpus_per_task"
        )


def open_files(node: Node) -> Iterator[str]:
    """The limit of open files and sockets of one process."""
    least = max(OPEN_FILES, SOCKETS_A_TASK * int(node.spec["tasks"]))
    node.facts["open_files"] = limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit != resource.RLIM_INFINITY and limit < least:
        yield f"open files must be at least {least}, but are {limit}; raise ulimit -n, where the job is submitted too"


def shared_memory(node: Node) -> Iterator[str]:
    """Room in /dev/shm, through which the processes of a node talk."""
    free = node.facts["shared_memory_free_gb"] = _free_gb(Path("/dev/shm"))  # noqa: S108 - it is what is checked
    if free < SHARED_MEMORY_GB:
        yield (
            f"free space on /dev/shm must be at least {SHARED_MEMORY_GB:g} GB, but is {_figure(free)} GB; "
            "remove what earlier jobs left, or make it larger"
        )


def interface(node: Node) -> Iterator[str]:
    """The network interface that the ranks talk over: there, and with an address."""
    wanted = node.spec.get("network_interface")
    if not wanted:
        return
    meant = network.interfaces(wanted)
    node.facts["addresses"] = [address for name in meant for address in network.addresses(name)]
    if not meant:
        there = ", ".join(name for _, name in socket.if_nameindex())
        yield f"network interface {wanted} must exist, but there is only {there}; correct network_interface of the site"
    elif not node.facts["addresses"]:
        yield f"network interface {', '.join(meant)} must be up with an address, but is not; mend it, or drain the node"


def host_name(node: Node) -> Iterator[str]:
    """This host's name leads to an address; without a chosen interface, to one that other nodes reach."""
    own = socket.gethostname()
    try:
        found = sorted({str(info[4][0]) for info in socket.getaddrinfo(own, None)})
    except OSError as error:
        yield f"host name {own} must lead to an address, but {error}; add it to DNS or /etc/hosts"
        return
    if node.spec["nodes"] > 1 and not node.spec.get("network_interface") and all(map(network.is_loopback, found)):
        yield (
            f"host name {own} must lead to an address that other nodes reach, but leads to {', '.join(found)}; "
            "correct /etc/hosts, or set network_interface of the site"
        )


def versions(node: Node) -> Iterable[str]:
    """The versions that must be equal on all nodes; the judge compares them. Nothing is imported for it."""
    from importlib.metadata import PackageNotFoundError, version

    node.facts["versions"] = found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    found["medscale's code"] = _code_digest()
    found["NVIDIA driver"] = _driver_version()
    return ()


def scratch_space(node: Node) -> Iterator[str]:
    """Free space on the node's own disk."""
    if node.spec.get("scratch"):
        yield from _space(node, "scratch", Path(node.spec["scratch"]))


def scratch_speed(node: Node) -> Iterator[str]:
    """Write speed of the node's own disk."""
    if node.spec.get("scratch"):
        yield from _speed(node, "scratch", Path(node.spec["scratch"]), folder=Path(node.spec["scratch"]))


def results_space(node: Node) -> Iterator[str]:
    """Free space where results are kept."""
    yield from _space(node, "results", Path(node.spec["results"]))


def results_speed(node: Node) -> Iterator[str]:
    """Write speed where results are kept."""
    yield from _speed(node, "results", Path(node.spec["results"]), folder=node.attempt)


def clock(node: Node, now: Callable[[], float] = time.time) -> Iterator[str]:
    """This node's clock beside that of the file system, which dates a file while it is written."""
    limit = node.spec["policies"]["max_clock_skew_s"]
    with tempfile.TemporaryFile(dir=node.attempt, buffering=0) as file:
        before = now()
        file.write(b"x")
        os.fsync(file.fileno())
        after, dated = now(), os.fstat(file.fileno()).st_mtime
    ahead, behind = max(0.0, before - dated), max(0.0, dated - after)
    node.facts["clock_ahead_s"] = round(ahead - behind, 3)
    if max(ahead, behind) > limit:
        way = f"{ahead:.1f} s ahead" if ahead else f"{behind:.1f} s behind"
        yield f"clock must be within {limit:g} s of the file system's, but is {way}; run chrony or ntpd on the node"


CHECKS: Mapping[str, Check] = {
    "spec.json": spec_file,
    "the GPUs": gpus,
    "the CPUs": cpus,
    "the limit of open files": open_files,
    "the shared memory": shared_memory,
    "the network interface": interface,
    "the host name": host_name,
    "the versions": versions,
    "free space on scratch": scratch_space,
    "write speed on scratch": scratch_speed,
    "free space on results": results_space,
    "write speed on results": results_speed,
    "the clock": clock,
}
"""In the order they run: what may hang on a disk comes last, so that a hang hides least."""


def _space(node: Node, title: str, folder: Path) -> Iterator[str]:
    least = node.spec["policies"]["min_free_gb"]
    try:
        free = node.facts[f"{title}_free_gb"] = _free_gb(folder)
    except OSError as error:
        yield _unusable(title, folder, error)
        return
    if free < least:
        found = f"must be at least {least:g} GB, but is {_figure(free)} GB"
        yield f"free space on {folder} {found}; free some, or use another disk"


def _speed(node: Node, title: str, named: Path, *, folder: Path) -> Iterator[str]:
    least = node.spec["policies"]["min_write_mb_per_s"]
    try:
        seconds = _seconds_to_write(folder)
    except OSError as error:
        if error.errno != errno.ENOENT:  # a missing folder was told with its space
            yield _unusable(title, named, error)
        return
    speed = node.facts[f"{title}_write_mb_per_s"] = round(WRITTEN_MB / seconds, 1)
    if speed < least:
        found = f"must be at least {least:g} MB/s, but is {_figure(speed)} MB/s"
        yield f"write speed on {named} {found}; look at the disk, or lower min_write_mb_per_s of the site"


def _unusable(title: str, folder: Path, error: OSError) -> str:
    key = "scratch of the site" if title == "scratch" else "where results lie"
    return f"{folder} must be a folder that takes {WRITTEN_MB} MB, but {error.strerror}; mend it, or change {key}"


def _seconds_to_write(folder: Path) -> float:
    """Writes a file that has no name, so that nothing stays of it whatever happens. Random: file systems compress."""
    block = os.urandom(int(_MB))
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        started = time.perf_counter()
        for _ in range(WRITTEN_MB):
            file.write(block)
        os.fsync(file.fileno())
        return time.perf_counter() - started


def _free_gb(folder: Path) -> float:
    return shutil.disk_usage(folder).free / _GB


def _figure(value: float) -> str:
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"


def _given_gpus(environment: Mapping[str, str]) -> int | None:
    """Counts what Slurm, or the site in its place, gives: 0,1,2 or 0-7 or names; None where neither says."""
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"):
        if name in environment:
            parts = [part for part in environment[name].split(",") if part not in ("", "-1", "NoDevFiles")]
            spans = [re.fullmatch(r"(\d+)-(\d+)", part) for part in parts]
            return sum(int(span[2]) - int(span[1]) + 1 if span else 1 for span in spans)
    return None


def _driver_gpus() -> int | None:
    """Counts the GPUs that answer; a GPU that fell off its bus does not. None on a machine without a driver."""
    if shutil.which("nvidia-smi"):
        import subprocess

        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
        return len(re.findall(r"^GPU \d+:", listed.stdout, re.MULTILINE))
    return len(list(Path("/dev").glob("nvidia[0-9]*"))) or None


def _code_digest() -> str:
    root = Path(__file__).resolve().parents[1]
    packages = ("corpus", "evaluation", "jobs", "parallelism", "slurm")
    files = sorted(path for package in packages for path in (root / package).rglob("*.py"))
    return digest({str(path.relative_to(root)): sha256_file(path) for path in files})[:12]


def _driver_version() -> str:
    found = re.search(r"\d+\.\d+(\.\d+)?", _DRIVER.read_text()) if _DRIVER.exists() else None
    return found[0] if found else "none"

"""What a job on Slurm costs besides its work: `python benchmarks/slurm_overhead.py [--peer VENV] [--out FILE]`.

Starts real clusters of four nodes on this machine and prints the tables of docs/benchmarks/slurm-overhead.md: how long
each way to run a job takes before the job's own first line of Python and after its last, all ways in turn; then what
waiting for 50 jobs costs (slurm_waiting.py). --peer is a virtual environment with Snakemake and its Slurm executor
plugin; without it one is made, and removed again.
"""

import argparse
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import slurm_peers as peers
import slurm_waiting
import submitit

STAMPS = '''"""Writes down when each Python begins and ends: this is the first file that an interpreter runs."""
import atexit, json, os, sys, time
def stamp(kind):
    file = os.open(os.environ["MEDSCALE_STAMPS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, json.dumps([time.time(), kind, " ".join(sys.orig_argv)]).encode() + b"\\n")
    os.close(file)
if "MEDSCALE_STAMPS" in os.environ:
    stamp("begin")
    atexit.register(stamp, "end")
'''


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds since 1970.

    Attributes:
        ready: Snakemake names the rule as started; without Snakemake, the command begins.
        python: the job's first line of Python, whosever.
        own: the first line of the work itself.
        done: the last line of the work.
        known: the waiting side says that the job is done.
    """

    ready: float
    python: float
    own: float
    done: float
    known: float


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one measurement happens.

    Attributes:
        folder: a new one.
        peer: the Python that has Snakemake's Slurm plugin.
    """

    folder: Path
    peer: Path

    def stamps(self) -> list[tuple[float, str, str]]:
        """Returns (time, "begin" or "end", command line) of every Python, in order."""
        lines = (self.folder / "stamps.jsonl").read_text().splitlines()
        return [(when, kind, command) for when, kind, command in map(json.loads, lines)]

    def stamp(self, kind: str, text: str, *, after: float = 0) -> float:
        """Returns when the first Python whose command line has `text` in it began or ended."""
        found = (when for when, what, command in self.stamps() if what == kind and text in command and when > after)
        return next(found)


def bare(place: Place) -> Times:
    """Times sbatch --wait alone."""
    ready = time.time()
    subprocess.run(peers.sbatch(peers.work(sys.executable)), check=True, stdout=subprocess.DEVNULL)
    return _worked(place, ready, time.time(), first=peers.WORK)


def local_rule(place: Place) -> Times:
    """Times a Snakemake rule that calls sbatch --wait."""
    command = shlex.join(peers.sbatch(peers.work(sys.executable)))
    options = [*peers.workflow(place.folder, command), "--cores", "1"]
    return _worked(place, *_watched(sys.executable, options), first=peers.WORK)


def medscale(place: Place) -> Times:
    """Times the stage prepare of the real workflow."""
    run, results = peers.write_run(place.folder, "overhead"), place.folder / "results"
    options = peers.stage_options(place.folder, run, site="cluster-test", results=results)
    ready, known = _watched(sys.executable, options)
    journal = results / "overhead/prepare/journal.jsonl"
    moments = [json.loads(line)["time"] / 1000 for line in journal.read_text().splitlines()]
    first = place.stamp("begin", "slurm.requeue begin")
    return Times(ready=ready, python=first, own=moments[0], done=moments[-1], known=known)


def plugin(place: Place, *, init_s: int | None) -> Times:
    """Times a Snakemake rule through its executor plugin for Slurm."""
    options = [*peers.workflow(place.folder, peers.work(place.peer)), *peers.plugin_options(jobs=1, init_s=init_s)]
    return _worked(place, *_watched(place.peer, options), first="-m snakemake")


def submitit_alone(place: Place) -> Times:
    """Times submitit's own executor, which calls a function in the job and pickles what it returns."""
    executor = submitit.SlurmExecutor(place.folder)
    executor.update_parameters(partition="train", time=5, mem="1000M")
    ready = time.time()
    called = executor.submit(time.time).result()
    known = time.time()
    first = place.stamp("begin", "submitit.core._submit")
    return Times(ready=ready, python=first, own=called, done=called, known=known)


WAYS: dict[str, Callable[[Place], Times]] = {
    "`sbatch --wait`": bare,
    "submitit, `job.result()`": submitit_alone,
    "Snakemake, local rule, `sbatch --wait`": local_rule,
    "Snakemake, local rule, medscale": medscale,
    "Snakemake, Slurm plugin, init-seconds 1": lambda place: plugin(place, init_s=1),
    "Snakemake, Slurm plugin, as it comes": lambda place: plugin(place, init_s=None),
}


def _watched(python: str | Path, options: Sequence[str]) -> tuple[float, float]:
    """Runs Snakemake and returns when it named its rule as started and as finished.

    Raises:
        RuntimeError: it failed.
    """
    command, lines = peers.snakemake_command(python, options), []
    ready = known = 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            now = time.time()
            lines.append(line)
            ready = now if re.match(r"(local)?rule \w+:", line) else ready
            known = now if line.startswith("Finished jobid") else known
    if process.returncode:
        raise RuntimeError(f"Snakemake must end with 0, but ended with {process.returncode}:\n{''.join(lines)}")
    return ready, known


def _worked(place: Place, ready: float, known: float, *, first: str) -> Times:
    """Returns the times of a job that only did WORK; `first` is in the command line of its first Python."""
    own, done = place.stamp("begin", f"-c {peers.WORK}"), place.stamp("end", f"-c {peers.WORK}")
    return Times(ready=ready, python=place.stamp("begin", first, after=ready), own=own, done=done, known=known)


def main() -> None:
    """Measures and prints."""
    options = _options()
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}", flush=True)
    os.environ["PYTHONPATH"] = str(peers.ROOT)  # this checkout, wherever a command runs
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as in the Makefile: else every process compiles what it imports
    found: dict[str, Any] = {"machine": platform.platform(), "cpus": os.cpu_count(), "options": vars(options)}
    with tempfile.TemporaryDirectory(prefix="medscale-overhead-") as folder, peers.clusters(Path(folder)) as start:
        base = Path(folder)
        peer = options.peer.absolute() / "bin/python" if options.peer else peers.make_peer(base / "peer")
        if options.rounds:
            found["latency"] = latency(base, start, peer=peer, rounds=options.rounds)
        if options.jobs:
            times = {"settle_s": options.settle_s, "minutes": options.minutes}
            found["waiting"] = slurm_waiting.measure(base / "waiting", start, peer=peer, jobs=options.jobs, **times)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1, default=str) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="each way once a round, after one that is not counted")
    parser.add_argument(
        "--jobs", type=int, default=50, help="how many are waited for at the same time; 0: leave it out"
    )
    parser.add_argument("--settle-s", type=float, default=60, help="between the last job's submission and measuring")
    parser.add_argument("--minutes", type=float, default=3, help="of waiting that are measured")
    parser.add_argument("--peer", type=Path, help="virtual environment with Snakemake and its Slurm plugin")
    parser.add_argument("--out", type=Path, help="write every figure here, as JSON")
    return parser.parse_args()


def latency(base: Path, start: Callable[[], Any], *, peer: Path, rounds: int) -> list[dict[str, Any]]:
    """Measures every way once a round and prints the table; round 0 compiles what is imported and is not counted."""
    cluster, found = start(), []
    (base / "stamps").mkdir()
    (base / "stamps/sitecustomize.py").write_text(STAMPS)
    os.environ["PYTHONPATH"] = f"{base}/stamps:{peers.ROOT}"
    for number in range(rounds + 1):
        for name, way in WAYS.items():
            if number == 0 and name.endswith("as it comes"):
                continue  # its files are the same
            cluster.wait_idle()
            place = Place(folder=Path(tempfile.mkdtemp(prefix=f"round{number}-", dir=base)), peer=peer)
            os.environ["MEDSCALE_STAMPS"] = str(place.folder / "stamps.jsonl")
            load, times = os.getloadavg()[0], way(place)
            found.append({"way": name, "round": number, "load": load, **asdict(times), "stamps": place.stamps()})
            print(f"round {number}, load {load:.1f}, {name}: {times.known - times.ready:.1f} s", flush=True)
    os.environ["PYTHONPATH"] = str(peers.ROOT)
    del os.environ["MEDSCALE_STAMPS"]
    _print([one for one in found if one["round"]])
    return found


def _print(found: Sequence[dict[str, Any]]) -> None:
    loads = [one["load"] for one in found]
    print(f"\nload {min(loads):.1f} to {max(loads):.1f}; seconds: median (least to greatest)")
    print(
        "| | to the job's first Python | to the work's first line | from its last line to known | sum of the last two |"
    )
    print("|---|---|---|---|---|")
    for name in WAYS:
        mine = [one for one in found if one["way"] == name]
        before = [one["own"] - one["ready"] for one in mine]
        after = [one["known"] - one["done"] for one in mine]
        cells = [[one["python"] - one["ready"] for one in mine], before, after]
        cells.append([sum(both) for both in zip(before, after, strict=True)])
        print(" | ".join([f"| {name}", *(_spread(cell) for cell in cells)]) + " |", flush=True)


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()

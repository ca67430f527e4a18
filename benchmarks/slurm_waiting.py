"""What it costs to wait for many jobs that do not start: CPU time and memory here, and requests to Slurm's daemons."""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import slurm_peers as peers

_MARK = "MEDSCALE_BENCHMARK_WAITS"
_DAEMONS = {"slurmctld": ["slurmctld"], "accounting": ["slurmdbd", "mariadbd"]}
_STARTING_S = 900  # 50 Snakemakes take minutes to begin on two cores
_COUNTED = re.compile(r"^\s+(REQUEST_\w+|DBD_GET_JOBS\w*)\s+\(\s*\d+\)\s+count:(\d+)", re.MULTILINE)
_OWN = {"REQUEST_STATS_INFO", "REQUEST_STATS_RESET"}


Way = Callable[[Path], Sequence[list[str]]]
"""Returns the commands that wait, all of them at the same time; it is given a new folder."""


def ways(peer: Path, *, jobs: int) -> dict[str, Way]:
    """Returns all ways by their names; the first one's commands end at once, so that nobody waits."""
    command = peers.work(sys.executable)
    return {
        "nobody waits": (lambda _: [peers.sbatch(command, wait=False)] * jobs),
        "sbatch --wait": (lambda _: [peers.sbatch(command)] * jobs),
        "medscale, poll_s 10": (lambda folder: _stages(folder, jobs=jobs, poll_s=10)),
        "medscale, poll_s 1": (lambda folder: _stages(folder, jobs=jobs, poll_s=1)),
        "medscale, poll_s 10, each in its Snakemake": (lambda folder: _workflows(folder, jobs=jobs)),
        "Slurm plugin, one Snakemake": (lambda folder: [_plugin(folder, peer, jobs=jobs)]),
    }


def _stages(folder: Path, *, jobs: int, poll_s: float) -> list[list[str]]:
    site = str(peers.write_site(folder, poll_s=poll_s))
    runs = [peers.write_run(folder, f"wait{number}") for number in range(jobs)]
    return [peers.stage_command(run, site=site, results=folder / "results") for run in runs]


def _workflows(folder: Path, *, jobs: int) -> list[list[str]]:
    site, found = str(peers.write_site(folder, poll_s=10)), []
    for number in range(jobs):
        run, own = peers.write_run(folder, f"wait{number}"), folder / f"workflow{number}"
        own.mkdir()
        options = peers.stage_options(own, run, site=site, results=folder / "results")
        found.append(peers.snakemake_command(sys.executable, options))
    return found


def _plugin(folder: Path, peer: Path, *, jobs: int) -> list[str]:
    options = peers.workflow(folder, peers.work(peer), jobs=jobs)
    return peers.snakemake_command(peer, [*options, *peers.plugin_options(jobs=jobs)])


def measure(
    base: Path, start: Callable[[], Any], *, peer: Path, jobs: int, settle_s: float, minutes: float
) -> list[dict[str, Any]]:
    """Measures all ways in turn, each on a new cluster that has no free node, and prints the table.

    Args:
        base: a folder; each way gets one inside.
        start: gives a new cluster.
        peer: the Python that has Snakemake's Slurm plugin.
        jobs: number of jobs to wait for.
        settle_s: seconds between the last job's submission and the measurement.
        minutes: what is measured.
    """
    found = []
    print(f"\n{jobs} jobs wait {minutes:g} min long; a minute costs")
    print("| | CPU, who wait | CPU, slurmctld | CPU, slurmdbd and MariaDB | requests | to slurmdbd | MB | load |")
    print("|---|---|---|---|---|---|---|---|")
    for number, (name, way) in enumerate(ways(peer, jobs=jobs).items()):
        folder = base / f"way{number}"
        folder.mkdir(parents=True)
        cluster = start()
        _block(cluster)
        try:
            _begin(cluster, way(folder), folder=folder, jobs=jobs)
            time.sleep(settle_s)
            one = {"way": name, "jobs": jobs, "minutes": minutes, **_a_minute(cluster, folder, minutes=minutes)}
        finally:
            _end(folder)
        found.append(one)
        print(_row(one), flush=True)
    return found


def _block(cluster: Any) -> None:
    """Occupies every node."""
    cluster.run(
        "sbatch", "--nodes=4", "--exclusive", "--mem=0", "--time=600", "--output=/dev/null", "--wrap=sleep 36000"
    )
    _until(lambda: _count(cluster, "RUNNING") == 1, "a job holds all nodes")


def _begin(cluster: Any, commands: Sequence[list[str]], *, folder: Path, jobs: int) -> None:
    """Starts the commands and waits until all their jobs are in the queue."""
    environment, begun = {**os.environ, _MARK: str(folder)}, []
    with (folder / "log.txt").open("w") as log:
        for command in commands:
            begun.append(
                subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            )
            time.sleep(0.1)

    def all_wait() -> bool:
        if any(one.poll() for one in begun):
            raise RuntimeError(f"all must wait, but one failed:\n{(folder / 'log.txt').read_text()}")
        return _count(cluster, "PENDING") == jobs

    _until(all_wait, f"{jobs} jobs wait")


def _count(cluster: Any, state: str) -> int:
    return len(cluster.run("squeue", "--noheader", f"--states={state}").stdout.splitlines())


def _until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _STARTING_S
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"must be so within {_STARTING_S} s, but is not: {what}")
        time.sleep(2)


def _a_minute(cluster: Any, folder: Path, *, minutes: float) -> dict[str, Any]:
    """Returns what one minute costs, on average over `minutes`."""
    before, requests, began = _cpu_s(cluster, folder), _requests(cluster), time.monotonic()
    time.sleep(minutes * 60)
    after, later, took_min = _cpu_s(cluster, folder), _requests(cluster), (time.monotonic() - began) / 60
    waiting = _waiting(folder)
    return {
        "cpu_s": {name: (after[name] - before[name]) / took_min for name in before},
        "requests": {name: count / took_min for name, count in (later - requests).items()},
        "processes": len(waiting),
        "memory_mb": sum(process.memory_full_info().pss for process in waiting) / 1e6,
        "load": os.getloadavg(),
    }


def _cpu_s(cluster: Any, folder: Path) -> dict[str, float]:
    daemons = {name: [psutil.Process(cluster.pid(one)) for one in names] for name, names in _DAEMONS.items()}
    groups = {"waiting": _waiting(folder), **daemons}
    return {name: sum(sum(process.cpu_times()[:4]) for process in group) for name, group in groups.items()}


def _waiting(folder: Path) -> list[psutil.Process]:
    """Returns the processes that were started to wait, and what they started, on their own or not."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(_MARK) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _requests(cluster: Any) -> Counter[str]:
    """Returns how many requests of clients each daemon has had, by kind."""
    text = cluster.run("sdiag").stdout + cluster.run("sacctmgr", "show", "stats").stdout
    return Counter({name: int(count) for name, count in _COUNTED.findall(text) if name not in _OWN})


def _end(folder: Path) -> None:
    """Kills whoever waits; the jobs end with their cluster."""
    while waiting := _waiting(folder):
        for process in waiting:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(waiting, timeout=5)


def _row(one: Mapping[str, Any]) -> str:
    cpu, requests = one["cpu_s"], one["requests"]
    dbd = sum(count for name, count in requests.items() if name.startswith("DBD"))
    ctld = sum(requests.values()) - dbd
    figures = [f"{cpu['waiting']:.2f} s", f"{cpu['slurmctld']:.2f} s", f"{cpu['accounting']:.2f} s"]
    figures += [f"{ctld:.0f}", f"{dbd:.0f}", f"{one['memory_mb']:,.0f}", f"{one['load'][0]:.1f}"]
    return " | ".join([f"| {one['way']}", *figures]) + " |"

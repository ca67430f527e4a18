"""The fault matrix: a real Slurm cluster, real trainings, and everything that goes wrong with them, counted.

    .venv/bin/python benchmarks/faults.py --runs 5 --write docs/benchmarks/faults.md

Each trial trains the same small model on 2 nodes x 2 processes and does something terrible to it. It passes when the
losses are those of an undisturbed run to the last bit, every metric point is in MLflow exactly once, no job and no
process is left, and no step was trained twice with another result. --cases names some of the cases, --list lists them.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fault_trials import ROOT, SAVE, Bench, Trial, TrialError, kill_tree, made_bench

from jobs._run import stages
from slurm.events import read_events

STOPPED, FAILED = 85, 1


def killed_rank(bench: Bench) -> str:
    with bench.trial() as trial:
        command = trial.start()
        step = trial.somewhere()
        rank = random.choice(sorted(trial.ranks()))
        trial.ranks()[rank].kill()
        trial.done(command)
        return _verdict(trial, f"rank {rank} at step {step}")


def killed_slurmd(bench: Bench) -> str:
    with bench.trial() as trial:
        command = trial.start()
        step, index = trial.somewhere(), random.randint(0, 1)
        number = trial.node(index)
        bench.cluster.kill_slurmd(number)
        time.sleep(random.choice([3, 20]))  # shorter and longer than Slurm waits for a node
        bench.cluster.start_slurmd(number)
        trial.done(command)
        return _verdict(trial, f"slurmd of n{number} at step {step}")


def power_cut(bench: Bench) -> str:
    with bench.trial() as trial:
        command = trial.start()
        step, index = trial.somewhere(), random.randint(0, 1)
        number = trial.node(index)
        bench.cluster.power_cut(number)
        try:
            trial.done(command)
        finally:
            bench.cluster.start_node(number)
            bench.cluster.wait_idle(timeout=180)
        return _verdict(trial, f"n{number}, {'the batch host' if index == 0 else 'another node'}, at step {step}")


def time_limit(bench: Bench) -> str:
    with bench.trial("long", signal_lead_s=5) as trial:
        trial.done(trial.start())
        begun = [event for event in read_events(trial.attempt() or trial.stage) if event.event == "begin"]
        if len(begun) < 2:
            raise TrialError("the time limit must be reached, but was not")
        return _verdict(trial, f"{len(begun)} executions, from steps {[int(event.step) for event in begun]}")


def time_limit_chain(bench: Bench) -> str:
    with bench.trial("long", signal_lead_s=5, continuation="chain") as trial:
        trial.done(trial.start())
        begun = [event for event in read_events(trial.attempt() or trial.stage) if event.event == "begin"]
        if len({event.job_id for event in begun}) < 2:
            raise TrialError("the chain must have links, but has one")
        return _verdict(trial, f"jobs {[event.job_id for event in begun]}, from steps {[int(e.step) for e in begun]}")


def preempted(bench: Bench) -> str:
    with bench.trial() as trial:
        command = trial.start()
        step = trial.somewhere()
        urgent = ["-p", "urgent", "-J", "urgent", "-N4", "--exclusive", "-t", "1", "-o", "/dev/null", "--wrap=sleep 4"]
        bench.cluster.run("sbatch", *urgent)
        trial.done(command)
        return _verdict(trial, f"at step {step}")


def scancelled(bench: Bench) -> str:
    with bench.trial() as trial:
        command = trial.start()
        step = trial.somewhere()
        bench.cluster.run("scancel", trial.job_ids()[-1])
        trial.done(command, status=STOPPED)
        trial.done(trial.start(), status=STOPPED)  # held: nothing is submitted again
        _require("jobs release" in trial.said(), "the command must say how to release the stage")
        _require(len(list(trial.stage.glob("attempts/*"))) == 1, "nothing must be submitted while it is held")
        release = [bench.python, "-m", "jobs", "release", trial.kind, "--results", str(trial.results)]
        subprocess.run(release, cwd=ROOT, env=bench.env, check=True, capture_output=True)
        trial.done(trial.start())
        return _verdict(trial, f"at step {step}, refused until released")


def controller_restarted(bench: Bench) -> str:
    with bench.trial() as trial:
        command = trial.start()
        step = trial.somewhere()
        bench.cluster.kill_controller()
        time.sleep(random.uniform(2, 25))
        bench.cluster.start_controller()
        trial.done(command)
        bench.cluster.wait_idle(timeout=180)
        return _verdict(trial, f"at step {step}")


def accounting_down(bench: Bench) -> str:
    with bench.trial() as trial:
        command = trial.start()
        step = trial.somewhere()
        bench.cluster.kill_dbd()
        began = time.monotonic()
        try:
            random.choice(list(trial.ranks().values())).kill()  # so that there is something to decide without it
            trial.done(command)
            problems = _verdict(trial, f"and a rank killed, at step {step}")
            time.sleep(max(0.0, 60 - (time.monotonic() - began)))
        finally:
            bench.cluster.start_dbd()
        return problems


def tracking_down(bench: Bench) -> str:
    with bench.trial(mlflow_tracking_uri=f"http://{bench.cluster.address}:5055") as trial:
        server = _tracking_server(bench, trial)
        command = trial.start()
        step = trial.somewhere()
        kill_tree(server)
        time.sleep(random.uniform(2, 10))
        server = _tracking_server(bench, trial)
        try:
            trial.done(command)
            inside = [f"{bench.cluster.base}/bin/inside", bench.python, "-m", "jobs", "ship", "--site", str(trial.site)]
            subprocess.run(
                [*inside, "--results", str(trial.results)], cwd=ROOT, env=bench.env, check=True, capture_output=True
            )
        finally:
            kill_tree(server)
        trial.site = bench.site_file()
        found = [*trial.curve_problems(), *trial.point_problems(), *trial.left()]
        return _told(found, f"at step {step}")


def _tracking_server(bench: Bench, trial: Trial) -> "subprocess.Popen[str]":
    uri = f"sqlite:///{trial.results}/mlflow.db"
    serve = [bench.python, "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1"]
    serve += [
        "--artifacts-destination",
        str(trial.folder / "artifacts"),
        "--host",
        bench.cluster.address,
        "--port",
        "5055",
    ]
    serve += ["--allowed-hosts", "*"]
    server = trial.popen([f"{bench.cluster.base}/bin/inside", *serve])
    ask = ["curl", "-sf", "-o", "/dev/null", f"http://{bench.cluster.address}:5055/health"]
    trial.until(lambda: bench.cluster.run(*ask, check=False).returncode == 0, "the MLflow server", 90)
    return server


def disk_full(bench: Bench) -> str:
    """Fills the disk of the checkpoints; half of the time nobody makes room, and the job must stop with the reason."""
    freed = random.random() < 0.5
    small = bench.folder / "small"
    _require(small.is_mount(), "a file system of its own must be mounted, which needs root")
    shutil.rmtree(small / "checkpoints", ignore_errors=True)
    (small / "checkpoints").mkdir()
    with bench.trial() as trial:
        trial.stage.mkdir(parents=True, exist_ok=True)
        (trial.stage / "checkpoints").symlink_to(small / "checkpoints")
        command = trial.start()
        trial.until_step(SAVE + 5)
        subprocess.run(["bash", "-c", f"head -c 1G /dev/zero > {small}/fill"], check=False, stderr=subprocess.DEVNULL)
        crashed = lambda: any(event.outcome == "crashed" for event in read_events(trial.attempt() or trial.stage))  # noqa: E731
        trial.until(crashed, "a failed save")
        if freed:
            (small / "fill").unlink()
            trial.done(command)
            return _verdict(trial, "room was made")
        trial.done(command, status=FAILED)
        last = trial.said().strip().splitlines()[-1]
        _require("No space left" in last or "disk" in last.lower(), f"the reason must be told, but is: {last}")
        (small / "fill").unlink()
        trial.done(trial.start())
        return _verdict(trial, "no room: stopped with the reason; room made, started again")


def two_workflows(bench: Bench) -> str:
    with bench.trial() as trial:
        shutil.rmtree(trial.results)
        both = [trial.workflow(), trial.workflow()]
        for workflow in both:
            trial.done(workflow)
        attempts = {stage: len(list((trial.results / trial.kind / stage).glob("attempts/*"))) for stage in stages()}
        _require(set(attempts.values()) == {1}, f"every stage must run once, but ran {attempts}")
        return _verdict(trial, "every stage ran once")


def killed_snakemake(bench: Bench) -> str:
    """Kills Snakemake and all it started in every stage, once each."""
    with bench.trial() as trial:
        shutil.rmtree(trial.results)
        for stage in stages():
            workflow = trial.workflow()
            begun = lambda stage=stage: bool(read_events(trial.attempt(stage) or trial.stage))  # noqa: E731
            trial.until(begun, f"the job of {stage}", 300)
            time.sleep(random.uniform(0, 1.5))
            kill_tree(workflow)
        trial.done(trial.workflow())
        attempts = {stage: len(list((trial.results / trial.kind / stage).glob("attempts/*"))) for stage in stages()}
        _require(set(attempts.values()) == {1}, f"every stage must be submitted once, but was {attempts}")
        return _verdict(trial, f"{len(attempts)} kills, every stage submitted once")


def killed_waiter(bench: Bench) -> str:
    with bench.trial() as trial:
        command = trial.start()
        step = trial.somewhere()
        kill_tree(command)
        if random.random() < 0.5:  # nobody is there when the job ends
            trial.until(lambda: (trial.attempt() or trial.stage).joinpath("verdict.json").exists(), "the verdict")
        trial.done(trial.start())
        _require(len(list(trial.stage.glob("attempts/*"))) == 1, "the job must be found again, not submitted again")
        return _verdict(trial, f"at step {step}")


def _verdict(trial: Trial, told: str) -> str:
    return _told(trial.problems(), told)


def _told(problems: list[str], told: str) -> str:
    if problems:
        raise TrialError("; ".join(problems))
    return told


def _require(holds: bool, what: str) -> None:  # noqa: FBT001
    if not holds:
        raise TrialError(what)


CASES: dict[str, tuple[str, Callable[[Bench], str]]] = {
    "snakemake": ("kill -9 Snakemake and its children, in each of the 7 stages", killed_snakemake),
    "waiter": ("kill -9 the waiting command in mid-training (login node reboot)", killed_waiter),
    "rank": ("kill -9 a training rank", killed_rank),
    "slurmd": ("kill -9 a slurmd, for 3 or 20 s", killed_slurmd),
    "power": ("power cut of a node (batch host or another)", power_cut),
    "time": ("time limit reached; requeue", time_limit),
    "chain": ("time limit reached; chain, requeue forbidden", time_limit_chain),
    "preempt": ("preempted by a higher partition", preempted),
    "scancel": ("scancel by the operator, then release", scancelled),
    "controller": ("slurmctld killed, away 2 to 25 s", controller_restarted),
    "dbd": ("slurmdbd away for a minute, and a rank killed", accounting_down),
    "mlflow": ("MLflow server killed, away 2 to 10 s", tracking_down),
    "disk": ("shared disk full during a checkpoint", disk_full),
    "two": ("two Snakemakes started together", two_workflows),
}


def main() -> int:
    """Runs the cases and returns 1 when a trial failed."""
    options = _options()
    if options.list:
        print("\n".join(f"{name:12} {text}" for name, (text, _) in CASES.items()))
        return 0
    random.seed(options.seed)
    with made_bench(tasks=options.tasks) as bench:
        trials = _run(bench, options)
    table = _table(trials)
    print(table)
    if options.write:
        options.write.write_text(table)
    return 0 if all(trial["passed"] for trial in trials) else 1


def _run(bench: Bench, options: argparse.Namespace) -> list[dict[str, Any]]:
    cases = options.cases.split(",") if options.cases else list(CASES)
    long = any(case.startswith(("time", "chain")) for case in cases)
    bench.prepare(["short", "long"] if long else ["short"])
    trials = []
    for case in cases:
        name, _, count = case.partition(":")
        for number in range(int(count or options.runs)):
            trials.append(_try(name, number, bench))
            if options.out:
                options.out.write_text(json.dumps(trials, indent=1) + "\n")
    return trials


def _try(name: str, number: int, bench: Bench) -> dict[str, Any]:
    began = time.monotonic()
    try:
        told, passed = CASES[name][1](bench), True
    except (TrialError, subprocess.SubprocessError, OSError, KeyError, ValueError) as error:
        told, passed = f"{type(error).__name__}: {error}", False
    seconds = round(time.monotonic() - began)
    print(f"{'ok  ' if passed else 'FAIL'} {name} {number + 1}: {told} ({seconds} s)", flush=True)
    return {"case": name, "passed": passed, "told": told, "seconds": seconds}


def _table(trials: list[dict[str, Any]]) -> str:
    rows = []
    for name, (text, _) in CASES.items():
        mine = [trial for trial in trials if trial["case"] == name]
        if mine:
            seconds = sorted(trial["seconds"] for trial in mine)
            passed = sum(trial["passed"] for trial in mine)
            rows.append(f"| {text} | {len(mine)} | {passed} | {seconds[len(seconds) // 2]} |")
    return "| fault | trials | passed | median s |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="trials of each case (default: %(default)s)")
    parser.add_argument("--cases", default="", help="names with commas, as in rank,power:2; all unless given")
    parser.add_argument("--tasks", type=int, default=2, choices=(1, 2), help="ranks on each of two nodes (default: 2)")
    parser.add_argument("--seed", type=int, default=1, help="of where and when faults strike (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="a JSON file that grows by every trial")
    parser.add_argument("--write", type=Path, help="a Markdown file for the table")
    parser.add_argument("--list", action="store_true", help="list the cases")
    return parser.parse_args()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())

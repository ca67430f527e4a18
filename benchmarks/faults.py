"""The fault matrix: a real Slurm cluster, real trainings, and everything that goes wrong with them, counted.

    .venv/bin/python benchmarks/faults.py --runs 5 --write docs/benchmarks/faults.md

Each trial trains the same small model on 2 nodes x 2 processes and does something terrible to it. It passes when the
losses are those of an undisturbed run to the last bit, every metric point is in MLflow exactly once, no job and no
process is left, and no step was trained twice with another result. --cases names some of the cases, --list lists them.
"""

import argparse
import importlib.util
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from jobs._journal import History, read_history  # noqa: E402 - the checkout is what is measured
from jobs._run import stages  # noqa: E402
from slurm.events import read_events  # noqa: E402
from slurm.files import read_json  # noqa: E402

STEPS, LONG_STEPS, SAVE = 80, 300, 16
SAME = ("train/loss", "train/grad_norm", "train/lr", "valid/loss")
STOPPED, FAILED = 85, 1


def _cluster_module() -> Any:
    spec = importlib.util.spec_from_file_location("medscale_cluster", ROOT / "tests/slurm/cluster.py")
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    sys.modules["medscale_cluster"] = module
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


@dataclass
class Bench:
    """A running cluster, prepared shards and the curves of an undisturbed run of each kind."""

    cluster: Any
    folder: Path
    tasks: int
    python: str = sys.executable
    curves: dict[str, History] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, **self.cluster.env, "PYTHONUNBUFFERED": "1"}

    def run_file(self, kind: str) -> Path:
        return self.folder / f"{kind}.yaml"

    def site_file(self, **changes: Any) -> Path:
        """Writes the cluster's site file with changes and returns it."""
        site = yaml.safe_load((ROOT / "slurm/sites/cluster-test.yaml").read_text()) | changes
        path = self.folder / f"site-{abs(hash(str(sorted(changes.items()))))}.yaml"
        path.write_text(yaml.safe_dump(site))
        return path

    def prepare(self, kinds: list[str]) -> None:
        """Writes the run files, makes the shards once, and runs each kind of training undisturbed."""
        training = {"seq_length": 64, "micro_batch_size": 8, "global_batch_size": 8, "lr_warmup_iters": 5}
        every = {"save_interval": SAVE, "eval_interval": SAVE, "eval_samples": 4}
        size = {"nodes": 2, "tasks_per_node": self.tasks, "mem_gb": 6}
        training["tensor_model_parallel_size"] = self.tasks
        scoring = {"benchmarks": ["molecule_solubility"], "max_items": 8, "workers": 2}
        for kind, steps, minutes in (("short", STEPS, 20), ("long", LONG_STEPS, 1)):
            pretrain = {**training, **every, "train_iters": steps, "resources": {**size, "timeout_min": minutes}}
            evaluate = {**scoring, "resources": {"nodes": 2, "cpus_per_task": 1, "mem_gb": 4}}
            run = {"base": "demo", "pretrain": pretrain, "evaluate": evaluate}
            self.run_file(kind).write_text(yaml.safe_dump(run))
        for kind in kinds:
            trial = Trial(bench=self, kind=kind, folder=self.folder / f"clean-{kind}", site=self.site_file())
            for stage in ("prepare", "tokenize", "plan"):
                trial.done(trial.start(stage))
            tracking = shutil.ignore_patterns("mlflow*", "mlartifacts", "shipper.log", ".*")  # still being written
            shutil.copytree(trial.results, self.folder / f"shards-{kind}", ignore=tracking)
            site = self.site_file(signal_lead_s=5)
            patient = Trial(bench=self, kind=kind, folder=self.folder / f"clean-{kind}", site=site)
            if kind == "long":  # undisturbed: with time enough
                text = self.run_file("long").read_text()
                self.run_file("long").write_text(text.replace("timeout_min: 1\n", "timeout_min: 20\n"))
                patient.done(patient.start())
                self.run_file("long").write_text(text)
            else:
                patient.done(patient.start())
            self.curves[kind] = read_history(patient.stage / "journal.jsonl")

    @contextmanager
    def trial(self, kind: str = "short", **site: Any) -> Iterator["Trial"]:
        """Yields a training whose shards are there; what is left of it afterwards is ended."""
        self.cluster.wait_idle(timeout=180)  # what was done to the cluster before is over
        folder = Path(tempfile.mkdtemp(prefix="trial-", dir=self.folder))
        shutil.copytree(self.folder / f"shards-{kind}", folder / "results", copy_function=shutil.copy2)
        trial = Trial(bench=self, kind=kind, folder=folder, site=self.site_file(**site))
        try:
            yield trial
        finally:
            trial.clean()
            shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Trial:
    """One training that something is done to."""

    bench: Bench
    kind: str
    folder: Path
    site: Path

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def stage(self) -> Path:
        return self.results / self.kind / "pretrain"

    def attempt(self, stage: str = "pretrain") -> Path | None:
        return next(iter(sorted((self.results / self.kind / stage).glob("attempts/*"), reverse=True)), None)

    def command(self, stage: str, *extra: str) -> list[str]:
        where = ["--run", str(self.bench.run_file(self.kind)), "--site", str(self.site), "--results", str(self.results)]
        before = {"tokenize": ["prepare"], "plan": ["tokenize"], "pretrain": ["tokenize", "plan"]}.get(stage, [])
        after = (
            ["--after", *[str(self.results / self.kind / name / "record.json") for name in before]] if before else []
        )
        return [self.bench.python, "-m", "jobs", stage, *where, *after, *extra]

    def start(self, stage: str = "pretrain", *extra: str) -> "subprocess.Popen[str]":
        return self.popen(self.command(stage, *extra))

    def workflow(self) -> "subprocess.Popen[str]":
        config = [f"run={self.bench.run_file(self.kind)}", f"site={self.site}", f"results={self.results}"]
        profile = ["--workflow-profile", "workflows/profiles/slurm", "--latency-wait", "5"]
        return self.popen([self.bench.python, "-m", "snakemake", *profile, "--config", *config])

    def popen(self, command: list[str]) -> "subprocess.Popen[str]":
        with (self.folder / "commands.log").open("a") if self.folder.exists() else self._log() as log:
            return subprocess.Popen(
                command, cwd=ROOT, env=self.bench.env, stdout=log, stderr=log, text=True, start_new_session=True
            )

    def _log(self) -> Any:
        self.folder.mkdir(parents=True)
        return (self.folder / "commands.log").open("a")

    def done(self, process: "subprocess.Popen[str]", *, status: int = 0, within_s: float = 400) -> None:
        """Waits for a command and for its exit status."""
        found = process.wait(timeout=within_s)
        if found != status:
            raise TrialError(f"a command must end with {status}, but ended with {found}: {self.said()[-400:]}")

    def said(self) -> str:
        return (self.folder / "commands.log").read_text()

    def step(self) -> int:
        attempt = self.attempt()
        try:
            return int(read_json(attempt / "progress.json")["done"]) if attempt else 0
        except (OSError, ValueError):
            return 0

    def until_step(self, step: int, within_s: float = 120) -> None:
        self.until(lambda: self.step() >= step, f"step {step}", within_s)

    def until(self, condition: Callable[[], bool], what: str, within_s: float = 120) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline:
                raise TrialError(f"{what} must be reached within {within_s:g} s, but was not: {self.said()[-400:]}")
            time.sleep(0.05)

    def somewhere(self) -> int:
        """Waits until a step somewhere between the first and the last checkpoint, and returns it."""
        step = random.randint(5, STEPS - SAVE)
        self.until_step(step)
        return step

    def ranks(self) -> dict[int, psutil.Process]:
        """Returns the processes of the training by rank."""
        found = {}
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "slurm.rank" in words and any(word.startswith(str(self.stage)) for word in words):
                try:
                    found[int(process.environ()["SLURM_PROCID"])] = process
                except (psutil.Error, KeyError):
                    continue
        return found

    def job_ids(self) -> list[str]:
        attempt = self.attempt()
        return list(read_json(attempt / "job.json")["job_ids"]) if attempt else []

    def node(self, index: int) -> int:
        """Returns the number of the job's first (0) or second (1) node."""
        events = [event for event in read_events(self.attempt() or self.stage) if event.event == "begin"]
        return int(events[-1].nodes[index][1:])

    def problems(self) -> list[str]:
        """Returns what an undisturbed run would not show."""
        found = list(self.curve_problems())
        subprocess.run(
            [self.bench.python, "-m", "jobs", "ship", "--site", str(self.site), "--results", str(self.results)],
            cwd=ROOT,
            env=self.bench.env,
            check=False,
            capture_output=True,
            timeout=200,
        )
        return [*found, *self.point_problems(), *self.left()]

    def curve_problems(self) -> Iterator[str]:
        clean, history = self.bench.curves[self.kind], read_history(self.stage / "journal.jsonl")
        for name in [name for name in clean.curves if name.startswith(SAME)]:
            if dict(clean.curves[name]) != dict(history.curves.get(name, {})):
                yield f"{name} is not that of an undisturbed run"
            if history.changed.get(name):
                yield f"{name}: {history.changed[name]} steps were done again with another result"

    def point_problems(self) -> Iterator[str]:
        with sqlite3.connect(self.results / "mlflow.db") as database:
            rows = database.execute("select key, step, count(*), max(value) from metrics group by key, step, run_uuid")
            points: dict[str, dict[int, float]] = {}
            for key, step, count, value in rows:
                if count > 1 and key.startswith(("train/", "valid/")):
                    yield f"{key} has {count} points at step {step}"
                points.setdefault(key, {})[step] = value
        for name, curve in self.bench.curves[self.kind].curves.items():
            if name.startswith(SAME) and points.get(name) != dict(curve):
                yield f"MLflow has {len(points.get(name, {}))} points of {name}, and {len(curve)} were to come"

    def left(self) -> Iterator[str]:
        """Yields jobs and ranks that are still there."""
        deadline = time.monotonic() + 90  # a controller that was away takes its time to clear up
        while (jobs := self._live()) and time.monotonic() < deadline:
            time.sleep(0.5)
        if jobs:
            yield f"jobs are left in the queue: {jobs}"
        if self.ranks():
            yield f"{len(self.ranks())} ranks are left"

    def _live(self) -> list[str]:
        shown = self.bench.cluster.run("squeue", "--noheader", "--format=%i %j %T", check=False).stdout
        return [line for line in shown.splitlines() if f" {self.kind}." in line]

    def clean(self) -> None:
        """Ends every job and process of this trial."""
        self.bench.cluster.run("scancel", "--name", f"{self.kind}.pretrain", check=False)
        for process in psutil.process_iter(["cmdline"]):
            if str(self.folder) in " ".join(process.info["cmdline"] or []) and process.pid != os.getpid():
                with _gone_is_fine():
                    process.kill()


class TrialError(Exception):
    """A trial did not go as it must."""


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except psutil.Error:
        return


def kill_tree(process: "subprocess.Popen[str]") -> None:
    """Kills a command and all that it started on this side: a login node that reboots."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for each in family:
        with _gone_is_fine():
            each.kill()
    process.wait()


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
    with _bench(tasks=options.tasks) as bench:
        trials = _run(bench, options)
    table = _table(trials)
    print(table)
    if options.write:
        options.write.write_text(table)
    return 0 if all(trial["passed"] for trial in trials) else 1


@contextmanager
def _bench(*, tasks: int) -> Iterator[Bench]:
    """Makes a cluster, and where that is allowed a small file system that it and this machine see."""
    folder = Path(tempfile.mkdtemp(prefix="medscale-faults-"))
    small = folder / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(small)]  # five checkpoints
    mounted = os.getuid() == 0 and subprocess.run(mount, check=False).returncode == 0
    cluster = _cluster_module().Cluster.start(folder / "cluster")
    try:
        yield Bench(cluster=cluster, folder=folder, tasks=tasks)
    finally:
        cluster.stop()
        if mounted:
            subprocess.run(["umount", str(small)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


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

"""What a trial of faults.py works with: a cluster, prepared shards, one training, and what an undisturbed run shows."""

import importlib.util
import os
import random
import shutil
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
from slurm.events import read_events  # noqa: E402
from slurm.files import read_json  # noqa: E402

STEPS, LONG_STEPS, SAVE = 80, 300, 16
SAME = ("train/loss", "train/grad_norm", "train/lr", "valid/loss")


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


@contextmanager
def made_bench(*, tasks: int) -> Iterator[Bench]:
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

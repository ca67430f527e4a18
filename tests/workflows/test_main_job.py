"""The main job, small but whole: every stage under Snakemake, what a change reruns, and kills at two places."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from jobs._journal import read_history
from jobs._run import ROOT, stages
from slurm.files import read_json

pytestmark = pytest.mark.timeout(900)
STEPS, SAVE = 12, 4


class MainJob:
    """One small run and its results folder."""

    def __init__(self, folder: Path) -> None:
        self.results = folder / "results"
        self.path = folder / "tiny.yaml"
        self.config: dict[str, Any] = yaml.safe_load((ROOT / "workflows/runs/demo.yaml").read_text())
        for source in self.config["prepare"]["sources"]:
            source["max_records"] = 150
        training = {"train_iters": STEPS, "save_interval": SAVE, "eval_interval": SAVE, "global_batch_size": 8}
        self.config["pretrain"].update(training, lr_warmup_iters=2, micro_batch_size=2, seq_length=64)
        self.config["evaluate"] = {"benchmarks": ["molecule_solubility", "cell_type"], "max_items": 8, "workers": 1}
        self.write()

    def write(self) -> None:
        self.path.write_text(yaml.safe_dump(self.config))

    def command(self, *extra: str) -> list[str]:
        config = ["--config", f"run={self.path}", "site=laptop", f"results={self.results}"]
        profile = ["--workflow-profile", "workflows/profiles/local"]
        return [sys.executable, "-m", "snakemake", *profile, *extra, *config]

    def run(self, *extra: str) -> str:
        done = subprocess.run(self.command(*extra), capture_output=True, text=True, check=False, cwd=ROOT, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def planned(self) -> list[str]:
        """Returns the stages that a dry run would run."""
        text = self.run("--dry-run")
        return [name for name in stages() if re.search(rf"^rule {name}:$", text, re.MULTILINE)]

    def start(self) -> "subprocess.Popen[bytes]":
        """Starts the workflow over from pretrain and waits for the first checkpoint."""
        shutil.rmtree(self.stage("pretrain"))
        (self.stage("report") / "record.json").unlink()  # else the engine finds nothing to do
        manager = subprocess.Popen(self.command(), cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not list(self.stage("pretrain").glob(f"checkpoints/*/step_{SAVE:08d}")):
            assert time.monotonic() < deadline, f"no checkpoint of step {SAVE} appeared"
            time.sleep(0.05)
        return manager

    def stage(self, name: str) -> Path:
        return self.results / "tiny" / name

    def attempts(self) -> dict[str, int]:
        return {name: len(list(self.stage(name).glob("attempts/*"))) for name in stages()}

    def losses(self) -> dict[int, float]:
        return dict(read_history(self.stage("pretrain") / "journal.jsonl").curves["train/loss"])


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MainJob]:
    if not (ROOT / ".demo-data").is_dir():
        pytest.fail("the demo's data must be there, but .demo-data is not; run make demo-data")
    job = MainJob(tmp_path_factory.mktemp("main"))
    job.run()
    yield job
    _kill([process for process in _processes(job) if "jobs._shipper" in " ".join(process.cmdline())])


def _processes(job: MainJob) -> list[psutil.Process]:
    """Returns the processes that work in this job's results folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(job.results) in line and process.pid != os.getpid():
            found.append(process)
    return found


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=10)


def test_every_stage_leaves_a_record_that_stands_on_the_ones_before(job: MainJob) -> None:
    records = {name: read_json(job.stage(name) / "record.json") for name in stages()}
    for record in records.values():
        for parent, digest in record["parents"].items():
            assert records[parent]["digest"] == digest
    assert records["export"]["metrics"]["max_logit_difference"] < 1e-3
    assert (job.stage("report") / "report.html").is_file()
    assert job.attempts() == dict.fromkeys(stages(), 1)


def test_nothing_is_left_to_do_and_a_lost_record_costs_no_work(job: MainJob) -> None:
    assert job.planned() == []
    (job.stage("tokenize") / "record.json").unlink()
    job.run(str(job.stage("tokenize") / "record.json"))
    job.run()
    assert job.planned() == []
    assert job.attempts() == dict.fromkeys(stages(), 1)


def test_a_changed_section_reruns_its_stage_and_what_follows(job: MainJob) -> None:
    before = job.config
    for section, key, value, expected in (
        ("report", "title", "Another title", ["report"]),
        ("evaluate", "max_items", 4, ["evaluate", "report"]),
        ("pretrain", "lr", 1e-3, ["plan", "pretrain", "export", "evaluate", "report"]),
        ("pretrain", "resources", {"tasks_per_node": 4, "mem_gb": 8, "timeout_min": 59}, []),
    ):
        job.config = yaml.safe_load(yaml.safe_dump(before))
        job.config.setdefault(section, {})[key] = value
        job.write()
        assert job.planned() == expected, f"{section}.{key}"
    job.config = before
    job.write()
    assert job.planned() == []


def test_snakemake_writes_its_own_report(job: MainJob, tmp_path: Path) -> None:
    job.run("--report", str(tmp_path / "workflow.html"))
    text = (tmp_path / "workflow.html").read_text()
    assert all(f"tiny/{name}/record.json" in text for name in stages())


def test_a_bad_run_is_refused_before_anything_starts(job: MainJob, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(job.path.read_text().replace("train_iters", "train_iter"))
    command = [part.replace(str(job.path), str(bad)) for part in job.command("--dry-run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode != 0
    assert "pretrain.train_iter: no such setting; did you mean train_iters?" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_killed_ranks_go_on_to_the_same_losses_bit_for_bit(job: MainJob) -> None:
    expected = job.losses()
    manager = job.start()
    _kill([process for process in _processes(job) if "submitit.core._submit" in " ".join(process.cmdline())])
    assert manager.wait(timeout=120) != 0
    job.run()
    record = read_json(job.stage("pretrain") / "record.json")
    assert record["details"]["resumed_from"] >= SAVE
    assert job.losses() == expected


def test_a_killed_snakemake_repeats_no_finished_stage(job: MainJob) -> None:
    manager = job.start()
    manager.kill()
    manager.wait()
    job.run()
    after = job.attempts()
    assert [after[name] for name in ("prepare", "tokenize", "plan")] == [1, 1, 1]
    assert after["pretrain"] == 1, "the training that outlived Snakemake must be waited for, not started again"

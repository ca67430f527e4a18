"""A stage is done once: found again, not repeated after a kill, and told in one line when it fails."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs._run import ROOT
from slurm.files import read_json

MOLECULES = "smiles,name\nCCO,ethanol\nCC(=O)O,acetic acid\nc1ccccc1,benzene\nCCN,ethylamine\nCCC,propane\nC,methane\n"


def _run_file(folder: Path, **changes: Any) -> Path:
    """Writes a run whose prepare stage reads six molecules."""
    run = yaml.safe_load((ROOT / "workflows/runs/demo.yaml").read_text())
    if not (folder / "few.csv").exists():
        (folder / "few.csv").write_text(MOLECULES)
    source = {"name": "few", "modality": "molecule", "path": str(folder / "few.csv"), "license": "CC0-1.0"}
    run["prepare"] = {"sources": [source], "valid_fraction": 0.3, **changes}
    run["evaluate"] = {"benchmarks": ["molecule_solubility"]}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(run))
    return path


def _command(run: Path, results: Path) -> list[str]:
    return [sys.executable, "-m", "jobs", "prepare", "--run", str(run), "--results", str(results)]


def _prepare(run: Path, results: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(_command(run, results), capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)


def _attempts(results: Path) -> int:
    return len(list((results / "small" / "prepare" / "attempts").iterdir()))


def test_a_result_is_found_again_and_a_changed_one_is_made(tmp_path: Path) -> None:
    results = tmp_path / "results"
    record_path = results / "small" / "prepare" / "record.json"
    assert _prepare(_run_file(tmp_path), results).returncode == 0
    first = read_json(record_path)
    assert first["metrics"]["records"] == 6
    record_path.unlink()  # as the workflow engine does before it runs a rule again
    assert _prepare(_run_file(tmp_path), results).returncode == 0
    assert (read_json(record_path), _attempts(results)) == (first, 1)

    assert _prepare(_run_file(tmp_path, valid_fraction=0.5), results).returncode == 0
    assert _attempts(results) == 2
    assert read_json(record_path)["request"] != first["request"]

    with (tmp_path / "few.csv").open("a") as file:
        file.write("CCCC,butane\n")
    assert _prepare(_run_file(tmp_path, valid_fraction=0.5), results).returncode == 0
    assert _attempts(results) == 3
    assert read_json(record_path)["metrics"]["records"] == 7, "a changed source must be read again"

    (results / "small" / "prepare" / "rejects.jsonl").write_text("damaged")
    assert _prepare(_run_file(tmp_path, valid_fraction=0.5), results).returncode == 0
    assert _attempts(results) == 4, "a result whose files have changed must be made again"


def test_a_failure_is_one_line_that_names_reason_and_log(tmp_path: Path) -> None:
    run = _run_file(tmp_path)
    (tmp_path / "few.csv").write_text("smiles\nnot a molecule\n")
    done = _prepare(run, tmp_path / "results")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "prepare failed: ValueError: few" in done.stderr
    assert last.endswith("run the same command again to go on")
    log = tmp_path / "results" / "small" / "prepare" / "log.txt"
    assert str(log) in last
    assert "Traceback" in log.read_text()
    assert not (tmp_path / "results" / "small" / "prepare" / "record.json").exists()


def test_two_starts_at_once_do_the_work_once(tmp_path: Path) -> None:
    run, results = _run_file(tmp_path), tmp_path / "results"
    starts = [subprocess.Popen(_command(run, results), cwd=ROOT, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [start.wait(timeout=120) for start in starts] == [0, 0]
    assert _attempts(results) == 1


@pytest.mark.skipif(not (ROOT / ".demo-data").is_dir(), reason="needs the demo's data: run make demo-data")
def test_a_job_outlives_its_submitter_and_is_waited_for(tmp_path: Path) -> None:
    codes = {"name": "icd", "modality": "text", "license": "MIT", "max_records": 2000}
    codes["path"] = str(ROOT / ".demo-data/simple_icd_10_cm/data/icd10c-tabular-April-1-2026.xml")
    run, results = _run_file(tmp_path, sources=[codes]), tmp_path / "results"
    run.write_text(run.read_text().replace("molecule_solubility", "text_continuation"))
    first = subprocess.Popen(_command(run, results), cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    progress = results / "small" / "prepare" / "attempts" / "0001" / "progress.json"
    deadline = time.monotonic() + 60
    while not progress.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert _prepare(run, results).returncode == 0
    assert _attempts(results) == 1, "the orphan's work must be waited for, not done again"

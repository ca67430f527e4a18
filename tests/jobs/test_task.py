"""Inside a job: what is refused before a stage runs, and how a stage that takes too long ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jobs._lock import hold
from jobs._record import require_unchanged
from jobs._run import ROOT, load
from jobs._stage import STOPPED
from jobs._submit import _request
from jobs._task import OutOfTimeError, _asked_to_stop
from slurm.files import read_json, sha256_file, write_json

PARENT = {"prepare": {"digest": "0", "outputs": {}}}


def _attempt(folder: Path, stage: str = "tokenize", parents: dict[str, Any] = PARENT) -> Path:
    """Writes what a submitter would hand to a job."""
    run, site = load("demo", "laptop")
    attempt = folder / stage / "attempts" / "0001"
    request = _request(stage, run, site=site, site_name="laptop", folder=folder / stage, parents=parents)
    write_json(attempt / "request.json", request)
    return attempt


def _start(attempt: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "jobs._task", str(attempt)], cwd=ROOT, stderr=subprocess.DEVNULL)


def _failure(attempt: Path) -> str:
    failure = read_json(attempt / "failure.rank0.json")
    return f"{failure['type']}: {failure['message']}"


def test_a_second_job_of_a_stage_says_so_and_does_nothing(tmp_path: Path) -> None:
    attempt = _attempt(tmp_path / "run")
    with hold(tmp_path / "run" / "tokenize" / ".working", wait=False):
        assert _start(attempt).wait(timeout=60) == 1
    expected = "RuntimeError: must run once at a time, but another job is at it; wait for that one"
    assert _failure(attempt) == expected
    assert not (tmp_path / "run" / "tokenize" / "journal.jsonl").exists()


def test_a_parent_whose_files_have_changed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("as written")
    parent = {"outputs": {"a.jsonl": sha256_file(tmp_path / "a.jsonl")}}
    require_unchanged(parent, tmp_path)
    (tmp_path / "a.jsonl").write_text("altered")
    with pytest.raises(
        ValueError, match=r"a.jsonl: must be as its record says, but is missing or changed; remove .*json"
    ):
        require_unchanged(parent, tmp_path)


def test_a_stage_that_runs_out_of_time_names_the_setting(tmp_path: Path) -> None:
    request = read_json(_attempt(tmp_path / "run", stage="export", parents={}) / "request.json")
    short = {**request, "resources": {**request["resources"], "timeout_min": 2}}
    expected = r"must end within 2 min, but did not; raise export\.resources\.timeout_min"
    with pytest.raises(OutOfTimeError, match=expected) as caught:
        _asked_to_stop(short, time.time() - 119, signal.SIGUSR2)  # what a scheduler sends before the end
    assert caught.value.permanent


def test_a_stage_that_keeps_what_it_did_may_run_out_of_time(tmp_path: Path) -> None:
    attempt = _attempt(tmp_path / "run", stage="prepare", parents={})
    request = read_json(attempt / "request.json")
    write_json(attempt / "request.json", {**request, "resources": {**request["resources"], "timeout_min": 2}})
    assert _told_to_stop(attempt, signal.SIGUSR2) == STOPPED


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_stage_that_is_preempted_says_that_it_was_stopped(number: signal.Signals, tmp_path: Path) -> None:
    attempt = _attempt(tmp_path / "run", stage="prepare", parents={})
    assert _told_to_stop(attempt, number) == STOPPED
    assert (attempt / "stopped").exists()
    assert not (attempt / "failure.rank0.json").exists()


def _told_to_stop(attempt: Path, number: signal.Signals) -> int:
    """Starts a job, sends it a signal while it works, and returns its exit status."""
    job = _start(attempt)
    deadline = time.monotonic() + 60
    while not (attempt / "progress.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(job.pid, number)
    return job.wait(timeout=60)

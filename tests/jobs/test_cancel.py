"""Cancel and release: the mark is there before the job ends, both may be said twice, and nobody else is touched."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from jobs._cancel import cancel, release
from jobs._run import ROOT
from slurm.files import read_json
from slurm.ledger import Held, read
from slurm.queue import Job
from slurm.requeue import decide

Results = Any  # tests/jobs/conftest.py


@dataclass
class Slurm:
    """Answers as Slurm does, and remembers what it was asked to end and which stages were held by then."""

    jobs: list[Job] | None
    results: Path
    takes: bool = True
    ended: list[tuple[str, ...]] = field(default_factory=list)
    held: set[str] = field(default_factory=set)

    def ask(self) -> list[Job] | None:
        return self.jobs

    def end(self, *ids: str) -> bool:
        self.held = self.held or {path.parent.name for path in self.results.glob("*/*/held.json")}
        self.ended.append(ids)
        return self.takes


def do(results: Results, *jobs: Job, silent: bool = False, takes: bool = True, **more: Any) -> tuple[int, Slurm]:
    slurm = Slurm(jobs=None if silent else list(jobs), results=results.root, takes=takes)
    code = cancel(results.run.name, results=results.root, ask=slurm.ask, end=slurm.end, **more)
    return code, slurm


def held(results: Results, stage: str) -> Held | None:
    return read(results.stage(stage).folder, now=time.time()).held


def test_every_stage_with_a_live_job_is_held_before_any_job_ends(
    slurm: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.stage("pretrain").attempt(job="12")
    slurm.stage("evaluate").attempt(job="20")
    slurm.stage("export").attempt(job="19")
    decide(slurm.stage("plan").attempt(job="3"), state="finished", reason="")
    over = (slurm.job("export", id="19", state="COMPLETED"), slurm.job("plan", id="3", state="COMPLETING"))
    code, asked = do(slurm, slurm.job("pretrain"), slurm.job("evaluate", id="20", state="PENDING"), *over)
    assert (code, asked.ended) == (0, [("12",), ("20",)])
    assert asked.held == {"pretrain", "evaluate"}, "both marks come before the first job ends"
    mark = held(slurm, "pretrain")
    assert mark is not None
    assert (mark.by, mark.job_id) == ("operator", "12")
    assert "with python -m jobs cancel small" in mark.reason
    assert capsys.readouterr().out.splitlines() == [
        "pretrain: held; job 12 cancelled",
        "evaluate: held; job 20 cancelled",
    ]


def test_all_links_of_a_chain_and_a_job_known_only_by_its_token_are_ended(slurm: Results) -> None:
    slurm.stage("pretrain").attempt(job="12")
    jobs = [slurm.job("pretrain", id=name, state=state) for name, state in (("13", "PENDING"), ("12", "RUNNING"))]
    other = slurm.job("pretrain", id="99", comment="medscale attempt=pretrain-10 digest=1")
    assert do(slurm, *jobs, other)[1].ended == [("12", "13")]


def test_saying_it_twice_keeps_the_first_mark_and_ends_what_is_left(slurm: Results) -> None:
    slurm.stage("pretrain").attempt(job="12")
    do(slurm, slurm.job("pretrain"))
    first = held(slurm, "pretrain")
    assert do(slurm, slurm.job("pretrain", state="COMPLETING"))[1].ended == [("12",)]
    assert held(slurm, "pretrain") == first
    code, asked = do(slurm)
    assert (code, asked.ended) == (0, [])


def test_nothing_to_cancel_says_so(slurm: Results, capsys: pytest.CaptureFixture[str]) -> None:
    decide(slurm.stage("pretrain").attempt(), state="finished", reason="")
    assert do(slurm)[0] == 0
    assert capsys.readouterr().out == "small: nothing to cancel; no stage has a job\n"
    assert held(slurm, "pretrain") is None


def test_a_stage_that_is_named_is_held_without_a_job(slurm: Results, capsys: pytest.CaptureFixture[str]) -> None:
    (slurm.root / "small").mkdir(parents=True)
    code, asked = do(slurm, stages=["evaluate"])
    assert (code, asked.ended) == (0, [])
    assert held(slurm, "evaluate") is not None
    assert held(slurm, "pretrain") is None
    assert capsys.readouterr().out == "evaluate: held; no job to end\n"


def test_a_stage_that_does_not_exist_changes_nothing(slurm: Results, capsys: pytest.CaptureFixture[str]) -> None:
    (slurm.root / "small").mkdir(parents=True)
    assert do(slurm, stages=["pretran"])[0] == 2
    assert release(slurm.run.name, results=slurm.root, stages=["zzz"]) == 2
    assert not list((slurm.root / "small").iterdir())
    first, second = capsys.readouterr().err.splitlines()
    assert first == "--stage: must be a stage, but is 'pretran'; did you mean pretrain?"
    assert second.startswith("--stage: must be a stage, but is 'zzz'; choose one of prepare, ")


def test_a_run_that_was_never_started_is_a_wrong_name(slurm: Results, capsys: pytest.CaptureFixture[str]) -> None:
    assert do(slurm)[0] == 2
    assert release(slurm.run.name, results=slurm.root) == 2
    place = slurm.root / "small"
    line = f"run: must have been started, but {place} is not there; mend the name or --results"
    assert capsys.readouterr().err.splitlines() == [line, line]


def test_a_silent_controller_leaves_the_mark_and_says_that_the_job_may_go_on(
    slurm: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.stage("pretrain").attempt(job="12")
    decide(slurm.stage("export").attempt(job="11"), state="finished", reason="")
    code, asked = do(slurm, silent=True, takes=False)
    assert (code, asked.ended) == (1, [("12",)])
    assert held(slurm, "pretrain") is not None
    assert held(slurm, "export") is None, "it is over"
    again = "NOT cancelled: Slurm did not answer; run this command again\n"
    assert capsys.readouterr().out == f"pretrain: held; job 12 {again}"


def test_a_job_whose_id_is_not_known_may_go_on_while_the_controller_is_silent(
    slurm: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.stage("pretrain").attempt(job=None)
    assert do(slurm, silent=True, stages=["pretrain"])[0] == 1
    assert "no job is known, and Slurm did not answer; run this command again" in capsys.readouterr().out


def test_release_takes_the_marks_away_and_may_be_said_twice(slurm: Results, capsys: pytest.CaptureFixture[str]) -> None:
    (slurm.root / "small").mkdir(parents=True)
    do(slurm, stages=["evaluate", "export"])
    capsys.readouterr()
    assert release(slurm.run.name, results=slurm.root, stages=["export"]) == 0
    assert (held(slurm, "export"), held(slurm, "evaluate") is None) == (None, False)
    assert release(slurm.run.name, results=slurm.root, stages=["export"]) == 0
    assert release(slurm.run.name, results=slurm.root) == 0
    assert release(slurm.run.name, results=slurm.root) == 0
    assert capsys.readouterr().out.splitlines() == [
        "export: released; start the workflow again to go on",
        "export: was not held",
        "evaluate: released; start the workflow again to go on",
        "small: no stage is held",
    ]


# --- on a terminal ----------------------------------------------------------------------------------------------------


@contextmanager
def terminal(typed: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    mine, theirs = pty.openpty()
    os.write(mine, typed.encode())
    with os.fdopen(theirs, "r") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield
    os.close(mine)


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("YES\n", 0), ("n\n", 1), ("\n", 1)])
def test_a_person_is_asked(
    typed: str, code: int, slurm: Results, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.stage("pretrain").attempt(job="12")
    with terminal(typed, monkeypatch):
        found, asked = do(slurm, slurm.job("pretrain"))
    assert found == code
    assert bool(asked.ended) == (held(slurm, "pretrain") is not None) == (code == 0)
    out = capsys.readouterr().out
    assert out.startswith("cancel pretrain (job 12)? [y/N] ")
    assert ("nothing was cancelled" in out) == (code == 1)


def test_a_person_who_says_yes_beforehand_is_not_asked(
    slurm: Results, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.stage("pretrain").attempt(job="12")
    with terminal("", monkeypatch):
        assert do(slurm, slurm.job("pretrain"), yes=True)[0] == 0
    assert "[y/N]" not in capsys.readouterr().out


# --- without Slurm ----------------------------------------------------------------------------------------------------

SLEEPER = """
import signal, sys, time
from pathlib import Path
def stop(*_):
    Path(sys.argv[1], "saved").touch()
    sys.exit(85)
signal.signal(signal.SIGTERM, stop)
Path(sys.argv[1], "ready").touch()
time.sleep(60)
"""


def rank(folder: Path, attempt: Path) -> "subprocess.Popen[bytes]":
    """Starts a real rank of an attempt, as submitit does on one machine."""
    (folder / "sleeper.py").write_text(SLEEPER)
    names = ("SUBMITIT_LOCAL_GLOBALID", "SUBMITIT_LOCAL_LOCALID")
    environment = {**os.environ, **dict.fromkeys(names, "0"), "SUBMITIT_LOCAL_NTASKS": "1"}
    environment["PYTHONPATH"] = f"{ROOT}:{folder}"
    started = subprocess.Popen(
        [sys.executable, "-u", "-m", "slurm.rank", "sleeper", str(attempt)], env=environment, cwd=ROOT
    )
    deadline = time.monotonic() + 30
    while not (attempt / "ready").exists():
        assert started.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return started


def test_without_slurm_the_ranks_are_asked_to_end_and_nobody_else(
    laptop: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = laptop.stage("pretrain")
    first = rank(tmp_path, stage.attempt())
    decide(stage.folder / "attempts" / "0001", state="superseded", reason="")
    second = rank(tmp_path, stage.attempt())
    reader = subprocess.Popen(["tail", "-f", str(stage.folder / "attempts" / "0002" / "spec.json")], stdout=-3)
    try:
        assert do(laptop)[0] == 0
        assert second.wait(timeout=10) is not None
        assert (stage.folder / "attempts" / "0002" / "saved").exists()
        assert first.poll() is None, "only the newest attempt is the stage's"
        assert reader.poll() is None, "who only reads its files is left alone"
        assert held(laptop, "pretrain") is not None
        assert capsys.readouterr().out == "pretrain: held; its 1 processes ended\n"
        assert do(laptop)[0] == 0
    finally:
        for process in (first, second, reader):
            process.send_signal(signal.SIGKILL)
            process.wait()


def test_a_held_mark_is_what_the_batch_script_looks_for(slurm: Results) -> None:
    path = slurm.stage("pretrain").attempt(job="12")
    do(slurm, slurm.job("pretrain"))
    assert Path(read_json(path / "spec.json")["held"]).is_file()
    assert json.loads((slurm.stage("pretrain").folder / "held.json").read_text()).keys() == {
        "by",
        "time",
        "job_id",
        "reason",
    }

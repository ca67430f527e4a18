"""The ledger tells what jobs did and took from the files that they left, whatever was killed or torn."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slurm import ledger
from slurm.events import Event, add
from slurm.files import write_json
from slurm.ledger import Execution
from slurm.requeue import decide, hold, remember

HOUR = 3600.0
START = 1_800_000_000.0


def attempt(folder: Path, *, number: int = 1, request: str = "same work", minutes: int = 600) -> Path:
    """Makes the folder of an attempt at Slurm as a submission does."""
    path = folder / "attempts" / f"{number:04d}"
    path.mkdir(parents=True)
    write_json(path / "request.json", {"request": request, "resources": {"nodes": 2}})
    write_json(path / "spec.json", {"executor": "slurm", "token": f"token{number}", "timeout_min": minutes})
    return path


def begin(path: Path, *, at: float, job: str = "12", restart: int = 0, step: float = 0, gpus: int = 16) -> None:
    remember(path, job)
    nodes = ["n1", "n2"]
    event = Event(event="begin", job_id=job, restart=restart, step=step, nodes=nodes, gpus=gpus, tasks=16)
    add(path, event.told(time=START + at))


def end(path: Path, *, at: float, job: str = "12", restart: int = 0, step: float = 0, **told: Any) -> None:
    add(path, Event(event="end", job_id=job, restart=restart, step=step, **told).told(time=START + at))


def progress(path: Path, *, done: float, at: float) -> None:
    write_json(path / "progress.json", {"done": done, "total": 420, "note": "loss 2.3"})
    os.utime(path / "progress.json", (START + at, START + at))


def read(folder: Path, *, now: float = 10 * HOUR, **more: Any) -> list[Execution]:
    return list(ledger.read(folder, now=START + now, **more).executions)


def test_a_job_that_was_stopped_and_requeued_is_two_executions(tmp_path: Path) -> None:
    path = attempt(tmp_path)
    begin(path, at=0)
    end(path, at=HOUR, step=188, outcome="stopped", reason="it was asked to stop", next="requeue", status=85)
    begin(path, at=2 * HOUR, restart=1, step=188)
    end(path, at=4 * HOUR, restart=1, step=420, outcome="finished", status=0)
    decide(path, state="finished", reason="")
    first, second = found = read(tmp_path)
    assert (first.outcome, first.next, first.last_step, first.duration_s) == ("stopped", "requeue", 188, HOUR)
    assert (second.restart, second.first_step, second.nodes) == (1, 188, ("n1", "n2"))
    assert ledger.gpu_hours(found) == pytest.approx(16 * 3)
    assert ledger.task_hours(found) == pytest.approx(16 * 3)
    assert ledger.restarts(found) == 1
    assert ledger.executions(tmp_path, now=START) == found


def test_a_power_cut_ends_at_the_last_sign_of_life_before_the_next_begin(tmp_path: Path) -> None:
    path = attempt(tmp_path)
    begin(path, at=0)
    begin(path, at=3 * HOUR, restart=1, step=70)
    progress(path, done=90, at=3.5 * HOUR)
    first, second = read(tmp_path)
    assert (first.outcome, first.end, first.last_step) == ("died", None, 70)
    assert first.duration_s == 3 * HOUR, "nothing else is known than that the next one had begun"
    assert (second.duration_s, second.last_step) == (0.5 * HOUR, 90)
    seen = [START + hours * HOUR for hours in (0.2, 1.0, 3.1, 3.4)]
    assert read(tmp_path, seen=seen)[0].duration_s == HOUR, "the journal was written until then"


def test_a_death_is_never_later_than_the_time_limit(tmp_path: Path) -> None:
    path = attempt(tmp_path, minutes=60)
    begin(path, at=0)
    begin(path, at=9 * HOUR, restart=1)
    assert read(tmp_path)[0].duration_s == HOUR


def test_a_running_job_is_alive_until_now_and_only_in_its_newest_execution(tmp_path: Path) -> None:
    path = attempt(tmp_path)
    begin(path, at=0)
    begin(path, at=HOUR, restart=1)
    progress(path, done=5, at=1.2 * HOUR)
    first, second = read(tmp_path, running={"12"}, now=3 * HOUR)
    assert (first.outcome, second.outcome) == ("died", "running")
    assert (first.duration_s, second.duration_s) == (HOUR, 2 * HOUR)
    assert [execution.outcome for execution in read(tmp_path)] == ["died", "died"]


def test_a_chain_is_one_attempt_of_several_jobs(tmp_path: Path) -> None:
    path = attempt(tmp_path)
    begin(path, at=0, job="12")
    remember(path, "13")
    end(path, at=HOUR, job="12", step=100, outcome="stopped", next="chain", status=85)
    begin(path, at=1.5 * HOUR, job="13", step=100)
    found = read(tmp_path, running={"13"}, now=2 * HOUR)
    assert [execution.job_id for execution in found] == ["12", "13"]
    assert ledger.gpu_hours(found) == pytest.approx(16 * 1.5)
    latest = ledger.latest(tmp_path)
    assert latest is not None
    assert (latest.job_ids, latest.verdict, latest.token) == (("12", "13"), None, "token1")


def test_the_newest_attempt_comes_with_its_verdict_and_progress(tmp_path: Path) -> None:
    attempt(tmp_path)
    path = attempt(tmp_path, number=2)
    progress(path, done=188, at=5)
    decide(path, state="failed", reason="a process on n2 ended\nwithout a word")
    latest = ledger.latest(tmp_path)
    assert latest is not None
    assert latest.verdict is not None
    assert latest.progress is not None
    assert (latest.path, latest.verdict.state) == (path, "failed")
    assert latest.verdict.reason == "a process on n2 ended without a word", "one line, whatever was written"
    assert (latest.progress.done, latest.progress.total, latest.progress.time) == (188, 420, START + 5)


def test_other_settings_are_other_work_but_cost_the_same(tmp_path: Path) -> None:
    for number, request in enumerate(("old", "new", "new"), start=1):
        path = attempt(tmp_path, number=number, request=request)
        begin(path, at=number * HOUR, job=str(number))
        end(path, at=(number + 0.5) * HOUR, job=str(number), outcome="crashed", status=1)
    book = ledger.read(tmp_path, now=START)
    assert [execution.job_id for execution in book.current] == ["2", "3"]
    assert ledger.restarts(book.current) == 1
    assert ledger.gpu_hours(book.executions) == pytest.approx(16 * 1.5)


def test_without_gpus_the_hours_of_processes_are_told(tmp_path: Path) -> None:
    path = attempt(tmp_path)
    begin(path, at=0, gpus=0)
    end(path, at=HOUR, outcome="finished", status=0)
    found = read(tmp_path)
    assert (ledger.gpu_hours(found), ledger.task_hours(found)) == (0, 16)
    assert ledger.allocated_s(found) == HOUR


def test_an_attempt_without_slurm_is_one_execution(tmp_path: Path) -> None:
    path = tmp_path / "attempts" / "0001"
    write_json(path / "request.json", {"request": "r", "resources": {"nodes": 1, "tasks_per_node": 4}})
    os.utime(path / "request.json", (START, START))
    progress(path, done=7, at=HOUR)
    (running,) = read(tmp_path, running={"local-0001"}, now=2 * HOUR)
    assert (running.outcome, running.tasks, running.duration_s) == ("running", 4, 2 * HOUR)
    (gone,) = read(tmp_path)
    assert (gone.outcome, gone.duration_s, gone.last_step) == ("died", HOUR, 7)
    write_json(path / "verdict.json", {"state": "failed", "reason": "x", "time": START + 3 * HOUR, "tail": []})
    (failed,) = read(tmp_path)
    assert (failed.outcome, failed.duration_s) == ("crashed", 3 * HOUR)


def test_a_cancelled_stage_is_held_even_by_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    hold({"name": "demo.pretrain", "held": tmp_path / "held.json"}, by="operator", job_id="12")
    held = ledger.read(tmp_path, now=START).held
    assert held is not None
    assert (held.by, held.job_id, held.reason) == (
        "operator",
        "12",
        "demo.pretrain: its job 12 was cancelled by operator",
    )
    (tmp_path / "held.json").write_text('{"by": "oper')
    book = ledger.read(tmp_path, now=START)
    assert book.held is not None
    assert len(book.damaged) == 1


def test_what_is_torn_is_left_out_and_counted(tmp_path: Path) -> None:
    path = attempt(tmp_path)
    begin(path, at=0)
    with (path / "events.jsonl").open("a") as file:
        file.write('{"event": "end", "time": 18000')  # a power cut; the next begin is appended to it
    begin(path, at=HOUR, restart=1)
    begin(path, at=2 * HOUR, restart=2)
    with (path / "events.jsonl").open("a") as file:
        file.write('{"event": "begin", "job_id": "12", "restart": 3, "step": 1, "time": "noon"}\n[1]\n{"event": "be')
    book = ledger.read(tmp_path, now=START + 3 * HOUR)
    assert [execution.restart for execution in book.executions] == [0, 2]
    assert len(book.damaged) == 4
    assert all(str(path / "events.jsonl") in line for line in book.damaged)


def test_an_end_without_its_begin_is_counted(tmp_path: Path) -> None:
    path = attempt(tmp_path)
    end(path, at=HOUR, outcome="crashed")
    book = ledger.read(tmp_path, now=START)
    assert book.executions == ()
    assert book.damaged == (f"{path / 'events.jsonl'}: the end of job 12 without its begin",)


def test_files_that_are_no_files_are_counted(tmp_path: Path) -> None:
    path = attempt(tmp_path)
    begin(path, at=0)
    for name in ("verdict.json", "progress.json", "spec.json", "job.json", "events.jsonl"):
        (path / name).unlink(missing_ok=True)
        (path / name).mkdir()
    book = ledger.read(tmp_path, now=START)
    assert len(book.damaged) == 5
    assert book.executions == ()


def test_where_nothing_is_there_is_nothing(tmp_path: Path) -> None:
    book = ledger.read(tmp_path / "never", now=START)
    assert (book.attempts, book.executions, book.held, book.damaged) == ((), (), None, ())
    assert ledger.latest(tmp_path / "never") is None
    assert (ledger.restarts([]), ledger.gpu_hours([])) == (0, 0)


NAMES = ("events.jsonl", "job.json", "spec.json", "request.json", "verdict.json", "progress.json")
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = ("event", "job_id", "restart", "step", "time", "nodes", "gpus", "tasks", "job_ids", "done", "tail", "resources")
RECORDS = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(["begin", "end"]) | JSON, max_size=12)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(NAMES), content=st.binary(max_size=60) | st.lists(RECORDS, max_size=3))
def test_no_content_of_any_file_raises(name: str, content: bytes | list[Any], tmp_path: Path) -> None:
    import json

    path = tmp_path / "attempts" / "0001"
    if not path.exists():
        begin(attempt(tmp_path), at=0)
    before = (path / name).read_bytes() if (path / name).exists() else None
    lines = content if isinstance(content, bytes) else "\n".join(json.dumps(line) for line in content).encode()
    (path / name).write_bytes(lines)
    book = ledger.read(tmp_path, now=START + HOUR, running={"12", "local-0001"}, seen=[START + 1.0])
    assert ledger.gpu_hours(book.executions) >= 0
    assert ledger.restarts(book.current) >= 0
    (path / name).write_bytes(before) if before is not None else (path / name).unlink()


def test_the_ledger_imports_nothing_heavy() -> None:
    heavy = ("torch", "ray", "mlflow", "submitit", "pydantic", "jobs")
    code = f"import sys, slurm.ledger; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

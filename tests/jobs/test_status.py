"""Status: what an operator is told of a run, from files and from Slurm, whatever is dead."""

import json
import math
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from jobs._forecast import Span, against, duration, following, remaining
from jobs._journal import read_history
from jobs._look import RunView, StageView, last_site, look
from jobs._pace import NOTE, SECONDS, advance, pace
from jobs._run import ROOT
from jobs._status import plain, status
from slurm.files import read_json, write_json
from slurm.queue import Ending, Job
from slurm.requeue import decide, hold

Results = Any  # tests/jobs/conftest.py


def see(results: Results, *jobs: Job, silent: bool = False, ending: Ending | None = None, **more: Any) -> RunView:
    return look(
        more.pop("run", results.run),
        more.pop("site", results.site),
        site_name="cluster-test",
        results=results.root,
        answer=None if silent else jobs,
        ending=lambda _: ending,
        **more,
    )


def one(view: RunView, name: str = "pretrain") -> StageView:
    return next(stage for stage in view.stages if stage.stage == name)


def told(view: RunView, name: str = "pretrain") -> tuple[str, str]:
    return one(view, name).state, one(view, name).reason


# --- states -----------------------------------------------------------------------------------------------------------


def test_before_anything_was_started(slurm: Results) -> None:
    view = see(slurm)
    assert {stage.state for stage in view.stages} == {"not started"}
    assert (view.gpu_hours, view.log) == (0, ())


def test_a_job_that_runs_and_the_stages_that_wait_for_it(slurm: Results) -> None:
    stage = slurm.stage("pretrain")
    path = stage.attempt()
    stage.begin(path, ago=100)
    stage.progress(path, done=188)
    view = see(slurm, slurm.job("pretrain"))
    assert told(view) == ("running", "")
    shown = one(view)
    assert (shown.job_ids, shown.nodes, shown.done, shown.total) == (("12",), "n[1-2]", 188, 420)
    assert [told(view, name)[0] for name in ("plan", "export", "evaluate")] == ["not started", "waiting", "waiting"]


@pytest.mark.parametrize(
    ("state", "reason", "begun", "expected"),
    [
        ("PENDING", "Resources", False, ("pending", "Resources")),
        ("PENDING", "BeginTime", True, ("requeued", "BeginTime")),
        ("REQUEUED", "None", False, ("requeued", "None")),
        ("COMPLETING", "None", True, ("running", "completing")),
        ("SUSPENDED", "None", True, ("running", "suspended")),
    ],
)
def test_a_live_job_is_told_in_one_word(
    slurm: Results, state: str, reason: str, begun: bool, expected: tuple[str, str]
) -> None:
    stage = slurm.stage("pretrain")
    path = stage.attempt()
    if begun:
        stage.begin(path, ago=100)
        stage.end(path, ago=50, outcome="stopped", next="requeue", status=85)
    assert told(see(slurm, slurm.job("pretrain", state=state, reason=reason))) == expected


def test_a_job_is_known_by_its_token_before_its_id_is_written(slurm: Results) -> None:
    slurm.stage("pretrain").attempt(job=None)
    assert told(see(slurm, slurm.job("pretrain", id="77"))) == ("running", "")
    assert told(see(slurm, slurm.job("pretrain", id="77", comment="attempt=pretrain-12"))) == (
        "pending",
        "being submitted",
    )


def test_in_a_chain_the_link_that_runs_is_shown(slurm: Results) -> None:
    slurm.stage("pretrain").attempt()
    waiting = slurm.job("pretrain", state="PENDING", id="13", reason="Dependency")
    shown = one(see(slurm, waiting, slurm.job("pretrain")))
    assert (shown.state, shown.job_ids) == ("running", ("12", "13"))


def test_a_result_is_done_although_nobody_waited_for_it(slurm: Results) -> None:
    stage = slurm.stage("pretrain")
    path = stage.attempt()
    stage.result()
    decide(path, state="finished", reason="")
    assert told(see(slurm)) == ("done", "")
    assert told(see(slurm, slurm.job("pretrain", state="COMPLETING"))) == ("done", "")


def test_a_record_is_older_or_newer_than_the_newest_attempt(slurm: Results) -> None:
    stage = slurm.stage("pretrain")
    record = stage.folder / "record.json"
    stage.folder.mkdir(parents=True)
    record.write_text("{}")
    assert told(see(slurm)) == ("done", "")
    decide(stage.attempt(), state="failed", reason="ValueError: no")
    os.utime(record, (time.time() - 100, time.time() - 100))
    assert told(see(slurm)) == ("failed", "ValueError: no")
    record.touch()
    assert told(see(slurm)) == ("done", "")


def test_a_held_stage_says_who_and_that_its_job_still_ends(slurm: Results) -> None:
    stage = slurm.stage("pretrain")
    stage.attempt()
    hold({"name": "small.pretrain", "held": stage.folder / "held.json"}, by="scancel by uid 0", job_id="12")
    assert told(see(slurm)) == ("held", "small.pretrain: its job 12 was cancelled by scancel by uid 0")
    assert told(see(slurm, slurm.job("pretrain", state="COMPLETING"))) == ("held", "job 12 is still completing")


@pytest.mark.parametrize("verdict", ["cancelled", "superseded"])
def test_what_may_start_again_waits_for_that(slurm: Results, verdict: str) -> None:
    decide(slurm.stage("pretrain").attempt(), state=verdict, reason="it was cancelled")
    assert told(see(slurm)) == ("waiting", "it was cancelled; the same command goes on")


def test_a_job_that_is_gone_is_lost_with_what_slurm_says(slurm: Results) -> None:
    slurm.stage("pretrain").attempt()
    how = "its job 12 ended as NODE_FAIL, without a word; the same command goes on"
    assert told(see(slurm, ending=Ending(state="NODE_FAIL"))) == ("lost", how)
    assert told(see(slurm, slurm.job("pretrain", state="NODE_FAIL"))) == ("lost", how)
    assert told(see(slurm)) == ("lost", "its job 12 is in the queue no more, without a word; the same command goes on")


def test_an_attempt_that_never_came_into_the_queue_is_lost_after_a_while(slurm: Results) -> None:
    path = slurm.stage("pretrain").attempt(job=None)
    assert told(see(slurm)) == ("pending", "being submitted")
    os.utime(path / "request.json", (time.time() - 100, time.time() - 100))
    assert told(see(slurm)) == ("lost", "it never came into the queue; the same command goes on")


# --- a controller that does not answer --------------------------------------------------------------------------------


def test_a_silent_controller_leaves_what_the_files_say(slurm: Results) -> None:
    stage = slurm.stage("pretrain")
    path = stage.attempt()
    view = see(slurm, silent=True)
    assert told(view)[0] == "pending"
    assert "Slurm: the controller does not answer; this is what the files say" in plain(view)
    stage.begin(path, ago=100)
    stage.progress(path, done=20)
    os.utime(path / "progress.json", (time.time() - 30, time.time() - 30))
    os.utime(path / "request.json", (time.time() - 120, time.time() - 120))
    assert told(see(slurm, silent=True)) == ("running", "by its files; last heard of 30 s ago")
    stage.end(path, ago=1, outcome="crashed", next="requeue", status=1)
    assert told(see(slurm, silent=True))[0] == "requeued"
    stage.begin(path, ago=1, restart=1)
    stage.end(path, ago=0, restart=1, outcome="crashed", status=1)
    assert told(see(slurm, silent=True))[0] == "lost"
    decide(path, state="failed", reason="failed 3 times")
    assert told(see(slurm, silent=True)) == ("failed", "failed 3 times")


def test_what_is_held_or_done_is_so_without_the_controller(slurm: Results) -> None:
    stage = slurm.stage("pretrain")
    stage.attempt()
    hold({"name": "n", "held": stage.folder / "held.json"}, by="operator", job_id="12")
    assert told(see(slurm, silent=True))[0] == "held"
    stage.result()
    assert told(see(slurm, silent=True))[0] == "done"


# --- without Slurm ----------------------------------------------------------------------------------------------------


def test_without_slurm_the_processes_of_this_machine_are_looked_for(laptop: Results) -> None:
    stage = laptop.stage("prepare")
    path = stage.attempt()
    lost = ("lost", "its processes are not on this machine any more; the same command goes on")
    assert told(see(laptop), "prepare") == lost
    code = "import time; time.sleep(60)"
    rank = subprocess.Popen([sys.executable, "-c", code, "slurm.rank", "jobs._task", str(path)])
    reader = subprocess.Popen([sys.executable, "-c", code, str(path)])
    assert told(see(laptop), "prepare") == ("running", "")
    rank.kill()
    rank.wait()
    assert told(see(laptop), "prepare") == lost, "who only reads its files is no rank"
    reader.kill()
    reader.wait()
    (path / "stopped").touch()
    assert told(see(laptop), "prepare")[0] == "waiting"
    decide(path, state="failed", reason="ValueError: few")
    assert told(see(laptop), "prepare") == ("failed", "ValueError: few")


def test_slurm_is_asked_only_while_it_has_something_to_say(
    laptop: Results, slurm: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def ask() -> None:
        asked.append(1)

    laptop.stage("prepare").attempt()
    decide(slurm.stage("tokenize").attempt(), state="finished", reason="")
    arguments: dict[str, Any] = {"site_name": "laptop", "results": laptop.root, "ask": ask}
    assert status(laptop.run, laptop.site, **arguments) == 0
    assert asked == []
    slurm.stage("pretrain").attempt()
    assert status(laptop.run, laptop.site, **arguments) == 0
    assert asked == [1], "wherever the operator says that the run is: its files know better"
    assert "the controller does not answer" in capsys.readouterr().out


# --- goodput, ledger, pace --------------------------------------------------------------------------------------------


def test_goodput_counts_each_step_once_over_all_allocated_seconds(slurm: Results) -> None:
    stage = slurm.stage("pretrain")
    path = stage.attempt()
    stage.begin(path, ago=1000)
    stage.steps(1, 100, ago=700, each_s=2.0, wall_s=2.0)  # then the node dies
    stage.begin(path, ago=300, restart=1, step=100)
    stage.steps(81, 130, ago=100, each_s=2.0, wall_s=2.0)
    stage.progress(path, done=130)
    shown = one(see(slurm, slurm.job("pretrain")))
    assert shown.goodput == pytest.approx(130 * 2.0 / (300 + 300), rel=0.01), "until its last step, and until now"
    assert (shown.restarts, shown.lost_steps, shown.done) == (1, 20, 130)
    assert shown.gpu_hours == pytest.approx(8 * 600 / 3600, rel=0.01)
    assert shown.loss == pytest.approx(5 / 130)
    assert shown.tokens_per_s == 12345.6


def test_steps_that_are_gone_back_over_are_lost_at_once(slurm: Results) -> None:
    stage = slurm.stage("pretrain")
    stage.steps(1, 100, ago=50, each_s=2.0, wall_s=2.0)
    stage.steps(81, 82, ago=10, each_s=2.0, wall_s=2.0)
    found = pace(stage.folder)
    assert (list(found.seconds), found.lost) == (list(range(1, 83)), 20)


def test_pace_is_what_the_journal_tells(slurm: Results) -> None:
    stage = slurm.stage("pretrain")
    stage.steps(1, 100, ago=50, each_s=2.0, wall_s=2.0)
    stage.steps(81, 120, ago=10, each_s=3.0, wall_s=2.0)
    history, found = read_history(stage.folder / "journal.jsonl"), pace(stage.folder)
    assert found.seconds == history.curves[SECONDS]
    assert found.lost == history.replayed[SECONDS] == 20
    assert found.productive_s == 80 * 2.0 + 40 * 3.0


def test_a_new_run_in_the_journal_begins_at_nothing(slurm: Results) -> None:
    from jobs._journal import Journal

    stage = slurm.stage("pretrain")
    stage.steps(1, 5, ago=50, each_s=2.0, wall_s=2.0)
    journal = Journal(stage.folder / "journal.jsonl")
    journal.start(experiment="e", name="n", identity="other", params={}, tags={})
    journal.metrics(1, {SECONDS: 7.0, "train/loss": math.nan})
    found = pace(stage.folder)
    assert (found.seconds, found.lost) == ({1: 7.0}, 0)
    assert math.isnan(found.newest["train/loss"])


def test_what_was_read_of_a_long_journal_is_not_read_again(slurm: Results) -> None:
    stage = slurm.stage("pretrain")
    stage.steps(1, 8000, ago=50, each_s=2.0, wall_s=2.0)
    journal, note = stage.folder / "journal.jsonl", stage.folder / NOTE
    whole = pace(stage.folder)
    assert note.exists()
    size = journal.stat().st_size
    with journal.open("r+b") as file:
        file.write(b"x" * (size - 1000))  # whoever reads it again now finds no step
    assert pace(stage.folder) == whole
    with journal.open("ab") as file:
        file.write(b'{"kind":"metrics","time":1,"step":8001,"values":{"train/step_time_s":9}}\n{"kind":"met')
    assert pace(stage.folder).productive_s == whole.productive_s + 9
    assert advance(whole, journal) == pace(stage.folder, before=whole)
    for content in (b"", b"[]", b'{"steps": 1}', b'{"steps": [1], "seconds": [], "times": []}'):
        note.write_bytes(content)
        assert len(pace(stage.folder).seconds) < 200, "a note that is none is not believed"


def test_a_short_journal_leaves_no_note(slurm: Results) -> None:
    stage = slurm.stage("pretrain")
    stage.steps(1, 5, ago=50, each_s=2.0, wall_s=2.0)
    see(slurm)
    assert not (stage.folder / NOTE).exists()
    assert pace(slurm.root).seconds == {}


def test_the_ledger_is_set_against_the_budget(slurm: Results) -> None:
    stage = slurm.stage("pretrain")
    path = stage.attempt()
    stage.begin(path, ago=3600)
    stage.end(path, ago=0, outcome="finished", status=0)
    policies = slurm.site.policies.model_copy(update={"gpu_hours": 16.0})
    lines = plain(see(slurm, site=slurm.site.model_copy(update={"policies": policies})))
    assert "ledger: 8.0 GPU-hours of 16.0 (50%): pretrain 8.0" in lines
    assert "ledger: 8.0 GPU-hours: pretrain 8.0" in plain(see(slurm))


def test_without_gpus_the_ledger_counts_processes(laptop: Results) -> None:
    path = laptop.stage("pretrain").attempt()
    os.utime(path / "request.json", (time.time() - 3600, time.time() - 3600))
    laptop.stage("pretrain").progress(path, done=420)
    assert "ledger: 4.0 task-hours: pretrain 4.0" in plain(see(laptop))


# --- forecast ---------------------------------------------------------------------------------------------------------


def test_a_steady_pace_goes_on() -> None:
    times = {step: step * 10.0 for step in range(1, 101)}
    found = remaining(times, left=50, until=1000.0)
    assert found.likely == pytest.approx(500, rel=0.02)
    assert found.best <= found.likely <= found.worst
    assert found.worst == pytest.approx(500, rel=0.2)


def test_a_wait_in_the_queue_widens_the_forecast_and_a_long_past_is_forgotten() -> None:
    times = {step: step * 10.0 for step in range(1, 51)} | {step: step * 10.0 + 500 for step in range(51, 101)}
    found = remaining(times, left=50, until=1500.0)
    assert found.likely == pytest.approx(750, rel=0.02), "the wait counts"
    assert found.best == pytest.approx(500, rel=0.05)
    assert math.isinf(found.worst), "a quarter of the past was spent waiting"
    month = 30 * 24 * 3600.0
    slow_then_fast = {1: 0.0} | {step: month + step * 10.0 for step in range(2, 70_000)}
    assert remaining(slow_then_fast, left=100, until=month + 700_000).likely == pytest.approx(1000, rel=0.02)


def test_a_standstill_is_not_in_sight_and_nothing_left_is_nothing() -> None:
    assert math.isinf(remaining({}, left=5, until=9.0).likely)
    assert math.isinf(remaining({1: 9.0}, left=5, until=9.0).likely)
    assert remaining({}, left=0, until=9.0) == Span(best=0, likely=0, worst=0)


def test_what_follows_takes_as_long_as_before_or_its_limit() -> None:
    assert following([], limit_s=60) == Span(best=60, likely=60, worst=60)
    assert following([30, 50, 40], limit_s=60) == Span(best=30, likely=40, worst=50)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(7, "7 s"), (299, "299 s"), (300, "5 min"), (7800, "2 h 10 min"), (276_000, "3 d 4 h"), (math.inf, "unknown")],
)
def test_a_duration_is_told_in_two_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_finish_is_set_against_the_end_of_the_deadlines_day() -> None:
    day = date(2027, 1, 15)
    end = time.mktime((2027, 1, 16, 0, 0, 0, 0, 0, -1))
    assert against(end - 276_000, day) == "in time by 3 d 4 h"
    assert against(end + 7800, day) == "late by 2 h 10 min"
    assert against(math.inf, day) == "not in sight"


def test_the_forecast_sums_the_running_stage_and_what_follows(slurm: Results) -> None:
    for name in ("prepare", "tokenize", "plan"):
        slurm.stage(name).result()
        slurm.stage(name).attempt(job=f"for {name}")
    stage = slurm.stage("pretrain")
    path = stage.attempt()
    stage.begin(path, ago=1000)
    stage.steps(1, 100, ago=0, each_s=10.0, wall_s=10.0)
    stage.progress(path, done=100)
    slurm.stage("export").result(seconds=500, request="e" * 64)
    deadline = date.today() + timedelta(days=10)  # noqa: DTZ011 - as the run file: a day where the operator is
    view = see(slurm, slurm.job("pretrain"), run=replace(slurm.run, deadline=deadline))
    left = one(view).left
    assert left is not None
    assert left.likely == pytest.approx(3200, rel=0.05)
    assert view.by_limits == ("evaluate", "report")
    assert view.finish.likely == pytest.approx(left.likely + 500 + 2 * 3600, rel=0.01)
    (line,) = (line for line in plain(view) if line.startswith("forecast: "))
    assert re.fullmatch(
        r"forecast: done [\d :-]{16}, between [\d :-]{16} and [\d :-]{16}; "
        r"counting the time limits of evaluate, report; "
        rf"deadline {deadline}: in time by (9|10) d \d+ h; at worst in time by \d+ d \d+ h",
        line,
    )


def test_a_stage_without_a_journal_is_forecast_by_its_executions(slurm: Results) -> None:
    stage = slurm.stage("evaluate")
    path = stage.attempt()
    stage.begin(path, ago=100)
    stage.progress(path, done=50, total=200)
    left = one(see(slurm, slurm.job("evaluate")), "evaluate").left
    assert left is not None
    assert left.likely == pytest.approx(300, rel=0.05)


def test_time_in_which_nobody_wanted_the_work_done_says_nothing_of_its_pace(slurm: Results) -> None:
    stage = slurm.stage("pretrain")
    first = stage.attempt()
    stage.begin(first, ago=10_500)
    stage.steps(1, 50, ago=10_000, each_s=10.0, wall_s=10.0)
    write_json(first / "verdict.json", {"state": "cancelled", "reason": "", "time": time.time() - 10_000, "tail": []})
    second = stage.attempt(job="13")
    for name in ("job.json", "request.json"):
        write_json(second / name, {**read_json(second / name), "submitted": time.time() - 500})
        os.utime(second / name, (time.time() - 500, time.time() - 500))
    stage.begin(second, ago=500, job="13", step=50)
    stage.steps(51, 100, ago=0, each_s=10.0, wall_s=10.0)
    stage.progress(second, done=100)
    left = one(see(slurm, slurm.job("pretrain", id="13"))).left
    assert left is not None
    assert left.likely == pytest.approx(3200, rel=0.05)


def test_a_waiting_job_begins_when_slurm_expects_it(slurm: Results) -> None:
    stage = slurm.stage("evaluate")
    path = stage.attempt()
    stage.begin(path, ago=100)
    stage.end(path, ago=0, step=50, outcome="stopped", next="requeue", status=85)
    stage.progress(path, done=50, total=200)
    start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 1000))
    for shown, wait in ((start, 1000), ("N/A", 0)):
        left = one(see(slurm, slurm.job("evaluate", state="PENDING", start=shown)), "evaluate").left
        assert left is not None
        assert left.likely == pytest.approx(300 + wait, rel=0.05)


def test_the_forecast_of_a_run_that_stands_still_or_is_done_says_so(slurm: Results) -> None:
    limits = ", ".join(slurm.run.sections)
    (line,) = (line for line in plain(see(slurm)) if line.startswith("forecast: "))
    assert line.endswith(f" if it goes on now; counting the time limits of {limits}")
    for name in slurm.run.sections:
        slurm.stage(name).attempt()
        slurm.stage(name).result()
    assert "forecast: all stages are done" in plain(see(slurm))


# --- how it is shown --------------------------------------------------------------------------------------------------


def test_a_pipe_gets_stable_columns_without_colours(slurm: Results, capsys: pytest.CaptureFixture[str]) -> None:
    stage = slurm.stage("pretrain")
    path = stage.attempt()
    stage.begin(path, ago=1000)
    stage.steps(1, 100, ago=0, each_s=9.0, wall_s=10.0)
    stage.progress(path, done=100)
    nodes = ",".join(f"gpu-{number}" for number in range(40))
    job = slurm.job("pretrain", nodes=nodes)
    arguments: dict[str, Any] = {"site_name": "cluster-test", "results": slurm.root, "ask": lambda: [job]}
    assert status(slurm.run, slurm.site, follow=True, **arguments) == 0, "on a pipe it looks once"
    out = capsys.readouterr().out
    assert "\x1b" not in out
    rows = [line.split(maxsplit=10) for line in out.split("\n\n")[0].splitlines()]
    assert " ".join(rows[0]) == "stage state job nodes step loss tokens/s goodput restarts left reason"
    assert [row[0] for row in rows[1:]] == list(slurm.run.sections)
    assert {len(row) for row in rows} == {11}
    shown = next(row for row in rows if row[0] == "pretrain")
    assert shown[1:6] == ["running", "12", f"{nodes[:21]}...", "100/420", "0.050"]
    assert shown[6:9] == ["12346", "90%", "0"]
    assert shown[10] == "-"


def test_a_script_gets_one_document(slurm: Results, capsys: pytest.CaptureFixture[str]) -> None:
    stage = slurm.stage("pretrain")
    path = stage.attempt()
    stage.begin(path, ago=100)
    stage.progress(path, done=0)
    arguments: dict[str, Any] = {"site_name": "cluster-test", "results": slurm.root}
    assert status(slurm.run, slurm.site, as_json=True, ask=lambda: [slurm.job("pretrain")], **arguments) == 0
    document = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    shown = next(item for item in document["stages"] if item["stage"] == "pretrain")
    assert (shown["state"], shown["job_ids"], shown["done"], shown["attempt"]) == ("running", ["12"], 0, str(path))
    assert shown["left"] == {"best": None, "likely": None, "worst": None}
    assert (document["run"], document["silent"], document["deadline"]) == ("small", False, None)
    assert document["gpu_hours"] == pytest.approx(8 * 100 / 3600, rel=0.1)


def test_the_end_of_the_log_that_was_written_last_is_shown(slurm: Results) -> None:
    stage = slurm.stage("pretrain")
    path = stage.attempt()
    stage.begin(path, ago=100)
    (stage.folder / "log.txt").write_text("gathered\n")
    logs = path / "submitit"
    logs.mkdir()
    (logs / "12_0_log.out").write_text(
        "\n".join(f"step {number}" for number in range(5000)) + "\n\x1b[31mred\x1b[0m\a\n"
    )
    os.utime(stage.folder / "log.txt", (time.time() - 50, time.time() - 50))
    view = see(slurm, slurm.job("pretrain"))
    assert view.log_of == logs / "12_0_log.out"
    assert view.log == (*(f"step {number}" for number in range(4993, 5000)), "red")
    (stage.folder / "log.txt").write_text("gathered\nsaving 10%\rsaving 100%\n")
    os.utime(logs / "12_0_log.out", (time.time() - 50, time.time() - 50))
    assert see(slurm, slurm.job("pretrain")).log == ("gathered", "saving 100%")


def test_a_failed_job_without_logs_left_its_last_lines_in_its_verdict(slurm: Results) -> None:
    path = slurm.stage("pretrain").attempt()
    (path / "submitit").mkdir()
    (path / "submitit" / "12_0_log.out").write_text("Traceback\nValueError: no\n")
    decide(path, state="failed", reason="ValueError: no")
    (path / "submitit" / "12_0_log.out").unlink()
    view = see(slurm)
    assert (view.log_of, view.log) == (None, ("Traceback", "ValueError: no"))
    assert "end of the log, as the job left it:" in plain(view)


def test_damage_is_counted_and_named(slurm: Results) -> None:
    stage = slurm.stage("pretrain")
    path = stage.attempt()
    stage.begin(path, ago=10)
    with (path / "events.jsonl").open("a") as file:
        file.write('{"event": "end", "ti')
    lines = plain(see(slurm, slurm.job("pretrain")))
    place = path / "events.jsonl"
    assert f"damaged: 1 files or lines could not be read, the first: {place}: a line that is no event" in lines


def test_a_look_changes_nothing(slurm: Results) -> None:
    stage = slurm.stage("pretrain")
    path = stage.attempt()
    stage.begin(path, ago=10)
    before = {file: file.read_bytes() for file in slurm.root.rglob("*") if file.is_file()}
    see(slurm, slurm.job("pretrain"))
    see(slurm, silent=True)
    assert {file: file.read_bytes() for file in slurm.root.rglob("*") if file.is_file()} == before


def test_what_was_read_is_handed_to_the_next_look(slurm: Results) -> None:
    stage = slurm.stage("pretrain")
    stage.steps(1, 5, ago=5, each_s=1.0, wall_s=1.0)
    first = see(slurm)
    stage.steps(6, 6, ago=0, each_s=1.0, wall_s=1.0)
    (stage.folder / "journal.jsonl").write_bytes(
        b"x" * one(first).pace.offset + (stage.folder / "journal.jsonl").read_bytes()[one(first).pace.offset :]
    )
    assert list(one(see(slurm, before=first)).pace.seconds) == [1, 2, 3, 4, 5, 6]


def _on_a_terminal(command: list[str], then: Callable[[], object]) -> tuple[int, str]:
    """Runs a command on a terminal of its own; calls `then` once it has drawn something."""
    mine, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200", "LINES": "50"}
    with subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        seen = b""
        while (piece := _read(mine)) != b"":
            if not seen:
                then()
            seen += piece
    os.close(mine)
    return process.returncode, seen.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end is closed
        return b""


def test_a_terminal_is_drawn_in_colour_and_followed_until_all_is_done(laptop: Results) -> None:
    code = (
        "import sys; from pathlib import Path; from jobs._run import load; from jobs._status import status\n"
        "sys.exit(status(*load(sys.argv[1], 'laptop'), site_name='laptop', results=Path(sys.argv[2]), follow=True))"
    )
    names = list(laptop.run.sections)
    for name in names[:-1]:
        laptop.stage(name).attempt()
        laptop.stage(name).result()

    def finish() -> None:
        laptop.stage(names[-1]).attempt()
        laptop.stage(names[-1]).result()

    code_and_text = _on_a_terminal([sys.executable, "-c", code, str(laptop.run.path), str(laptop.root)], finish)
    assert code_and_text[0] == 0
    assert "not-started" in code_and_text[1]
    assert "all stages are done" in code_and_text[1]
    assert "\x1b[32mdone" in code_and_text[1]


def test_status_imports_nothing_heavy(laptop: Results) -> None:
    heavy = ("torch", "ray", "mlflow", "megatron", "transformers", "zarr", "submitit", "pandas")
    code = (
        "import sys; from pathlib import Path; from jobs._run import load; from jobs._status import status\n"
        "status(*load(sys.argv[1], 'laptop'), site_name='laptop', results=Path(sys.argv[2]))\n"
        f"sys.exit(', '.join(name for name in {heavy} if name in sys.modules) or 0)"
    )
    laptop.stage("prepare").attempt()
    command = [sys.executable, "-c", code, str(laptop.run.path), str(laptop.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_site_of_a_run_is_that_of_its_newest_attempt(slurm: Results) -> None:
    root = slurm.root / "small"
    assert last_site(root) is None
    for number, (name, site) in enumerate((("tokenize", "there"), ("prepare", "here"))):
        path = slurm.stage(name).attempt() / "request.json"
        write_json(path, {"site": site})
        os.utime(path, (number + 1, number + 1))
    assert last_site(root) == "here"
    path.write_text("torn")
    assert last_site(root) == "there"

"""The journal: what is written is there after any kill, and nothing that goes wrong with it stops a stage."""

import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs._journal import Journal, flatten, read_entries, read_history
from jobs._system_metrics import SystemMetrics


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.jsonl")


def begin(journal: Journal, *, identity: str = "work") -> str:
    return journal.start(
        experiment="medscale/pretrain",
        name="demo@laptop",
        identity=identity,
        params={"model": {"layers": 2, "sizes": [8, 16]}, "lr": 1e-3, "note": "text"},
        tags={"run": "demo"},
    )


def kinds(journal: Journal) -> list[str]:
    return [entry["kind"] for entry, _ in read_entries(journal.path)]


def test_everything_written_is_read_back(journal: Journal) -> None:
    begin(journal)
    journal.metrics(1, {"train/loss": 2.5, "bad": math.nan, "up": math.inf, "down": -math.inf})
    journal.tag("colour", "파랑")
    journal.dataset(name="omics", digest="ab" * 32, source="cells.h5ad", context="training")
    journal.end("FINISHED")
    assert kinds(journal) == ["start", "metrics", "tag", "dataset", "end"]
    history = read_history(journal.path)
    assert history.status == "FINISHED"
    assert history.params == {"model.layers": "2", "model.sizes": "[8, 16]", "lr": "0.001", "note": "text"}
    assert history.tags == {"run": "demo", "executions": "1", "colour": "파랑"}
    assert history.curves["train/loss"] == {1: 2.5}
    assert math.isnan(history.curves["bad"][1])
    assert history.curves["up"] == {1: math.inf}
    assert history.curves["down"] == {1: -math.inf}


def test_settings_are_flattened_with_dots() -> None:
    assert flatten({"a": {"b": {"c": None}}, "d": {}, "e": True}) == {"a.b.c": "null", "d": "{}", "e": "true"}


def test_artifacts_below_the_journal_are_relative_so_that_results_can_move(journal: Journal, tmp_path: Path) -> None:
    journal.artifact(tmp_path / "plots" / "loss.png")
    journal.artifact(Path("/etc/hostname"))
    assert [entry["path"] for entry, _ in read_entries(journal.path)] == ["plots/loss.png", "/etc/hostname"]


def test_an_unfinished_run_is_continued_and_a_finished_or_different_one_is_not(journal: Journal) -> None:
    first = begin(journal)
    journal.end("FAILED")
    assert begin(journal) == first
    assert read_history(journal.path).tags["executions"] == "2"
    journal.end("FINISHED")
    second = begin(journal)
    assert second != first
    assert begin(journal, identity="other work") not in (first, second)
    assert read_history(journal.path).tags["executions"] == "1"


def test_the_last_value_of_a_repeated_step_is_kept_and_changes_are_counted(journal: Journal) -> None:
    begin(journal)
    for step in (1, 2, 3):
        journal.metrics(step, {"train/loss": 1 / step, "train/step_time_s": 0.5})
    begin(journal)
    for step in (2, 3, 4):
        journal.metrics(step, {"train/loss": 1 / step, "train/step_time_s": 0.4})
    history = read_history(journal.path)
    assert history.curves["train/loss"] == {1: 1.0, 2: 1 / 2, 3: 1 / 3, 4: 1 / 4}
    assert history.curves["train/step_time_s"] == {1: 0.5, 2: 0.4, 3: 0.4, 4: 0.4}
    assert history.replayed == {"train/loss": 2, "train/step_time_s": 2}
    assert history.changed == {"train/loss": 0, "train/step_time_s": 2}
    assert history.status == "RUNNING"


def test_a_torn_last_line_is_not_read_and_costs_only_itself(journal: Journal) -> None:
    journal.tag("a", "1")
    with journal.path.open("ab") as file:
        file.write(b'{"kind":"tag","ti')
    assert kinds(journal) == ["tag"]
    again = Journal(journal.path)
    again.tag("b", "2")
    assert kinds(again) == ["tag", "damaged", "tag"]
    again.tag("c", "3")
    assert journal.path.read_bytes().count(b"\n\n") == 0


def test_reading_goes_on_from_an_offset(journal: Journal) -> None:
    journal.tag("a", "1")
    (_, offset), *_ = read_entries(journal.path)
    journal.tag("b", "2")
    assert [entry["key"] for entry, _ in read_entries(journal.path, offset=offset)] == ["b"]


def test_a_journal_without_a_run_is_refused(journal: Journal) -> None:
    journal.tag("a", "1")
    with pytest.raises(ValueError, match=r"journal.jsonl: must hold a start entry, but has none; run the stage again"):
        read_history(journal.path)


def test_an_unknown_status_is_refused(journal: Journal) -> None:
    with pytest.raises(ValueError, match="must be one of FINISHED, FAILED, KILLED, but is 'DONE'; name one of them"):
        journal.end("DONE")


@contextmanager
def full_disk(journal: Journal) -> Iterator[None]:
    """Lets no file grow beyond ten bytes more than the journal has: what a full disk does, for this process."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.path.stat().st_size + 10, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_a_full_disk_did_not_take_is_written_when_there_is_room(
    journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    journal.tag("before", "1")
    with full_disk(journal):
        for step in range(5):
            journal.metrics(step, {"loss": 1.0})
        journal.sync()
    journal.metrics(5, {"loss": 1.0})
    said = capsys.readouterr().err
    assert said.count("entries wait in memory") == 1
    assert "the stage goes on; free space" in said
    assert kinds(journal) == ["tag", "damaged", *["metrics"] * 6]
    assert [entry["step"] for entry, _ in read_entries(journal.path) if entry["kind"] == "metrics"] == list(range(6))


def test_what_is_too_much_to_keep_is_counted(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs._journal.KEPT_BYTES", 200)
    with full_disk(journal):
        for step in range(5):
            journal.metrics(step, {"loss": 1.0})
    journal.metrics(5, {"loss": 1.0})
    entries = [entry for entry, _ in read_entries(journal.path) if entry["kind"] != "damaged"]
    (lost,) = [int(entry["value"]) for entry in entries if entry["kind"] == "tag"]
    assert lost > 0
    assert [entry["step"] for entry in entries if entry["kind"] == "metrics"] == list(range(lost, 6))


def test_a_full_disk_stops_nothing_even_when_stderr_is_a_log_on_it(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log.txt"
    log.write_bytes(b"x" * 1000)
    with log.open("a", buffering=1) as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        with full_disk(journal):
            journal.metrics(1, {"loss": 1.0})
    journal.metrics(2, {"loss": 1.0})
    assert kinds(journal)[-1] == "metrics"


_WRITER = """
import sys
from pathlib import Path
from jobs._journal import Journal
journal = Journal(Path(sys.argv[1]))
for step in range(10**9):
    journal.metrics(step, {"writer": int(sys.argv[2]), "padding/" + "x" * 2000: step})
    print(step, flush=True)
"""


def test_kill_9_loses_no_entry_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    told: dict[int, int] = {}
    for number in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path), str(number)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "0\n"
            time.sleep(0.05)
            writer.kill()
            told[number] = int(writer.stdout.read().split()[-1])
    found: dict[int, list[int]] = {}
    for entry, _ in read_entries(path):
        if entry["kind"] == "metrics":
            found.setdefault(int(entry["values"]["writer"]), []).append(entry["step"])
    for number, last in told.items():
        assert found[number][: last + 1] == list(range(last + 1))


def test_processes_that_append_together_do_not_mix_lines(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    script = _WRITER.replace("10**9", "300").replace("print(step, flush=True)", "pass")
    writers = [subprocess.Popen([sys.executable, "-c", script, str(path), str(number)]) for number in range(3)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    entries = [entry for entry, _ in read_entries(path)]
    assert len(entries) == 900
    assert {entry["kind"] for entry in entries} == {"metrics"}


def test_the_machine_is_sampled_under_the_names_that_mlflow_shows(journal: Journal) -> None:
    begin(journal)
    with SystemMetrics(journal, period_s=60):
        sum(range(10**6))
    curves = read_history(journal.path).curves
    assert set(curves) >= {
        "system/cpu_utilization_percentage",
        "system/system_memory_usage_megabytes",
        "system/system_memory_usage_percentage",
        "system/disk_available_megabytes",
        "system/network_receive_megabytes",
    }
    total_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
    ((step, used_mb),) = curves["system/system_memory_usage_megabytes"].items()
    assert step == 0
    assert 0 < used_mb < total_mb

"""Workers: a unit that dies costs itself, results are committed once, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from corpus.workers import Crew, beat, run_units
from tests.corpus.deeds import Deed, do, done

ROOT = Path(__file__).parents[2]


def _deeds(folder: Path, kinds: Sequence[str]) -> list[Deed]:
    return [Deed(kind=kind, path=folder / f"{number}.done") for number, kind in enumerate(kinds)]


def _run(folder: Path, *kinds: str, progress: Any = lambda *_: None, **crew: Any) -> tuple[dict[int, str], list[int]]:
    deeds = _deeds(folder, kinds)
    died = run_units(deeds, do, committed=done, crew=Crew(**crew), progress=progress)
    return died, [number for number, deed in enumerate(deeds) if done(deed)]


def _children() -> list[psutil.Process]:
    found = psutil.Process().children(recursive=True)
    return [child for child in found if "corpus.workers" in " ".join(child.cmdline())]


def test_a_unit_that_dies_costs_itself_and_its_death_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kinds = ("good", "kill", "segfault", "once", "hold", "leave", "good")
    told: list[tuple[int, int, int]] = []
    died, made = _run(tmp_path, *kinds, workers=2, memory_gb=1, progress=lambda *each: told.append(each))
    assert died == {
        1: "its worker died of SIGKILL, perhaps for want of memory",
        2: "its worker died of SIGSEGV",
        4: "its worker ran out of memory, of which it may have 1 GB",
        5: "its worker ended with code 3",
    }
    assert made == [0, 3, 6]
    assert told[-1] == (7, 7, 0)
    assert "deeds.py" in capfd.readouterr().err, "where it crashed must stand in the log"
    assert not _children()


def test_a_silent_worker_is_ended_and_one_that_tells_is_not(tmp_path: Path) -> None:
    told: list[int] = []
    died, made = _run(tmp_path, "hang", "beats", workers=2, silence_s=1.5, progress=lambda *each: told.append(each[2]))
    assert (died, made) == ({0: "its worker was silent for 1.5 s"}, [1])
    assert told[-1] > 20
    assert not _children()


def test_what_is_committed_is_not_done_again(tmp_path: Path) -> None:
    (tmp_path / "0.done").touch()
    assert _run(tmp_path, "kill", "good") == ({}, [0, 1])
    assert _run(tmp_path, "kill", "kill") == ({}, [0, 1])


def test_a_worker_has_one_thread(tmp_path: Path) -> None:
    _run(tmp_path, "good")
    assert "OMP_NUM_THREADS" in (tmp_path / "0.done").read_text()


@pytest.mark.parametrize("isolate", [True, False])
def test_what_work_raises_is_raised(tmp_path: Path, isolate: bool) -> None:
    with pytest.raises(ValueError, match="must be even, but is odd"):
        _run(tmp_path, "good", "refuse", isolate=isolate)
    assert not _children()


def test_work_that_commits_nothing_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="unit 0 must be committed by its work, but is not; mend the work"):
        _run(tmp_path, "forget", isolate=False)


def test_one_worker_may_run_here(tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []
    _run(tmp_path, "good", "beats", isolate=False, progress=lambda *each: told.append(each))
    assert (tmp_path / "0.tried").read_text() == f"{os.getpid()}\n"
    assert told[-1][:2] == (2, 2)
    assert told[-1][2] > 20
    beat(1)  # nobody listens


def test_a_worker_that_cannot_start_is_no_unit_that_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="a worker must start, but its worker ended with code 1; mend what the log"):
        _run(tmp_path, "good")


def test_a_signal_leaves_no_orphan(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from corpus.workers import Crew, run_units
from tests.corpus.deeds import Deed, do, done
deeds = [Deed(kind="hang", path=Path({str(tmp_path)!r}) / f"{{n}}.done") for n in range(2)]
run_units(deeds, do, committed=done, crew=Crew(workers=2))
"""
    for number in (signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
        parent, until = psutil.Process(process.pid), time.monotonic() + 20
        while len(parent.children()) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.3)  # the kernel is told by the child itself, when Python has started
        children = parent.children(recursive=True)
        assert len(children) == 2
        process.send_signal(number)
        process.wait(timeout=20)
        assert psutil.wait_procs(children, timeout=10)[1] == []


def test_nodes_share_the_units_and_each_is_done_once(tmp_path: Path) -> None:
    deeds = _deeds(tmp_path, ["good"] * 8 + ["kill"])
    results: dict[int, dict[int, str]] = {}

    def node(rank: int) -> None:
        crew = Crew(rank=rank, world_size=2, meeting=tmp_path / "meeting")
        results[rank] = run_units(deeds, do, committed=done, crew=crew)

    threads = [threading.Thread(target=node, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0] == results[1] == {8: "its worker died of SIGKILL, perhaps for want of memory"}
    tried = [deed.path.with_suffix(".tried").read_text().splitlines() for deed in deeds[:8]]
    assert all(len(each) == 1 for each in tried)

"""A stage on a real Slurm: found again by a new command, refused while it is held, and never run twice."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs._run import ROOT
from slurm import queue, state
from slurm.files import read_json

pytestmark = pytest.mark.timeout(240)


class Stage:
    """The stage prepare of a small run on the test cluster."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.results = folder / "results"
        self.run = folder / f"{folder.name.replace('_', '-')[-20:].strip('-')}.yaml"
        self.env = {**os.environ, **env}
        (folder / "few.csv").write_text("smiles,name\nCCO,ethanol\nc1ccccc1,benzene\nCCN,ethylamine\nC,methane\n")
        self.write(0.3)

    def write(self, valid_fraction: float) -> None:
        few = {"name": "few", "modality": "molecule", "path": str(self.run.parent / "few.csv"), "license": "CC0-1.0"}
        prepare = {"sources": [few], "valid_fraction": valid_fraction}
        base = yaml.safe_load((ROOT / "workflows/runs/demo.yaml").read_text())
        base["tokenize"].pop("mixture")
        run = {**base, "prepare": prepare, "evaluate": {"benchmarks": ["molecule_solubility"]}}
        self.run.write_text(yaml.safe_dump(run))

    @property
    def folder(self) -> Path:
        return self.results / self.run.stem / "prepare"

    @property
    def attempts(self) -> list[Path]:
        return sorted(self.folder.glob("attempts/*"))

    def words(self, site: str = "cluster-test") -> list[str]:
        place = ["--site", site, "--results", str(self.results)]
        return [sys.executable, "-m", "jobs", "prepare", "--run", str(self.run), *place]

    def start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.words(), cwd=ROOT, env=self.env, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def end(self, process: "subprocess.Popen[str]") -> tuple[int, str]:
        _, said = process.communicate(timeout=120)
        return process.returncode, said

    def until_submitted(self) -> str:
        deadline = time.monotonic() + 60
        while not self.attempts or not state.job_ids(self.attempts[-1]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return state.job_ids(self.attempts[-1])[0]


@pytest.fixture
def stage(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    for name, value in cluster.env.items():
        monkeypatch.setenv(name, value)
    return Stage(tmp_path, cluster.env)


@pytest.fixture
def busy(cluster: Any) -> Any:
    """Keeps every node busy until the test has done what it must do before the job starts."""
    cluster.run("sbatch", "-p", "urgent", "-J", "busy", "-N4", "--exclusive", "-o", "/dev/null", "--wrap=sleep 100")
    yield lambda: cluster.run("scancel", "--name=busy")
    cluster.run("scancel", "--name=busy")


def test_a_command_that_was_killed_finds_its_job_again(stage: Stage, busy: Callable[[], None]) -> None:
    first = stage.start()
    job = stage.until_submitted()
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    second = stage.start()
    time.sleep(1)
    busy()
    status, said = stage.end(second)
    assert status == 0
    assert f"going back to job {job}" in said
    assert len(stage.attempts) == 1


def test_a_job_that_ended_while_nobody_looked_is_not_run_again(stage: Stage, busy: Callable[[], None]) -> None:
    first = stage.start()
    stage.until_submitted()
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    busy()
    deadline = time.monotonic() + 60
    while state.verdict(stage.attempts[0]) is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert stage.end(stage.start())[0] == 0
    assert len(stage.attempts) == 1
    assert (stage.folder / "record.json").exists()


def test_a_result_whose_files_have_changed_is_made_again(stage: Stage) -> None:
    assert stage.end(stage.start())[0] == 0
    (stage.folder / "rejects.jsonl").write_text("damaged")
    (stage.folder / "record.json").unlink()
    assert stage.end(stage.start())[0] == 0
    assert len(stage.attempts) == 2
    assert (stage.folder / "rejects.jsonl").read_text() != "damaged"


def test_two_commands_at_once_submit_one_job(stage: Stage) -> None:
    both = [stage.start(), stage.start()]
    assert [stage.end(one)[0] for one in both] == [0, 0]
    assert len(stage.attempts) == 1


def test_a_cancelled_stage_stays_so_until_it_is_released(stage: Stage, busy: Callable[[], None]) -> None:
    first = stage.start()
    queue.cancel(stage.until_submitted())
    status, said = stage.end(first)
    assert status == 85
    assert f"python -m jobs release {stage.run.stem} --stage prepare" in said
    status, said = stage.end(stage.start())
    assert (status, len(stage.attempts)) == (85, 1), "while it is held nothing is submitted"
    release = [sys.executable, "-m", "jobs", "release", stage.run.stem, "--results", str(stage.results)]
    subprocess.run(release, cwd=ROOT, check=True, capture_output=True)
    busy()
    assert stage.end(stage.start())[0] == 0
    assert len(stage.attempts) == 2


@pytest.mark.parametrize("answer", ["n", "y"])
def test_ctrl_c_asks_whether_the_job_shall_end_too(stage: Stage, busy: Callable[[], None], answer: str) -> None:
    ours, theirs = pty.openpty()
    command = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *stage.words()],
        cwd=ROOT,
        env=stage.env,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    job = stage.until_submitted()
    time.sleep(1)
    os.write(ours, b"\x03")
    said = _read_until(ours, f"cancel its job {job} too? [y/N] ")
    os.write(ours, f"{answer}\n".encode())
    said += _read_until(ours, None)
    assert command.wait(timeout=30) == 130
    if answer == "n":
        assert f"job {job} goes on; the same command goes back to it" in said
    live = [one.id for one in state.find(stage.attempts[0], queue.jobs() or []) if one.live]
    assert live == ([job] if answer == "n" else [])
    assert (stage.folder / "held.json").exists() == (answer == "y")
    queue.cancel(job)


def _read_until(terminal: int, text: str | None) -> str:
    """Returns what a terminal shows until `text` is there, or until its end."""
    shown = b""
    with suppress(OSError):  # the other end is closed
        while text is None or text.encode() not in shown:
            part = os.read(terminal, 4096)
            if not part:
                break
            shown += part
    return shown.decode(errors="replace")


def test_other_settings_do_not_start_beside_a_job_that_works(stage: Stage, busy: Callable[[], None]) -> None:
    first = stage.start()
    job = stage.until_submitted()
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    stage.write(0.5)
    status, said = stage.end(stage.start())
    assert status == 1
    assert f"job {job} is at it with other settings or inputs; wait for it, or cancel it" in said
    queue.cancel(job)


def test_what_slurm_refuses_is_told_in_its_own_words(stage: Stage, tmp_path: Path) -> None:
    site = yaml.safe_load((ROOT / "slurm/sites/cluster-test.yaml").read_text()) | {"constraint": "none-such"}
    (tmp_path / "odd.yaml").write_text(yaml.safe_dump(site))
    words = stage.words(str(tmp_path / "odd.yaml"))
    done = subprocess.run(words, cwd=ROOT, env=stage.env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "prepare failed: sbatch refused it: " in done.stderr
    assert "nvalid feature" in done.stderr
    assert read_json(stage.attempts[0] / "verdict.json")["state"] == "failed"


def test_where_there_is_no_sbatch_nothing_is_begun(stage: Stage) -> None:
    env = {**os.environ, "PATH": str(stage.run.parent)}
    done = subprocess.run(stage.words(), cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "sbatch must be on the PATH where jobs are submitted, but is not; load Slurm's module"
    )

"""Status, cancel and release on a real cluster: nobody waits for the job, and the controller is silent for a while."""

import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jobs._cancel import cancel, release
from jobs._look import StageView, look
from jobs._run import ROOT
from slurm import ledger, queue
from slurm.files import read_json

if TYPE_CHECKING:
    from tests.slurm.cluster import Cluster

Results = Any  # tests/jobs/conftest.py


def _submit(attempt: Path, *, token: str) -> None:
    """Submits a job that nobody waits for: begin and end as in every batch script, and a sleep for its ranks."""
    python = f"{shlex.quote(sys.executable)} -m slurm.requeue"
    place = shlex.quote(str(attempt))
    script = f'cd {ROOT} && {python} begin {place} "$0" && echo at work && sleep 600; {python} end {place} $?'
    (attempt / "submitit").mkdir()
    options = [f"--comment=medscale run=small stage=pretrain attempt={token} digest=0", "--job-name=small.pretrain"]
    log = attempt / "submitit" / "%j_0_log.out"
    command = ["sbatch", "--nodes=2", "--requeue", f"--output={log}", *options, f"--wrap={script}"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def _wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def test_a_job_is_watched_cancelled_and_released_with_nobody_waiting_for_it(
    cluster: "Cluster", slurm: Results, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in cluster.env.items():
        monkeypatch.setenv(name, value)
    stage = slurm.stage("pretrain")
    attempt = stage.attempt(job=None)
    token = read_json(attempt / "spec.json")["token"]

    def see() -> StageView:
        names = {"site_name": "cluster-test", "results": slurm.root}
        view = look(slurm.run, slurm.site, answer=queue.jobs(), ending=queue.ending, **names)
        return next(view for view in view.stages if view.stage == "pretrain")

    _submit(attempt, token=token)
    _wait_for(lambda: see().state == "running" and (attempt / "events.jsonl").exists())
    (job,) = see().job_ids
    assert queue.hosts(see().nodes) == list(ledger.read(stage.folder, now=time.time()).executions[0].nodes)

    cluster.kill_controller()
    silent = see()
    assert (silent.state, silent.reason[:28]) == ("running", "by its files; last heard of ")
    assert cancel("small", results=slurm.root) == 1
    assert f"pretrain: held; job {job} NOT cancelled: Slurm did not answer" in capsys.readouterr().out
    cluster.start_controller()

    _wait_for(lambda: queue.jobs() is not None)
    assert see().state == "held", "the mark was written although nobody answered"
    assert cancel("small", results=slurm.root) == 0
    assert f"pretrain: held; job {job} cancelled" in capsys.readouterr().out
    _wait_for(lambda: not [shown for shown in queue.jobs() or () if shown.live])
    assert see().state == "held"
    assert len(ledger.executions(stage.folder, now=time.time())) == 1, "no requeue undid it"
    assert release("small", results=slurm.root) == 0
    assert see().state in ("lost", "waiting")

"""What runs inside a job: one process of one attempt at one stage (`python -m jobs._task ATTEMPT`)."""

import importlib
import os
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs import _record
from jobs._journal import NAME as JOURNAL
from jobs._journal import Journal
from jobs._lock import hold
from jobs._run import config_type
from jobs._shipper import start_shipper
from jobs._stage import STOPPED, Outcome, Progress, Stage
from jobs._system_metrics import SystemMetrics
from slurm.files import read_json, write_json
from slurm.site import Site


def main(attempt: Path) -> None:
    """Runs the stage that `attempt`/request.json asks for; rank 0 tracks it and keeps its record."""
    request = read_json(attempt / "request.json")
    folder = Path(request["folder"])
    rank = int(os.environ.get("RANK", "0"))
    if rank != 0:
        _guarded(attempt, _stage(request, attempt, Journal(attempt / f"rank{rank}.jsonl"), rank=rank))
        return
    with hold(folder / ".working", wait=False) as held:
        if not held:
            sys.exit(f"{request['stage']}: must run once at a time, but another job is running it; wait for that one")
        _lead(attempt, request, folder)


def _lead(attempt: Path, request: Mapping[str, Any], folder: Path) -> None:
    """Runs rank 0: what it does is tracked whether it finishes or fails, and its record is kept when it finishes."""
    journal = Journal(folder / JOURNAL)
    tracking_id = journal.start(
        experiment=f"medscale/{request['stage']}",
        name=f"{request['run']}@{request['site']}",
        identity=request["request"],
        params=request["config"],
        tags=_tags(request),
    )
    start_shipper(folder.parents[1], tracking_uri=request["site_settings"]["mlflow_tracking_uri"])
    started, status = time.time(), "FAILED"
    try:
        stage = _stage(request, attempt, journal, rank=0)
        with SystemMetrics(journal):
            outcome = _guarded(attempt, stage)
        record = _record.build(request, outcome, tracking_id=tracking_id, started=started, finished=time.time())
        _record.keep(folder, record)
        journal.metrics(0, {f"final/{name}": value for name, value in outcome.metrics.items()})
        journal.tag("record_digest", record["digest"])
        journal.artifact(_record.history_path(folder, record["request"]))
        status = "FINISHED"
    except SystemExit as stop:
        if stop.code == STOPPED:
            status = "KILLED"
            (attempt / "stopped").touch()
        raise
    finally:
        journal.end(status)


def _guarded(attempt: Path, stage: Stage) -> Outcome:
    """Runs the stage; what goes wrong is written in full to the log and in one line to a file for the submitter."""
    try:
        return _run(stage)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is written down and ends the process
        traceback.print_exc()
        write_json(attempt / f"failure.rank{stage.rank}.json", {"type": type(error).__name__, "message": str(error)})
        sys.exit(1)


def _run(stage: Stage) -> Outcome:
    outcome: Outcome = importlib.import_module(f"jobs.{stage.name}").run(stage.sections[stage.name], stage)
    return outcome


def _stage(request: Mapping[str, Any], attempt: Path, journal: Journal, *, rank: int) -> Stage:
    return Stage(
        name=request["stage"],
        run=request["run"],
        site=Site.model_validate(request["site_settings"]),
        folder=Path(request["folder"]),
        root=Path(request["folder"]).parent,
        parents=request["parents"],
        sections={name: config_type(name).model_validate(value) for name, value in request["sections"].items()},
        journal=journal,
        progress=Progress(path=attempt / "progress.json"),
        seed=request["seed"],
        rank=rank,
        world_size=int(os.environ.get("WORLD_SIZE", "1")),
    )


def _tags(request: Mapping[str, Any]) -> dict[str, str]:
    return {
        "run": request["run"],
        "stage": request["stage"],
        "site": request["site"],
        "workflow_id": request["workflow_id"],
        "request": request["request"],
        "git_commit": request["code"]["commit"] or "unknown",
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))

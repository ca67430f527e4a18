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
from jobs._journal import Journal
from jobs._lock import hold
from jobs._run import config_type
from jobs._stage import Outcome, Progress, Stage
from slurm.files import read_json, write_json
from slurm.site import Site


def main(attempt: Path) -> None:
    """Runs the stage that `attempt`/request.json asks for; rank 0 tracks it and keeps its record."""
    request = read_json(attempt / "request.json")
    folder = Path(request["folder"])
    rank = int(os.environ.get("RANK", "0"))
    if rank != 0:
        journal = Journal(attempt / f"rank{rank}.jsonl")
        return _guarded(attempt, request, _stage(request, attempt, journal, rank))
    with hold(folder / ".working", wait=False) as held:
        if not held:
            sys.exit(f"{request['stage']}: must run once at a time, but another job is running it; wait for that one")
        _track(attempt, request, folder)


def _track(attempt: Path, request: Mapping[str, Any], folder: Path) -> None:
    """Runs rank 0 with a journal: the stage appears in tracking, whether it finishes or fails."""
    journal = Journal(folder / "journal.jsonl")
    journal.start(
        tracking_id=request["tracking_id"],
        experiment=f"medscale/{request['stage']}",
        name=f"{request['run']}@{request['site']}",
        tags=_tags(request),
        params=request["config"],
    )
    status = "FAILED"
    try:
        _guarded(attempt, request, _stage(request, attempt, journal, 0))
        status = "FINISHED"
    except SystemExit as stop:
        status = "KILLED" if stop.code == STOPPED else status
        raise
    finally:
        journal.end(status)


STOPPED = 85  # the exit status of a stage that was asked to stop, saved its state and can go on


def _guarded(attempt: Path, request: Mapping[str, Any], stage: Stage) -> None:
    started = time.time()
    try:
        outcome = _run(stage)
    except Exception as error:
        traceback.print_exc()
        write_json(attempt / f"failure.rank{stage.rank}.json", {"type": type(error).__name__, "message": str(error)})
        sys.exit(1)
    if stage.rank == 0:
        _finish(request, stage, outcome, started)


def _run(stage: Stage) -> Outcome:
    outcome: Outcome = importlib.import_module(f"jobs.{stage.name}").run(stage.sections[stage.name], stage)
    return outcome


def _finish(request: Mapping[str, Any], stage: Stage, outcome: Outcome, started: float) -> None:
    record = _record.build(request, outcome, started=started, finished=time.time())
    _record.keep(stage.folder, record)
    stage.journal.tag("record_digest", record["digest"])
    stage.journal.artifact(_record.history_path(stage.folder, record["request"]))


def _stage(request: Mapping[str, Any], attempt: Path, journal: Journal, rank: int) -> Stage:
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

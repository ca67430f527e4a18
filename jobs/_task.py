"""What runs inside a job: one process of one attempt at one stage (`python -m jobs._task ATTEMPT`)."""

import importlib
import os
import platform
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from jobs import _record
from jobs._journal import NAME as JOURNAL
from jobs._journal import Journal, read_history
from jobs._lock import hold
from jobs._run import config_type
from jobs._shipper import start_shipper
from jobs._stage import STOPPED, Outcome, Progress, Stage
from jobs._system_metrics import SystemMetrics
from slurm.files import read_json, write_json
from slurm.site import Site

_EARLY_S = 60.0  # Slurm may send its warning that much before it was asked to
_LEAVING_S = 60.0  # how long an earlier execution, on a node that was lost, may take to notice


def main(attempt: Path) -> None:
    """Runs the stage that `attempt`/request.json asks for; rank 0 tracks it and keeps its record."""
    request = read_json(attempt / "request.json")
    rank = int(os.environ.get("RANK", "0"))
    for number in (signal.SIGUSR2, signal.SIGTERM):  # a stage that saves its state in steps takes them over
        signal.signal(number, partial(_asked_to_stop, request, time.time()))
    with _told(attempt, rank):
        if rank == 0:
            _alone(attempt, request)
        else:
            _beside(attempt, request, rank)


@contextmanager
def _told(attempt: Path, rank: int) -> Iterator[None]:
    """Writes what goes wrong to the log in full, and in one line to a file for whoever decides how to go on."""
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is written down and ends the process
        traceback.print_exc()
        failure = {"type": type(error).__name__, "message": str(error), "host": platform.node()}
        with suppress(OSError):  # on a full disk the log has it
            write_json(attempt / f"failure.rank{rank}.json", {**failure, "permanent": _is_permanent(error)})
        sys.exit(1)


def _is_permanent(error: BaseException) -> bool:
    """Tells whether the same work would fail again: wrong input, settings or code, and no trouble of the machine."""
    lasting = (ValueError, TypeError, LookupError, AttributeError, ImportError, ArithmeticError, AssertionError)
    return isinstance(error, lasting) or bool(getattr(error, "permanent", False))


class OutOfTimeError(TimeoutError):
    """A stage that cannot save its state met its time limit."""

    permanent = True


def _asked_to_stop(request: Mapping[str, Any], started: float, *_: object) -> None:
    """Stops a stage that does not look for stop requests by itself: it begins again, unless its time was too short."""
    minutes, stage = request["resources"]["timeout_min"], request["stage"]
    lead = _site(request).signal_lead_s + _EARLY_S
    near_limit = time.time() - started > minutes * 60 - lead
    if near_limit and not config_type(stage).resumable:
        raise OutOfTimeError(f"must end within {minutes} min, but did not; raise {stage}.resources.timeout_min")
    print(f"{stage}: asked to stop", flush=True)
    sys.exit(STOPPED)


def _beside(attempt: Path, request: Mapping[str, Any], rank: int) -> None:
    """Runs a rank that is not the first; only the first says that the job was stopped."""
    try:
        _run(_stage(request, attempt, Journal(attempt / f"rank{rank}.jsonl"), rank=rank))
    except SystemExit as stop:
        if stop.code != STOPPED:
            raise


def _alone(attempt: Path, request: Mapping[str, Any]) -> None:
    """Runs rank 0 unless another job works on the same stage; one that is being ended gets a moment."""
    patience = _LEAVING_S if _site(request).executor == "slurm" else 0.0
    folder, deadline = Path(request["folder"]), time.monotonic() + patience
    while True:
        with hold(folder / ".working", wait=False) as held:
            if held:
                _tracked(attempt, request, folder)
                return
        if time.monotonic() > deadline:
            raise RuntimeError("must run once at a time, but another job is at it; wait for that one")
        time.sleep(1)


def _tracked(attempt: Path, request: Mapping[str, Any], folder: Path) -> None:
    """Runs rank 0: what it does is tracked whether it finishes or fails, and its record is kept when it finishes."""
    journal = Journal(folder / JOURNAL)
    tracking_id = journal.start(
        experiment=f"medscale/{request['stage']}",
        name=f"{request['run']}@{request['site']}",
        identity=request["request"],
        params={**request["config"], "resources": request["resources"]},
        tags=_tags(request),
    )
    started, status = time.time(), "FAILED"
    try:
        _ship(folder.parents[1], _site(request))
        for name, parent in request["parents"].items():
            _record.require_unchanged(parent, folder.parent / name)
        with SystemMetrics(journal):
            outcome = _run(_stage(request, attempt, journal, rank=0))
        record = _record.build(request, outcome, tracking_id=tracking_id, started=started, finished=time.time())
        _record.keep(folder, record)
        _show(journal, folder, record)
        status = "FINISHED"
    except SystemExit as stop:
        if stop.code == STOPPED:
            status = "KILLED"
            (attempt / "stopped").touch()
        raise
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        journal.end(status)


def _ship(results: Path, site: Site) -> None:
    try:
        start_shipper(results, tracking_uri=site.mlflow_tracking_uri, stays=site.executor == "local")
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"tracking: the journal is kept, but nothing delivers it: {error}; run `make ship` later", flush=True)


def _show(journal: Journal, folder: Path, record: Mapping[str, Any]) -> None:
    """Adds the record to what is tracked, and those headline figures that are not the end of a curve."""
    curves = read_history(journal.path).curves
    journal.metrics(0, {name: value for name, value in record["metrics"].items() if name not in curves})
    journal.tag("record_digest", record["digest"])
    journal.artifact(_record.history_path(folder, record["request"]))


def _run(stage: Stage) -> Outcome:
    outcome: Outcome = importlib.import_module(f"jobs.{stage.name}").run(stage.sections[stage.name], stage)
    return outcome


def _stage(request: Mapping[str, Any], attempt: Path, journal: Journal, *, rank: int) -> Stage:
    return Stage(
        name=request["stage"],
        run=request["run"],
        site=_site(request),
        folder=Path(request["folder"]),
        root=Path(request["folder"]).parent,
        parents=request["parents"],
        sections={name: config_type(name).model_validate(value) for name, value in request["sections"].items()},
        journal=journal,
        progress=Progress(path=attempt / "progress.json"),
        seed=request["seed"],
        rank=rank,
        world_size=int(os.environ.get("WORLD_SIZE", "1")),
        meeting=attempt / "meeting",
    )


def _site(request: Mapping[str, Any]) -> Site:
    return Site.model_validate(request["site_settings"])


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

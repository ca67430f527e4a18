"""Makes sure that a stage is done: finds its result, waits for who is at it, or submits it and waits."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs import _record
from jobs._lock import hold
from jobs._run import Run
from jobs._watch import Watch
from slurm.files import digest, read_json, write_json
from slurm.site import Site
from slurm.submit import submit

_POLL_S = 0.5
_GRACE_S = 20.0  # what the other ranks get to end by themselves after one has failed


class StageStoppedError(Exception):
    """A stage was asked to stop, saved its state, and goes on when it is started again."""


class StageFailedError(Exception):
    """A stage ended without a result; the message says why and where its log is."""


def ensure(
    stage: str, run: Run, *, site: Site, site_name: str, root: Path, after: Mapping[str, Path]
) -> dict[str, Any]:
    """Returns the record of `stage`, running it only when its result is not there yet.

    Args:
        stage: the stage's name.
        run: the checked run.
        site: the checked site.
        site_name: the name that records and dashboards show.
        root: results/<run>.
        after: the stages it stands on -> their record.json, as the rule's input says.

    Raises:
        StageFailedError: the job ended without a result.
        StageStoppedError: the job was asked to stop and can go on.
    """
    parents = {name: read_json(path) for name, path in after.items()}
    request = _request(stage, run, site=site, site_name=site_name, folder=root / stage, parents=parents)
    folder = root / stage
    with _turn(folder):
        record = _record.find(folder, request["request"])
        if record is None:
            record = _attempt(folder, request, run=run, site=site)
        write_json(folder / "record.json", record)
    return record


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Waits until nobody else submits this stage and no job works on it; a job goes on when its submitter dies."""
    with _held(folder, ".submitting"):
        with _held(folder, ".working"):
            pass  # free now, and only the holder of .submitting starts jobs
        yield


@contextmanager
def _held(folder: Path, name: str) -> Iterator[None]:
    with hold(folder / name, wait=False) as free:
        if free:
            yield
            return
    log = folder / "log.txt"
    print(f"{folder.name}: an earlier start is still at it; waiting for it (log: {log})", file=sys.stderr, flush=True)
    with hold(folder / name, wait=True):
        yield


def _attempt(folder: Path, request: Mapping[str, Any], *, run: Run, site: Site) -> dict[str, Any]:
    attempt = _new_attempt(folder)
    write_json(attempt / "request.json", request)
    resources = run.sections[request["stage"]].resources
    job = submit("jobs._task", attempt, name=f"{run.name}.{request['stage']}", resources=resources, site=site)
    cancelled = False
    with Watch(folder, attempt, title=request["stage"]) as watch:
        while not job.done():
            watch.refresh()
            if not cancelled and _failed_for(attempt) > _GRACE_S:
                job.cancel()  # the other ranks wait for one that will never come; once, or they would be spared
                cancelled = True
            time.sleep(_POLL_S)
    record = _record.find(folder, request["request"])
    if record is None and (attempt / "stopped").exists():
        raise StageStoppedError(
            f"{request['stage']}: stopped on request, its state is saved; run the same command again"
        )
    if record is None:
        raise StageFailedError(_why(attempt, request["stage"], folder))
    return record


def _failed_for(attempt: Path) -> float:
    """Returns the seconds since a rank of this attempt wrote down why it failed; 0 when none did."""
    times = [path.stat().st_mtime for path in attempt.glob("failure.rank*.json")]
    return time.time() - min(times) if times else 0.0


def _new_attempt(folder: Path) -> Path:
    """Makes the next attempts/NNNN: a folder of its own, so that nothing of an earlier attempt can be taken for new."""
    earlier = sorted((folder / "attempts").glob("[0-9]*"))
    number = int(earlier[-1].name) + 1 if earlier else 1
    attempt = folder / "attempts" / f"{number:04d}"
    attempt.mkdir(parents=True)
    return attempt


def _request(
    stage: str, run: Run, *, site: Site, site_name: str, folder: Path, parents: Mapping[str, Any]
) -> dict[str, Any]:
    sections = {name: section.model_dump(mode="json") for name, section in run.sections.items()}
    return {
        "stage": stage,
        "run": run.name,
        "site": site_name,
        "seed": run.seed,
        "folder": str(folder.resolve()),
        "config": dict(run.given[stage]),
        "resources": sections[stage]["resources"],
        "sections": sections,
        "site_settings": site.model_dump(mode="json"),
        "parents": dict(parents),
        "request": _record.request_digest(stage, run, site=site, parents=parents),
        "workflow_id": os.environ.get("MEDSCALE_WORKFLOW_ID", digest(time.time_ns())[:16]),
        "code": _record.code_version(),
    }


def _why(attempt: Path, stage: str, folder: Path) -> str:
    """Says in one line why an attempt has no result: the first failure written, else how it ended."""
    failures = sorted(attempt.glob("failure.rank*.json"), key=lambda path: path.stat().st_mtime_ns)
    reason = "its processes ended without a word (killed, or out of memory)"
    if failures:
        failure = read_json(failures[0])
        reason = f"{failure['type']}: {failure['message']}"
    return f"{stage} failed: {reason}; its log is {folder / 'log.txt'}; run the same command again to go on"

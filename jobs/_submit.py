"""Makes sure that a stage is done: finds its result, goes back to the job that is at it, or submits one and waits."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jobs import _record
from jobs._lock import hold
from jobs._run import Run
from jobs._watch import Watch
from slurm import queue, requeue, state
from slurm.files import digest, read_json, write_json
from slurm.site import Site
from slurm.submit import Submission, SubmitError, UnreachableError, submit

_POLL_S = 0.5
_GRACE_S = 20.0  # what the other ranks get to end by themselves after one has failed
_AGAIN_S = 10.0  # between tries to reach a controller that does not take a job


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
        StageStoppedError: the job was asked to stop, or the stage is cancelled, and it can go on.
    """
    asked = time.time()
    parents = {name: read_json(path) for name, path in after.items()}
    folder = root / stage
    request = _request(stage, run, site=site, site_name=site_name, folder=folder, parents=parents)
    with _turn(folder, queued=site.executor == "slurm"):
        record = _record.find(folder, request["request"])
        if record is None:
            _record.drop_damaged(folder, request["request"])
            _refuse_held(folder, run)
            start = _queued if site.executor == "slurm" else _local
            record = start(folder, request, run=run, site=site, asked=asked)
        write_json(folder / "record.json", record)
    return record


@contextmanager
def _turn(folder: Path, *, queued: bool) -> Iterator[None]:
    """Waits until nobody else submits this stage and, on one machine, no job works on it.

    A job goes on when its submitter dies. A queued one is found again by its id, so it is not waited for here.
    """
    with _held(folder, ".submitting"):
        if not queued:
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


def _refuse_held(folder: Path, run: Run) -> None:
    path = folder / "held.json"
    if path.exists():
        held = read_json(path)
        raise StageStoppedError(
            f"{folder.name}: cancelled ({held['reason']}); to let it go on: "
            f"python -m jobs release {run.name} --stage {folder.name}, then run the same command again"
        )


def _local(folder: Path, request: Mapping[str, Any], *, run: Run, site: Site, asked: float) -> dict[str, Any]:
    """Runs the stage on this machine."""
    _refuse_repeat(folder, request, asked)
    attempt = _new_attempt(folder, request)
    job = submit(_submission(attempt, request, run=run, site=site))
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
        requeue.decide(attempt, state="failed", reason=_why(attempt))
        raise _failure(folder, _why(attempt))
    return record


def _queued(folder: Path, request: Mapping[str, Any], *, run: Run, site: Site, asked: float) -> dict[str, Any]:
    """Goes back to the stage's job, or submits one, until there is a result or a reason why there is none."""
    tries, best = 0, 0.0
    while True:
        attempt = _open_attempt(folder, request, asked) or _submitted(folder, request, run=run, site=site)
        ended = _await(folder, attempt, request, site=site)
        record = _record.find(folder, request["request"])
        if record is not None:
            return record
        if ended.state == "finished":  # never again and again: what the next job finds is the same
            raise _failure(folder, f"its job finished, but its files must be in {folder.resolve()} as its record says")
        if ended.state == "cancelled":
            _refuse_held(folder, run)
        if ended.state == "failed":
            raise _failure(folder, ended.reason, tail=ended.tail)
        reached = requeue.progress(attempt)
        tries, best = (tries + 1, best) if reached <= best else (0, reached)
        if ended.state == "gone" and tries >= site.policies.max_tries:
            requeue.decide(attempt, state="failed", reason=ended.reason)
            raise _failure(folder, f"{ended.reason}; failed {tries} times without getting further")
        requeue.decide(attempt, state="superseded", reason=ended.reason)
        _say(request["stage"], f"{ended.reason}; it is submitted again")


def _open_attempt(folder: Path, request: Mapping[str, Any], asked: float) -> Path | None:
    """Returns the attempt whose job is still at this stage, found again whoever submitted it."""
    latest = _latest_attempt(folder)
    if latest is None or not (latest / "spec.json").is_file():
        return None
    if state.verdict(latest) is not None:
        _refuse_repeat(folder, request, asked)
        return None
    known = state.attach(latest, poll_s=_POLL_S, tell=lambda seen: _say(request["stage"], seen.note))
    if not known:
        requeue.decide(latest, state="superseded", reason="it never came into the queue")
        return None
    ids = ", ".join(state.job_ids(latest))
    if read_json(latest / "request.json")["request"] != request["request"]:
        _refuse_other(folder, latest, run=request["run"])
    _say(request["stage"], f"going back to job {ids}")
    return latest


def _refuse_other(folder: Path, latest: Path, *, run: str) -> None:
    """Refuses to start a stage while a job works on it with other settings or inputs."""
    live = [job.id for job in state.find(latest, state.answer(lambda _: None)) if job.live]
    if live:
        raise _failure(
            folder,
            f"its job must be this one, but job {live[0]} is at it with other settings or inputs; wait for it, "
            f"or cancel it: python -m jobs cancel {run} --stage {folder.name}, then release",
        )


def _refuse_repeat(folder: Path, request: Mapping[str, Any], asked: float) -> None:
    """Fails with what the same work failed with while this command waited for its turn: it was not asked for again."""
    latest = _latest_attempt(folder)
    ended = state.verdict(latest) if latest else None
    same = latest is not None and read_json(latest / "request.json")["request"] == request["request"]
    if same and ended is not None and ended.state == "failed" and ended.time > asked:
        raise _failure(folder, ended.reason, tail=ended.tail)


def _submitted(folder: Path, request: Mapping[str, Any], *, run: Run, site: Site) -> Path:
    """Submits the stage once; what it was is on disk before, and its job's id before anybody waits for it."""
    attempt = _new_attempt(folder, request)
    submission = _submission(attempt, request, run=run, site=site)
    while not state.job_ids(attempt):
        try:
            requeue.remember(attempt, str(submit(submission).job_id))
        except UnreachableError as error:
            _say(request["stage"], f"{error}; trying again")
            time.sleep(_AGAIN_S)
            state.attach(attempt, poll_s=_POLL_S, tell=lambda seen: _say(request["stage"], seen.note))
        except SubmitError as error:
            requeue.decide(attempt, state="failed", reason=f"sbatch refused it: {error}")
            raise _failure(folder, f"sbatch refused it: {error}") from error
    _say(request["stage"], f"submitted as job {state.job_ids(attempt)[0]}")
    return attempt


def _await(folder: Path, attempt: Path, request: Mapping[str, Any], *, site: Site) -> state.Ended:
    """Waits for the job and shows how it goes; Ctrl-C asks whether the job shall end too."""
    _start_shipping(folder, site)
    cache = folder.parents[1] / ".squeue.json"
    try:
        with Watch(folder, attempt, title=request["stage"]) as watch:
            return state.wait(
                attempt, poll_s=site.poll_s, cache=cache, tell=lambda seen: watch.refresh(waits=seen.note)
            )
    except KeyboardInterrupt:
        ids = state.job_ids(attempt)
        if _agrees(f"\n{request['stage']}: cancel its job {', '.join(ids)} too? [y/N] "):
            requeue.hold(read_json(attempt / "spec.json"), by="the operator (Ctrl-C)", job_id=ids[-1])
            queue.cancel(*ids)
        else:
            _say(request["stage"], f"job {', '.join(ids)} goes on; the same command goes back to it")
        raise


def _agrees(question: str) -> bool:
    """Asks the person at the terminal; nobody there, or a second Ctrl-C, means no."""
    try:
        with Path("/dev/tty").open("w") as screen, Path("/dev/tty").open() as keyboard:
            screen.write(question)
            screen.flush()
            return keyboard.readline().strip().lower() in ("y", "yes")
    except (OSError, KeyboardInterrupt):
        return False


def _start_shipping(folder: Path, site: Site) -> None:
    """Starts a shipper beside the waiting command: one on a compute node ends with its job."""
    from jobs._shipper import start_shipper

    with suppress(OSError):  # the journal is kept; `make ship` delivers it
        start_shipper(folder.parents[1], tracking_uri=site.mlflow_tracking_uri)


def _submission(attempt: Path, request: Mapping[str, Any], *, run: Run, site: Site) -> Submission:
    section = run.sections[request["stage"]]
    folder = Path(request["folder"])
    return Submission(
        module="jobs._task",
        attempt=attempt.resolve(),
        name=f"{run.name}.{request['stage']}",
        token=digest([request["workflow_id"], str(attempt.resolve())])[:16],
        digest=request["request"],
        done=_record.history_path(folder, request["request"]),
        held=folder / "held.json",
        results=folder.parents[1],
        resources=section.resources,
        site=site,
        purpose=section.purpose,
        spread=section.spread,
    )


def _failed_for(attempt: Path) -> float:
    """Returns the seconds since a rank of this attempt wrote down why it failed; 0 when none did."""
    times = [path.stat().st_mtime for path in attempt.glob("failure.rank*.json")]
    return time.time() - min(times) if times else 0.0


def _latest_attempt(folder: Path) -> Path | None:
    return next(iter(sorted((folder / "attempts").glob("[0-9]*"), reverse=True)), None)


def _new_attempt(folder: Path, request: Mapping[str, Any]) -> Path:
    """Makes the next attempts/NNNN: a folder of its own, so that nothing of an earlier attempt can be taken for new."""
    latest = _latest_attempt(folder)
    attempt = folder / "attempts" / f"{int(latest.name) + 1 if latest else 1:04d}"
    attempt.mkdir(parents=True, mode=0o700)
    write_json(attempt / "request.json", request)
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
        "site_settings": site.model_dump(mode="json", exclude_unset=True),
        "parents": dict(parents),
        "request": _record.request_digest(stage, run, site=site, parents=parents),
        "workflow_id": os.environ.get("MEDSCALE_WORKFLOW_ID", digest(time.time_ns())[:16]),
        "code": _record.code_version(),
    }


def _why(attempt: Path) -> str:
    """Says in one line why an attempt has no result: the first failure written, else how it ended."""
    failures = sorted(attempt.glob("failure.rank*.json"), key=lambda path: path.stat().st_mtime_ns)
    if not failures:
        return "its processes ended without a word (killed, or out of memory)"
    failure = read_json(failures[0])
    return f"{failure['type']}: {failure['message']}"


def _failure(folder: Path, reason: str, *, tail: tuple[str, ...] = ()) -> StageFailedError:
    lines = "".join(f"{line}\n" for line in tail)
    last = f"{folder.name} failed: {reason}; its log is {folder / 'log.txt'}; run the same command again to go on"
    return StageFailedError(lines + last)


def _say(stage: str, text: str) -> None:
    print(f"{stage}: {text}", file=sys.stderr, flush=True)

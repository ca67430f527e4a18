"""The state of one stage, in one word and a reason: from its files, and from what Slurm says of its jobs.

done         its result is there            held         cancelled, until it is released
running      its job has its nodes          failed       it will not go on by itself; the reason says why
pending      its job waits in the queue     lost         its job is gone without a word
requeued     its job waits to go on         waiting      for the stages before it, or to be started again
                                            not started
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs import _processes
from jobs._forecast import duration
from jobs._record import history_path
from slurm import ledger
from slurm.ledger import Attempt, Ledger
from slurm.queue import Ending, Job

ACTIVE = ("running", "pending", "requeued")
_WAITS = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
_SUBMITTING_S = 60.0  # how long an attempt may be without a job before it counts as lost
_AGAIN = "the same command goes on"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is known of a stage.

    Attributes:
        jobs: those of the newest attempt, as Slurm shows them; None when the controller does not answer.
        processes: ranks on this machine, where there is no Slurm.
        heard: the last sign of life, seconds since 1970.
        ending: asked how a job ended that Slurm's queue does not show.
    """

    folder: Path
    ledger: Ledger
    jobs: Sequence[Job] | None
    processes: int
    heard: float
    now: float
    ending: Callable[[str], Ending | None]


def needs_slurm(root: Path, stages: Iterable[str]) -> bool:
    """Tells whether a newest attempt went to Slurm and has no verdict yet: else Slurm has nothing to say."""
    newest = [ledger.latest(root / stage) for stage in stages]
    return any(attempt and attempt.executor != "local" and attempt.verdict is None for attempt in newest)


def of_attempt(attempt: Attempt | None, answer: Sequence[Job] | None) -> list[Job] | None:
    """Returns an attempt's jobs in an answer of the controller: by their ids, and by the token in their comments."""
    if attempt is None or answer is None:
        return None if answer is None else []
    token = f"attempt={attempt.token} "
    return [job for job in answer if job.id in attempt.job_ids or (attempt.token and token in f"{job.comment} ")]


def live(jobs: Sequence[Job] | None) -> list[Job]:
    """Returns the jobs that run or may still run, one that runs first."""
    return sorted((job for job in jobs or () if job.live), key=lambda job: job.state in _WAITS)


def running_ids(attempt: Attempt | None, jobs: Sequence[Job] | None) -> set[str]:
    """Returns the ids of the jobs that have their nodes now."""
    if attempt is not None and attempt.executor == "local":
        return {f"local-{attempt.path.name}"} if _processes.find(attempt.path) else set()
    return {job.id for job in jobs or () if job.live and job.state not in _WAITS}


def state(seen: Seen) -> tuple[str, str]:
    """Returns the state of a stage and the reason; ("", "") when there has been nothing to judge."""
    for rule in (_queued, _done, _held, _judged, _local, _by_files, _gone):
        found = rule(seen)
        if found is not None:
            return found
    return "", ""


def _queued(seen: Seen) -> tuple[str, str] | None:
    """A job whose attempt has its verdict is only being cleared away."""
    jobs, attempt = live(seen.jobs), seen.ledger.latest
    if not jobs or (attempt is not None and attempt.verdict is not None):
        return None
    job = jobs[0]
    if seen.ledger.held is not None:
        return "held", f"job {job.id} is still {job.state.lower()}"
    if job.state not in _WAITS:
        return "running", "" if job.state == "RUNNING" else job.state.lower()
    begun = any(execution.job_id == job.id for execution in seen.ledger.executions)
    return "requeued" if begun or job.state.startswith("REQUEUE") else "pending", job.reason


def _done(seen: Seen) -> tuple[str, str] | None:
    """A record that is newer than the newest attempt was found again; else that attempt must have made a result."""
    attempt, record = seen.ledger.latest, seen.folder / "record.json"
    found = record.exists() and (attempt is None or record.stat().st_mtime >= attempt.time)
    made = attempt is not None and bool(attempt.request) and history_path(seen.folder, attempt.request).exists()
    return ("done", "") if found or made else None


def _held(seen: Seen) -> tuple[str, str] | None:
    held = seen.ledger.held
    return None if held is None else ("held", held.reason or f"by {held.by or 'somebody'}")


def _judged(seen: Seen) -> tuple[str, str] | None:
    verdict = seen.ledger.latest.verdict if seen.ledger.latest else None
    if verdict is None:
        return None
    again = f"{verdict.reason}; {_AGAIN}" if verdict.reason else _AGAIN
    words = {"finished": ("done", verdict.reason), "failed": ("failed", verdict.reason)}
    return words.get(verdict.state, ("waiting", again))


def _local(seen: Seen) -> tuple[str, str] | None:
    attempt = seen.ledger.latest
    if attempt is None or attempt.executor != "local":
        return None
    if seen.processes:
        return "running", ""
    if (attempt.path / "stopped").exists():
        return "waiting", f"stopped on request, its state is saved; {_AGAIN}"
    return "lost", f"its processes are not on this machine any more; {_AGAIN}"


def _by_files(seen: Seen) -> tuple[str, str] | None:
    """What the files alone say, while the controller does not answer."""
    attempt = seen.ledger.latest
    if attempt is None or seen.jobs is not None:
        return None
    heard = f"by its files; last heard of {duration(max(0.0, seen.now - seen.heard))} ago"
    mine = [execution for execution in seen.ledger.executions if execution.attempt == attempt.path.name]
    if not mine:
        return "pending", heard
    if mine[-1].end is None:
        return "running", heard
    return "requeued" if mine[-1].next in ("requeue", "chain") else "lost", heard


def _gone(seen: Seen) -> tuple[str, str] | None:
    attempt = seen.ledger.latest
    if attempt is None:
        return None
    if not attempt.job_ids:
        fresh = seen.now - attempt.time < _SUBMITTING_S
        return ("pending", "being submitted") if fresh else ("lost", f"it never came into the queue; {_AGAIN}")
    last = attempt.job_ids[-1]
    shown = next((Ending(state=job.state) for job in seen.jobs or () if job.id == last), None) or seen.ending(last)
    how = f"its job {last} ended as {shown.state}" if shown else f"its job {last} is in the queue no more"
    return "lost", f"{how}, without a word; {_AGAIN}"

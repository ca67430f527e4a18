"""A submitted job from outside: found again after its submitter died, waited for, and told how it ended.

The job writes its own verdict (slurm/requeue.py). The scheduler is asked for what a job cannot write: that it waits,
that it was cancelled before it began, that it is gone.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from slurm import queue, requeue
from slurm.files import read_json

_LOOKS = 3  # answers in a row without the job before it is believed to be gone
_GLANCES_S = (0.3, 2.0)  # between looks at the job's own files: at first, and when it has been waited for long
_LONG_S = 300.0


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a submission ended.

    Attributes:
        state: finished, failed, cancelled, superseded by its own word; gone when its job ended without one.
        reason: why, in one line.
        tail: the end of its log, when it failed.
        time: when, in seconds since 1970.
    """

    state: Literal["finished", "failed", "cancelled", "superseded", "gone"]
    reason: str
    tail: tuple[str, ...] = ()
    time: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What the scheduler says of a job now; `silent` when it did not answer."""

    job: queue.Job | None = None
    silent: bool = False

    @property
    def note(self) -> str:
        """Returns it in a few words for people."""
        if self.silent:
            return "the Slurm controller does not answer; waiting for it"
        if self.job is None:
            return "looking for the job"
        waits = f" ({self.job.reason})" if self.job.state == "PENDING" and self.job.reason else ""
        return f"job {self.job.id} {self.job.state.lower()}{waits}"


def verdict(attempt: Path) -> Ended | None:
    """Returns the verdict of an attempt, once there is one."""
    path = attempt / "verdict.json"
    if not path.is_file():
        return None
    found = read_json(path)
    return Ended(state=found["state"], reason=found["reason"], tail=tuple(found["tail"]), time=found["time"])


def find(attempt: Path, answer: list[queue.Job]) -> list[queue.Job]:
    """Returns an attempt's jobs among those of an answer: by the ids it keeps, and by the token in their comments."""
    ids = set(job_ids(attempt))
    token = f"attempt={read_json(attempt / 'spec.json')['token']} "
    return [job for job in answer if job.id in ids or token in f"{job.comment} "]


def job_ids(attempt: Path) -> list[str]:
    """Returns the ids of an attempt's jobs, as far as they were written down."""
    path = attempt / "job.json"
    ids: list[str] = read_json(path)["job_ids"] if path.is_file() else []
    return ids


def attach(attempt: Path, *, poll_s: float, tell: Callable[[Outlook], None]) -> bool:
    """Finds the job of an attempt whose submitter may have died half-way; tells whether there ever was one.

    Waits while the controller is silent. An id that was not written down yet is written now.
    """
    for look in range(_LOOKS):
        if job_ids(attempt):
            return True
        time.sleep(min(poll_s, 2.0) if look else 0.0)
        for job in find(attempt, answer(tell)):
            requeue.remember(attempt, job.id)
    return bool(job_ids(attempt))


def answer(tell: Callable[[Outlook], None]) -> list[queue.Job]:
    """Returns the controller's fresh answer, however long it takes."""
    while (found := queue.jobs()) is None:
        tell(Outlook(silent=True))
        time.sleep(5)
    return found


def wait(attempt: Path, *, poll_s: float, cache: Path, tell: Callable[[Outlook], None]) -> Ended:
    """Waits until the job has written its verdict, or is gone.

    Args:
        attempt: the attempt's folder.
        poll_s: seconds between questions to the controller, shared by all who wait with the same `cache`.
        cache: a file for the last answer.
        tell: called again and again with what is known, to draw it.
    """
    spec = read_json(attempt / "spec.json")
    absent, asked, seen, held_since, began = 0, 0.0, Outlook(), 0.0, time.monotonic()
    while (ended := verdict(attempt)) is None:
        if time.monotonic() - asked >= poll_s:
            asked, found = time.monotonic(), queue.jobs(max_age_s=poll_s, cache=cache)
            mine = [job for job in find(attempt, found) if job.live] if found is not None else []
            seen = Outlook(job=mine[0] if mine else None, silent=found is None)
            absent = absent + 1 if found is not None and not mine else 0
            held_since = _release(seen.job, held_since, after_s=spec["policies"]["requeue_delay_s"])
        if absent >= _LOOKS:
            return _conclude(attempt, spec)
        tell(seen)
        time.sleep(_GLANCES_S[0] + _GLANCES_S[1] * min(1.0, (time.monotonic() - began) / _LONG_S))
    return ended


def _release(job: queue.Job | None, since: float, *, after_s: float) -> float:
    """Ends the two minutes that Slurm holds a requeued job, when its old execution has surely ended.

    Args:
        job: what the queue shows.
        since: when it was first seen held; 0 for not yet.
        after_s: how long it must have been held.

    Returns:
        The next `since`.
    """
    if job is None or job.state != "PENDING" or job.reason != "BeginTime":
        return 0.0
    if since and time.monotonic() - since >= after_s:
        queue.update(job.id, "StartTime=now")
    return since or time.monotonic()


def _conclude(attempt: Path, spec: dict[str, Any]) -> Ended:
    """Says how a job ended that is in the queue no more and has left no verdict."""
    last = job_ids(attempt)[-1] if job_ids(attempt) else ""
    how = queue.ending(last, accounting=spec["accounting"])
    found = verdict(attempt)  # it may have come while Slurm was asked
    if found is not None:
        return found
    if how is not None and how.state == "CANCELLED":
        requeue.hold(spec, by=f"scancel by uid {how.by}" if how.by else "scancel", job_id=last)
        requeue.decide(attempt, state="cancelled", reason=f"its job {last} was cancelled")
    elif Path(spec["done"]).exists():
        requeue.decide(attempt, state="finished", reason="its result is there")
    return verdict(attempt) or Ended(state="gone", reason=_gone(last, how), time=time.time())


def _gone(job_id: str, how: queue.Ending | None) -> str:
    if how is None:
        return f"its job {job_id} is in the queue no more, and Slurm does not say how it ended"
    reasons = {
        "TIMEOUT": "it reached its time limit before it could save; raise the site's signal_lead_s",
        "OUT_OF_MEMORY": "it ran out of memory; raise its resources.mem_gb",
        "NODE_FAIL": "a node failed and Slurm did not requeue it",
    }
    return f"its job {job_id} ended as {how.state}" + (f": {reasons[how.state]}" if how.state in reasons else "")

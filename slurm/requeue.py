"""What a job's batch script decides by itself: whether it may start, and whether it goes on after its ranks have ended.

`python -m slurm.requeue begin ATTEMPT SCRIPT` comes before the ranks, `end ATTEMPT STATUS` after them. Nobody outside
need be alive: a job that was stopped by a signal, preempted or lost a rank puts itself back into the queue, under the
same id, or, where a site forbids that, the successor that it queued at its start goes on. One that was cancelled does
not.
"""

import fcntl
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slurm import queue
from slurm.events import Event, add, fruitless, read_events
from slurm.files import read_json, write_json

NOTHING_TO_DO = 100
STOPPED = 85  # what ranks exit with when they were asked to stop and have saved their state
_SILENCE_S = 600.0  # how long the end of a job waits for a controller that does not answer
_KILLED_S = 300.0  # Slurm ends the script of a job that it has requeued long before
_SETTLING_S = 300.0  # how long the next link of a chain waits for the one before to be gone
_EARLY_S = 60.0  # Slurm may send its warning that much before it was asked to
_TAIL_LINES = 12
_SRUN_ERROR = re.compile(r"^srun: error: (\S+): tasks? [\d,-]+: (.+)$", re.MULTILINE)


def main(arguments: list[str]) -> int:
    """Runs `begin ATTEMPT SCRIPT` or `end ATTEMPT STATUS` and returns the exit status of the batch script."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a preemption sends it again while the way on is being decided
    step, attempt = arguments[0], Path(arguments[1])
    return begin(attempt, script=Path(arguments[2])) if step == "begin" else end(attempt, arguments[2])


def begin(attempt: Path, *, script: Path) -> int:
    """Lets the ranks start (0), unless the work is done, cancelled or given up (NOTHING_TO_DO).

    Args:
        attempt: the attempt's folder.
        script: the batch script that runs; a chain queues it once more.
    """
    spec = read_json(attempt / "spec.json")
    reason = _refused(attempt, spec)
    if reason is not None:
        print(f"nothing to start: {reason}", flush=True)
        return NOTHING_TO_DO
    remember(attempt, _job_id())
    _clear(attempt)
    if spec["continuation"] == "chain":
        _queue_successor(attempt, script)
    nodes = list(queue.allocation())
    add(
        attempt,
        Event(
            event="begin",
            job_id=_job_id(),
            restart=_restart(),
            nodes=nodes,
            gpus=spec["gpus_per_node"] * spec["nodes"],
            tasks=spec["tasks"],
            step=progress(attempt),
        ),
    )
    print(f"job {_job_id()}, execution {_restart() + 1}, on {', '.join(nodes)}", flush=True)
    return 0


def end(attempt: Path, status: str) -> int:
    """Writes down how the ranks ended and goes on where that is right; returns the batch script's exit status."""
    spec = read_json(attempt / "spec.json")
    code = int(status) if status.isdigit() else 1
    outcome, reason, node = _outcome(attempt, spec, status)
    step = progress(attempt)
    ended = Event(event="end", job_id=_job_id(), restart=_restart(), status=code, outcome=outcome, step=step)
    ended = ended.told(reason=reason, node=node)
    if outcome == "finished":
        return _close(attempt, spec, ended, state="finished")
    standing = "cancelled" if outcome == "cancelled" else _standing(spec)
    if standing == "cancelled":
        hold(spec, by="scancel", job_id=_job_id())
        return _close(attempt, spec, ended.told(reason="it was cancelled", outcome="cancelled"), state="cancelled")
    if standing == "replaced":  # Slurm has ended this execution: it requeues the job itself, or it was cancelled
        add(attempt, ended)
        return ended.status or 1
    tries = fruitless([*read_events(attempt), ended], step=step)
    if _is_permanent(attempt) or tries >= spec["max_tries"]:
        again = "" if tries < 2 else f"; failed {tries} times without getting beyond step {step:g}"
        return _close(attempt, spec, ended.told(reason=reason + again), state="failed")
    return _go_on(attempt, spec, ended, out_of_time=standing == "out of time")


def remember(attempt: Path, job_id: str) -> None:
    """Keeps the id of one more job of this attempt, durably."""
    path = attempt / "job.json"
    with (attempt / ".job.lock").open("a") as lock:  # who submits and the job itself may both know a new id
        fcntl.flock(lock, fcntl.LOCK_EX)
        _add_id(path, job_id)


def _add_id(path: Path, job_id: str) -> None:
    known: dict[str, Any] = read_json(path) if path.is_file() else {"job_ids": [], "submitted": time.time()}
    if job_id not in known["job_ids"]:
        write_json(path, {**known, "job_ids": [*known["job_ids"], job_id]})


def hold(spec: Mapping[str, Any], *, by: str, job_id: str) -> None:
    """Marks the stage as cancelled, until somebody releases it."""
    path = Path(spec["held"])
    if not path.exists():
        reason = f"{spec['name']}: its job {job_id} was cancelled by {by}"
        write_json(path, {"by": by, "time": time.time(), "job_id": job_id, "reason": reason})


def decide(attempt: Path, *, state: str, reason: str) -> None:
    """Closes an attempt for good: no job of it starts again."""
    tail = last_lines(attempt) if state == "failed" else []
    write_json(attempt / "verdict.json", {"state": state, "reason": reason, "time": time.time(), "tail": tail})


def progress(attempt: Path) -> float:
    """Returns how far the stage is, in its own units; 0 before it told."""
    try:
        return float(read_json(attempt / "progress.json")["done"])
    except (OSError, ValueError, KeyError):
        return 0.0


def last_lines(attempt: Path, count: int = _TAIL_LINES) -> list[str]:
    """Returns the end of the log that was written last."""
    logs = sorted(attempt.glob("submitit/*_log.*"), key=lambda path: path.stat().st_mtime)
    lines = [line for log in logs[-1:] for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-count:]


def _refused(attempt: Path, spec: Mapping[str, Any]) -> str | None:
    """Returns why no rank may start, after writing the verdict; None when they may."""
    if (attempt / "verdict.json").exists():
        return "this attempt is over"
    if Path(spec["done"]).exists():
        decide(attempt, state="finished", reason="its result is there")
        return "the result is there"
    before = _previous_job(attempt)
    if before and not Path(spec["held"]).exists():
        how = _settled(before, spec)
        if how is not None and how.state == "CANCELLED":
            hold(spec, by=f"scancel by uid {how.by}" if how.by else "scancel", job_id=before)
    if Path(spec["held"]).exists():
        decide(attempt, state="cancelled", reason="the stage is held")
        return "the stage is held"
    tries = fruitless(read_events(attempt), step=progress(attempt))
    if tries >= spec["max_tries"]:
        reason = f"its nodes or its batch script died {tries} times without getting beyond step {progress(attempt):g}"
        decide(attempt, state="failed", reason=reason)
        return reason
    return None


def _settled(job_id: str, spec: Mapping[str, Any]) -> queue.Ending | None:
    """Returns how a job ended. One that is COMPLETING may have been cancelled: that shows when its nodes are empty."""
    deadline = time.monotonic() + _SETTLING_S
    while True:
        how = queue.ending(job_id, accounting=spec["accounting"])
        if how is None or how.state not in queue.LIVE or time.monotonic() > deadline:
            return how
        time.sleep(1)


def _previous_job(attempt: Path) -> str | None:
    """Returns the link of the chain before this job, if there is one."""
    begun = [event.job_id for event in read_events(attempt) if event.event == "begin"]
    return begun[-1] if begun and begun[-1] != _job_id() else None


def _clear(attempt: Path) -> None:
    """Removes what an earlier execution of this attempt left for its own time."""
    for path in [*attempt.glob("failure.rank*.json"), attempt / "stopped"]:
        path.unlink(missing_ok=True)
    for name in ("preflight", "meeting"):
        shutil.rmtree(attempt / name, ignore_errors=True)
        (attempt / name).mkdir(mode=0o700)


def _queue_successor(attempt: Path, script: Path) -> None:
    """Queues the next link of the chain: Slurm starts it when this job has ended, however it ended."""
    successor = queue.submit_again(script, "--dependency=singleton")
    if successor is None:
        print("no successor could be queued: after its time limit this job must be submitted again", flush=True)
    else:
        remember(attempt, successor)


def _outcome(attempt: Path, spec: Mapping[str, Any], status: str) -> tuple[str, str, str | None]:
    """Returns (outcome, reason, node): how the ranks ended, why, and which node was first to fail."""
    if not status.isdigit():
        return "preflight", *_unready(attempt, status)
    if Path(spec["done"]).exists():  # whatever became of other ranks: the first one keeps the result at its end
        return "finished", "", None
    if Path(spec["held"]).exists():
        return "cancelled", "the stage is held", None
    if int(status) != STOPPED:
        return "crashed", *_why(attempt, status)
    if _is_too_short(attempt, spec):
        limit = f"its time limit of {spec['timeout_min']} min ended it before it got further"
        return "crashed", f"{limit}; raise resources.timeout_min", None
    return "stopped", "it was asked to stop and saved its state", None


def _unready(attempt: Path, what: str) -> tuple[str, str | None]:
    """Returns (reason, node) of a job whose ranks were not started: a check failed, or a line of the batch script."""
    if what != "preflight":
        return f"`{what}` failed; correct the site file or the node", None
    lines, bad = _checked(attempt)
    return "; ".join(lines), next(iter(bad), None)


def _is_too_short(attempt: Path, spec: Mapping[str, Any]) -> bool:
    """Tells whether this execution ran to its time limit and did nothing: the next would do the same."""
    begun = [event for event in read_events(attempt) if event.event == "begin"]
    if not begun or progress(attempt) > begun[-1].step:
        return False
    latest = 60.0 * spec["timeout_min"] - spec["signal_lead_s"] - _EARLY_S
    return bool(time.time() - begun[-1].time > latest)


def _checked(attempt: Path) -> tuple[list[str], list[str]]:
    """Returns (lines, bad nodes) of the checks before the first step."""
    path = attempt / "preflight" / "verdict.json"
    if not path.is_file():
        return ["the checks of the nodes did not end: a disk hangs, or srun does"], []
    found = read_json(path)
    return found["lines"], found["bad_nodes"]


def _why(attempt: Path, status: str) -> tuple[str, str | None]:
    """Returns the first failure that a rank wrote down, else what srun says of the first task that ended."""
    failures = sorted(attempt.glob("failure.rank*.json"), key=lambda path: path.stat().st_mtime_ns)
    killed = _first_killed(attempt)
    if killed is not None:  # the others only lost their connection to it
        return f"a process on {killed[0]} ended without a word: {killed[1]}", killed[0]
    if failures:
        failure = read_json(failures[0])
        return f"{failure['type']}: {failure['message']}", failure.get("host")
    return f"its processes ended with status {status}", None


def _first_killed(attempt: Path) -> tuple[str, str] | None:
    """Returns (node, how) of the first task that a signal ended in this execution, from what srun printed."""
    log = attempt / "submitit" / f"{_job_id()}_0_log.out"
    text = log.read_text(errors="replace") if log.is_file() else ""
    this = text[text.rfind(f"job {_job_id()}, execution {_restart() + 1},") :]
    ended = [(match[1], match[2]) for match in _SRUN_ERROR.finditer(this)]
    return next(((node, how) for node, how in ended if not how.startswith(("Exited", "Terminated"))), None)


def _is_permanent(attempt: Path) -> bool:
    """Tells whether a rank wrote that trying again would fail again."""
    failures = sorted(attempt.glob("failure.rank*.json"), key=lambda path: path.stat().st_mtime_ns)
    return bool(failures) and bool(read_json(failures[0]).get("permanent"))


def _standing(spec: Mapping[str, Any]) -> queue.Standing:
    """Returns what the controller thinks of this execution; while it is silent, nothing is decided."""
    deadline = time.monotonic() + _SILENCE_S
    while time.monotonic() < deadline:
        answer = queue.standing(_job_id(), restart=_restart())
        if answer is not None:
            return "cancelled" if Path(spec["held"]).exists() else answer
        time.sleep(5)
    return "runs"


def _close(attempt: Path, spec: Mapping[str, Any], ended: Event, *, state: str) -> int:
    add(attempt, ended)
    decide(attempt, state=state, reason=ended.reason)
    if spec["continuation"] == "chain":
        queue.cancel(*[job for job in read_json(attempt / "job.json")["job_ids"] if job != _job_id()])
    if ended.reason:
        print(f"{spec['name']} {state}: {ended.reason}", flush=True)
    return 0 if state == "finished" else ended.status or 1


def _go_on(attempt: Path, spec: Mapping[str, Any], ended: Event, *, out_of_time: bool) -> int:
    how = spec["continuation"]
    bad = _bad_nodes(attempt, ended)
    add(attempt, ended.told(next=how))
    print(f"{spec['name']} goes on ({how}) after {ended.outcome} at step {ended.step:g}: {ended.reason}", flush=True)
    if how == "requeue" and not queue.requeue(_job_id(), ended=out_of_time):
        print("the controller did not take the requeue; a waiting command submits the job again", flush=True)
        return ended.status or 1
    successor = _job_id() if how == "requeue" else read_json(attempt / "job.json")["job_ids"][-1]
    if bad and queue.spare_nodes(spec["partition"], without=bad) >= spec["nodes"]:
        queue.update(successor, f"ExcNodeList={','.join(bad)}")
    if how == "requeue":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(_KILLED_S)  # an exit now would be taken for the end of the job that is in the queue again
    return ended.status or 1


def _bad_nodes(attempt: Path, ended: Event) -> list[str]:
    """Returns the nodes to leave out: those that failed the checks, and one that was first to fail twice in a row."""
    ends = [event for event in read_events(attempt) if event.event == "end"]
    if ended.outcome == "preflight":
        return _checked(attempt)[1]
    twice = bool(ends) and ended.node is not None and ends[-1].node == ended.node
    return [ended.node] if twice and ended.node else []


def _job_id() -> str:
    return os.environ["SLURM_JOB_ID"]


def _restart() -> int:
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

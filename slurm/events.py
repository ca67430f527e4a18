"""The executions of one attempt, as its batch script writes them: when each began and ended, where, and how far."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

NAME = "events.jsonl"


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of events.jsonl.

    Attributes:
        restart: how often Slurm had requeued the job before.
        step: what the stage had done, in its own units.
        gpus: of the whole job.
        tasks: processes of the whole job.
        outcome: of an end: finished, stopped (asked to, state saved), crashed, preflight or cancelled.
        node: the node that failed first, where one did.
        next: of an end: requeue, chain or none.
        time: seconds since 1970.
    """

    event: Literal["begin", "end"]
    job_id: str
    restart: int
    step: float
    nodes: Sequence[str] = ()
    gpus: int = 0
    tasks: int = 0
    status: int | None = None
    outcome: str = ""
    reason: str = ""
    node: str | None = None
    next: str = "none"
    time: float = field(default_factory=time.time)

    def told(self, **changes: Any) -> "Event":
        """Returns the event with more known about it."""
        return replace(self, **changes)


def add(attempt: Path, event: Event) -> None:
    """Appends an event, durably and as one write; only the batch script of the attempt's running job does."""
    line = json.dumps(asdict(event)).encode() + b"\n"
    handle = os.open(attempt / NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line)
        os.fsync(handle)
    finally:
        os.close(handle)


def read_events(attempt: Path) -> list[Event]:
    """Returns the events of an attempt in order; a line torn by a power cut is left out."""
    path = attempt / NAME
    known = {item.name for item in fields(Event)}
    found = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            found.append(Event(**{name: value for name, value in json.loads(line).items() if name in known}))
        except (ValueError, TypeError, AttributeError):
            continue
    return found


def fruitless(events: Sequence[Event], *, step: float) -> int:
    """Returns how many executions in a row, up to the last, failed without getting further than any before them.

    One that was asked to stop has not failed. A begin without an end has: its node or its batch script died.

    Args:
        events: of one attempt, in order.
        step: what is done now; how far an execution came that has not written its end.
    """
    count, best = 0, 0.0
    for outcome, reached in _outcomes(events, step):
        failed = outcome in ("crashed", "preflight", "died")
        count = count + 1 if failed and reached <= best else 0
        best = max(best, reached)
    return count


def _outcomes(events: Sequence[Event], step: float) -> list[tuple[str, float]]:
    """Returns (outcome, step reached) of each execution in the order of their begins."""
    found: dict[tuple[str, int], tuple[str, float]] = {}
    for event in events:
        if event.event == "begin":
            _reached(found, event.step)
            found[event.job_id, event.restart] = ("died", event.step)
        else:  # that of a remnant, on a node that was given up, comes after the next begin
            found[event.job_id, event.restart] = (event.outcome, event.step)
    _reached(found, step)
    return list(found.values())


def _reached(found: dict[tuple[str, int], tuple[str, float]], step: float) -> None:
    """Notes how far the newest execution came, if it has not said so itself."""
    newest = next(reversed(found), None)
    if newest is not None and found[newest][0] == "died":
        found[newest] = ("died", step)

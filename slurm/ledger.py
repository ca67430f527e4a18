"""The ledger: what a stage's jobs did and took, read from the files that they left.

Nobody is asked and nothing is written, so it can be read while everything else is dead. A file that is missing says
nothing; one that cannot be read, or a line that was torn by a kill, is left out and counted in `Ledger.damaged`.
"""

import math
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slurm.events import NAME, Event, read_events
from slurm.files import read_json

_HOUR_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Execution:
    """One stretch of time in which a job had its nodes; times are seconds since 1970.

    Attributes:
        attempt: the folder of its attempt: 0001.
        job_id: Slurm's, or local-0001 where there is no Slurm.
        restart: how often Slurm had put the job back before.
        end: None while it runs, and for good when its node or batch script died.
        outcome: as of its end (slurm/events.py); running; died when it ended without a word.
        next: what followed its end: requeue, chain or none.
        first_step: what the stage had done when it began, by its last word before; last_step: when last heard of.
        alive_until: `end` where there is one, else the last sign of life.
    """

    attempt: str
    job_id: str
    restart: int
    nodes: tuple[str, ...]
    gpus: int
    tasks: int
    begin: float
    end: float | None
    outcome: str
    reason: str
    node: str | None
    next: str
    first_step: float
    last_step: float
    alive_until: float

    @property
    def duration_s(self) -> float:
        """Seconds from the begin to the end or the last sign of life."""
        return max(0.0, self.alive_until - self.begin)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Why no job of an attempt may start again; `state` is finished, failed, cancelled or superseded."""

    state: str
    reason: str
    time: float
    tail: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far an attempt says that it is; `time` is when it last said so."""

    done: float
    total: float
    note: str
    time: float


@dataclass(frozen=True, kw_only=True)
class Held:
    """Who cancelled a stage, when and why; it stays so until it is released."""

    by: str
    time: float
    job_id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One submission of a stage.

    Attributes:
        request: digest of what was asked.
        token: what the comments of its jobs in Slurm contain.
        job_ids: in the order of submission; empty where there is no Slurm, or before the first is known.
        time_limit_s: longest execution; infinite when not known.
        time: when it was made.
    """

    path: Path
    request: str
    token: str
    executor: str
    job_ids: tuple[str, ...]
    time_limit_s: float
    time: float
    verdict: Verdict | None
    progress: Progress | None


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Everything that a stage's folder tells of its jobs; attempts and executions from the oldest to the newest."""

    attempts: tuple[Attempt, ...]
    executions: tuple[Execution, ...]
    held: Held | None
    damaged: tuple[str, ...]

    @property
    def latest(self) -> Attempt | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def current(self) -> tuple[Execution, ...]:
        """The executions of what the newest attempt was asked for: other settings were other work."""
        same = {attempt.path.name for attempt in self.attempts if attempt.request == self.attempts[-1].request}
        return tuple(execution for execution in self.executions if execution.attempt in same)


def read(folder: Path, *, now: float, running: Collection[str] = frozenset(), seen: Sequence[float] = ()) -> Ledger:
    """Reads the folder of one stage.

    Args:
        folder: results/<run>/<stage>.
        now: the time, seconds since 1970.
        running: ids of the jobs that have their nodes now.
        seen: further times at which the stage was at work, in ascending order: what its journal tells.
    """
    damaged: list[str] = []
    attempts = tuple(_attempt(path, damaged) for path in _attempts(folder))
    found = [execution for attempt in attempts for execution in _executions(attempt, damaged)]
    found.sort(key=lambda execution: execution.begin)
    by_name = {attempt.path.name: attempt for attempt in attempts}
    known = [_closed(found, number, by_name, now=now, running=running, seen=seen) for number in range(len(found))]
    held = _held(folder / "held.json", damaged)
    return Ledger(attempts=attempts, executions=tuple(known), held=held, damaged=tuple(damaged))


def executions(folder: Path, *, now: float, running: Collection[str] = frozenset()) -> list[Execution]:
    """Returns all executions of a stage from the oldest to the newest; arguments as of `read`."""
    return list(read(folder, now=now, running=running).executions)


def latest(folder: Path) -> Attempt | None:
    """Returns the newest attempt at a stage with its verdict; None when there is none."""
    paths = _attempts(folder)
    return _attempt(paths[-1], []) if paths else None


def gpu_hours(known: Iterable[Execution]) -> float:
    """Returns the GPU-hours that were allocated, whether they served or not."""
    return sum(execution.gpus * execution.duration_s for execution in known) / _HOUR_S


def task_hours(known: Iterable[Execution]) -> float:
    """Returns the hours of all processes: what a job without GPUs is measured by."""
    return sum(execution.tasks * execution.duration_s for execution in known) / _HOUR_S


def allocated_s(known: Iterable[Execution]) -> float:
    """Returns the seconds in which there was an allocation."""
    return sum(execution.duration_s for execution in known)


def restarts(known: Sequence[Execution]) -> int:
    """Returns how often the work began again after its first begin."""
    return max(0, len(known) - 1)


def _attempts(folder: Path) -> list[Path]:
    return sorted((folder / "attempts").glob("[0-9]*"))


def _attempt(path: Path, damaged: list[str]) -> Attempt:
    spec, job, request = (_json(path / name, damaged) for name in ("spec.json", "job.json", "request.json"))
    ids = job.get("job_ids")
    submitted = any((path / name).exists() for name in ("spec.json", "job.json"))
    return Attempt(
        path=path,
        request=_text(request, "request") or _text(spec, "digest"),
        token=_text(spec, "token"),
        executor=_text(spec, "executor") or ("slurm" if submitted else "local"),
        job_ids=tuple(str(each) for each in ids) if isinstance(ids, list) else (),
        time_limit_s=60 * _number(spec, "timeout_min") or math.inf,
        time=min(filter(None, (_number(job, "submitted"), _mtime(path / "request.json"))), default=_mtime(path)),
        verdict=_verdict(_json(path / "verdict.json", damaged)),
        progress=_progress(path / "progress.json", damaged),
    )


def _verdict(value: Mapping[str, Any]) -> Verdict | None:
    if not value:
        return None
    lines = value.get("tail")
    tail = tuple(str(line) for line in lines) if isinstance(lines, list) else ()
    return Verdict(state=_text(value, "state"), reason=_text(value, "reason"), time=_number(value, "time"), tail=tail)


def _progress(path: Path, damaged: list[str]) -> Progress | None:
    value = _json(path, damaged)
    if not value:
        return None
    done, total = _number(value, "done"), _number(value, "total")
    return Progress(done=done, total=total, note=_text(value, "note"), time=_mtime(path))


def _held(path: Path, damaged: list[str]) -> Held | None:
    if not path.exists():
        return None
    value = _json(path, damaged)  # one that cannot be read still holds the stage
    words = {name: _text(value, name) for name in ("by", "job_id", "reason")}
    return Held(time=_number(value, "time"), **words)


def _executions(attempt: Attempt, damaged: list[str]) -> list[Execution]:
    """Returns the executions of one attempt; an end is matched with the begin of its job id and restart."""
    found: dict[tuple[str, int], Execution] = {}
    for event in _events(attempt.path, damaged):
        key = (event.job_id, event.restart)
        if event.event == "begin":
            found[key] = _begun(attempt, event)
        elif key in found:
            found[key] = _ended(found[key], event)
        else:
            damaged.append(f"{attempt.path / NAME}: the end of job {event.job_id} without its begin")
    if not found and attempt.executor == "local":
        return [_local(attempt, damaged)]
    return list(found.values())


def _events(path: Path, damaged: list[str]) -> list[Event]:
    """Returns the events that can be used; the lines that cannot are counted."""
    try:
        found = [event for event in read_events(path) if _is_sound(event)]
        lines = (path / NAME).read_bytes().splitlines() if (path / NAME).exists() else []
    except OSError as error:
        damaged.append(f"{path / NAME}: {error.strerror}")
        return []
    unusable = sum(1 for line in lines if line.strip()) - len(found)
    damaged += [f"{path / NAME}: a line that is no event"] * unusable
    return found


def _is_sound(event: Any) -> bool:  # its types are those of a line that anybody may have damaged
    numbers = (event.time, event.step, event.restart, event.gpus, event.tasks)
    finite = all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
    return finite and isinstance(event.job_id, str) and isinstance(event.nodes, list | tuple)


def _begun(attempt: Attempt, event: Event) -> Execution:
    return Execution(
        attempt=attempt.path.name,
        job_id=event.job_id,
        restart=event.restart,
        nodes=tuple(str(node) for node in event.nodes),
        gpus=event.gpus,
        tasks=event.tasks,
        begin=event.time,
        end=None,
        outcome="died",
        reason="",
        node=None,
        next="",
        first_step=event.step,
        last_step=event.step,
        alive_until=event.time,
    )


def _ended(begun: Execution, event: Event) -> Execution:
    return replace(
        begun,
        end=event.time,
        alive_until=event.time,
        outcome=event.outcome,
        reason=event.reason,
        node=event.node,
        next=event.next,
        last_step=event.step,
    )


def _local(attempt: Attempt, damaged: list[str]) -> Execution:
    """Makes the one execution of an attempt without Slurm, from what was asked and when its files were written."""
    asked = _json(attempt.path / "request.json", damaged).get("resources")
    size = asked if isinstance(asked, dict) else {}
    nodes = int(_number(size, "nodes") or 1)
    begin = Event(
        event="begin",
        job_id=f"local-{attempt.path.name}",
        restart=0,
        step=0.0,
        gpus=nodes * int(_number(size, "gpus_per_node")),
        tasks=nodes * int(_number(size, "tasks_per_node") or 1),
        time=attempt.time,
    )
    begun, verdict = _begun(attempt, begin), attempt.verdict
    if verdict is None:
        return begun
    done = attempt.progress.done if attempt.progress else 0.0
    outcome = "crashed" if verdict.state == "failed" else verdict.state
    end = replace(begin, event="end", time=verdict.time, outcome=outcome, reason=verdict.reason, step=done)
    return _ended(begun, end)


def _closed(
    found: Sequence[Execution],
    number: int,
    attempts: Mapping[str, Attempt],
    *,
    now: float,
    running: Collection[str],
    seen: Sequence[float],
) -> Execution:
    """Says until when an execution without an end was alive: now, or at its last sign of life before the next began."""
    execution, after = found[number], found[number + 1 :]
    if execution.end is not None:
        return execution
    attempt = attempts[execution.attempt]
    again = next((later for later in after if later.attempt == execution.attempt), None)
    told = attempt.progress if again is None else None  # what it says now is of its newest execution
    step = again.first_step if again else told.done if told else execution.last_step
    if execution.job_id in running and all(later.job_id != execution.job_id for later in after):
        return replace(execution, outcome="running", last_step=step, alive_until=max(now, execution.begin))
    limit = min(execution.begin + attempt.time_limit_s, after[0].begin if after else math.inf)
    signs = [*_last_before(limit, seen), *([told.time] if told else [])]
    signs = [sign for sign in signs if sign >= execution.begin]
    unknown = limit if after else execution.begin
    return replace(execution, last_step=step, alive_until=min(max(signs, default=unknown), limit))


def _last_before(limit: float, seen: Sequence[float]) -> Sequence[float]:
    end = bisect_right(seen, limit)
    return seen[max(0, end - 1) : end]


def _json(path: Path, damaged: list[str]) -> dict[str, Any]:
    """Returns the JSON object in a file; empty when there is none, and counted when it cannot be read."""
    try:
        value = read_json(path) if path.exists() else {}
    except (OSError, ValueError) as error:
        damaged.append(f"{path}: {error}")
        return {}
    if not isinstance(value, dict):
        damaged.append(f"{path}: no JSON object")
        return {}
    return value


def _number(value: Mapping[str, Any], name: str) -> float:
    found = value.get(name)
    usable = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
    return float(found) if usable and found is not None else 0.0


def _text(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    return "" if found is None else " ".join(str(found).split())


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0

"""One look at a run: every stage with its state, pace and cost, and when all will be done. Nothing is changed by it."""

import math
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import pairwise
from pathlib import Path

from jobs import _forecast
from jobs._forecast import Span
from jobs._pace import Pace, pace
from jobs._run import Run
from jobs._states import ACTIVE, Seen, live, of_attempt, running_ids, state
from slurm import ledger
from slurm.files import read_json
from slurm.ledger import Attempt, Ledger
from slurm.queue import Ending, Job
from slurm.site import Site

_LOG_LINES = 8
_LOG_BYTES = 1 << 14
_TOLD = ("running", "failed", "lost", "requeued")  # states whose log is worth a look, in this order
_ESCAPE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)?")


@dataclass(frozen=True, kw_only=True)
class StageView:
    """What an operator is shown of one stage; None where nothing is known.

    Attributes:
        state: of jobs/_states.py; `reason` says more.
        job_ids: the live ones, one that runs first; else the newest.
        nodes: of the job as Slurm writes them, or of its last execution.
        goodput: seconds of the steps that count over the seconds of the executions.
        restarts: how often the same work began again.
        lost_steps: steps that were done and gone back over.
        left: seconds until the stage is done.
        heard: the last sign of life, seconds since 1970.
        damaged: what could not be read, one line each.
        pace: what the next look goes on from.
    """

    stage: str
    state: str
    reason: str
    job_ids: tuple[str, ...]
    nodes: str
    done: float | None
    total: float | None
    loss: float | None
    tokens_per_s: float | None
    goodput: float | None
    restarts: int
    lost_steps: int
    gpu_hours: float
    task_hours: float
    left: Span | None
    heard: float
    attempt: Path | None
    tail: tuple[str, ...]
    damaged: tuple[str, ...]
    pace: Pace = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class RunView:
    """What an operator is shown of a run.

    Attributes:
        time: of the look, seconds since 1970.
        silent: whether Slurm's controller did not answer.
        budget: GPU-hours that the site gives to one run.
        finish: seconds from `time` until all stages are done.
        by_limits: the stages whose time limits are in `finish`, because they have never run.
        log: the end of the log of the stage that runs or has failed; `log_of` names its file.
    """

    run: str
    site: str
    time: float
    silent: bool
    stages: tuple[StageView, ...]
    budget: float | None
    deadline: date | None
    finish: Span
    by_limits: tuple[str, ...]
    log_of: Path | None
    log: tuple[str, ...]

    @property
    def gpu_hours(self) -> float:
        """GPU-hours of all stages so far."""
        return sum(stage.gpu_hours for stage in self.stages)

    @property
    def task_hours(self) -> float:
        """Hours of all processes of all stages so far."""
        return sum(stage.task_hours for stage in self.stages)


def look(
    run: Run,
    site: Site,
    *,
    site_name: str,
    results: Path,
    answer: Sequence[Job] | None,
    ending: Callable[[str], Ending | None],
    before: RunView | None = None,
) -> RunView:
    """Looks at all stages.

    Args:
        run: the checked run.
        site: the checked site.
        site_name: what people call it.
        results: the folder of results.
        answer: the jobs that Slurm shows; None when its controller does not answer.
        ending: asked how a job ended that Slurm does not show any more.
        before: the last look, so that only what is new is read.
    """
    now = time.time()
    paces = {view.stage: view.pace for view in before.stages} if before else {}
    views: list[StageView] = []
    for stage in run.sections:
        busy = any(view.state in ACTIVE for view in views)
        folder = results / run.name / stage
        told = pace(folder, before=paces.get(stage))
        views.append(_stage(stage, folder, told=told, answer=answer, ending=ending, now=now, busy=busy))
    finish, by_limits = _finish(run, views, results / run.name)
    log_of, log = _log(views, results / run.name)
    return RunView(
        run=run.name,
        site=site_name,
        time=now,
        silent=answer is None,
        stages=tuple(views),
        budget=site.policies.gpu_hours,
        deadline=run.deadline,
        finish=finish,
        by_limits=by_limits,
        log_of=log_of,
        log=log,
    )


def _stage(
    stage: str,
    folder: Path,
    *,
    told: Pace,
    answer: Sequence[Job] | None,
    ending: Callable[[str], Ending | None],
    now: float,
    busy: bool,
) -> StageView:
    attempt = ledger.latest(folder)
    jobs = of_attempt(attempt, answer)
    running = running_ids(attempt, jobs)
    book = ledger.read(folder, now=now, running=running, seen=(*told.stops, told.time))
    heard = _heard(book, told)
    seen = Seen(folder=folder, ledger=book, jobs=jobs, processes=len(running), heard=heard, now=now, ending=ending)
    word, reason = state(seen)
    word = word or ("waiting" if busy else "not started")
    done, total = _progress(book, told)
    until = now if word in ACTIVE else heard
    return StageView(
        stage=stage,
        state=word,
        reason=reason,
        job_ids=tuple(job.id for job in live(jobs)) or (attempt.job_ids[-1:] if attempt else ()),
        nodes=_nodes(book, live(jobs)),
        done=done,
        total=total,
        loss=told.newest.get("train/loss"),
        tokens_per_s=told.newest.get("train/tokens_per_s"),
        goodput=_goodput(book, told),
        restarts=ledger.restarts(book.current),
        lost_steps=told.lost,
        gpu_hours=ledger.gpu_hours(book.executions),
        task_hours=ledger.task_hours(book.executions),
        left=_left(book, told, done=done, total=total, until=until, start=_start(live(jobs), now)),
        heard=heard,
        attempt=attempt.path if attempt else None,
        tail=attempt.verdict.tail if attempt and attempt.verdict else (),
        damaged=book.damaged,
        pace=told,
    )


def _heard(book: Ledger, told: Pace) -> float:
    said = [attempt.progress.time for attempt in book.attempts if attempt.progress]
    ends = [execution.end or execution.begin for execution in book.executions]
    made = [attempt.time for attempt in book.attempts]
    return max(said + ends + made + [told.time])


def _progress(book: Ledger, told: Pace) -> tuple[float | None, float | None]:
    """Returns (done, total) of the newest attempt that said something; a training's steps are those of its journal."""
    said = next((attempt.progress for attempt in reversed(_same(book)) if attempt.progress), None)
    if said is None:
        return None, None
    return (next(reversed(told.seconds)) if told.seconds else said.done), said.total


def _same(book: Ledger) -> list[Attempt]:
    """Returns the attempts at what the newest one was asked for."""
    return [attempt for attempt in book.attempts if attempt.request == book.attempts[-1].request]


def _nodes(book: Ledger, jobs: Sequence[Job]) -> str:
    last = book.executions[-1].nodes if book.executions else ()
    return jobs[0].nodes if jobs and jobs[0].nodes else ",".join(last)


def _goodput(book: Ledger, told: Pace) -> float | None:
    allocated = ledger.allocated_s(book.current)
    return told.productive_s / allocated if told.seconds and allocated else None


def _left(
    book: Ledger, told: Pace, *, done: float | None, total: float | None, until: float, start: float
) -> Span | None:
    """Returns the rest of a stage that has said how far it is, after the `start` that Slurm expects."""
    if done is None or not total:
        return None
    times, pauses = told.times or _points(book, done, until), _pauses(book)
    worked = {step: _worked(moment, pauses) for step, moment in times.items()} if pauses else times
    rest = _forecast.remaining(worked, left=total - done, until=_worked(until, pauses))
    return rest + Span(best=start, likely=start, worst=start)


def _pauses(book: Ledger) -> list[tuple[float, float]]:
    """Returns the times between attempts, when nobody wanted the work done: they say nothing of its pace."""
    pauses = []
    for attempt, after in pairwise(_same(book)):
        alive = [each.alive_until for each in book.executions if each.attempt == attempt.path.name]
        over = attempt.verdict.time if attempt.verdict else max(alive, default=attempt.time)
        pauses += [(over, after.time)] if after.time > over else []
    return pauses


def _worked(moment: float, pauses: Sequence[tuple[float, float]]) -> float:
    return moment - sum(max(0.0, min(moment, end) - begin) for begin, end in pauses)


def _points(book: Ledger, done: float, until: float) -> dict[float, float]:
    """Returns what was done when, as far as begins and ends of executions tell."""
    points: dict[float, float] = {}
    for execution in book.current:
        for step, moment in ((execution.first_step, execution.begin), (execution.last_step, execution.alive_until)):
            if step > max(points, default=-math.inf):
                points[step] = moment
    return points | ({done: until} if done > max(points, default=-math.inf) else {})


def _start(jobs: Sequence[Job], now: float) -> float:
    """Returns the seconds until a waiting job starts, where Slurm says when it expects that; else 0."""
    if not jobs or jobs[0].state != "PENDING":
        return 0.0
    try:
        return max(0.0, datetime.fromisoformat(jobs[0].start).timestamp() - now)
    except ValueError:
        return 0.0


def _finish(run: Run, views: Sequence[StageView], root: Path) -> tuple[Span, tuple[str, ...]]:
    """Sums up what is left of each stage; one that has not said is taken by its earlier times, or by its limit."""
    total, by_limits = _forecast.NOTHING, []
    for view in views:
        if view.state == "done":
            continue
        left = view.left
        if left is None or math.isinf(left.likely):
            durations = _durations(root / view.stage)
            left = _forecast.following(durations, limit_s=60 * run.sections[view.stage].resources.timeout_min)
            by_limits += [] if durations else [view.stage]
        total += left
    return total, tuple(by_limits)


def _durations(folder: Path) -> list[float]:
    """Returns how long a stage took when it finished, in s, the last one last."""
    times = []
    for path in sorted(folder.glob("history/*.json")):
        try:
            record = read_json(path)
            times.append((float(record["finished"]), float(record["started"])))
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return [finished - started for finished, started in sorted(times)]


def _log(views: Sequence[StageView], root: Path) -> tuple[Path | None, tuple[str, ...]]:
    """Returns the end of the log that was written last, of the stage that runs, else of one that has failed."""
    told = sorted((view for view in views if view.state in _TOLD), key=lambda view: _TOLD.index(view.state))
    if not told:
        return None, ()
    folder = root / told[0].stage
    logs = [folder / "log.txt", *(told[0].attempt.glob("submitit/*_log.*") if told[0].attempt else ())]
    newest = max((path for path in logs if path.is_file()), key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        return None, told[0].tail[-_LOG_LINES:]
    return newest, _last_lines(newest)


def _last_lines(path: Path) -> tuple[str, ...]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_BYTES))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return (f"cannot be read: {error.strerror}",)
    lines = [line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n")]
    return tuple(_plain(line) for line in lines if line.strip())[-_LOG_LINES:]


def _plain(line: str) -> str:
    """Leaves out what a terminal would obey: a log is only shown."""
    return "".join(character for character in _ESCAPE.sub("", line).expandtabs() if character.isprintable())


def last_site(root: Path) -> str | None:
    """Returns the name of the site that the newest attempt in results/<run> was for; None before the first."""
    asked = sorted(root.glob("*/attempts/*/request.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in asked:
        with suppress(OSError, ValueError, KeyError, TypeError):
            return str(read_json(path)["site"])
    return None

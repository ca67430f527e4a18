"""`python -m jobs status`: what a run is doing, for a terminal, a pipe or a script; it works when all else is dead."""

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from jobs import _forecast
from jobs._forecast import Span, duration
from jobs._look import RunView, StageView, look
from jobs._run import Run
from jobs._states import ACTIVE, needs_slurm
from slurm import queue
from slurm.queue import Job
from slurm.site import Site

_HEADERS = ("stage", "state", "job", "nodes", "step", "loss", "tokens/s", "goodput", "restarts", "left", "reason")
_COLOURS = {"done": "green", "running": "cyan", "failed": "bold red", "lost": "red", "held": "yellow"}
_REFRESH_S = 2.0
_WIDEST = 24  # characters of a list of nodes
_NEVER = 1e11  # seconds since 1970; in the year 5138
Answer = Callable[[], list[Job] | None]


def status(
    run: Run,
    site: Site,
    *,
    site_name: str,
    results: Path,
    follow: bool = False,
    as_json: bool = False,
    ask: Answer = queue.jobs,
) -> int:
    """Prints the state of every stage of a run, its cost and its forecast, and returns the exit status.

    Args:
        run: the checked run.
        site: the checked site.
        site_name: what people call it.
        results: the folder of results.
        follow: go on looking until all is done or Ctrl-C, where stdout is a terminal.
        as_json: print one JSON document for scripts.
        ask: asks Slurm for this user's jobs; only called while a stage's newest attempt is open there.
    """
    ending = partial(queue.ending, accounting=site.accounting)
    see = partial(look, run, site, site_name=site_name, results=results, ending=ending)
    answer = partial(_answer, results / run.name, run, ask)
    view = see(answer=answer())
    if as_json:
        print(json.dumps(as_document(view), indent=2, ensure_ascii=False, allow_nan=False))
    elif sys.stdout.isatty():
        _show(view, again=partial(_again, see, answer, site) if follow else None)
    else:
        print("\n".join(plain(view)))
    return 0


def plain(view: RunView) -> list[str]:
    """Returns a view as lines: a table whose columns are two spaces or more apart, then what is said of the whole."""
    rows = [_HEADERS, *(_row(stage) for stage in view.stages)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADERS))]
    table = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return [*table, "", *_lines(view), *_log_lines(view)]


def as_document(view: RunView) -> dict[str, Any]:
    """Returns a view as JSON values; times are seconds since 1970, an infinite or unknown number is null."""
    stages = []
    for stage in view.stages:
        known = {name: value for name, value in vars(stage).items() if name != "pace"}
        stages.append({**known, "attempt": str(stage.attempt) if stage.attempt else None, "left": _span(stage.left)})
    whole = {
        name: value for name, value in vars(view).items() if name not in ("stages", "finish", "log_of", "deadline")
    }
    document = {
        **whole,
        "gpu_hours": view.gpu_hours,
        "task_hours": view.task_hours,
        "deadline": str(view.deadline) if view.deadline else None,
        "finish": _span(view.finish),
        "log_of": str(view.log_of) if view.log_of else None,
        "stages": stages,
    }
    finite: dict[str, Any] = _finite(document)
    return finite


def _answer(root: Path, run: Run, ask: Answer) -> list[Job] | None:
    return ask() if needs_slurm(root, run.sections) else []


def _again(see: Callable[..., RunView], answer: Answer, site: Site, before: RunView) -> RunView:
    """Looks once more, after a pause that the site's scheduler bears."""
    time.sleep(max(_REFRESH_S, site.poll_s if site.executor == "slurm" else 0.0))
    return see(answer=answer(), before=before)


def _show(view: RunView, *, again: Callable[[RunView], RunView] | None) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if again is None:
        console.print(_drawn(view))
        return
    with Live(_drawn(view), console=console, auto_refresh=False) as live:
        while any(stage.state != "done" for stage in view.stages):
            view = again(view)
            live.update(_drawn(view), refresh=True)


def _drawn(view: RunView) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in _HEADERS:
        table.add_column(name, no_wrap=name != "reason")
    for stage in view.stages:
        table.add_row(
            *(Text(cell, style=_style(stage, name)) for name, cell in zip(_HEADERS, _row(stage), strict=True))
        )
    log = [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in _log_lines(view)]
    return Group(table, Text(), *map(Text, _lines(view)), *log)


def _style(stage: StageView, column: str) -> str:
    return _COLOURS.get(stage.state, "") if column == "state" else ""


def _row(stage: StageView) -> tuple[str, ...]:
    nodes = stage.nodes if len(stage.nodes) <= _WIDEST else f"{stage.nodes[: _WIDEST - 3]}..."
    return (
        stage.stage,
        stage.state.replace(" ", "-"),
        stage.job_ids[0] if stage.job_ids else "-",
        nodes or "-",
        _steps(stage),
        "-" if stage.loss is None else f"{stage.loss:.3f}",
        "-" if stage.tokens_per_s is None else f"{stage.tokens_per_s:.0f}",
        "-" if stage.goodput is None else f"{stage.goodput:.0%}",
        str(stage.restarts),
        "-" if stage.left is None or stage.state == "done" else duration(stage.left.likely).replace(" ", ""),
        stage.reason or "-",
    )


def _steps(stage: StageView) -> str:
    return "-" if stage.done is None else f"{stage.done:.0f}/{stage.total:.0f}"


def _lines(view: RunView) -> Iterable[str]:
    """Yields what is said of the whole run, one line each."""
    if view.silent:
        yield "Slurm: the controller does not answer; this is what the files say"
    yield f"ledger: {_ledger(view)}"
    yield f"forecast: {_finish(view)}"
    lost = sum(stage.lost_steps for stage in view.stages)
    if lost:
        yield f"lost: {lost:,} steps were done a second time after a stop"
    damaged = [line for stage in view.stages for line in stage.damaged]
    if damaged:
        yield f"damaged: {len(damaged)} files or lines could not be read, the first: {damaged[0]}"


def _ledger(view: RunView) -> str:
    """Returns the hours so far, of which stages, and the share of the budget."""
    unit = "GPU-hours" if view.gpu_hours else "task-hours"
    total = view.gpu_hours or view.task_hours
    parts = [(stage.stage, stage.gpu_hours if view.gpu_hours else stage.task_hours) for stage in view.stages]
    shares = ", ".join(f"{name} {_hours(hours)}" for name, hours in parts if hours)
    budget = f" of {_hours(view.budget)} ({view.gpu_hours / view.budget:.0%})" if view.budget else ""
    if not view.gpu_hours and view.budget:
        budget = f"; no GPU-hours of {_hours(view.budget)}"
    return f"{_hours(total)} {unit}{budget}" + (f": {shares}" if shares else "")


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.1f}" if hours >= 1 or not hours else f"{hours:.3f}"


def _finish(view: RunView) -> str:
    """Returns when all will be done, between what times, on what it rests, and how that meets the deadline."""
    if all(stage.state == "done" for stage in view.stages):
        return "all stages are done"
    going = any(stage.state in ACTIVE for stage in view.stages)
    best, likely, worst = (view.time + seconds for seconds in (view.finish.best, view.finish.likely, view.finish.worst))
    spread = f", between {_when(best)} and {_when(worst)}" if best < worst else ""
    parts = [f"done {_when(likely)}{'' if going else ' if it goes on now'}{spread}"]
    if view.by_limits:
        parts.append(f"counting the time limits of {', '.join(view.by_limits)}")
    if view.deadline:
        parts.append(f"deadline {view.deadline}: {_forecast.against(likely, view.deadline)}")
        parts.append(f"at worst {_forecast.against(worst, view.deadline)}")
    return "; ".join(parts)


def _when(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment)) if moment < _NEVER else "an unknown time"


def _log_lines(view: RunView) -> Sequence[str]:
    if not view.log:
        return ()
    return ("", f"end of {view.log_of or 'the log, as the job left it'}:", *(f"  {line}" for line in view.log))


def _span(span: Span | None) -> dict[str, float] | None:
    return None if span is None else asdict(span)


def _finite(value: Any) -> Any:
    """Returns JSON values without what JSON cannot hold."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

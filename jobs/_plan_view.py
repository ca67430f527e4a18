"""A run's plan on the terminal: what the run's own layout costs, what the planner would take, and what was refused."""

import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.table import Table

from evaluation.figures import data_size
from evaluation.plan_figures import MEMORY_PARTS, seconds
from evaluation.planned import Alternative, Choice, Plan
from evaluation.report import percent, verdict
from jobs._plan_details import Judged, details, judge, require_fit
from jobs._planned import planned, write_pages
from jobs._run import PlanningError, Run
from jobs.plan import PlanConfig, job_of, terms_of
from jobs.pretrain import PretrainConfig
from jobs.tokenize import TokenizeConfig
from parallelism.presets import VOCAB_SIZES
from slurm.files import read_json, write_json
from slurm.site import Site

SECTIONS = ("tokenize", "plan", "pretrain")
"""Of a run, what its plan needs: data need not be there yet."""

_MOST_REASONS = 8
_WORTHWHILE = 0.8
_WIDTH = 120
"""Of what is not a terminal: a file or a pipe."""


def show(run: Run, site: Site, *, site_name: str, results: Path) -> int:
    """Prints the plan of a run at a site and writes its page; returns 2 where the run's own layout does not fit.

    Raises:
        PlanningError: the run's own layout cannot be.
    """
    config, section = cast(PlanConfig, run.sections["plan"]), cast(PretrainConfig, run.sections["pretrain"])
    vocab_size, source = vocabulary(run, results=results)
    try:
        judged = judge(job_of(config, section, vocab_size=vocab_size, site_mem_gb=site.mem_gb))
    except ValueError as error:
        raise PlanningError(str(error).splitlines()[1:]) from error
    terms = terms_of(config, section, start=datetime.now().astimezone(), deadline=run.deadline)
    found = details(judged, count=config.alternatives, here=site.executor == "local", terms=terms)
    stem = results / run.name / "planned" / site_name
    page, picture = write_pages(found, stem, run=run.name, site=site_name)
    write_json(stem.with_suffix(".json"), found)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False, soft_wrap=False)
    console.print(f"[bold]{run.name}[/] at {site_name} ({site.description}): {section.model}, {source}")
    for part in _parts(planned(found)):
        console.print(part)
        if isinstance(part, Table):
            console.print()
    console.print(f"page: {page}\npicture: {picture}", soft_wrap=True)
    return _status(judged)


def vocabulary(run: Run, *, results: Path) -> tuple[int, str]:
    """Returns the size of the vocabulary, and in words where it is from."""
    manifest = results / run.name / "tokenize" / "manifest.json"
    if manifest.is_file():
        size = int(read_json(manifest)["vocab_size"])
        return size, f"the tokenizer's {size:,} tokens"
    given = cast(TokenizeConfig, run.sections["tokenize"]).vocab_size
    if given is not None:
        return given, f"{given:,} tokens, as tokenize asks for"
    size = VOCAB_SIZES[cast(PretrainConfig, run.sections["pretrain"]).model]
    return size, f"{size:,} tokens, as the model that its size is taken from"


def _status(judged: Judged) -> int:
    try:
        require_fit(judged)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _parts(plan: Plan) -> Iterator[Any]:
    """Yields what is printed, one after another."""
    yield from (f"note: {line}" for line in plan.warnings)
    yield verdict(plan)
    yield _choices(plan)
    yield from (_memory(plan, choice) for choice in plan.shown)
    if all(choice.times for choice in plan.shown):
        yield _times(plan)
    if plan.campaign:
        yield _campaign(plan)
    yield _layouts(f"layouts that fit: {plan.fitting:,} of {plan.tried:,} tried", plan.alternatives, plan)
    yield _layouts(f"of the front ({len(plan.front)} on the page)", list(_thinned(plan.front)), plan)
    if plan.refused:
        yield _refused(plan)
    yield from plan.kernels
    yield from plan.assumptions


def _choices(plan: Plan) -> Table:
    table = _table("layout", "", "a step", "MFU", "waiting", "fullest rank", f"of {data_size(plan.room)}", left=2)
    for choice in plan.shown:
        fits = percent(choice.peak / plan.room) if choice.fits else "[bold red]does not fit[/]"
        step = seconds(choice.step) if choice.step else "-"
        mfu, waiting = percent(choice.mfu) if choice.mfu else "-", percent(choice.bubble_fraction)
        table.add_row(_whose(plan, choice), choice.layout, step, mfu, waiting, data_size(choice.peak), fits)
    return table


def _whose(plan: Plan, choice: Choice) -> str:
    if len(plan.shown) == 1 and plan.chosen:
        return "run's and planner's"
    return "run's own" if choice is plan.own else "planner's"


def _memory(plan: Plan, choice: Choice) -> Table:
    """The memory of a rank of each stage; stages in a row that are alike share a line."""
    table = _table(f"memory: {choice.layout}", *MEMORY_PARTS, "in all", "of the room")
    start = 0
    for number, stage in enumerate(choice.memory):
        if number + 1 < len(choice.memory) and choice.memory[number + 1] == stage:
            continue
        name = f"stage {number}" if start == number else f"stages {start} to {number}"
        sizes = [data_size(getattr(stage, part)) for part in MEMORY_PARTS]
        table.add_row(name, *sizes, data_size(stage.total), percent(stage.total / plan.room))
        start = number + 1
    return table


def _times(plan: Plan) -> Table:
    table = _table("time of a step", *(each for choice in plan.shown for each in (_whose(plan, choice), "")))
    for name in plan.own.times:
        cells = [cell for choice in plan.shown for cell in _share(choice, name)]
        table.add_row(name.replace("_", " "), *cells)
    return table


def _share(choice: Choice, name: str) -> tuple[str, str]:
    value = choice.times[name]
    return (seconds(value), percent(value / (choice.step or 1))) if value else ("-", "")


def _campaign(plan: Plan) -> Table:
    table = _table("the whole training", *(_whose(plan, choice) for choice in plan.shown), left=3)
    for name, values in plan.campaign.items():
        table.add_row(name, *values)
    return table


def _layouts(title: str, rows: Sequence[Alternative], plan: Plan) -> Table:
    table = _table(title, "cost", "a step", "fullest rank", "waiting")
    for each in rows:
        marks = [
            name
            for name, choice in (("run's", plan.own), ("chosen", plan.chosen))
            if choice and choice.layout == each.layout
        ]
        name = f"{each.layout} [bold]({', '.join(marks)})[/]" if marks else each.layout
        step = seconds(each.step) if each.step else "-"
        cost = f"{each.slower_than_best:.2f} x"
        table.add_row(name, cost, step, data_size(each.peak), percent(each.bubble_fraction))
    return table


def _thinned(front: Sequence[Alternative]) -> Iterator[Alternative]:
    """Yields of the front, where no layout is both faster and smaller, those that save a worthwhile share of memory."""
    last = float("inf")
    for each in front:
        if each.peak <= last * _WORTHWHILE:
            yield each
            last = each.peak


def _refused(plan: Plan) -> Table:
    table = _table("layouts refused", "layouts", "for example")
    table.columns[0].ratio = 1
    for each in plan.refused[:_MOST_REASONS]:
        table.add_row(each.reason, f"{each.count:,}", each.example)
    more = plan.refused[_MOST_REASONS:]
    if more:
        table.add_row(f"{len(more)} more reasons, on the page", f"{sum(each.count for each in more):,}", "")
    return table


def _table(*columns: str, left: int = 1) -> Table:
    """A table without lines whose first `left` columns are words and the others numbers."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index < left else "right", no_wrap=index > 0)
    return table

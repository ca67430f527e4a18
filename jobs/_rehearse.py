"""rehearse: every distinct rank of a run's layout does one step on this machine, beside what the planner says."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from jobs._plan_view import vocabulary
from jobs._rehearsal import NAME, largest_difference, rehearse
from jobs._run import PlanningError, Run
from jobs.pretrain import PretrainConfig
from parallelism.layout import problems
from slurm.files import write_json

_GIB = 2**30
_WIDTH = 132
"""Of what is not a terminal: a file or a pipe."""
_ALIKE = (
    "Every rank of a stage does the same: divided sizes divide evenly, and tokens are taken to be spread evenly over "
    "experts (tokens x top-k / experts each). Only shards of the optimizer may differ."
)
_CONVENTION = (
    "Activations: the most that forward and backward pass have at once beside the state. Peak: tensors alone; the "
    "driver's context, communication buffers, workspaces of matmul libraries and fragmentation come on top."
)


def show(run: Run, *, results: Path, ranks: bool, processes: int, whole: bool) -> int:
    """Rehearses, writes rehearsal.json into the plan's folder and prints it; returns 0.

    Raises:
        PlanningError: the layout cannot be, or there is nobody to rehearse.
    """
    if processes < 1:
        raise PlanningError([f"--processes: must be at least 1, but is {processes}; give 1 or more"])
    section = cast(PretrainConfig, run.sections["pretrain"])
    vocab_size, source = vocabulary(run, results=results)
    found = problems(section.shape, layout=section.layout, vocab_size=vocab_size)
    if found:
        raise PlanningError(found)
    started = time.perf_counter()
    rehearsal = _watched(section, vocab_size=vocab_size, processes=processes, whole=whole)
    rehearsal["seconds"] = round(time.perf_counter() - started, 1)
    path = results / run.name / "plan" / NAME
    write_json(path, rehearsal)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)
    layout = section.layout
    console.print(
        f"[bold]{run.name}[/]: {section.model}, {layout.describe()} on {layout.world_size} ranks, "
        f"{layout.num_microbatches} microbatch{'es' if layout.num_microbatches > 1 else ''}, {source}; "
        f"kernels of a {rehearsal['kernels'].upper()}"
    )
    for part in [*tables(rehearsal), *([ranks_table(rehearsal)] if ranks else [])]:
        console.print(part)
    console.print(f"{_ALIKE}\n{_CONVENTION}")
    console.print(
        f"The planner's peak is {largest_difference(rehearsal):+.2%} off where it is furthest. "
        f"{len(rehearsal['stages'])} ranks rehearsed for {layout.world_size} in {rehearsal['seconds']:.0f} s: {path}",
        soft_wrap=True,
    )
    return 0


def _watched(section: PretrainConfig, *, vocab_size: int, processes: int, whole: bool) -> dict[str, Any]:
    columns = (TextColumn("rehearse"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=section.layout.pipeline_model_parallel_size, note="importing")

        def told(done: int, total: int, note: str) -> None:
            bar.update(task, completed=done, total=total, note=note)
            if not console.is_terminal:
                print(f"rehearse: {done} of {total} stages, {note}", file=sys.stderr, flush=True)

        return rehearse(section, vocab_size=vocab_size, processes=processes, whole=whole, told=told)


def tables(rehearsal: Mapping[str, Any]) -> Iterator[Table]:
    """Yields the memory of each class of ranks, and what it exchanges."""
    yield _memory(rehearsal["stages"])
    yield _exchanges(rehearsal["stages"])


def ranks_table(rehearsal: Mapping[str, Any]) -> Table:
    """Returns the memory of every rank, through its class."""
    table = _table("rank", "stage", "parameters", "optimizer GiB", "activations GiB", "peak GiB", "TFLOP")
    for stage in rehearsal["stages"]:
        fullest = max(stage["optimizer_bytes"])
        for place, own in enumerate(stage["optimizer_bytes"]):
            table.add_row(
                str(stage["ranks"][0] + place),
                str(stage["stage"]),
                f"{stage['parameters']:,}",
                _gib(own),
                _gib(stage["activation_bytes"]),
                _gib(stage["peak_bytes"] - fullest + own),
                _tflop(stage["matmul_flops"]),
            )
    return table


def _memory(stages: Sequence[Mapping[str, Any]]) -> Table:
    names = ("weights", "gradients", "optimizer", "activations", "peak")
    table = _table("ranks", "parameters", *(f"{name} GiB" for name in names), "planner GiB", "differs", "TFLOP")
    for stage in stages:
        planned = stage["planned"]
        exact = "" if planned["stage_parameters"] == stage["parameters"] else f" (planner {planned['parameters']:,})"
        optimizer = sorted({_gib(min(stage["optimizer_bytes"])), _gib(max(stage["optimizer_bytes"]))})
        table.add_row(
            "{}-{}".format(*stage["ranks"]),
            f"{stage['parameters']:,}{exact}",
            _gib(stage["parameter_bytes"]),
            _gib(stage["gradient_bytes"]),
            " to ".join(optimizer),
            _gib(stage["activation_bytes"]),
            _gib(stage["peak_bytes"]),
            _gib(planned["peak"]),
            f"{stage['difference']:+.2%}",
            _tflop(stage["matmul_flops"]),
        )
    return table


def _exchanges(stages: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("ranks", "group", "of ranks", "operation", "calls", "bytes", "planner calls", "planner bytes")
    for stage in stages:
        for item in stage["exchanges"]:
            planned = item["planned"] or {"calls": None, "bytes": None}
            table.add_row(
                "{}-{}".format(*stage["ranks"]),
                item["group"],
                str(item["members"]),
                item["operation"],
                *(_count(number) for number in (item["calls"], item["bytes"], planned["calls"], planned["bytes"])),
            )
    return table


def _table(*names: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in names:
        words = name in ("group", "operation", "ranks")
        table.add_column(name, justify="left" if words else "right", no_wrap=True)
    return table


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _tflop(flops: int) -> str:
    return f"{flops / 1e12:,.1f}" if flops >= 1e12 else f"{flops / 1e12:.2g}"


def _gib(size: int) -> str:
    return f"{size / _GIB:.3f}"

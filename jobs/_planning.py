"""What a run would do at a site: shown before anything is queued."""

import shlex
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from jobs._run import PlanningError, Run
from slurm.resources import Resources
from slurm.site import Site

_HEADERS = ("stage", "nodes", "processes", "GPUs", "at most", "GPU-hours")


def describe(run: Run, site: Site, *, site_name: str, now: datetime | None = None) -> str:
    """Returns a table for people, and below it what the scheduler, the budget and the calendar have to do with it.

    Args:
        run: what would run.
        site: where.
        site_name: the site file's name.
        now: when the run would start; this moment unless given.
    """
    parts = [
        f"run {run.name} at {site_name} ({site.description}; executor {site.executor})\n{_table(run)}",
        "\n".join([*_budget(run, site), *_deadline(run, now or datetime.now().astimezone())]),
        "\n".join(_submissions(run, site)),
    ]
    return "\n\n".join(part for part in parts if part)


def require_place(site: Site, results: Path) -> None:
    """Checks that jobs can be submitted from here, and that every node will see the results.

    Raises:
        PlanningError: with what does not hold, one line each.
    """
    lines = []
    if site.executor == "slurm" and not shutil.which("sbatch"):
        lines.append(
            "sbatch must be on the PATH where jobs are submitted, but is not; load Slurm's module or log in there"
        )
    if site.shared and not results.resolve().is_relative_to(Path(site.shared).resolve()):
        lines.append(
            f"results: must lie under {site.shared}, which all nodes see (the site's shared), but lie in "
            f"{results.resolve()}; give --results, or config results= to Snakemake"
        )
    if lines:
        raise PlanningError(lines)


def _table(run: Run) -> str:
    """Returns each stage with its nodes, processes, GPUs and longest time, and their sums."""
    sizes = {name: section.resources for name, section in run.sections.items()}
    rows = [_HEADERS, *(_row(name, size) for name, size in sizes.items())]
    rows.append(("in all", "", "", "", _time(_minutes(run)), f"{_gpu_hours(run):,.0f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADERS))]
    return "\n".join("  ".join(_cells(row, widths)).rstrip() for row in rows)


def _row(name: str, size: Resources) -> tuple[str, ...]:
    gpus = size.nodes * size.gpus_per_node
    return (name, f"{size.nodes}", f"{size.world_size}", f"{gpus}", _time(size.timeout_min), f"{size.gpu_hours:,.0f}")


def _cells(row: tuple[str, ...], widths: list[int]) -> list[str]:
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]


def _budget(run: Run, site: Site) -> Iterator[str]:
    if site.policies.gpu_hours is not None:
        yield (
            f"GPU-hours: at most {_gpu_hours(run):,.0f} of the site's {site.policies.gpu_hours:,.0f} for one run, "
            "where no stage goes on after its time limit"
        )


def _deadline(run: Run, now: datetime) -> Iterator[str]:
    """Yields when the run ends if every stage takes all of its time, beside the day by which it should."""
    if run.deadline is None:
        return
    end = (now + timedelta(minutes=_minutes(run))).date()
    verdict = "in time" if end <= run.deadline else "too late; give stages more nodes or the run more days"
    yield f"deadline {run.deadline}: stages that take all of their time and never queue end on {end}, {verdict}"


def _submissions(run: Run, site: Site) -> Iterator[str]:
    """Yields the options of sbatch that each stage's job gets; its comment is made when it is submitted."""
    if site.executor != "slurm":
        return
    yield "each stage is one job of its own:"
    for stage, section in run.sections.items():
        options = section.resources.sbatch_options(site, name=f"{run.name}.{stage}", purpose=section.purpose)
        flags = (f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items())
        yield f"sbatch {shlex.join(flags)}"


def _minutes(run: Run) -> int:
    return sum(section.resources.timeout_min for section in run.sections.values())


def _gpu_hours(run: Run) -> float:
    return sum(section.resources.gpu_hours for section in run.sections.values())


def _time(minutes: int) -> str:
    days, rest = divmod(minutes, 24 * 60)
    clock = f"{rest // 60}:{rest % 60:02d} h"
    return f"{days} d {clock}" if days else clock

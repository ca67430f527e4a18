"""What a run would do at a site: shown before anything is queued."""

from jobs._run import Run
from slurm.resources import Resources
from slurm.site import Site

_HEADERS = ("stage", "nodes", "processes", "GPUs", "at most", "GPU-hours")


def describe(run: Run, site: Site, *, site_name: str) -> str:
    """Returns a table for people: each stage with its nodes, processes, GPUs and longest time, and their sums."""
    sizes = {name: section.resources for name, section in run.sections.items()}
    rows = [_HEADERS, *(_row(name, size) for name, size in sizes.items())]
    minutes = sum(size.timeout_min for size in sizes.values())
    hours = sum(size.gpu_hours for size in sizes.values())
    rows.append(("in all", "", "", "", _time(minutes), f"{hours:,.0f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADERS))]
    table = "\n".join("  ".join(_cells(row, widths)).rstrip() for row in rows)
    return f"run {run.name} at {site_name} ({site.description}; executor {site.executor})\n{table}"


def _row(name: str, size: Resources) -> tuple[str, ...]:
    gpus = size.nodes * size.gpus_per_node
    return (name, f"{size.nodes}", f"{size.world_size}", f"{gpus}", _time(size.timeout_min), f"{size.gpu_hours:,.0f}")


def _cells(row: tuple[str, ...], widths: list[int]) -> list[str]:
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]


def _time(minutes: int) -> str:
    days, rest = divmod(minutes, 24 * 60)
    clock = f"{rest // 60}:{rest % 60:02d} h"
    return f"{days} d {clock}" if days else clock

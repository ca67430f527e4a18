"""From a plan's JSON values to what people see: the plain values of its page, and the page and picture as files."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evaluation.plan_figures import MEMORY_PARTS
from evaluation.planned import Alternative, Choice, Plan, Refusal, StageMemory

Values = Mapping[str, Any]

_GIB = 2**30


def planned(details: Values) -> Plan:
    """Returns what a page shows of a plan."""
    chosen = details["chosen"]
    return Plan(
        own=_choice(details),
        chosen=_choice(chosen) if chosen else None,
        device_bytes=details["memory_gib"] * _GIB,
        reserve_bytes=details["reserve_gib"] * _GIB,
        step_flops=details["flops_per_step"],
        tried=details["tried"],
        fitting=details["fitting"],
        alternatives=_alternatives(details["alternatives"]),
        refused=[Refusal(**row) for row in details["refused"]],
        front=_alternatives(details["front"]),
        cloud=[(peak * _GIB, cost) for peak, cost in details["cloud"]],
        campaign=details["campaign"],
        kernels=details["kernels"],
        assumptions=details["assumptions"],
        warnings=details["warnings"],
    )


def write_pages(details: Values, stem: Path, *, run: str, site: str) -> tuple[Path, Path]:
    """Writes a plan's page and picture beside each other and returns their paths."""
    from evaluation import plan_page

    page, picture = stem.with_suffix(".html"), stem.with_suffix(".png")
    plan = planned(details)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(plan_page.render(plan, run=run, site=site, made=f"Made by medscale {version('medscale')}."))
    plan_page.picture(plan, picture)
    return page, picture


def _choice(values: Values) -> Choice:
    layout, computed, times = values["layout"], values["computed"], values["time_s"]
    told = isinstance(times, Mapping)
    sizes = {name: value for name, value in layout.items() if name != "name"}
    return Choice(
        layout=layout["name"],
        sizes=sizes | {name: computed[name] for name in ("data_parallel_size", "num_microbatches")},
        memory=[StageMemory(**{name: row[f"{name}_gib"] * _GIB for name in MEMORY_PARTS}) for row in values["stages"]],
        fits=values["fits"],
        times={name: value for name, value in times.items() if name != "step"} if told else {},
        mfu=values["mfu"],
        passes=values["passes"],
        num_microbatches=computed["num_microbatches"],
        num_model_chunks=layout["virtual_pipeline_model_parallel_size"] or 1,
        bubble_fraction=computed["bubble_fraction"],
    )


def _alternatives(rows: Sequence[Values]) -> list[Alternative]:
    return [
        Alternative(
            layout=row["layout"],
            peak=row["peak_gib"] * _GIB,
            bubble_fraction=row["bubble_fraction"],
            slower_than_best=row["slower_than_best"],
            step=row["step_time_s"],
        )
        for row in rows
    ]

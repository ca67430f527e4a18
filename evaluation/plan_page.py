"""The page of a plan: HTML complete in itself, and its pictures as one PNG for where no browser is at hand."""

from pathlib import Path

from evaluation import plan_figures
from evaluation.planned import Plan
from evaluation.raster import draw
from evaluation.report import environment, verdict


def render(plan: Plan, *, run: str, site: str, made: str) -> str:
    """Returns the page; `made` says in a sentence by what it was made. Every text of the plan is escaped."""
    template = environment().get_template("plan_page.html.j2")
    return template.render(plan=plan, plan_figures=plan_figures, verdict=verdict(plan), run=run, site=site, made=made)


def picture(plan: Plan, path: Path) -> None:
    """Writes the plan's figures below one another as a PNG, in the page's light colours."""
    drawn = [(plan_figures.memory(plan), "stack")]
    drawn += [(figure, "stack") for figure in [plan_figures.times(plan)] if figure]
    drawn += [(figure, "") for _, figure in plan_figures.schedules(plan)]
    drawn += [(figure, "") for figure in [plan_figures.front(plan)] if figure]
    draw([(figure.wide, kind) for figure, kind in drawn], path)

"""report: one page for people: what ran, on what data, how well the model learned and scores, at what cost."""

import importlib
from collections.abc import Mapping
from itertools import takewhile
from typing import ClassVar

from pydantic import Field

from jobs._stage import Outcome, Stage, StageConfig

PAGE, SUMMARY = "report.html", "summary.txt"


class ReportConfig(StageConfig):
    """The `report:` section.

    Attributes:
        title: the page's headline; the run's name unless given.
    """

    shows: ClassVar[bool] = True

    title: str | None = Field(default=None, min_length=1)


def run(config: ReportConfig, stage: Stage) -> Outcome:
    """Writes the page and its summary out of the records and journals of the stages before it.

    Nothing else is read, least of all a tracking server; the same records and journals give the same bytes.
    """
    from evaluation.report import render, summary
    from jobs._findings import gather
    from slurm.files import sha256_file, write_atomic

    title, page = config.title or f"Run {stage.run}", "/".join((*stage.root.parts[-2:], stage.name, PAGE))
    findings = gather(stage.parents, root=stage.root, stages=_before(stage), run=stage.run, title=title)
    write_atomic(stage.folder / PAGE, render(findings))
    write_atomic(stage.folder / SUMMARY, summary(findings, page=page))
    stage.journal.artifact(stage.folder / PAGE)
    stage.journal.artifact(stage.folder / SUMMARY)
    done = [each for each in findings.stages if each.record]
    return Outcome(
        metrics={"stages": float(len(done)), "work_s": sum(each.seconds for each in done)},
        outputs={name: sha256_file(stage.folder / name) for name in (PAGE, SUMMARY)},
    )


def _before(stage: Stage) -> Mapping[str, str]:
    """Returns the stages before this one, in order, and what each does: its module's first line."""
    names = takewhile(lambda name: name != stage.name, stage.sections)
    return {name: _first_line(name) for name in names}


def _first_line(stage: str) -> str:
    text = importlib.import_module(f"jobs.{stage}").__doc__ or ""
    return text.partition("\n")[0].removeprefix(f"{stage}: ").rstrip(".")

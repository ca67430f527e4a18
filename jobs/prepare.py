"""prepare: raw sources of every modality to clean, deduplicated, split records, with every reject explained."""

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from corpus.source import Source
from jobs._stage import Context, Outcome, Stage, StageConfig


class PrepareConfig(StageConfig):
    """The `prepare:` section.

    Attributes:
        sources: the raw data, in the order to read; of equal records the first is kept.
        valid_fraction: share of groups held out for validation and benchmarks.
        max_reject_fraction: a source with a higher share of rejects fails the run.
    """

    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    valid_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05
    max_reject_fraction: Annotated[float, Field(ge=0, le=1)] = 0.2

    @field_validator("sources")
    @classmethod
    def _named_once(cls, sources: tuple[Source, ...]) -> tuple[Source, ...]:
        counted = Counter(source.name for source in sources)
        twice = next((name for name, number in counted.items() if number > 1), None)
        if twice:
            raise ValueError(f"must have names of their own, but {twice!r} occurs twice; rename one")
        return sources

    def files(self, root: Path) -> Iterable[Path]:
        """Yields the sources."""
        return (source.locate(root) for source in self.sources)

    def problems(self, context: Context) -> Iterable[str]:
        """Yields the sources that are not there."""
        for number, source in enumerate(self.sources):
            yield from (f"sources.{number}.{line}" for line in source.problems(context.root))


def run(config: PrepareConfig, stage: Stage) -> Outcome:
    """Reads every source, then fails if one of them was not good enough.

    Raises:
        ValueError: a source is unusable or has too many rejects; one line for each.
    """
    from corpus.records import SourceReport, Writer, read_source
    from jobs._run import ROOT

    shutil.rmtree(stage.folder / "records", ignore_errors=True)
    reports: list[SourceReport] = []
    with Writer(stage.folder, seed=stage.seed, valid_fraction=config.valid_fraction) as writer:
        for number, source in enumerate(config.sources):

            def progress(items: int, number: int = number, name: str = source.name) -> None:
                stage.progress(number, len(config.sources), f"{name}: {items:,} items")

            progress(0)
            reports.append(read_source(source, writer, root=ROOT, progress=progress))
            _track(stage, reports[-1])
    stage.progress(len(reports), len(reports), f"{writer.counts.total():,} records")
    _refuse_bad(reports, most=config.max_reject_fraction)
    return _outcome(stage.folder, reports, writer.counts)


def _track(stage: Stage, report: Any) -> None:
    stage.journal.dataset(
        name=report.source.name, digest=report.sha256[:32], source=report.source.path, context=report.source.modality
    )


def _refuse_bad(reports: Iterable[Any], *, most: float) -> None:
    found = [(report.source, report.problem(most=most)) for report in reports]
    lines = [f"{source.name} ({source.path}): {problem}" for source, problem in found if problem]
    if lines:
        raise ValueError("\n".join(lines))


def _outcome(folder: Path, reports: list[Any], counts: Mapping[tuple[str, str], int]) -> Outcome:
    from slurm.files import sha256_file

    written = [folder / "rejects.jsonl", *sorted((folder / "records").iterdir())]
    per_stream = {f"records/{stream}/{split}": float(number) for (stream, split), number in sorted(counts.items())}
    return Outcome(
        metrics={
            "records": float(sum(counts.values())),
            "rejects": float(sum(report.rejects.total() for report in reports)),
            "duplicates": float(sum(report.duplicates for report in reports)),
            **per_stream,
        },
        inputs={report.source.path: report.sha256 for report in reports},
        outputs={str(path.relative_to(folder)): sha256_file(path) for path in written},
        details={"sources": [_details(report) for report in reports]},
    )


def _details(report: Any) -> dict[str, Any]:
    return {
        "name": report.source.name,
        "modality": report.source.modality,
        "path": report.source.path,
        "license": report.source.license,
        "commercial": report.source.commercial,
        "sha256": report.sha256,
        "records": report.records,
        "duplicates": report.duplicates,
        "rejects": dict(report.rejects),
        "notes": report.notes,
    }

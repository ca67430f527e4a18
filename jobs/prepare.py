"""prepare: raw sources of every modality to clean, screened, split records; all that is left out is listed."""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from corpus.gates.config import GatesConfig
from corpus.source import Source
from jobs._stage import Context, Outcome, Stage, StageConfig
from slurm.resources import Spread


class PrepareConfig(StageConfig):
    """The `prepare:` section. `resources.cpus_per_task` workers read on each of `resources.nodes` nodes.

    Attributes:
        sources: the raw data, in the order of the records; of those that are alike the first is kept.
        valid_fraction: share of groups held out for validation and benchmarks.
        max_reject_fraction: a source with a higher share of rejects, or of unusable files, fails the run.
        gates: what may enter: licences, personal data, duplicates, evaluation sets, quality.
        silence_s: a reader that tells nothing for so long is ended.
    """

    spread: ClassVar[Spread] = "nodes"
    resumable: ClassVar[bool] = True

    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    valid_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05
    max_reject_fraction: Annotated[float, Field(ge=0, le=1)] = 0.2
    gates: GatesConfig = GatesConfig()
    silence_s: Annotated[float, Field(ge=1)] = 600

    @field_validator("sources")
    @classmethod
    def _named_once(cls, sources: tuple[Source, ...]) -> tuple[Source, ...]:
        counted = Counter(source.name for source in sources)
        twice = next((name for name, number in counted.items() if number > 1), None)
        if twice:
            raise ValueError(f"must have names of their own, but {twice!r} occurs twice; rename one")
        return sources

    def files(self, root: Path) -> Iterable[Path]:
        """Yields what the sources, their options and the gates read."""
        read = [(source, source.files(root)) for source in self.sources]
        found = [path for source, paths in read for path in [*paths, *source.option_files(root, paths)]]
        below = [inner for path in found if path.is_dir() for inner in sorted(path.rglob("*")) if inner.is_file()]
        return [*(path for path in found if not path.is_dir()), *below, *self.gates.files(root)]

    def problems(self, context: Context) -> Iterable[str]:
        """Yields the sources that are not there or may not be used, and what is wrong with the gates."""
        for number, source in enumerate(self.sources):
            yield from (f"sources.{number}.{line}" for line in source.problems(context.root))
        yield from self.refusals()
        names = [source.name for source in self.sources]
        yield from (f"gates.{line}" for line in self.gates.problems(context.root, sources=names))

    def refusals(self) -> Iterator[str]:
        """Yields why the licences of sources do not allow what the run needs."""
        today = datetime.now(UTC).date()
        for number, source in enumerate(self.sources):
            found = source.decision(self.gates.licences, today=today)
            yield from (f"sources.{number}.{line}" for line in found.refusals)


def run(config: PrepareConfig, stage: Stage) -> Outcome:
    """Reads every source, then fails if one of them was not good enough; with several nodes this runs on each.

    Raises:
        ValueError: a source may not be used, is unusable or has too many rejects; one line for each.
        RuntimeError: another node failed.
    """
    from corpus.merging import merge, write_lists
    from corpus.records import read_sources
    from corpus.units import Settings
    from jobs._run import ROOT

    _refuse(config.refusals())
    settings = Settings(root=ROOT, seed=stage.seed, valid_fraction=config.valid_fraction, gates=config.gates)
    reports = read_sources(
        config.sources,
        stage.folder,
        settings=settings,
        crew=_crew(config, stage),
        progress=lambda done, total, items: stage.progress(done, total, f"{items:,} items"),
    )
    if stage.rank > 0:
        return Outcome(metrics={})
    for report in reports:
        _track(stage, report)
    write_lists(reports, stage.folder)
    found = ((report, report.problem(most=config.max_reject_fraction)) for report in reports)
    _refuse(f"{report.source.name} ({report.source.path}): {problem}" for report, problem in found if problem)
    stage.progress(len(reports), len(reports), "looking for duplicates")
    merged = merge(reports, stage.folder, settings=settings)
    stage.progress(len(reports), len(reports), f"{merged.counts.total():,} records")
    return _outcome(config, stage.folder, reports, merged)


def _crew(config: PrepareConfig, stage: Stage) -> Any:
    from corpus.workers import Crew

    asked = config.resources
    return Crew(
        workers=asked.cpus_per_task,
        rank=stage.rank,
        world_size=stage.world_size,
        meeting=stage.meeting,
        memory_gb=None if asked.mem_gb is None else asked.mem_gb / asked.cpus_per_task,
        silence_s=config.silence_s,
    )


def _refuse(found: Iterable[str]) -> None:
    lines = list(found)
    if lines:
        raise ValueError("\n".join(lines))


def _track(stage: Stage, report: Any) -> None:
    source = report.source
    stage.journal.dataset(name=source.name, digest=report.sha256[:32], source=source.path, context=source.modality)


def _outcome(config: PrepareConfig, folder: Path, reports: list[Any], merged: Any) -> Outcome:
    from slurm.files import sha256_file

    lists = sorted(path for path in folder.glob("*.jsonl") if path.name != "journal.jsonl")
    written = [*lists, *sorted((folder / "records").iterdir())]
    per_stream = {
        f"records/{stream}/{split}": float(number) for (stream, split), number in sorted(merged.counts.items())
    }
    rows = [_details(config, report) for report in reports]
    summed = ("records", "duplicates", "near_duplicates", "quarantined", "contaminated", "filtered")
    return Outcome(
        metrics={
            "rejects": float(sum(report.rejects.total() for report in reports)),
            **{name: float(sum(row[name] for row in rows)) for name in summed},
            **per_stream,
        },
        inputs={report.source.path: report.sha256 for report in reports},
        outputs={str(path.relative_to(folder)): sha256_file(path) for path in written},
        details={
            "sources": rows,
            "streams": _splits(merged.counts),
            "gates": merged.gates,
            "samples": merged.samples,
        },
    )


def _splits(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    names = sorted({stream for stream, _ in counts})
    return {name: {split: counts[name, split] for split in ("train", "valid")} for name in names}


def _details(config: PrepareConfig, report: Any) -> dict[str, Any]:
    source, today = report.source, datetime.now(UTC).date()
    decided = source.decision(config.gates.licences, today=today)
    return {
        "name": source.name,
        "modality": source.modality,
        "scale": source.reader().SCALE,
        "path": source.path,
        "files": len(report.files),
        "license": source.license,
        "terms": decided.terms.model_dump(mode="json"),
        "commercial": source.commercial,
        "sha256": report.sha256,
        "bytes": report.bytes,
        "seconds": report.seconds,
        "records": report.records,
        "duplicates": report.duplicates,
        "near_duplicates": report.near_duplicates,
        **{kind: report.kept_out[kind] for kind in ("quarantined", "contaminated", "filtered")},
        "rejects": dict(report.rejects),
        "notes": [*decided.notes, *report.notes],
    }

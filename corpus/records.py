"""Records: what prepare writes and every later stage reads; sources to records in two passes.

First every unit of every source is read by itself, into a part that is kept. Then all parts are seen together: of
records that are alike the earlier is kept, and what is left is written in the order of the sources.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from corpus import parts, units
from corpus.claims import Nodes
from corpus.gates import screen
from corpus.parts import Report
from corpus.reading import Reading
from corpus.source import Source
from corpus.units import Settings, Unit
from corpus.workers import Crew, run_units

SPLITS = ("train", "valid")
READY = "ready"
_ADVICE = "see rejects.jsonl, mend the file or "


@dataclass(kw_only=True)
class SourceReport:
    """What became of one source.

    Attributes:
        parts: its units and their reports; None for a unit that killed its worker.
        died: unit -> why there is no part of it.
        records: what is left of it in the end.
        duplicates: records that equal an earlier one.
        near_duplicates: texts that nearly equal an earlier one.
        notes: what a person should know.
    """

    source: Source
    parts: list[tuple[Unit, Report]] = field(default_factory=list)
    died: list[tuple[Unit, str]] = field(default_factory=list)
    records: int = 0
    duplicates: int = 0
    near_duplicates: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def files(self) -> list[tuple[str, str]]:
        """Each file's name and digest, in their order; of a zip that several units read, once."""
        return list(dict.fromkeys((label, digest) for _, report in self.parts for label, digest, _ in report.files))

    @property
    def sha256(self) -> str:
        """The digest of the only file, or of the list of files."""
        return units.inputs_digest(self.files)

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(
            size
            for size in {file[0]: (file[2] or [0])[0] for _, report in self.parts for file in report.files}.values()
        )

    @property
    def seconds(self) -> float:
        """Spent by workers."""
        return round(sum(report.seconds for _, report in self.parts), 3)

    @property
    def rejects(self) -> Counter[str]:
        """How many items were left out, by code."""
        found = sum((report.rejects for _, report in self.parts), Counter[str]())
        return found + Counter({"reader_died": len(self.died)})

    @property
    def kept_out(self) -> Counter[str]:
        """How many records the gates kept out, by list."""
        return sum((report.kept_out for _, report in self.parts), Counter[str]())

    @property
    def usable(self) -> int:
        """How many items became records, whatever the gates say of them."""
        return sum(report.records + report.kept_out.total() for _, report in self.parts)

    def problem(self, *, most: float) -> str | None:
        """Returns why the source may not be used, or None; `most` is the highest fraction of rejects."""
        return self._unreadable(most) or self._too_little(most)

    def _unreadable(self, most: float) -> str | None:
        if self.died:
            unit, why = self.died[0]
            more = f" and {len(unit.files) - 1} more" if len(unit.files) > 1 else ""
            return f"must be readable, but {why} at {unit.files[0].label}{more}; fetch it again, or raise mem_gb"
        failed, files = [found for _, report in self.parts for found in report.failed], max(1, len(self.files))
        if failed and (files == 1 or len(failed) > most * files):
            label, _, reason = failed[0]
            told = f"at most {most:.0%} of the files may be unusable, but {len(failed)} of {files} are"
            return reason if files == 1 else f"{told}, the first {label}: {reason}"
        wanted = self.source.sha256
        if wanted not in (None, self.sha256):
            return f"must have the SHA-256 {wanted}, but has {self.sha256}; fetch it again or mend sha256:"
        return None

    def _too_little(self, most: float) -> str | None:
        rejects = self.rejects
        counted = ", ".join(f"{number} {code}" for code, number in rejects.most_common())
        if not self.usable:
            return f"must hold a usable record, but has none ({counted or 'no items'}); {_ADVICE}its options"
        share = rejects.total() / (rejects.total() + self.usable)
        if share > most:
            found = f"{share:.1%} are ({counted})"
            return f"at most {most:.0%} may be rejected, but {found}; {_ADVICE}raise max_reject_fraction"
        return None


def read_sources(
    sources: Sequence[Source],
    folder: Path,
    *,
    settings: Settings,
    crew: Crew,
    progress: Callable[[int, int, int], None] = lambda _done, _total, _items: None,
) -> list[SourceReport]:
    """Reads what is not yet read of all sources; what was read before and did not change is kept.

    A damaged source is no exception but a report that says so: every source is tried before the run fails.

    Args:
        sources: in the order of their records.
        folder: of the stage; the parts lie below it.
        settings: what the records depend on besides the sources.
        crew: who reads; nothing depends on it.
        progress: is told units done, units in all, and items read.
    """
    nodes, ready = crew.nodes(), folder / READY
    with nodes.together():
        asked = units.plan(sources, folder / "parts", settings=settings)
        if crew.rank == 0:
            _tidy(asked, folder / "parts")
            ready.mkdir(parents=True, exist_ok=True)
            screen.ready(settings.gates, settings.root, folder=ready)
        if nodes.many:
            _meet(nodes, crew.meeting / "prepare-ready")
        terms = {source.name: source.terms for source in sources}
        licences = {source.name: source.license for source in sources}
        today = datetime.now(UTC).date()
        work = Reading(settings=settings, ready=ready, terms=terms, licences=licences, today=today)
        died = run_units(asked, work, committed=parts.committed, crew=crew, progress=progress, name="prepare")
    return _reports(sources, asked, died)


def read_records(folder: Path, /, stream: str, split: str) -> Iterator[dict[str, Any]]:
    """Yields the records of a stream and split below prepare's folder."""
    with (folder / "records" / f"{stream}.{split}.jsonl").open(encoding="utf-8", newline="\n") as file:
        for line in file:
            yield json.loads(line)


def streams(folder: Path) -> list[str]:
    """Returns the streams that prepare wrote below its folder."""
    return sorted(path.name.removesuffix(".train.jsonl") for path in (folder / "records").glob("*.train.jsonl"))


def _meet(nodes: Nodes, made: Path) -> None:
    """Makes the others wait until the first node has come here."""
    if nodes.rank == 0:
        made.touch()
    else:
        nodes.wait_for(made)


def _tidy(asked: Iterable[Unit], folder: Path) -> None:
    """Removes parts that no source has any more, and those that are not as they were committed."""
    wanted = {unit.part for unit in asked}
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for part in [found for source in folder.iterdir() if source.is_dir() for found in source.iterdir()]:
        if part not in wanted or not parts.whole(part):
            shutil.rmtree(part)


def _reports(sources: Iterable[Source], asked: Sequence[Unit], died: Mapping[int, str]) -> list[SourceReport]:
    reports = {source.name: SourceReport(source=source) for source in sources}
    for number, unit in enumerate(asked):
        report, found = reports[unit.source.name], None if number in died else parts.read_report(unit.part)
        if found is None:
            report.died.append((unit, died.get(number, "its part is gone")))
        else:
            report.parts.append((unit, found))
            report.notes += [note for note in found.notes if note not in report.notes]
    return list(reports.values())

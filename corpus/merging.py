"""Merging: the parts of all sources to the stage's files; of records that are alike the earlier is kept."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from corpus import parts
from corpus.gates import duplicates, screen
from corpus.gates.duplicates import KEYS, Found
from corpus.modality import SourceError, reject
from corpus.parts import LISTS, Report
from corpus.records import READY, SPLITS, SourceReport, read_sources
from corpus.source import Source
from corpus.units import Settings, Unit
from corpus.workers import Crew

DUPLICATES = "duplicates.jsonl"
FILES = (*LISTS.values(), DUPLICATES)
_SAMPLES = 3


@dataclass(kw_only=True)
class Merged:
    """What there is in the end: records by stream and split, what the gates counted, and a few records to look at."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    gates: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def write_lists(reports: Iterable[SourceReport], folder: Path) -> None:
    """Writes rejects.jsonl, quarantine.jsonl and the other lists of what is kept out, in the order of the sources."""
    found = list(reports)
    for kind, name in LISTS.items():
        with _private(folder / name) as file:
            for report in found:
                for unit, _ in report.parts:
                    _append(unit.part / name, file)
                if kind == "rejects":
                    file.writelines(_died(unit, why) for unit, why in report.died)


def merge(reports: Sequence[SourceReport], folder: Path, *, settings: Settings) -> Merged:
    """Finds duplicates over all parts and writes records/ and duplicates.jsonl; the reports learn their counts."""
    asked = [(report, unit, part) for report in reports for unit, part in report.parts]
    work, new = folder / ".merging", folder / ".records"
    for path in (work, new):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    folders = [unit.part for _, unit, _ in asked]
    found = duplicates.find(folders, config=settings.gates.duplicates, workdir=work)
    merged, samples = Merged(), list[tuple[str, str, str, str]]()
    with ExitStack() as stack:
        out = _Out(folder=folder, new=new, stack=stack)
        for number, (report, unit, part) in enumerate(asked):
            gone = _Gone.of(found, number=number, folders=folders)
            _copy(unit, part, gone, out, merged.counts)
            report.records += part.records - len(gone.records)
            report.duplicates += int(gone.exact.sum())
            report.near_duplicates += int((~gone.exact).sum())
            samples += _kept_samples(unit, part, gone)
    names = [report.source.name for report, _, _ in asked]
    merged.samples = _chosen(samples)
    merged.gates = _gates(asked, found, names, folder=folder, settings=settings)
    shutil.rmtree(folder / "records", ignore_errors=True)
    new.rename(folder / "records")
    shutil.rmtree(work)
    return merged


@dataclass(frozen=True, kw_only=True)
class _Gone:
    """The duplicates of one part: the records' numbers in order; of each, what is kept instead."""

    records: NDArray[np.int64]
    exact: NDArray[np.bool_]
    similarity: NDArray[np.float32]
    kept: list[str]
    folders: NDArray[np.int64]

    @classmethod
    def of(cls, found: Found, *, number: int, folders: Sequence[Path]) -> "_Gone":
        rows = found.of(number)
        exact, kept = np.zeros(len(rows), dtype=bool), np.zeros((len(rows), 12), dtype=np.uint8)
        own = _keys(folders[number])
        for other in np.unique(rows["folder"]):
            those = rows["folder"] == other
            exact[those] = (own[rows["record"][those]] == _keys(folders[other])[rows["of"][those]]).all(axis=1)
            kept[those] = parts.ids(folders[other])[rows["of"][those]]
        return cls(
            records=rows["record"].astype(np.int64),
            exact=exact,
            similarity=rows["similarity"],
            kept=[row.tobytes().hex() for row in kept],
            folders=rows["folder"].astype(np.int64),
        )


@dataclass(kw_only=True)
class _Out:
    """The files that are written; both splits of a stream, though one may be empty."""

    folder: Path
    new: Path
    stack: ExitStack
    files: dict[tuple[str, str], IO[bytes]] = field(default_factory=dict)
    _gone: IO[str] | None = None

    def records(self, stream: str, split: str) -> IO[bytes]:
        for name in SPLITS:
            if (stream, name) not in self.files:
                file = (self.new / f"{stream}.{name}.jsonl").open("wb")
                self.files[stream, name] = self.stack.enter_context(file)
        return self.files[stream, split]

    def duplicates(self) -> IO[str]:
        if self._gone is None:
            self._gone = self.stack.enter_context(_private(self.folder / DUPLICATES))
        return self._gone


def _copy(unit: Unit, part: Report, gone: _Gone, out: _Out, counts: Counter[tuple[str, str]]) -> None:
    """Copies a part's records but for duplicates, which are listed."""
    order, listed = parts.order(unit.part), out.duplicates()
    for place, (stream, split) in enumerate(part.streams):
        within = np.flatnonzero(order == place)
        mine = np.flatnonzero(order[gone.records] == place)
        dropped = dict(zip(np.searchsorted(within, gone.records[mine]).tolist(), mine.tolist(), strict=True))
        counts[stream, split] += len(within) - len(dropped)
        with (unit.part / f"{stream}.{split}.jsonl").open("rb") as file:
            written = out.records(stream, split)
            if not dropped:
                shutil.copyfileobj(file, written, 1 << 20)
            for number, line in enumerate(file):
                if number in dropped:
                    listed.write(_listed(line, gone, dropped[number]))
                else:
                    written.write(line)


def _listed(line: bytes, gone: _Gone, at: int) -> str:
    record = json.loads(line)
    found = {name: record[name] for name in ("id", "stream", "source", "location")}
    told = {"kept": gone.kept[at], "exact": bool(gone.exact[at]), "similarity": round(float(gone.similarity[at]), 4)}
    return json.dumps({**found, **told}, ensure_ascii=False) + "\n"


def _kept_samples(unit: Unit, part: Report, gone: _Gone) -> Iterator[tuple[str, str, str, str]]:
    lost = set(gone.records.tolist())
    for stream, id_, number, text in part.samples:
        if number not in lost:
            yield stream, id_, unit.source.name, text


def _chosen(samples: Iterable[tuple[str, str, str, str]]) -> dict[str, list[dict[str, Any]]]:
    chosen: dict[str, list[dict[str, Any]]] = {}
    for stream, id_, source, text in sorted(samples):
        some = chosen.setdefault(stream, [])
        if len(some) < _SAMPLES:
            some.append({"id": id_, "source": source, "text": text})
    return chosen


def _gates(
    asked: Sequence[tuple[SourceReport, Unit, Report]],
    found: Found,
    names: Sequence[str],
    *,
    folder: Path,
    settings: Settings,
) -> dict[str, Any]:
    counted = screen.totals((part.screened for _, _, part in asked), settings.gates, folder=folder / READY)
    return {**counted, "duplicates": [list(pair) for pair in found.pairs(names)]}


def _keys(part: Path) -> NDArray[np.uint8]:
    path = part / KEYS
    if not path.stat().st_size:
        return np.empty((0, 16), dtype=np.uint8)
    return np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, 16)


def _died(unit: Unit, why: str) -> str:
    label = unit.files[0].label
    item = reject(SourceError("reader_died", f"must be readable, but {why}"), where="whole file", excerpt=label)
    found: Mapping[str, Any] = {"source": unit.source.name, **vars(item), "where": f"{label}, {item.where}"}
    return json.dumps(found, ensure_ascii=False) + "\n"


def _append(path: Path, file: IO[str]) -> None:
    with path.open(encoding="utf-8", newline="\n") as part:
        shutil.copyfileobj(part, file, 1 << 20)


def _private(path: Path) -> IO[str]:
    """Opens a new file that only its owner may read."""
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    return open(handle, "w", encoding="utf-8", newline="\n")  # noqa: PTH123 - a handle with its mode


def prepare(sources: Sequence[Source], folder: Path, *, settings: Settings, crew: Crew | None = None) -> Merged:
    """Reads sources and merges them, all in this process unless there is a crew: the stage without its site.

    Raises:
        ValueError: a source is unusable.
    """
    reports = read_sources(sources, folder, settings=settings, crew=crew or Crew(isolate=False))
    write_lists(reports, folder)
    found = [f"{report.source.name}: {problem}" for report in reports if (problem := report.problem(most=1.0))]
    if found:
        raise ValueError("\n".join(found))
    return merge(reports, folder, settings=settings)

"""Records: what prepare writes and every later stage reads; cleaned, without duplicates, split by group."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from corpus.modality import Note, Record, Reject, SourceError, reject
from corpus.source import Source
from slurm.files import digest, sha256_file

SPLITS = ("train", "valid")
_ADVICE = "see rejects.jsonl, mend the file or "


@dataclass(kw_only=True)
class SourceReport:
    """What became of one source; counted while it is read.

    Attributes:
        failed: why the whole source is unusable, or None.
    """

    source: Source
    sha256: str
    records: int = 0
    duplicates: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    failed: str | None = None

    def reject_fraction(self) -> float:
        """Returns rejects / all items, 0 where there are none."""
        rejects = self.rejects.total()
        return rejects / max(1, rejects + self.records + self.duplicates)

    def problem(self, *, most: float) -> str | None:
        """Returns why the source may not be used, or None; `most` is the highest fraction of rejects."""
        if self.failed:
            return self.failed
        counted = ", ".join(f"{number} {code}" for code, number in self.rejects.most_common())
        if not self.records and not self.duplicates:
            return f"must hold a usable record, but has none ({counted or 'no items'}); {_ADVICE}its options"
        if self.reject_fraction() > most:
            found = f"{self.reject_fraction():.1%} are ({counted})"
            return f"at most {most:.0%} may be rejected, but {found}; {_ADVICE}raise max_reject_fraction"
        return None


class Writer:
    """Writes records/<stream>.<split>.jsonl and rejects.jsonl below a folder; remembers what it has seen."""

    def __init__(self, folder: Path, *, seed: int, valid_fraction: float) -> None:
        self.folder, self._seed, self._valid_fraction = folder, seed, valid_fraction
        self.counts: Counter[tuple[str, str]] = Counter()
        self._seen: set[bytes] = set()  # about 100 bytes a record
        self._files: dict[str, TextIO] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        (self.folder / "records").mkdir(parents=True)
        self._open("rejects.jsonl")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, record: Record, source: Source) -> bool:
        """Writes a record to its split; returns False for one that was there before."""
        stream = source.modality if record.language is None else f"{source.modality}.{record.language}"
        key = digest([stream, dict(record.content)])
        if bytes.fromhex(key[:32]) in self._seen:
            return False
        self._seen.add(bytes.fromhex(key[:32]))
        split = split_of(record.group, seed=self._seed, valid_fraction=self._valid_fraction)
        for name in SPLITS:
            self._open(f"records/{stream}.{name}.jsonl")
        self.counts[stream, split] += 1
        line = {
            "id": key[:24],
            "modality": source.modality,
            "stream": stream,
            "source": source.name,
            "license": source.license,
            "group": record.group,
            "language": record.language,
            "content": dict(record.content),
            **({} if record.pair is None else {"pair": record.pair}),
        }
        self._write(f"records/{stream}.{split}.jsonl", line)
        return True

    def reject(self, item: Reject, source: Source) -> None:
        """Writes a reject."""
        where = f"{source.path}, {item.where}"
        self._write("rejects.jsonl", {"source": source.name, **asdict(item), "where": where})

    def _open(self, name: str) -> None:
        if name not in self._files:
            file = (self.folder / name).open("w", encoding="utf-8", errors="backslashreplace", newline="\n")
            self._files[name] = self._stack.enter_context(file)

    def _write(self, name: str, value: dict[str, Any]) -> None:
        self._files[name].write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


def split_of(group: str, *, seed: int, valid_fraction: float) -> str:
    """Returns a group's split: a pure function of the group and the seed, equal on every machine."""
    drawn = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return "valid" if int.from_bytes(drawn[:8]) < valid_fraction * 2**64 else "train"


def read_source(source: Source, writer: Writer, *, root: Path, progress: Callable[[int], None]) -> SourceReport:
    """Reads one source into the writer; `progress` is told how many items there were so far.

    A damaged source is no exception but a report that says so: every source is tried before the run fails.
    """
    path = source.locate(root)
    report = SourceReport(source=source, sha256=sha256_file(path))
    try:
        _check_digest(source, report.sha256)
        _read_items(source, path, writer, report, progress)
    except SourceError as error:
        report.failed = error.reason
        writer.reject(reject(error, where="whole file", excerpt=source.path), source)
    return report


def read_records(folder: Path, /, stream: str, split: str) -> Iterator[dict[str, Any]]:
    """Yields the records of a stream and split below prepare's folder."""
    with (folder / "records" / f"{stream}.{split}.jsonl").open(encoding="utf-8", newline="\n") as file:
        for line in file:
            yield json.loads(line)


def streams(folder: Path) -> list[str]:
    """Returns the streams that prepare wrote below its folder."""
    return sorted(path.name.removesuffix(".train.jsonl") for path in (folder / "records").glob("*.train.jsonl"))


def _check_digest(source: Source, found: str) -> None:
    if source.sha256 not in (None, found):
        told = f"must have the SHA-256 {source.sha256}, but has {found}; fetch it again or mend sha256:"
        raise SourceError("wrong_digest", told)


def _read_items(
    source: Source, path: Path, writer: Writer, report: SourceReport, progress: Callable[[int], None]
) -> None:
    for number, item in enumerate(source.reader().read(path, source.read_options()), start=1):
        if isinstance(item, Note):
            report.notes.append(item.text)
        elif isinstance(item, Reject):
            report.rejects[item.code] += 1
            writer.reject(item, source)
        elif writer.add(item, source):
            report.records += 1
        else:
            report.duplicates += 1
        if number % 256 == 0:
            progress(number)
        if source.max_records is not None and report.records >= source.max_records:
            report.notes.append(f"stopped after max_records = {source.max_records}")
            return

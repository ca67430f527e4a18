"""Reading: one unit's files to records, screened and split; what runs in a worker of prepare."""

import json
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from corpus import parts
from corpus.formats import archive
from corpus.gates import personal
from corpus.gates.duplicates import Keys
from corpus.gates.screen import Finding, Screen
from corpus.gates.terms import Terms
from corpus.modality import Item, Modality, Note, Record, Reject, SourceError, UnusableError, reject
from corpus.parts import PartWriter, Report
from corpus.pulse import beat
from corpus.source import Source
from corpus.symbols import plain
from corpus.units import File, Settings, Unit, inputs_digest, split_of

LARGEST = 20_000_000  # characters of one record as text
_LEFT_OUT = "(left out: it may hold personal data)"
_KINDS = {"personal": "quarantined", "contamination": "contaminated"}  # every other gate filters


class _DamagedError(Exception):
    """A file cannot be used: what came of it is forgotten."""

    def __init__(self, label: str, error: SourceError) -> None:
        self.label, self.error = label, error
        super().__init__(label)


class _EnoughError(Exception):
    """There are `max_records` records."""


@dataclass(kw_only=True)
class Reading:
    """The work of prepare: reads a unit and commits its part.

    Attributes:
        settings: of all sources.
        ready: the folder where the gates made ready what they read.
        terms: what the run file says of each source's licence.
        licences: of each source.
        today: when licences are judged.
    """

    settings: Settings
    ready: Path
    terms: Mapping[str, Terms | None]
    licences: Mapping[str, str | None]
    today: date

    def __call__(self, unit: Unit) -> None:
        """Reads a unit; where only the times of its files changed, it keeps the part."""
        started, stamps = time.monotonic(), [file.stamp() for file in unit.files]
        digests = [file.sha256() if stamp else "" for file, stamp in zip(unit.files, stamps, strict=True)]
        files = [[file.label, *found] for file, *found in zip(unit.files, digests, stamps, strict=True)]
        if not parts.retouched(unit, files):
            self._read(unit, files, started)

    @cached_property
    def screen(self) -> Screen:
        """The gates, built once in each worker."""
        terms, licences = self.terms, self.licences
        return Screen(self.settings.gates, self.ready, terms=terms, licences=licences, today=self.today)

    def __getstate__(self) -> dict[str, Any]:
        """Returns what travels to a worker."""
        return {name: value for name, value in self.__dict__.items() if name != "screen"}

    def _read(self, unit: Unit, files: list[list[Any]], started: float) -> None:
        """Reads until no file turns out to be damaged any more: of such a one nothing is kept."""
        temporary = parts.swept(unit)
        damaged: dict[str, SourceError] = {}
        while True:
            report = Report(digest=unit.digest, files=files)
            try:
                self._write(unit, temporary, report, damaged)
                break
            except _DamagedError as found:
                damaged[found.label] = found.error
                shutil.rmtree(temporary)
        report.seconds = round(time.monotonic() - started, 3)
        parts.commit(temporary, unit=unit, report=report)

    def _write(self, unit: Unit, folder: Path, report: Report, damaged: Mapping[str, SourceError]) -> None:
        self.screen.take()
        with PartWriter(folder, report=report) as writer, Keys(self.settings.gates.duplicates) as keys:
            before, tempfile.tempdir = tempfile.tempdir, str(folder)  # what a killed worker leaves is swept with it
            try:
                _Pass(unit=unit, writer=writer, keys=keys, work=self).run(damaged)
            finally:
                tempfile.tempdir = before
            writer.close()
            keys.save(folder)
        report.screened = self.screen.take()


@dataclass(kw_only=True)
class _Pass:
    """One pass over a unit's files."""

    unit: Unit
    writer: PartWriter
    keys: Keys
    work: Reading
    seen: set[bytes] = field(default_factory=set)

    def run(self, damaged: Mapping[str, SourceError]) -> None:
        """Reads all files but those that are known to be damaged."""
        wrong = _wrong_digest(self.unit, self.writer.report)
        if wrong:
            self._fail(self.unit.source.path, wrong)
            return
        try:
            for file in self.unit.files:
                self._read_file(file, damaged)
        except _EnoughError:
            self.writer.report.note(f"stopped after max_records = {self.unit.source.max_records}")

    def _read_file(self, file: File, damaged: Mapping[str, SourceError]) -> None:
        if file.label in damaged:
            self._fail(file.label, damaged[file.label])
            return
        try:
            for label, path in _pieces(file, self.unit.source):
                if label in damaged:
                    self._fail(label, damaged[label])
                else:
                    self._read_piece(label, path)
        except SourceError as error:  # an archive's
            raise _DamagedError(file.label, error) from error

    def _read_piece(self, label: str, path: Path) -> None:
        try:
            for item in _items(self.unit.source, path):
                beat(1)
                self._take(item, label)
        except SourceError as error:
            raise _DamagedError(label, error) from error

    def _take(self, item: Item, label: str) -> None:
        if isinstance(item, Note):
            self.writer.report.note(self._fit_to_tell(item.text))
        elif isinstance(item, Reject):
            self._reject(item, label)
        else:
            try:
                self._add(item, label)
            except SourceError:
                raise
            except UnusableError as error:
                self._reject(reject(error, where=item.where or "an item", excerpt=""), label)

    def _add(self, record: Record, label: str) -> None:
        source, settings = self.unit.source, self.work.settings
        line = _line(record, source, label)
        text = _text(record, source, content=line["content"])
        finding = self.work.screen.check(record, text, source=source.name, modality=source.modality)
        if finding is not None:
            self._keep_out(finding, line)
            return
        key = sha256(f"{line['stream']}:{line['digest']}".encode()).digest()[:16]
        self._require_more(key)
        split = split_of(record.group, seed=settings.seed, valid_fraction=settings.valid_fraction)
        self.writer.record(line, split=split, text=text)
        self.keys.add(key, text if settings.gates.duplicates.compares(source.modality) else None)

    def _require_more(self, key: bytes) -> None:
        """Ends the pass before the first record that is one too many."""
        most = self.unit.source.max_records
        if most is not None and key not in self.seen:
            if len(self.seen) >= most:
                raise _EnoughError
            self.seen.add(key)

    def _keep_out(self, finding: Finding, line: dict[str, Any]) -> None:
        kind = _KINDS.get(finding.gate, "filtered")
        found = {"gate": finding.gate, "code": finding.code, "reason": finding.reason, "detail": dict(finding.detail)}
        kept = line if kind == "quarantined" else {name: line[name] for name in ("id", "source", "location", "ids")}
        self.writer.keep_out(kind, {**found, **({"record": kept} if kind == "quarantined" else kept)})

    def _reject(self, item: Reject, label: str) -> None:
        told = {name: self._fit_to_tell(getattr(item, name)) for name in ("where", "reason", "excerpt")}
        self.writer.reject(replace(item, **told), source=self.unit.source.name, label=label)

    def _fail(self, label: str, error: SourceError) -> None:
        """Notes a file that cannot be used."""
        self.writer.report.failed.append([label, error.code, self._fit_to_tell(error.reason)])
        self._reject(reject(error, where="whole file", excerpt=label), label)

    def _fit_to_tell(self, text: str) -> str:
        """Returns text that may hold a piece of the data as people may read it."""
        config, source = self.work.settings.gates.personal, self.unit.source
        actions = config.actions_for(source.name)
        found = personal.scan(text, actions) if source.modality not in config.skip else ()
        if any(actions[hit.kind] == "quarantine" for hit in found):
            return _LEFT_OUT
        return text.encode("utf-8", "backslashreplace").decode()


def _pieces(file: File, source: Source) -> Iterator[tuple[str, Path]]:
    """Yields what is read of a file, each with what records call it: itself, or members of an archive."""
    if source.member is None:
        yield file.label, file.path
        return
    matches = archive.matching(source.member)
    wanted = set(file.members).__contains__ if file.members else lambda name: matches(name) and source.reads(name)
    with archive.extracted(file.path, wanted=wanted) as folder:
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        names = file.members or [str(path.relative_to(folder)) for path in found]
        if not names:
            told = f"must hold a member {source.member!r} that {source.modality} reads, but holds none; mend member:"
            raise SourceError("no_member", told)
        for name in names:
            yield f"{file.label}!{name}", folder / name


def _items(source: Source, path: Path) -> Iterator[Item]:
    """Yields a reader's items; whatever else it raises condemns the file, not the job."""
    try:
        yield from source.reader().read(path, source.read_options())
    except (SourceError, MemoryError, GeneratorExit):
        raise
    except Exception as error:
        raise _reader_failed(error) from error


def _reader_failed(error: Exception) -> SourceError:
    """Shows the log where a reader failed, without what it says, which may be the data."""
    traceback.print_tb(error.__traceback__, file=sys.stderr)
    told = f"must be readable, but its reader failed with {type(error).__name__}: {str(error)[:200]}"
    return SourceError("reader_failed", f"{told}; look into the log and report it")


def _line(record: Record, source: Source, label: str) -> dict[str, Any]:
    """Returns a record as it is written.

    Raises:
        UnusableError: its content is no JSON.
    """
    try:
        written = json.dumps(record.content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        digest = sha256(written.encode()).hexdigest()
        "".join((record.group, record.pair or "", record.license or "", record.date or "", *record.ids)).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise UnusableError("not_json", f"must hold JSON values in whole characters, but {str(error)[:100]}") from error
    offsets = None if record.offsets is None else list(record.offsets)
    return {
        "id": digest[:24],
        "modality": source.modality,
        "scale": source.reader().SCALE,
        "stream": source.modality if record.language is None else f"{source.modality}.{record.language}",
        "source": source.name,
        "license": record.license or source.license,
        "group": record.group,
        "language": record.language,
        "date": record.date or source.date,
        "location": {"file": label, "record": record.where, "offsets": offsets},
        "digest": digest,
        "ids": list(record.ids),
        "content": json.loads(written),
        **({} if record.pair is None else {"pair": record.pair}),
    }


def _text(record: Record, source: Source, *, content: Mapping[str, Any]) -> str:
    """Returns a record as people read it.

    Raises:
        UnusableError: it is too large, or does not come back from what it is written as: tokenize would end with it.
    """
    reader = source.reader()
    try:
        rendered = reader.render(record.content)
    except (UnusableError, MemoryError):
        raise
    except Exception as error:
        raise _reader_failed(error) from error
    text = plain(rendered)
    if len(text) > LARGEST:
        raise UnusableError("too_large", f"must have at most {LARGEST:,} characters, but has {len(text):,}")
    if not _comes_back(reader, rendered, content):
        raise UnusableError("not_reversible", "must come back from what it is written as, but does not; report it")
    return text


def _comes_back(reader: Modality, rendered: str, content: Mapping[str, Any]) -> bool:
    try:
        return reader.parse(rendered) == content
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - whatever it is, this record alone is the cause
        return False


def _wrong_digest(unit: Unit, report: Report) -> SourceError | None:
    """Returns why the source is not what was promised, where this unit is all of it; nothing is read then."""
    wanted = unit.source.sha256
    found = inputs_digest([(label, digest) for label, digest, _ in report.files]) if unit.whole else wanted
    if wanted in (None, found):
        return None
    told = f"must have the SHA-256 {wanted}, but has {found}; fetch it again or mend sha256:"
    return SourceError("wrong_digest", told)

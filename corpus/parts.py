"""Parts: what one unit's records became on disk, committed as a whole; a part is read again only when it must be."""

import json
import os
import shutil
from array import array
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import numpy as np
from numpy.typing import NDArray

from corpus.modality import Reject
from corpus.units import Unit
from slurm.files import read_json, sha256_file, write_json

REPORT, IDS, ORDER = "report.json", "ids.bin", "order.bin"
LISTS = {  # what is kept out, and where it stands
    "rejects": "rejects.jsonl",
    "quarantined": "quarantine.jsonl",
    "contaminated": "contaminated.jsonl",
    "filtered": "filtered.jsonl",
}
_UNSHOWN = ("patient",)  # samples leave the stage: they stand in its record, in MLflow and in the report
_CANDIDATES = 8  # samples of a stream; some may turn out to be duplicates
_NOTES = 20


@dataclass(kw_only=True)
class Report:
    """What became of a unit; the part's commit."""

    digest: str
    files: list[list[Any]] = field(default_factory=list)  # label, sha256, stamp
    streams: list[list[str]] = field(default_factory=list)  # stream, split; `order.bin` counts in these
    records: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    kept_out: Counter[str] = field(default_factory=Counter)  # by list of LISTS
    failed: list[list[str]] = field(default_factory=list)  # label, code, reason
    notes: list[str] = field(default_factory=list)
    samples: list[list[Any]] = field(default_factory=list)  # stream, id, record's number, text
    screened: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    outputs: dict[str, str] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        return {**vars(self), "rejects": dict(self.rejects), "kept_out": dict(self.kept_out)}

    def note(self, text: str) -> None:
        """Keeps what a person should know, once."""
        if text not in self.notes and len(self.notes) < _NOTES:
            self.notes.append(text)


class PartWriter:
    """Writes a part into a folder of its own; `commit` makes it the unit's."""

    def __init__(self, folder: Path, *, report: Report) -> None:
        self.folder, self.report = folder, report
        self._files: dict[str, TextIO] = {}
        self._streams: dict[tuple[str, str], int] = {}
        self._ids, self._order = bytearray(), array("H")
        self._samples: dict[str, list[tuple[str, int, str]]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.folder.mkdir(mode=0o700, parents=True)
        for name in LISTS.values():
            self._open(name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def record(self, line: Mapping[str, Any], *, split: str, text: str) -> None:
        """Writes a record."""
        stream = line["stream"]
        place = self._streams.setdefault((stream, split), len(self._streams))
        self._write(f"{stream}.{split}.jsonl", line)
        self._order.append(place)
        self._ids += bytes.fromhex(line["id"])
        if split == "train" and line["modality"] not in _UNSHOWN:
            self._sample(stream, line["id"], text)
        self.report.records += 1

    def reject(self, item: Reject, *, source: str, label: str) -> None:
        """Writes a reject; its place begins with the file."""
        self.report.rejects[item.code] += 1
        self._write(LISTS["rejects"], {"source": source, **asdict(item), "where": f"{label}, {item.where}"})

    def keep_out(self, kind: str, line: Mapping[str, Any]) -> None:
        """Writes what a gate found; `kind` is one of LISTS."""
        self.report.kept_out[kind] += 1
        self._write(LISTS[kind], line)

    def close(self) -> None:
        """Writes what is known at the end; only the keys and the report are missing."""
        self._stack.close()
        (self.folder / IDS).write_bytes(self._ids)
        (self.folder / ORDER).write_bytes(self._order.tobytes())
        self.report.streams = [list(place) for place in self._streams]
        self.report.samples = [
            [stream, *found] for stream, some in sorted(self._samples.items()) for found in sorted(some)
        ]

    def _sample(self, stream: str, id_: str, text: str) -> None:
        """Keeps those with the lowest digests: a fair choice that no order of reading changes."""
        some = self._samples.setdefault(stream, [])
        if len(some) < _CANDIDATES or id_ < some[-1][0]:
            some.append((id_, self.report.records, text[:400]))
            some.sort()
            del some[_CANDIDATES:]

    def _open(self, name: str) -> TextIO:
        if name not in self._files:
            handle = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            file = open(handle, "w", encoding="utf-8", errors="backslashreplace", newline="\n")  # noqa: PTH123, SIM115
            self._files[name] = self._stack.enter_context(file)
        return self._files[name]

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        self._open(name).write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


def commit(folder: Path, *, unit: Unit, report: Report) -> None:
    """Makes a written folder the part of a unit; whatever was there is removed."""
    report.outputs = {path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.is_file()}
    write_json(folder / REPORT, report.told())
    if unit.part.exists():
        old = unit.part.with_name(f".{unit.part.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        unit.part.rename(old)
        folder.rename(unit.part)
        shutil.rmtree(old)
    else:
        folder.rename(unit.part)


def swept(unit: Unit) -> Path:
    """Returns the folder to write a unit's part to, which is not there; removes what killed workers left."""
    unit.part.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in unit.part.parent.glob(f".{unit.part.name}.*"):
        shutil.rmtree(left)
    return unit.part.parent / f".{unit.part.name}.{os.getpid()}"


def retouched(unit: Unit, files: list[list[Any]]) -> bool:
    """Keeps a part whose files only look changed: by their times, and not by their digests."""
    report = read_report(unit.part)
    if report is None or report.digest != unit.digest or not whole(unit.part):
        return False
    if [found[:2] for found in report.files] != [found[:2] for found in files]:
        return False
    report.files = files
    write_json(unit.part / REPORT, report.told())
    return True


def read_report(part: Path) -> Report | None:
    """Returns the report of a part, or None where there is no whole one."""
    try:
        value = read_json(part / REPORT)
        return Report(**{**value, "rejects": Counter(value["rejects"]), "kept_out": Counter(value["kept_out"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def committed(unit: Unit) -> bool:
    """Says whether a unit's part is there, by what can be seen cheaply: settings, and the files' sizes and times."""
    report = read_report(unit.part)
    if report is None or report.digest != unit.digest:
        return False
    return [stamp for _, _, stamp in report.files] == [file.stamp() for file in unit.files]


def whole(part: Path) -> bool:
    """Says whether a part's files have the digests that its report tells."""
    report = read_report(part)
    return report is not None and all(_has(part / name, wanted) for name, wanted in report.outputs.items())


def ids(part: Path) -> NDArray[np.uint8]:
    """Returns the ids of a part's records, uint8 (records, 12), read as they are asked for."""
    path = part / IDS
    if not path.stat().st_size:
        return np.empty((0, 12), dtype=np.uint8)
    return np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, 12)


def order(part: Path) -> NDArray[np.uint16]:
    """Returns, for each record of a part, the number of its stream and split."""
    return np.fromfile(part / ORDER, dtype=np.uint16)


def _has(path: Path, wanted: str) -> bool:
    return path.is_file() and sha256_file(path) == wanted

"""A stage's journal: what the stage observes, appended to a local file as JSON lines. No server is involved.

A training step must never wait for a tracking server, so a stage writes here, which takes microseconds, and another
process, the shipper, delivers. Nothing in a journal is ever changed, so a byte offset names a position for good.

One line is one entry: {"kind": ..., "time": milliseconds since 1970, ...} with these kinds:

    start     tracking_id, identity, experiment, name, params, tags: an execution of the stage begins
    metrics   step, values: one point per metric; not-a-number and infinities are the strings "nan", "inf", "-inf"
    tag       key, value
    dataset   name, digest, source, context
    artifact  path, relative to the journal's folder where it lies below it
    end       status: FINISHED, FAILED or KILLED
"""

import json
import math
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = "journal.jsonl"
KEPT_BYTES = 16 << 20  # of entries that a full disk did not take: hours of training
STATUSES = ("FINISHED", "FAILED", "KILLED")


def now_ms() -> int:
    """Returns the time in milliseconds since 1970, the unit of every journal entry."""
    return time.time_ns() // 1_000_000


def read_entries(path: Path, *, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """Yields each complete entry after byte `offset`, with the offset of the entry's end.

    A last line without its newline is still being written, or was torn by a kill: it is not read. A torn line with
    others after it comes out as {"kind": "damaged"}, so that a reader can count what it cannot use.
    """
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            if line != b"\n":
                yield _parse(line), offset


def flatten(values: Mapping[str, Any], *, prefix: str = "") -> dict[str, str]:
    """Returns nested settings as one level of texts: {"a": {"b": 1}} becomes {"a.b": "1"}."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, prefix=f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat


@dataclass(frozen=True, kw_only=True)
class History:
    """The latest run in a journal, as its own stage and the report see it.

    A stage that resumes from a checkpoint writes some steps again. The last value of a step is kept, because it is the
    one that led to the weights that were kept; `replayed` and `changed` count, for each metric, the points that were
    written again and those of them whose value was not the same to the last bit.
    """

    tracking_id: str
    experiment: str
    name: str
    status: str  # RUNNING while there is no end entry
    started_ms: int
    params: Mapping[str, str]
    tags: Mapping[str, str]
    curves: Mapping[str, Mapping[int, float]]  # metric -> step -> value
    replayed: Mapping[str, int]
    changed: Mapping[str, int]


def read_history(path: Path) -> History:
    """Reads the latest run of a journal.

    Raises:
        ValueError: the journal holds no start entry.
    """
    entries = [entry for entry, _ in read_entries(path)]
    starts = [entry for entry in entries if entry["kind"] == "start"]
    if not starts:
        raise ValueError(f"{path}: must hold a start entry, but has none; run the stage again")
    start = next(entry for entry in starts if entry["tracking_id"] == starts[-1]["tracking_id"])
    entries = entries[entries.index(start) :]
    curves, replayed, changed = _curves(entries)
    last = [entry for entry in entries if entry["kind"] in ("start", "end")][-1]
    return History(
        tracking_id=start["tracking_id"],
        experiment=start["experiment"],
        name=start["name"],
        status=last.get("status", "RUNNING"),
        started_ms=start["time"],
        params=start["params"],
        tags=starts[-1]["tags"] | {e["key"]: e["value"] for e in entries if e["kind"] == "tag"},
        curves=curves,
        replayed=replayed,
        changed=changed,
    )


class Journal:
    """Appends entries to the journal at `path`.

    An entry is one write in append mode, so several processes of one host may write to the same journal: usually the
    stage itself, and the rank that knows the loss. A disk that is full, or fails, is reported once on stderr; the stage
    goes on. What could not be written waits in memory, up to KEPT_BYTES, and is written before the next entry that can
    be; a tag tells how many entries are missing where even that was not enough.
    """

    def __init__(self, path: Path) -> None:
        """Opens the journal, after any entry that a killed writer left torn."""
        self.path = path
        self.started_ms = now_ms()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._lock = threading.Lock()
        self._lost = self._told = 0
        self._waiting: list[bytes] = []
        size = os.fstat(self._file).st_size
        self._torn = size > 0 and os.pread(self._file, 1, size - 1) != b"\n"

    def start(
        self, *, experiment: str, name: str, identity: str, params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> str:
        """Begins an execution of the stage and returns the tracking id of its run: what MLflow finds it by.

        An execution continues the run of the last one when that had the same `identity` and did not finish;
        otherwise a new run begins.

        Args:
            experiment: MLflow experiment, `medscale/<stage>`.
            name: MLflow run name, `<run>@<site>`.
            identity: digest of the settings and inputs that make two executions the same work.
            params: the whole configuration; nested names are joined with dots.
            tags: run, site, workflow, git_commit and the like.
        """
        starts = self._unfinished(identity)
        tracking_id = str(starts[0]["tracking_id"]) if starts else uuid.uuid4().hex
        self.started_ms = starts[0]["time"] if starts else now_ms()
        self._append(
            "start",
            tracking_id=tracking_id,
            identity=identity,
            experiment=experiment,
            name=name,
            params=flatten(params),
            tags={**tags, "executions": str(len(starts) + 1)},
        )
        return tracking_id

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Records one point per metric at `step`, which must grow: a step at or below an earlier one is a replay."""
        numbers = {key: float(value) for key, value in values.items()}
        self._append(
            "metrics",
            step=step,
            values={key: value if math.isfinite(value) else repr(value) for key, value in numbers.items()},
        )

    def tag(self, key: str, value: str) -> None:
        """Records a tag of the run; a later value of the same key replaces the earlier one."""
        self._append("tag", key=key, value=value)

    def dataset(self, *, name: str, digest: str, source: str, context: str) -> None:
        """Records data that the stage reads: its SHA-256, where it is from, and its use ("training", "validation")."""
        self._append("dataset", name=name, digest=digest, source=source, context=context)

    def artifact(self, path: Path) -> None:
        """Records a file for the tracking server to keep a copy of. The file must be complete, and stay."""
        inside = path.resolve().is_relative_to(self.path.parent.resolve())
        self._append("artifact", path=os.path.relpath(path, self.path.parent) if inside else str(path.resolve()))

    def end(self, status: str) -> None:
        """Ends the execution: the last entry, after tags and artifacts.

        Raises:
            ValueError: `status` is none of STATUSES.
        """
        if status not in STATUSES:
            raise ValueError(f"status must be one of {', '.join(STATUSES)}, but is {status!r}; name one of them")
        self._append("end", status=status)

    def close(self) -> None:
        """Closes the file; a journal that is not closed loses nothing."""
        with self._lock:
            os.close(self._file)
            self._file = -1

    def _unfinished(self, identity: str) -> list[dict[str, Any]]:
        """Returns the start entries of the journal's latest run when it is the same work and has not finished."""
        starts: list[dict[str, Any]] = []
        for entry, _ in read_entries(self.path):
            if entry["kind"] == "start":
                same = bool(starts) and entry["tracking_id"] == starts[0]["tracking_id"]
                starts = [*starts, entry] if same else [entry]
            elif entry["kind"] == "end" and entry["status"] == "FINISHED":
                starts = []
        return starts if starts and starts[0]["identity"] == identity else []

    def sync(self) -> None:
        """Waits until all entries are on disk: called before a checkpoint is, so that none of its steps can be lost."""
        with self._lock, suppress(OSError):  # a full disk has been reported
            self._write_waiting()
            os.fsync(self._file)

    def _append(self, kind: str, **fields: Any) -> None:
        entry = {"kind": kind, "time": now_ms(), **fields}
        line = json.dumps(entry, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            self._waiting.append(line)
            try:
                self._write_waiting()
            except OSError as error:
                self._report(error)

    def _write_waiting(self) -> None:
        if self._lost > self._told:
            lost = {"kind": "tag", "time": now_ms(), "key": "lost_entries", "value": str(self._lost)}
            self._write(json.dumps(lost).encode() + b"\n")
            self._told = self._lost
        while self._waiting:
            self._write(self._waiting[0])
            del self._waiting[0]

    def _write(self, line: bytes) -> None:
        line = b"\n" + line if self._torn else line
        self._torn = True  # until the whole line is known to be there
        written = os.write(self._file, line)
        if written < len(line):
            raise OSError(f"only {written} of {len(line)} bytes could be written")
        self._torn = False

    def _report(self, error: OSError) -> None:
        if len(self._waiting) == 1:
            with suppress(OSError):  # stderr may be a log on the same full disk
                print(f"{self.path}: entries wait in memory: {error}; the stage goes on; free space", file=sys.stderr)
        while sum(map(len, self._waiting)) > KEPT_BYTES:
            del self._waiting[0]
            self._lost += 1


def _parse(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {"kind": "damaged"}
    return entry if isinstance(entry, dict) and "kind" in entry else {"kind": "damaged"}


def _curves(
    entries: list[dict[str, Any]],
) -> tuple[dict[str, dict[int, float]], dict[str, int], dict[str, int]]:
    curves: dict[str, dict[int, float]] = {}
    replayed: dict[str, int] = {}
    changed: dict[str, int] = {}
    for entry in entries:
        for key, text in entry["values"].items() if entry["kind"] == "metrics" else ():
            curve, step, value = curves.setdefault(key, {}), entry["step"], float(text)
            if step in curve:
                replayed[key] = replayed.get(key, 0) + 1
                changed[key] = changed.get(key, 0) + (repr(curve[step]) != repr(value))
            curve[step] = value
    return curves, replayed, changed

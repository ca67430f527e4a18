"""Parcels: a journal cut into pieces that a tracking server takes, and acknowledges, one at a time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs._journal import read_entries

MAX_POINTS = 1000  # a parcel is one request where it can be; MLflow takes 1000 points a request


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value of one metric."""

    key: str
    value: float
    time: int  # milliseconds since 1970
    step: int


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """Consecutive entries of one run.

    Attributes:
        offset: where the parcel ends in the journal.
        start: the start entry, when the parcel opens an execution; it is the first entry then.
        end: the end entry, when the parcel closes one; it is the last entry then.
        marks: metric -> highest step so far in this run, this parcel included.
        replayed: points left out, because a resumed stage had written their steps before.
        damaged: lines that could not be read.
    """

    offset: int
    start: Mapping[str, Any] | None
    points: tuple[Point, ...]
    tags: Mapping[str, str]
    datasets: tuple[Mapping[str, str], ...]
    artifacts: tuple[str, ...]
    end: Mapping[str, Any] | None
    marks: Mapping[str, int]
    replayed: int
    damaged: int


def parcels(path: Path, *, offset: int, tracking_id: str, marks: Mapping[str, int]) -> Iterator[Parcel]:
    """Cuts what a journal holds after `offset` into parcels.

    A stage that resumes from a checkpoint writes some steps again. A tracking server keeps what it once got, so the
    first point of a step is the one it shall have: a point whose step is not above the highest of its metric is left
    out and counted. (The points are equal where training resumes exactly; timings differ.)

    Args:
        path: the journal.
        offset: where to begin.
        tracking_id: the run that the entries at `offset` belong to; "" at the beginning.
        marks: metric -> highest step of that run before `offset`.
    """
    for entries, end in _groups(path, offset):
        start = entries[0] if entries[0]["kind"] == "start" else None
        if start and start["tracking_id"] != tracking_id:
            tracking_id, marks = start["tracking_id"], {}
        parcel = _pack(entries, offset=end, start=start, marks=marks)
        marks = parcel.marks
        yield parcel


def _groups(path: Path, offset: int) -> Iterator[tuple[list[dict[str, Any]], int]]:
    group: list[dict[str, Any]] = []
    points = end = 0
    for entry, after in read_entries(path, offset=offset):
        size = len(entry.get("values", ()))
        if group and (entry["kind"] == "start" or group[-1]["kind"] == "end" or points + size > MAX_POINTS):
            yield group, end
            group, points = [], 0
        group.append(entry)
        points, end = points + size, after
    if group:
        yield group, end


def _pack(
    entries: list[dict[str, Any]], *, offset: int, start: Mapping[str, Any] | None, marks: Mapping[str, int]
) -> Parcel:
    points, highest, replayed = _points(entries, marks)
    return Parcel(
        offset=offset,
        start=start,
        points=tuple(points),
        tags={entry["key"]: entry["value"] for entry in entries if entry["kind"] == "tag"},
        datasets=tuple(entry for entry in entries if entry["kind"] == "dataset"),
        artifacts=tuple(entry["path"] for entry in entries if entry["kind"] == "artifact"),
        end=entries[-1] if entries[-1]["kind"] == "end" else None,
        marks=highest,
        replayed=replayed,
        damaged=sum(entry["kind"] == "damaged" for entry in entries),
    )


def _points(entries: list[dict[str, Any]], marks: Mapping[str, int]) -> tuple[list[Point], dict[str, int], int]:
    points: list[Point] = []
    highest, replayed = dict(marks), 0
    for entry in entries:
        for key, value in entry["values"].items() if entry["kind"] == "metrics" else ():
            if key in highest and entry["step"] <= highest[key]:
                replayed += 1
                continue
            highest[key] = entry["step"]
            points.append(Point(key=key, value=float(value), time=entry["time"], step=entry["step"]))
    return points, highest, replayed

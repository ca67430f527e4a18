"""Ranges of records: a file of lines cut by bytes at line ends, so that who reads a part needs to know of no other."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Range:
    """The lines of a file that begin at `start` or later, and before `stop`."""

    file: Path
    start: int
    stop: int

    @classmethod
    def of(cls, file: Path, *, size: int) -> "list[Range]":
        """Returns the ranges of a file, of `size` bytes each; one for an empty file."""
        whole = file.stat().st_size
        return [cls(file=file, start=start, stop=min(start + size, whole)) for start in range(0, max(1, whole), size)]


def lines(within: Range) -> Iterator[tuple[int, bytes]]:
    """Yields the lines of a range, each with the place where it begins."""
    with within.file.open("rb") as file:
        place = within.start
        if place:  # the line that runs over the start is another's
            file.seek(place - 1)
            place += len(file.readline()) - 1
        while place < within.stop:
            line = file.readline()
            yield place, line
            place += len(line)


def records_file(records: Path, *, stream: str, split: str) -> Path:
    """Returns the file of a stream and split below prepare's folder."""
    return records / "records" / f"{stream}.{split}.jsonl"

"""A spool: rows put in by owner in any order and taken out owner by owner, on disk when memory would not hold them."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_OWNERS = 512  # of one bucket, the part that is held in memory while it is read
_ROWS = 200_000  # held in memory before they go to disk


class Spool:
    """Rows by owner. Owners come out in the order they came in, and so do the rows of each.

    Memory holds the owners' names, at most `rows` rows, and while reading the rows of 512 owners.
    """

    def __init__(self, *, rows: int = _ROWS, owners: int = _OWNERS) -> None:
        self._rows, self._owners = rows, owners
        self._numbers: dict[str, int] = {}
        self._waiting: dict[int, list[str]] = defaultdict(list)
        self._held = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder:
            self._folder.cleanup()

    def add(self, owner: str, row: Any) -> None:
        """Puts in a row: any JSON value."""
        number = self._numbers.setdefault(owner, len(self._numbers))
        self._waiting[number // self._owners].append(json.dumps([number, row], ensure_ascii=True))
        self._held += 1
        if self._held >= self._rows:
            self._spill()

    def owners(self) -> Iterator[tuple[str, list[Any]]]:
        """Yields each owner with its rows."""
        names = list(self._numbers)
        for bucket in range((len(names) + self._owners - 1) // self._owners):
            rows: dict[int, list[Any]] = defaultdict(list)
            for line in self._lines(bucket):
                number, row = json.loads(line)
                rows[number].append(row)
            for number in sorted(rows):
                yield names[number], rows[number]

    def _lines(self, bucket: int) -> Iterator[str]:
        path = self._path(bucket) if self._folder else None
        if path and path.exists():
            with path.open(encoding="ascii") as file:
                yield from file
        yield from self._waiting.get(bucket, ())

    def _spill(self) -> None:
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="medscale-spool-")
        for bucket, lines in self._waiting.items():
            with self._path(bucket).open("a", encoding="ascii") as file:
                file.writelines(f"{line}\n" for line in lines)
        self._waiting.clear()
        self._held = 0

    def _path(self, bucket: int) -> Path:
        return Path(self._folder.name if self._folder else "") / f"{bucket}.jsonl"

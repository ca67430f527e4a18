"""Who is told how training goes, and by whom: rank 0 tells, the others are silent."""

from collections.abc import Mapping
from typing import Protocol


class Watcher(Protocol):
    """Who is told how training goes; only rank 0 tells."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Takes one point of each metric."""
        ...

    def progress(self, done: int, *, total: int, note: str) -> None:
        """Takes the number of steps done."""
        ...

    def note(self, line: str) -> None:
        """Takes a line for people."""
        ...

    def saving(self, step: int) -> None:
        """Makes what it was told durable: the checkpoint of `step` comes next, and no step before it is done again."""
        ...


class Silent:
    """The watcher of every rank but 0."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Tells nobody."""

    def progress(self, done: int, *, total: int, note: str) -> None:
        """Tells nobody."""

    def note(self, line: str) -> None:
        """Tells nobody."""

    def saving(self, step: int) -> None:
        """Has nothing to make durable."""

"""Claims: which node does which unit of work, agreed upon through a folder that all nodes see."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

_PULSE_S = 5.0
_AGAIN = "start the stage again: what is done is kept"


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """The nodes of a job, and where they meet: `meeting` is a folder of this execution alone."""

    rank: int = 0
    world_size: int = 1
    meeting: Path = Path()
    silence_s: float = 120.0
    pulses: dict[int, tuple[int, float]] = field(default_factory=dict)

    @property
    def many(self) -> bool:
        """Whether there is another node."""
        return self.world_size > 1

    @contextmanager
    def together(self) -> Iterator[None]:
        """Shows the other nodes that this one lives, and tells them when it fails, so that none waits for it."""
        if not self.many:
            yield
            return
        self.meeting.mkdir(parents=True, exist_ok=True)
        ended = threading.Event()
        pulse = threading.Thread(target=self._pulse, args=(ended,), daemon=True)
        pulse.start()
        try:
            yield
        except Exception as error:
            with suppress(OSError):
                _write(self.meeting / f"rank{self.rank}.failed", f"{type(error).__name__}: {error}")
            raise
        finally:
            ended.set()
            pulse.join()

    def require_no_failure(self) -> None:
        """Raises RuntimeError when another node failed."""
        for path in sorted(self.meeting.glob("rank*.failed")) if self.many else ():
            raise RuntimeError(f"every node must do its part, but {path.stem} failed: {_read(path)}; {_AGAIN}")

    def require_pulse(self, rank: int) -> None:
        """Raises RuntimeError when a node shows no life; it is compared with what was seen before, by one clock."""
        path, now = self.meeting / f"rank{rank}.pulse", time.monotonic()
        found = path.stat().st_mtime_ns if path.exists() else 0
        before, since = self.pulses.get(rank, (-1, now))
        if found != before:
            self.pulses[rank] = (found, now)
        elif now - since > self.silence_s:
            told = f"rank{rank} has been silent for {self.silence_s:g} s"
            raise RuntimeError(f"every node must live, but {told}; {_AGAIN}")

    def wait_for(self, path: Path, *, rank: int = 0) -> None:
        """Waits until a file is there that another node makes.

        Raises:
            RuntimeError: a node failed, or the one that makes the file is silent.
        """
        pause = 0.05
        while not path.exists():
            self.require_no_failure()
            self.require_pulse(rank)
            time.sleep(pause)
            pause = min(1.0, pause * 1.5)

    def _pulse(self, ended: threading.Event) -> None:
        while True:
            with suppress(OSError):  # a disk that fails for longer is silence
                _write(self.meeting / f"rank{self.rank}.pulse", str(time.time_ns()))
            if ended.wait(_PULSE_S):
                return


class Claims:
    """The units of one piece of work: what is left, who has it, what became of it.

    A unit is claimed by making a file that must not exist. A claim ends with the execution: a node that dies is
    noticed by the others, who end the stage, and a later start claims anew what is not committed.
    """

    def __init__(self, number: int, /, *, committed: Callable[[int], bool], nodes: Nodes, name: str) -> None:
        self._committed, self._nodes = committed, nodes
        self._folder = nodes.meeting / f"units-{name}"
        self.left = {unit for unit in range(number) if not committed(unit)}
        self.died: dict[int, str] = {}
        self._open = sorted(self.left, reverse=True)
        self._theirs: set[int] = set()
        if nodes.many:
            self._folder.mkdir(parents=True, exist_ok=True)

    def take(self) -> int | None:
        """Returns a unit that is now this node's, or None when no node has to begin one.

        Raises:
            RuntimeError: another node failed.
        """
        self._nodes.require_no_failure()
        while self._open:
            unit = self._open.pop()
            if self._committed(unit):
                self.left.discard(unit)
            elif self._claimed(unit):
                return unit
            else:
                self._theirs.add(unit)
        return None

    def done(self, unit: int) -> None:
        """Notes that this node committed a unit.

        Raises:
            RuntimeError: it did not.
        """
        if not self._committed(unit):
            raise RuntimeError(f"unit {unit} must be committed by its work, but is not; mend the work")
        self.left.discard(unit)

    def bury(self, unit: int, why: str) -> None:
        """Notes, for all nodes, that a unit cannot be done."""
        self.died[unit] = why
        self.left.discard(unit)
        if self._nodes.many:
            _write(self._folder / f"{unit}.died", json.dumps(why))

    def wait(self) -> None:
        """Waits until the other nodes have done theirs.

        Raises:
            RuntimeError: a node failed, or is silent.
        """
        pause = 0.05
        while self._theirs:
            self._nodes.require_no_failure()
            for unit in sorted(self._theirs):
                self._look(unit)
            if self._theirs:
                time.sleep(pause)
                pause = min(1.0, pause * 1.5)

    def _claimed(self, unit: int) -> bool:
        if not self._nodes.many:
            return True
        try:
            with (self._folder / f"{unit}.claim").open("x") as file:
                file.write(str(self._nodes.rank))
        except FileExistsError:
            return False
        return True

    def _look(self, unit: int) -> None:
        """Looks what became of a unit of another node."""
        died = self._folder / f"{unit}.died"
        if died.exists():
            self.died[unit] = json.loads(_read(died))
        elif not self._committed(unit):
            owner = _read(self._folder / f"{unit}.claim")
            self._nodes.require_pulse(int(owner) if owner else -1 - unit)  # a claim may be seen before who made it
            return
        self.left.discard(unit)
        self._theirs.discard(unit)


def _write(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.{threading.get_ident()}.new")
    new.write_text(text)
    new.replace(path)


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""

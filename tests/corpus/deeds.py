"""Units of work for the tests of workers: imported by fresh processes, so nothing heavy and no pytest."""

import ctypes
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from corpus.pulse import beat
from corpus.reading import Reading
from corpus.units import Unit


@dataclass(frozen=True, kw_only=True)
class Deed:
    """One unit: what happens when it is done, and the file that says that it was."""

    kind: str
    path: Path


def done(deed: Deed) -> bool:
    """Says whether it is committed."""
    return deed.path.exists()


def do(deed: Deed) -> None:
    """Does a unit."""
    _KINDS[deed.kind]()
    tried = deed.path.with_suffix(".tried")
    tried.write_text(f"{tried.read_text() if tried.exists() else ''}{os.getpid()}\n")
    if deed.kind == "once" and tried.read_text().count("\n") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if deed.kind != "forget":
        deed.path.write_text(" ".join(sorted(name for name in os.environ if name.endswith("_NUM_THREADS"))))


def _hold() -> None:
    held = [bytearray(50_000_000)]
    while True:
        held.append(bytearray(50_000_000))


def _beats() -> None:
    for _ in range(8):
        time.sleep(0.1)
        beat(5)


def _refuse() -> None:
    raise ValueError("must be even, but is odd")


class Crashing(Reading):
    """Reads as prepare does, but for a source named `crash`."""

    def __call__(self, unit: Unit) -> None:
        if unit.source.name == "crash":
            ctypes.string_at(0)
        super().__call__(unit)


_KINDS = {
    "good": lambda: None,
    "once": lambda: None,
    "forget": lambda: None,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0),
    "leave": lambda: sys.exit(3),
    "hang": lambda: time.sleep(60),
    "hold": _hold,
    "beats": _beats,
    "refuse": _refuse,
}

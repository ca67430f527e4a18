"""Workers: units of work done by fresh processes of one node or many; one that dies costs its own unit and no other."""

import ctypes
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from corpus.claims import Claims, Nodes
from corpus.pulse import beat, listen

__all__ = ["Crew", "beat", "die_with_parent", "run_units", "serve"]

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "ARROW_IO_THREADS")
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_LOOK_S = 0.5
_LAST_WORDS_S = 5.0
_STARTING_S = 120.0  # a loaded machine with a slow disk


@dataclass(frozen=True, kw_only=True)
class Crew:
    """Who does the work. Results must not depend on it.

    Attributes:
        workers: processes on this node.
        rank: of this node.
        world_size: nodes; each calls `run_units` with the same units.
        meeting: a folder of this execution alone that all nodes see; nothing where there is one node.
        isolate: whether a lone worker is a process too; False runs it in this one, which a crash would end.
        memory_gb: what one worker may hold; None is no limit.
        silence_s: a worker that tells nothing for so long is ended; `beat` tells.
    """

    workers: int = 1
    rank: int = 0
    world_size: int = 1
    meeting: Path = Path()
    isolate: bool = True
    memory_gb: float | None = None
    silence_s: float = 600.0

    def nodes(self) -> Nodes:
        """Returns the nodes; `with crew.nodes().together()` around a stage shows them whether this one lives."""
        return Nodes(rank=self.rank, world_size=self.world_size, meeting=self.meeting)


def run_units[Unit](
    units: Sequence[Unit],
    work: Callable[[Unit], object],
    *,
    committed: Callable[[Unit], bool],
    crew: Crew,
    progress: Callable[[int, int, int], None] = lambda _done, _total, _told: None,
    name: str = "work",
) -> dict[int, str]:
    """Does every unit that is not committed, and waits for all nodes; returns why units died, by position.

    A unit that takes its worker along is tried once more while nothing else runs on the node. Every worker gets `work`
    once, so that an object may keep what it loads.

    Args:
        units: what to do, in the order to begin; they travel to the workers as pickles.
        work: does a unit and commits what it made, atomically. Found by its module and name, so never in a script.
        committed: whether a unit is done, by looking at what is on disk.
        crew: who does it.
        progress: is told how many units are done, how many there are, and the sum of what `beat` was told.
        name: of this piece of work, where an execution has several.

    Raises:
        RuntimeError: a worker does not start, or another node failed.
        Exception: what `work` raised first; whatever it is, the others are ended.
    """
    nodes = crew.nodes()
    claims = Claims(len(units), committed=lambda unit: committed(units[unit]), nodes=nodes, name=name)
    inline = crew.workers == 1 and crew.world_size == 1 and not crew.isolate
    items = 0
    with nodes.together():
        if inline:
            items = _run_here(units, work, claims, progress)
        elif claims.left:
            items = _Pool(units=units, work=pickle.dumps(work), claims=claims, crew=crew, progress=progress).run()
        claims.wait()
    progress(len(units), len(units), items)
    return dict(sorted(claims.died.items()))


def die_with_parent() -> None:
    """Makes the kernel end this process when the one that started it ends, however that comes about."""
    with suppress(OSError, AttributeError):  # only Linux can
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def serve() -> None:
    """Runs in a worker: takes the work, then one unit after the other."""
    die_with_parent()
    limit = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold whatever was read
    if limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with Connection(int(sys.argv[1])) as line, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        listen(lambda items: line.send(("beat", items)))
        work = pickle.loads(line.recv_bytes())  # noqa: S301 - from the process that started this one
        line.send(("ready", None))
        while True:
            line.send(_answer(work, line.recv()))


def _answer(work: Callable[[Any], object], unit: Any) -> tuple[str, Any]:
    try:
        work(unit)
    except MemoryError:
        return "memory", None
    except Exception as error:  # noqa: BLE001 - the caller raises it
        return "failed", (_portable(error), traceback.format_exc())
    return "done", None


def _portable(error: Exception) -> bytes:
    """Returns the error as bytes that surely come back: an exception with a constructor of its own may not."""
    with suppress(Exception):
        made = pickle.dumps(error)
        pickle.loads(made)  # noqa: S301 - just made
        return made
    kind = ValueError if isinstance(error, ValueError) else RuntimeError
    return pickle.dumps(kind(str(error)))


def _run_here(units: Sequence[Any], work: Callable[[Any], object], claims: Claims, progress: Any) -> int:
    items = 0

    def tell(more: int) -> None:
        nonlocal items
        items += more
        progress(len(units) - len(claims.left), len(units), items)

    while (unit := claims.take()) is not None:
        listen(tell)
        try:
            work(units[unit])
        finally:
            listen(None)
        claims.done(unit)
    return items


@dataclass(kw_only=True)
class _Worker:
    """One process, the line to it, and the unit it has."""

    process: subprocess.Popen[bytes]
    line: Connection
    ready: bool = False
    unit: int | None = None
    heard: float = field(default_factory=time.monotonic)

    def end(self) -> int:
        """Ends the process and all that it started; returns how it ended by itself, if it did."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=_LAST_WORDS_S)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.line.close()
        return self.process.wait()


@dataclass(kw_only=True)
class _Pool:
    """The workers of this node."""

    units: Sequence[Any]
    work: bytes
    claims: Claims
    crew: Crew
    progress: Callable[[int, int, int], None]
    team: list[_Worker] = field(default_factory=list)
    again: list[int] = field(default_factory=list)
    items: int = 0

    def run(self) -> int:
        """Does the units, then once more, one at a time, those that took a worker along; returns the beats' sum."""
        try:
            self._do(self.claims.take, size=min(self.crew.workers, len(self.claims.left)), lost=self._try_again)
            for unit in self.again:
                self._dismiss()
                left = iter([unit])
                self._do(lambda left=left: next(left, None), size=1, lost=self.claims.bury)  # type: ignore[misc]
        finally:
            self._dismiss()
        return self.items

    def _do(self, take: Callable[[], int | None], *, size: int, lost: Callable[[int, str], None]) -> None:
        open_ = True
        while True:
            while open_ and (worker := self._idle(size)) is not None:
                unit = take()
                open_ = unit is not None
                if unit is not None:
                    self._give(worker, unit)
            if not open_ and all(worker.unit is None for worker in self.team):
                return
            self._listen(lost)
            self._end_silent(lost)
            self.progress(len(self.units) - len(self.claims.left), len(self.units), self.items)

    def _idle(self, size: int) -> _Worker | None:
        """Returns a worker without a unit; hires up to `size`."""
        idle = next((worker for worker in self.team if worker.ready and worker.unit is None), None)
        if idle is None and len(self.team) < size:
            self.team.append(_hire(self.work, self.crew.memory_gb))
        return idle

    def _give(self, worker: _Worker, unit: int) -> None:
        worker.unit, worker.heard = unit, time.monotonic()
        with suppress(BrokenPipeError, ConnectionResetError):  # it died; the line tells that when it is read
            worker.line.send(self.units[unit])

    def _listen(self, lost: Callable[[int, str], None]) -> None:
        lines = {worker.line: worker for worker in self.team}
        for line in wait(list(lines), timeout=_LOOK_S):
            worker = lines[line]  # type: ignore[index]
            try:
                told, value = worker.line.recv()
            except (EOFError, OSError):
                self._lose(worker, _why(worker.end()), lost)
                continue
            worker.heard = time.monotonic()
            self._hear(worker, told, value, lost)

    def _hear(self, worker: _Worker, told: str, value: Any, lost: Callable[[int, str], None]) -> None:
        if told == "ready":
            worker.ready = True
        elif told == "beat":
            self.items += value
        elif told == "done" and worker.unit is not None:
            unit, worker.unit = worker.unit, None
            self.claims.done(unit)
        elif told == "memory":
            worker.process.kill()
            worker.end()
            limit = f", of which it may have {self.crew.memory_gb:g} GB" if self.crew.memory_gb else ""
            self._lose(worker, f"its worker ran out of memory{limit}", lost)
        else:
            error, trace = value
            print(trace, file=sys.stderr, flush=True)  # noqa: T201 - where in the worker it happened
            raise pickle.loads(error)  # noqa: S301 - from a worker

    def _lose(self, worker: _Worker, why: str, lost: Callable[[int, str], None]) -> None:
        self.team.remove(worker)
        if worker.unit is not None:
            lost(worker.unit, why)
        elif not worker.ready:
            raise RuntimeError(f"a worker must start, but {why}; mend what the log says")

    def _try_again(self, unit: int, _why: str) -> None:
        self.again.append(unit)

    def _end_silent(self, lost: Callable[[int, str], None]) -> None:
        for worker in list(self.team):
            most = self.crew.silence_s if worker.ready else max(self.crew.silence_s, _STARTING_S)
            if time.monotonic() - worker.heard > most and (worker.unit is not None or not worker.ready):
                worker.process.kill()
                worker.end()
                self._lose(worker, f"its worker was silent for {most:g} s", lost)

    def _dismiss(self) -> None:
        for worker in self.team:
            worker.process.kill()
        for worker in self.team:
            worker.end()
        self.team.clear()


def _hire(work: bytes, memory_gb: float | None) -> _Worker:
    """Starts a fresh interpreter: a fork would copy the locks of threads, and spawn would run the main module again."""
    mine, theirs = Pipe()
    code = "from corpus.workers import serve; serve()"
    limit = str(int((memory_gb or 0) * 1e9))
    command = [sys.executable, "-X", "faulthandler", "-c", code, str(theirs.fileno()), limit]
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    threads = {**dict.fromkeys(_ONE_THREAD, "1"), "TOKENIZERS_PARALLELISM": "false"}
    with theirs:
        process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, **threads, "PYTHONPATH": path},
            start_new_session=True,  # so that what a worker starts ends with it
        )
    worker = _Worker(process=process, line=mine)
    with suppress(BrokenPipeError, ConnectionResetError):
        mine.send_bytes(work)
    return worker


def _why(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        return f"its worker died of {name}{', perhaps for want of memory' if name == 'SIGKILL' else ''}"
    return f"its worker ended with code {code}"

"""Keeps one node of Ray for as long as its owner lives, and leaves nothing of it: `python keeper.py FOLDER COMMAND...`.

Ray's processes do not all end with the one that started them: some have process groups of their own, a node that lost
its head lives for a minute, and `ray stop` would end the user's other clusters too. So the node is the child of this
process, which ends every descendant of its own, at once, when its standard input ends: the owner closed it, or died.

Nothing but the standard library is imported: a keeper starts in milliseconds and outlives whatever befalls Ray.
"""

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

LOG = "log"
_STOP_SIGNALS = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36  # of prctl(2)
_END_S = 10.0  # a process that cannot be killed, such as one that waits for a dead disk, is left behind
_LOOK_S = 0.1
_TAIL = 50  # lines


def main(folder: Path, command: list[str]) -> None:
    """Runs `command` until it ends or standard input does; then ends all its processes and removes `folder`.

    When the command ended by itself, the end of its log goes to standard error, and the last line to standard output.
    """
    # Slurm sends a job's stop signals to every process of a step. They are for the stage: it ends Ray when it has
    # kept what is done. The mask passes to all that is started here.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    _prctl(_SET_CHILD_SUBREAPER, 1)  # orphans become children of this process, so none is lost sight of
    try:
        with (folder / LOG).open("wb") as log:
            node = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: _prctl(_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509 - there is one thread
            )
        while node.poll() is None:
            if select.select([sys.stdin], [], [], _LOOK_S)[0]:
                return
        _report((folder / LOG).read_text(errors="replace").strip())
    finally:
        _end_all()
        shutil.rmtree(folder, ignore_errors=True)


def _end_all() -> None:
    """Kills all descendants, until none is left: those that are being born become children of this process."""
    until = time.monotonic() + _END_S
    while time.monotonic() < until:
        for process in _descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


def _descendants() -> set[int]:
    parents = dict(_processes())
    found: set[int] = set()
    new = {os.getpid()}
    while new:
        new = {process for process, parent in parents.items() if parent in new}
        found |= new
    return found


def _processes() -> Iterator[tuple[int, int]]:
    """Yields each process of the machine and its parent."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # gone meanwhile
            yield int(stat.parent.name), int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])


def _report(log: str) -> None:
    lines = log.splitlines()[-_TAIL:]
    with contextlib.suppress(BrokenPipeError):  # the owner went meanwhile
        sys.stderr.write("".join(f"{line}\n" for line in lines))
        sys.stdout.write("".join(lines[-1:]))
        sys.stdout.flush()


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

"""What a person sees while a job runs: a progress bar on a terminal, plain lines elsewhere, and the log in one file."""

import sys
import time
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from slurm.files import read_json, write_json
from slurm.submit import log_paths

_PLAIN_INTERVAL_S = 10.0
_GATHER_INTERVAL_S = 1.0  # a big job has hundreds of logs on a shared disk


class Watch:
    """Draws a job's progress file and gathers its processes' logs into the stage's log.txt."""

    def __init__(self, folder: Path, attempt: Path, *, title: str) -> None:
        """Watches `attempt`; the gathered log is `folder`/log.txt, and `title` names the stage."""
        self._log = (folder / "log.txt").open("a")
        self._attempt = attempt
        self._title = title
        self._noted = attempt / "gathered.json"  # a command that comes back to a job goes on where the last one was
        self._offsets: dict[str, int] = read_json(self._noted) if self._noted.is_file() else {}
        self._gathered_at = 0.0
        self._plain_at, self._told = 0.0, ""
        columns = (TextColumn("{task.description:9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        notes = (TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
        self._bar = Progress(*columns, *notes, console=Console(stderr=True))
        self._task = self._bar.add_task(title, total=None, note="starting")

    def __enter__(self) -> Self:
        """Shows the bar when people look at a terminal."""
        if sys.stderr.isatty():
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Draws the last state and closes the log."""
        self.refresh(last=True)
        self._bar.stop()
        self._log.close()

    def refresh(self, *, last: bool = False, waits: str = "") -> None:
        """Looks again at the progress file and the logs; `waits` is what the scheduler says of the job."""
        if last or time.monotonic() - self._gathered_at > _GATHER_INTERVAL_S:
            self._gather(last=last)
        path = self._attempt / "progress.json"
        state: dict[str, Any] = read_json(path) if path.is_file() else {"done": 0, "total": None, "note": ""}
        note = state["note"] if not waits or (" running" in waits and state["note"]) else waits
        self._bar.update(self._task, completed=state["done"], total=state["total"], note=note)
        if sys.stderr.isatty() or (state["total"] is None and not waits):
            return
        count = f"{state['done']:g} of {state['total']:g} " if state["total"] is not None else ""
        self._tell(f"{self._title}: {count}{note}".rstrip(), now=last)

    def _tell(self, line: str, *, now: bool) -> None:
        """Prints a line where no bar is drawn: when it is new and some time has passed."""
        if line != self._told and (now or time.monotonic() - self._plain_at > _PLAIN_INTERVAL_S):
            self._plain_at, self._told = time.monotonic(), line
            print(line, file=sys.stderr, flush=True)

    def _gather(self, *, last: bool) -> None:
        self._gathered_at, before = time.monotonic(), dict(self._offsets)
        for path in log_paths(self._attempt):
            read = self._offsets.get(path.name, 0)
            if path.stat().st_size == read:
                continue
            with path.open("rb") as file:
                file.seek(read)
                lines = file.read()
            whole = lines if last else lines[: lines.rfind(b"\n") + 1]
            self._offsets[path.name] = read + len(whole)
            self._log.write(whole.decode(errors="replace"))
        self._log.flush()
        if self._offsets != before:
            write_json(self._noted, self._offsets)

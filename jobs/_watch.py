"""What a person sees while a job runs: a progress bar on a terminal, plain lines elsewhere, and the log in one file."""

import sys
import time
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from slurm.files import read_json
from slurm.submit import log_paths

_PLAIN_INTERVAL_S = 10.0


class Watch:
    """Draws a job's progress file and gathers its processes' logs into the stage's log.txt."""

    def __init__(self, folder: Path, attempt: Path, *, title: str) -> None:
        """Watches `attempt`; the gathered log is `folder`/log.txt, and `title` names the stage."""
        self._log = (folder / "log.txt").open("a")
        self._attempt = attempt
        self._title = title
        self._offsets: dict[Path, int] = {}
        self._plain_at = 0.0
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

    def refresh(self, *, last: bool = False) -> None:
        """Looks again at the progress file and the logs."""
        self._gather(last=last)
        path = self._attempt / "progress.json"
        if not path.is_file():
            return
        state = read_json(path)
        self._bar.update(self._task, completed=state["done"], total=state["total"], note=state["note"])
        if not sys.stderr.isatty() and (last or time.monotonic() - self._plain_at > _PLAIN_INTERVAL_S):
            self._plain_at = time.monotonic()
            text = f"{self._title}: {state['done']:g} of {state['total']:g} {state['note']}"
            print(text.rstrip(), file=sys.stderr, flush=True)

    def _gather(self, *, last: bool) -> None:
        for path in log_paths(self._attempt):
            read = self._offsets.get(path, 0)
            if path.stat().st_size == read:
                continue
            with path.open("rb") as file:
                file.seek(read)
                lines = file.read()
            whole = lines if last else lines[: lines.rfind(b"\n") + 1]
            self._offsets[path] = read + len(whole)
            self._log.write(whole.decode(errors="replace"))
        self._log.flush()

"""The shipper: a process of its own that delivers journals to MLflow, so that no stage ever waits for a server.

One shipper serves a whole results folder. It delivers each journal parcel by parcel, and when the server has
acknowledged one it notes in mlflow.json, beside the journal, how far it is. When it dies, the next shipper delivers the
last parcel again, which changes nothing (jobs/_tracking.py). For another server it begins again at the beginning.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs._journal import NAME, read_entries
from jobs._lock import hold
from jobs._parcels import Parcel, parcels
from slurm.files import read_json, write_json

if TYPE_CHECKING:
    from jobs._tracking import Tracker

NOTE = "mlflow.json"
_POLL_S = 2.0
_LONGEST_PAUSE_S = 10.0  # between tries while a server does not answer
_QUIET_S = 60.0  # a stage samples its machine every 10 s, so one that is silent for this long is gone
_IDLE_S = 20.0  # how long a shipper with nothing to do waits for the next stage
_PATIENCE_S = 600.0  # how long it tries to reach a server after the last stage


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """How far a journal is delivered; mlflow.json holds it.

    Attributes:
        offset: bytes of the journal that are delivered.
        delivered: points that the server has acknowledged.
        replayed: points left out, because their steps had been delivered before.
        damaged: lines that could not be read.
        status: of the run in MLflow; "" before it is there, and LOST when its stage went silent without an end.
        marks: metric -> highest delivered step of the run.
    """

    tracking_uri: str
    experiment_id: str = ""
    run_id: str = ""
    tracking_id: str = ""
    status: str = ""
    offset: int = 0
    delivered: int = 0
    replayed: int = 0
    damaged: int = 0
    marks: Mapping[str, int] = field(default_factory=dict)


def default_uri(results_root: Path) -> str:
    """Returns MLFLOW_TRACKING_URI where it is set, else a SQLite database in the results folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{results_root.resolve() / 'mlflow.db'}"


def redact(text: str) -> str:
    """Returns `text` without passwords: of addresses (user:password@host), and of the environment's MLflow login."""
    for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        secret = os.environ.get(name)
        text = text.replace(secret, "***") if secret else text
    return re.sub(r"://[^/\s]*@", "://***@", text)


def start_shipper(results_root: Path, *, tracking_uri: str | None = None, stays: bool = True) -> None:
    """Starts a shipper for `results_root`, in a session of its own and at low priority; one at work is left to it.

    The address travels in the environment, because a command line can be read by everyone on the machine.

    Args:
        results_root: the folder of results.
        tracking_uri: of the server; the default one unless given.
        stays: whether it outlives the process that starts it. On a node of a job it must not.
    """
    results_root.mkdir(parents=True, exist_ok=True)
    command = ["setsid", "--fork", "nice", "-n", "10", sys.executable, "-m", "jobs._shipper", str(results_root)]
    command += [] if stays else [str(os.getpid())]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking_uri or default_uri(results_root)}
    root = Path(__file__).resolve().parents[1]
    with (results_root / "shipper.log").open("a") as log:
        subprocess.run(command, check=True, cwd=root, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def ship_command(
    results_root: Path, *, tracking_uri: str | None = None, strict: bool = False, deadline_s: float = 120.0
) -> int:
    """Delivers all journals now, prints a line for each, and returns the exit status.

    Returns:
        1 when `strict` and something could not be delivered by the deadline, else 0.
    """
    shipper = Shipper(results_root, tracking_uri=tracking_uri or default_uri(results_root))
    complete = shipper.ship(deadline_s=deadline_s)
    for line in shipper.summary():
        print(line)
    return 1 if strict and not complete else 0


class Shipper:
    """Delivers the journals results/<run>/<stage>/journal.jsonl to one tracking server."""

    def __init__(self, results_root: Path, *, tracking_uri: str) -> None:
        self._root = results_root.resolve()
        self._uri = tracking_uri
        self._tracker: Tracker | None = None
        self._said: dict[Path, str] = {}

    def ship(self, *, deadline_s: float) -> bool:
        """Delivers until everything is there, or `deadline_s` seconds have passed; tells whether everything is."""
        deadline, pause_s = time.monotonic() + deadline_s, 0.5
        while not self.sweep():
            if time.monotonic() + pause_s > deadline:
                return False
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return True

    def follow(self, *, ends_with: int | None = None) -> None:
        """Delivers while stages run, and a while longer; leaves at once where another shipper is at work.

        A stage may begin, and its own shipper leave, just before this one gives up its place: so it looks once more.

        Args:
            ends_with: a process with which it ends, after one more sweep.
        """
        while True:
            with hold(self._root / ".shipper.lock", wait=False) as held:
                if not held:
                    return
                self._follow(ends_with)
            if _has_ended(ends_with) or not any(self._live(journal) for journal in self._journals()):
                return

    def _follow(self, ends_with: int | None) -> None:
        busy, pause_s = time.monotonic(), _POLL_S
        while True:
            last = _has_ended(ends_with)
            complete = self.sweep()
            if last:
                return
            if any(self._live(journal) for journal in self._journals()):
                busy = time.monotonic()
            if time.monotonic() - busy > (_IDLE_S if complete else _PATIENCE_S):
                return
            pause_s = _POLL_S if complete else min(2 * pause_s, _LONGEST_PAUSE_S)
            time.sleep(pause_s)

    def sweep(self) -> bool:
        """Delivers what is waiting in all journals; tells whether nothing is left."""
        waiting = [journal for journal in self._journals() if self._waits(journal)]
        if not waiting:
            return True
        try:
            self._connect().ask()
        except Exception as error:  # noqa: BLE001 - MLflow, SQLAlchemy and urllib3 each raise their own; all are retried
            self._say(self._root, f"tracking server: {type(error).__name__}: {error}")
            return False
        delivered = [self._deliver(journal) for journal in waiting]
        return all(delivered)

    def summary(self) -> list[str]:
        """Returns a line for each journal: how many points are delivered of how many there are."""
        return [self._summarize(journal) for journal in self._journals()]

    def _summarize(self, journal: Path) -> str:
        note = self._note(journal)
        rest = parcels(journal, offset=note.offset, tracking_id=note.tracking_id, marks=note.marks)
        total = note.delivered + sum(len(parcel.points) for parcel in rest)
        name = f"{journal.parent.parent.name}/{journal.parent.name}"
        return f"{name:32} {note.delivered:>9,} of {total:>9,} points delivered  {note.status or 'WAITING'}"

    def _journals(self) -> list[Path]:
        return sorted(self._root.glob(f"*/*/{NAME}"))

    def _note(self, journal: Path) -> Delivery:
        """Returns how far a journal is delivered; from the beginning when it was to another server, or has shrunk."""
        path, uri = journal.parent / NOTE, redact(self._uri)
        note = Delivery(**read_json(path)) if path.is_file() else Delivery(tracking_uri=uri)
        same = note.tracking_uri == uri and note.offset <= journal.stat().st_size
        return note if same else Delivery(tracking_uri=uri)

    def _live(self, journal: Path) -> bool:
        """Tells whether a stage seems to be writing to a journal."""
        return self._note(journal).status in ("", "RUNNING") and not _is_quiet(journal)

    def _waits(self, journal: Path) -> bool:
        note = self._note(journal)
        more = next(read_entries(journal, offset=note.offset), None) is not None
        return more or (note.status == "RUNNING" and _is_quiet(journal))

    def _connect(self) -> "Tracker":
        if self._tracker is None:
            from jobs._tracking import Tracker

            self._tracker = Tracker(self._uri, artifacts=self._root / "mlartifacts")
        return self._tracker

    def _deliver(self, journal: Path) -> bool:
        with hold(journal, wait=False) as held:
            if not held:  # another shipper is delivering it
                return False
            try:
                self._deliver_parcels(journal)
            except Exception as error:  # noqa: BLE001 - as in sweep; the other journals must not wait for this one
                self._say(journal, f"{type(error).__name__}: {error}")
                return False
        return True

    def _deliver_parcels(self, journal: Path) -> None:
        note = self._note(journal)
        for parcel in parcels(journal, offset=note.offset, tracking_id=note.tracking_id, marks=note.marks):
            note = self._hand_over(parcel, note, journal.parent)
            write_json(journal.parent / NOTE, asdict(note))
        if note.status == "RUNNING" and _is_quiet(journal):
            self._connect().end(note.run_id, status="KILLED", time=int(journal.stat().st_mtime * 1000))
            write_json(journal.parent / NOTE, asdict(replace(note, status="LOST")))

    def _hand_over(self, parcel: Parcel, note: Delivery, folder: Path) -> Delivery:
        tracker = self._connect()
        if parcel.start is not None:
            note = self._open(parcel.start, note)
        elif note.status == "LOST":
            tracker.reopen(note.run_id)
            note = replace(note, status="RUNNING")
        if note.run_id:  # else nothing says which run this is: its start line is damaged
            tracker.log(note.run_id, points=parcel.points, tags=parcel.tags)
            tracker.log_datasets(note.run_id, parcel.datasets)
            self._copy(parcel, note.run_id, folder)
        if parcel.end is not None and note.run_id:
            tracker.end(note.run_id, status=parcel.end["status"], time=parcel.end["time"])
            note = replace(note, status=parcel.end["status"])
        return replace(
            note,
            offset=parcel.offset,
            delivered=note.delivered + len(parcel.points),
            replayed=note.replayed + parcel.replayed,
            damaged=note.damaged + parcel.damaged,
            marks=parcel.marks,
        )

    def _open(self, start: Mapping[str, Any], note: Delivery) -> Delivery:
        tracker = self._connect()
        if note.status == "RUNNING" and note.tracking_id != start["tracking_id"]:
            tracker.end(note.run_id, status="KILLED", time=start["time"])  # it never said how it ended
        experiment_id, run_id = tracker.open(start)
        return replace(
            note, experiment_id=experiment_id, run_id=run_id, tracking_id=start["tracking_id"], status="RUNNING"
        )

    def _copy(self, parcel: Parcel, run_id: str, folder: Path) -> None:
        for name in parcel.artifacts:
            path = folder / name
            if path.is_file():
                inside = "" if Path(name).is_absolute() else str(Path(name).parent).removeprefix(".")
                self._connect().log_artifact(run_id, path, folder=inside)
            else:
                self._say(path, "must still be there to be copied to MLflow, but is gone; the run goes without it")

    def _say(self, about: Path, text: str) -> None:
        """Prints a line unless it is the last one about the same thing: a long outage is one line in the log."""
        line = redact(f"{about}: {re.sub(r'\s+', ' ', text)}")
        if self._said.get(about) != line:
            with suppress(OSError):  # stderr may be a log on a full disk
                print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", file=sys.stderr, flush=True)
            self._said[about] = line


def _has_ended(pid: int | None) -> bool:
    return pid is not None and not Path(f"/proc/{pid}").exists()


def _is_quiet(journal: Path) -> bool:
    return time.time() - journal.stat().st_mtime > _QUIET_S


if __name__ == "__main__":
    _root = Path(sys.argv[1])
    _ends_with = int(sys.argv[2]) if len(sys.argv) > 2 else None
    Shipper(_root, tracking_uri=default_uri(_root)).follow(ends_with=_ends_with)

"""How a training stage's steps went, folded from its journal: which count, how long each took, and when it was done.

The journal of a long run has hundreds of megabytes and is only ever appended to. So what was folded is kept beside it,
and the next look reads what is new.
"""

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs._journal import NAME, read_entries
from slurm import ledger
from slurm.files import write_atomic

NOTE = ".pace.json"
SECONDS = "train/step_time_s"
_SHOWN = ("train/loss", "train/tokens_per_s")
_WORTH_KEEPING = 1 << 20  # bytes; less than this is read again in a few milliseconds


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The steps of the latest run in a journal.

    A resumed stage does some steps again; those that it went back over are lost, and no longer among the others.

    Attributes:
        offset: bytes of the journal that are folded.
        tracking_id: the run that the steps are of.
        seconds: step -> its duration in s, in the order of the steps.
        times: step -> when it was done, seconds since 1970.
        lost: steps that had been done and were gone back over, because they were not saved.
        newest: the newest loss and tokens/s, by their names in the journal.
        time: of the last entry, seconds since 1970; 0 before the first.
        stops: of the last entry before each later start: the last sign of life of the executions that are over.
    """

    offset: int = 0
    tracking_id: str = ""
    seconds: Mapping[int, float] = field(default_factory=dict)
    times: Mapping[int, float] = field(default_factory=dict)
    lost: int = 0
    newest: Mapping[str, float] = field(default_factory=dict)
    time: float = 0.0
    stops: tuple[float, ...] = ()

    @property
    def productive_s(self) -> float:
        """Seconds of the steps that count: those that led to the weights that are there."""
        return sum(self.seconds.values())


def pace(folder: Path, *, before: Pace | None = None) -> Pace:
    """Returns what the journal of the stage in `folder` tells; empty where there is none.

    Args:
        folder: results/<run>/<stage>.
        before: an earlier answer, so that only what is new is read.
    """
    journal = folder / NAME
    known = before or _kept(folder / NOTE)
    try:
        told = advance(known if known.offset <= journal.stat().st_size else Pace(), journal)
    except OSError:  # not there, or not readable for this user: nothing is known
        return Pace()
    if told.offset - known.offset >= _WORTH_KEEPING:
        with suppress(OSError):  # a colleague who may look may not be one who may write
            write_atomic(folder / NOTE, json.dumps(_as_json(told), separators=(",", ":")))
    return told


def costs(folder: Path) -> dict[str, float]:
    """Returns what restarts have cost the stage that works in `folder`, as metrics of its run.

    job/restarts counts begins after the first, job/lost_steps the steps that were gone back over, and job/goodput is
    productive time over allocated time, where a batch script has written down what was allocated.
    """
    told, here = pace(folder), os.environ.get("SLURM_JOB_ID", "")
    book = ledger.read(folder, now=time.time(), running={here}, seen=(*told.stops, told.time))
    allocated = ledger.allocated_s(book.current) if here else 0.0
    goodput = {"job/goodput": told.productive_s / allocated} if allocated else {}
    return {"job/restarts": float(ledger.restarts(book.current)), "job/lost_steps": float(told.lost), **goodput}


def advance(known: Pace, journal: Path) -> Pace:
    """Folds the entries of a journal that come after `known`."""
    seconds, times, newest = dict(known.seconds), dict(known.times), dict(known.newest)
    lost, offset, tracking_id, heard = known.lost, known.offset, known.tracking_id, known.time
    stops = list(known.stops)
    for entry, end in read_entries(journal, offset=known.offset):
        offset = end
        if entry["kind"] == "damaged":
            continue
        stops += [heard] if entry["kind"] == "start" and heard else []
        heard = entry["time"] / 1000
        if entry["kind"] == "start" and entry["tracking_id"] != tracking_id:
            seconds, times, newest, lost, tracking_id = {}, {}, {}, 0, entry["tracking_id"]
        values = entry["values"] if entry["kind"] == "metrics" else {}
        newest |= {name: float(values[name]) for name in _SHOWN if name in values}
        if SECONDS in values:
            step = entry["step"]
            lost += _go_back(seconds, times, step)
            seconds[step], times[step] = float(values[SECONDS]), heard
    return Pace(
        offset=offset,
        tracking_id=tracking_id,
        seconds=seconds,
        times=times,
        lost=lost,
        newest=newest,
        time=heard,
        stops=tuple(stops),
    )


def _go_back(seconds: dict[int, float], times: dict[int, float], step: int) -> int:
    """Takes out the steps from `step` on, and returns how many they were."""
    if not seconds or next(reversed(seconds)) < step:
        return 0
    gone = [done for done in seconds if done >= step]
    for done in gone:
        del seconds[done], times[done]
    return len(gone)


def _as_json(told: Pace) -> dict[str, Any]:
    return {
        **{name: getattr(told, name) for name in ("offset", "tracking_id", "lost", "newest", "time", "stops")},
        "steps": list(told.seconds),
        "seconds": list(told.seconds.values()),
        "times": list(told.times.values()),
    }


def _kept(path: Path) -> Pace:
    """Returns what an earlier look left; nothing when there is none, or it cannot be read."""
    try:
        value = json.loads(path.read_bytes())
        steps = value.pop("steps")
        seconds, times = (dict(zip(steps, value.pop(name), strict=True)) for name in ("seconds", "times"))
        return Pace(**{**value, "stops": tuple(value["stops"])}, seconds=seconds, times=times)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return Pace()

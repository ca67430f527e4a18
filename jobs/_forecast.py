"""When a run will be done: the pace of the stage that runs, restarts and waiting included, and the stages after it.

How it is computed, so that it can be checked by hand: the recent past, at most seven days up to now, is cut into at
most twelve pieces of equal length. `likely` goes on as fast as all of them together, `best` as the fastest quarter of
them, `worst` as the slowest quarter. A piece in which the job waited in a queue, started again or did lost steps once
more is a slow piece. What follows takes as long as it took before (shortest, last and longest time), or else its time
limit. What has not happened yet, a first failure say, is not foreseen.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise

_WINDOW_S = 7 * 24 * 3600.0
_PIECES = 12
_STEPS_A_PIECE = 4  # fewer say nothing about a spread


@dataclass(frozen=True, kw_only=True)
class Span:
    """How long something takes, in seconds; infinite when it does not get on, or nothing is known."""

    best: float
    likely: float
    worst: float

    def __add__(self, other: "Span") -> "Span":
        return Span(best=self.best + other.best, likely=self.likely + other.likely, worst=self.worst + other.worst)


NOTHING = Span(best=0.0, likely=0.0, worst=0.0)


def remaining(times: Mapping[int, float] | Mapping[float, float], *, left: float, until: float) -> Span:
    """Returns how long the rest of a stage takes.

    Args:
        times: what was done -> when it was done, seconds since 1970; both ascend.
        left: what is left to do, in the same unit.
        until: the end of the past that counts: now, or the last sign of life of a stage that stands still.
    """
    if left <= 0:
        return NOTHING
    rates = sorted(_rates(times, until))
    if not rates:
        return Span(best=math.inf, likely=math.inf, worst=math.inf)
    few = (len(rates) + 3) // 4
    return Span(best=_over(left, rates[-few:]), likely=_over(left, rates), worst=_over(left, rates[:few]))


def following(durations: Sequence[float], *, limit_s: float) -> Span:
    """Returns how long a stage that has not begun takes: as its earlier times (the last one last), else its limit."""
    if not durations:
        return Span(best=limit_s, likely=limit_s, worst=limit_s)
    return Span(best=min(durations), likely=durations[-1], worst=max(durations))


def against(finish: float, deadline: date) -> str:
    """Says whether a time is before the end of a day, and by how much."""
    end = datetime.combine(deadline + timedelta(days=1), datetime.min.time()).timestamp()
    if math.isinf(finish):
        return "not in sight"
    return f"in time by {duration(end - finish)}" if finish <= end else f"late by {duration(finish - end)}"


def duration(seconds: float) -> str:
    """Returns seconds in the two largest units that people use: 3 d 4 h, 2 h 10 min, 45 s."""
    if math.isinf(seconds):
        return "unknown"
    minutes, hours, days = (int(seconds // unit) for unit in (60, 3600, 86400))
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes >= 5 else f"{int(seconds)} s"


def _rates(times: Mapping[int, float] | Mapping[float, float], until: float) -> list[float]:
    """Returns the units a second of each piece of the recent past."""
    steps, done_at = list(times), list(times.values())
    begin = max(done_at[0], until - _WINDOW_S) if steps else until
    inside = len(done_at) - bisect_right(done_at, begin)
    if inside < 1 or until <= begin:
        return []
    pieces = max(1, min(_PIECES, inside // _STEPS_A_PIECE))
    length = (until - begin) / pieces
    edges = [begin + number * length for number in range(pieces)] + [until]
    done = [steps[max(0, bisect_right(done_at, edge) - 1)] for edge in edges]
    return [(later - earlier) / length for earlier, later in pairwise(done)]


def _over(left: float, rates: Sequence[float]) -> float:
    total = sum(rates)
    return left * len(rates) / total if total > 0 else math.inf

"""The pipeline's schedule, played through: which rank does what when, 1F1B and interleaved 1F1B in Megatron's order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Pass = Literal["forward", "backward"]


class _Task(NamedTuple):
    kind: Pass
    microbatch: int
    chunk: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One pass of one microbatch through one model chunk of a pipeline stage, in seconds from the step's begin."""

    stage: int
    kind: Pass
    microbatch: int
    chunk: int
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class StageSeconds:
    """Seconds of one microbatch on one stage, all its model chunks together."""

    forward: float
    backward: float


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """A step's passes in the order they start, and how long the whole takes."""

    stages: int
    events: tuple[Event, ...]

    @property
    def end(self) -> float:
        """Seconds until the last pass is done."""
        return max(event.end for event in self.events)

    def busy(self, stage: int) -> float:
        """Returns the seconds that a stage computes."""
        return sum(event.end - event.start for event in self.events if event.stage == stage)

    @property
    def bubble_fraction(self) -> float:
        """Share of the whole in which the busiest stage waits."""
        return 1 - max(self.busy(stage) for stage in range(self.stages)) / self.end


def simulate(stages: Sequence[StageSeconds], *, num_microbatches: int, num_model_chunks: int = 1) -> Timeline:
    """Plays a step's schedule through: each stage does its passes in order, each as soon as what it needs is there.

    Sends take no time of their own. A stage's chunks are alike. With chunks, `num_microbatches` is a multiple of the
    number of stages, as `layout.problems` requires.
    """
    count = len(stages)
    orders = [
        _order(stage, stages=count, microbatches=num_microbatches, chunks=num_model_chunks) for stage in range(count)
    ]
    done: dict[tuple[int, _Task], float] = {}
    clocks, positions = [0.0] * count, [0] * count
    events: list[Event] = []
    moved = True
    while moved:
        moved = False
        for stage, order in enumerate(orders):
            while positions[stage] < len(order):
                task = order[positions[stage]]
                ready = _ready(stage, task, stages=count, chunks=num_model_chunks, done=done)
                if ready is None:
                    break
                start = max(ready, clocks[stage])
                end = start + getattr(stages[stage], task.kind) / num_model_chunks
                events.append(Event(stage=stage, **task._asdict(), start=start, end=end))
                done[stage, task] = clocks[stage] = end
                positions[stage] += 1
                moved = True
    return Timeline(stages=count, events=tuple(sorted(events, key=lambda event: (event.start, event.stage))))


def _order(stage: int, *, stages: int, microbatches: int, chunks: int) -> list[_Task]:
    """A stage's passes in order: forward to warm up, then one forward and one backward in turn, then what is left.

    Source: Megatron's get_pp_rank_microbatches and get_schedule_table, with groups of as many microbatches as stages.
    """
    total, behind = microbatches * chunks, stages - stage - 1
    warmup = min(total, behind if chunks == 1 else 2 * behind + (chunks - 1) * stages)
    forward = [_Task("forward", *_place(number, stages, chunks)) for number in range(total)]
    backward = [
        _Task("backward", microbatch, chunks - 1 - chunk)
        for microbatch, chunk in (_place(number, stages, chunks) for number in range(total))
    ]
    steady = [task for pair in zip(forward[warmup:], backward, strict=False) for task in pair]
    return forward[:warmup] + steady + backward[total - warmup :]


def _place(number: int, stages: int, chunks: int) -> tuple[int, int]:
    """(microbatch, chunk) of a stage's forward pass of this number: a group of microbatches chunk by chunk."""
    if chunks == 1:
        return number, 0
    group, rest = divmod(number, stages * chunks)
    chunk, microbatch = divmod(rest, stages)
    return group * stages + microbatch, chunk


def _ready(stage: int, task: _Task, *, stages: int, chunks: int, done: dict[tuple[int, _Task], float]) -> float | None:
    """When what a pass needs is there; None where that is not known yet."""
    step = 1 if task.kind == "forward" else -1
    first = (0, 0) if task.kind == "forward" else (stages - 1, chunks - 1)
    if (stage, task.chunk) != first:
        place = task.chunk * stages + stage - step
        return done.get((place % stages, task._replace(chunk=place // stages)))
    return 0.0 if task.kind == "forward" else done.get((stage, task._replace(kind="forward")))

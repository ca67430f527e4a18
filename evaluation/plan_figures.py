"""The figures of a plan: memory of each rank, the pipeline's schedule, what a step goes into, memory against time."""

from collections.abc import Mapping, Sequence

from evaluation import canvas, charts, diagrams
from evaluation.charts import Bar
from evaluation.diagrams import SHADES, Block, Mark
from evaluation.figures import Figure, both, data_size
from evaluation.planned import Alternative, Choice, Plan, StageMemory
from parallelism.cost.schedule import StageSeconds, Timeline, simulate

MEMORY_PARTS = ("parameters", "gradients", "optimizer", "activations", "buffers")
PASSES = ("forward", "backward")
TIME_PARTS: Mapping[str, tuple[str, ...]] = {
    "matmuls, attention": ("compute",),
    "memory traffic": ("moving",),
    "tensor, context": ("tensor_parallel", "context_parallel"),
    "experts": ("expert_parallel",),
    "pipeline": ("pipeline_sends", "bubble"),
    "data parallel": ("data_parallel",),
    "optimizer": ("optimizer",),
}
"""What a picture's parts are called -> the parts of Time that they add up."""

_MOST_BARS = 12
_ROUNDS = 3  # of as many microbatches as stages, in the picture of the schedule


def memory(plan: Plan) -> Figure:
    """Draws what a rank of each pipeline stage holds at the peak of a step; the device too, unless it dwarfs them.

    First the run's own layout, then the planner's.
    """
    most = max(choice.peak for choice in plan.shown)
    unit, size = _unit(most)
    rows = [
        Bar(
            label=f"{choice.layout}{_whose(plan, choice)}, stage {number}" if number == 0 else f"stage {number}",
            parts=[(name, getattr(stage, name) / size) for name in MEMORY_PARTS],
            note=data_size(stage.total),
        )
        for choice in plan.shown
        for number, stage in _some(choice.memory, most=_MOST_BARS // len(plan.shown))
    ]
    limit = (f"room: {data_size(plan.room)}", plan.room / size) if plan.room < 10 * most else None
    return both(
        lambda width: charts.bars(
            rows,
            title="Memory of one rank of each pipeline stage",
            description="; ".join(f"{row.label}: {row.note}" for row in rows),
            x_label=f"{unit} on one rank at the peak of a step",
            limit=limit,
            key=MEMORY_PARTS,
            width=width,
        )
    )


def times(plan: Plan) -> Figure | None:
    """Draws what a step goes into, for the run's own layout and the planner's; None where no time can be told."""
    if not all(choice.times for choice in plan.shown):
        return None
    rows = [
        Bar(label=f"{choice.layout}{_whose(plan, choice)}", parts=_time_parts(choice), note=seconds(choice.step or 0))
        for choice in plan.shown
    ]
    spoken = "; ".join(
        f"{row.label}, {row.note}: {', '.join(f'{name} {seconds(value)}' for name, value in row.parts if value)}"
        for row in rows
    )
    return both(
        lambda width: charts.bars(
            rows,
            title="What a step goes into",
            description=spoken,
            x_label="seconds of one optimizer step on the slowest rank",
            key=tuple(TIME_PARTS),
            width=width,
        )
    )


def schedules(plan: Plan) -> list[tuple[Choice, Figure]]:
    """Draws which stage does what when, for a few rounds of microbatches, of each layout with a pipeline."""
    return [(choice, _schedule(choice)) for choice in plan.shown if len(choice.passes) > 1]


def _schedule(choice: Choice) -> Figure:
    stages, timed = len(choice.passes), bool(choice.times)
    played = simulated(choice, num_microbatches=shown_microbatches(choice))
    # Milliseconds; or, where no time is known, passes of the slowest stage.
    unit = 1e-3 if timed else max(sum(each) for each in choice.passes)
    blocks = [
        Block(
            row=event.stage,
            kind=PASSES.index(event.kind),
            start=event.start / unit,
            end=event.end / unit,
            word=str(event.microbatch + 1),
            shade=round((SHADES - 1) * event.chunk / max(1, choice.num_model_chunks - 1)),
        )
        for event in played.events
    ]
    chunks = f", {choice.num_model_chunks} chunks a stage" if choice.num_model_chunks > 1 else ""
    return both(
        lambda width: diagrams.timeline(
            [f"stage {number}" for number in range(stages)],
            blocks,
            kinds=PASSES,
            title=f"The pipeline's schedule, {choice.layout}",
            description=f"{stages} stages{chunks}; the busiest waits {played.bubble_fraction:.1%} of what is shown.",
            x_label="milliseconds" if timed else "forward and backward passes of the slowest stage",
            width=width,
        )
    )


def front(plan: Plan) -> Figure | None:
    """Draws the layouts that fit by memory and time, and the front that none other beats; None where none fits."""
    if not plan.front:
        return None
    unit, unit_bytes = _unit(max(each.peak for each in plan.front))
    marks = [mark for choice in plan.shown if choice.fits if (mark := _mark(plan, choice, size=unit_bytes))]
    scale = plan.front[0].step or 1.0
    slowest = max(each.slower_than_best for each in plan.front)

    def draw(size: canvas.Size) -> str:
        return diagrams.cloud(
            [(peak / unit_bytes, cost * scale) for peak, cost in plan.cloud if cost <= slowest],
            [(each.peak / unit_bytes, each.slower_than_best * scale) for each in plan.front],
            marks=marks,
            title="Memory against time",
            description="; ".join(map(_spoken, plan.front)),
            x_label=f"{unit} on the fullest rank",
            y_label="seconds of one optimizer step" if plan.front[0].step else "cost beside the best layout",
            size=size,
        )

    return Figure(wide=draw(canvas.WIDE), narrow=draw(canvas.NARROW))


def simulated(choice: Choice, *, num_microbatches: int) -> Timeline:
    """Plays the schedule of a layout through, with so many microbatches."""
    stages = [StageSeconds(forward=forward, backward=backward) for forward, backward in choice.passes]
    return simulate(stages, num_microbatches=num_microbatches, num_model_chunks=choice.num_model_chunks)


def shown_microbatches(choice: Choice) -> int:
    """Returns how many microbatches the schedule's picture shows: more would be too thin to see."""
    return min(choice.num_microbatches, _ROUNDS * len(choice.passes))


def seconds(value: float) -> str:
    """Returns a part of a step as people read it: 1.32 s, 25 ms."""
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def _time_parts(choice: Choice) -> list[tuple[str, float]]:
    return [(name, sum(choice.times.get(part, 0.0) for part in parts)) for name, parts in TIME_PARTS.items()]


def _unit(most: float) -> tuple[str, int]:
    """What the largest of some sizes is counted in, and its bytes."""
    return ("GiB", 2**30) if most >= 2**30 else ("MiB", 2**20)


def _whose(plan: Plan, choice: Choice) -> str:
    if len(plan.shown) == 1:
        return ""
    return " (the run's)" if choice is plan.own else " (the planner's)"


def _mark(plan: Plan, choice: Choice, *, size: int) -> Mark | None:
    """A layout by its name in the cloud; its cost stands among those of the best, or in its time."""
    costs = {each.layout: each.slower_than_best for each in (*plan.alternatives, *plan.front)}
    scale = plan.front[0].step
    cost = choice.step if scale else costs.get(choice.layout)
    if cost is None:
        return None
    style = "other" if choice is plan.own and len(plan.shown) > 1 else "main"
    at = (choice.peak / size, cost)
    return Mark(label=f"{choice.layout}{_whose(plan, choice)}", at=at, style=style, below=style == "main")


def _spoken(each: Alternative) -> str:
    time = seconds(each.step) if each.step else f"{each.slower_than_best:.2f} x"
    return f"{each.layout}: {data_size(each.peak)}, {time}"


def _some(stages: Sequence[StageMemory], *, most: int) -> Sequence[tuple[int, StageMemory]]:
    """Of many stages a few at even distances, the first and the last among them."""
    last = len(stages) - 1
    if last < most:
        return list(enumerate(stages))
    numbers = sorted({round(index * last / (most - 1)) for index in range(most)})
    return [(number, stages[number]) for number in numbers]

"""Charts as inline SVG: pure functions from numbers to text. Colours and type are the page's (report.css)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from evaluation.canvas import (
    BOLD,
    CHARACTER,
    LINE,
    WIDE,
    Frame,
    Range,
    Size,
    canvas,
    finite,
    part_key,
    rounded_out,
    rule,
    short,
    spread,
    text,
    ticks,
    widened,
    x_axis,
    y_axis,
)

_MOST_POINTS = 600  # a line is thinned to about this many points, keeping each stretch's lowest and highest
_MOST_HINTS = 60  # a line with more points gets no hint at each


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line. A y that is not finite breaks it; `style` is a class of report.css: main, faint or other."""

    label: str
    points: Sequence[tuple[float, float]]
    style: str = "main"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A horizontal line to compare with."""

    label: str
    y: float


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A value, with its interval where there is one, beside a second value to compare with."""

    label: str
    value: float
    interval: Range | None
    other: float
    other_interval: Range | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar from `start` (0 unless it is one of a row of stacked or successive bars) and what stands beside it."""

    label: str
    parts: Sequence[tuple[str, float]]  # (what it is, how long)
    note: str
    start: float = 0.0


def lines(
    series: Sequence[Series],
    *,
    title: str,
    description: str,
    x_label: str,
    y_label: str,
    references: Sequence[Reference] = (),
    y_range: Range | None = None,
    size: Size = WIDE,
) -> str:
    """Draws lines over x, each labelled at its end; an empty one says so.

    Args:
        series: lines; points are (x, y).
        title: what a screen reader announces.
        description: what the chart shows, in a sentence, for those who do not see it.
        x_label: quantity and unit of x.
        y_label: quantity and unit of y, written above the axis.
        references: horizontal lines.
        y_range: values that the y axis spans, where several charts must be comparable.
        size: width and height of the canvas.
    """
    points = [point for line in series for point in line.points if finite(point)]
    if not points:
        return canvas(
            text("No points were recorded.", at=(size[0] / 2, size[1] / 2), anchor="middle"),
            title=title,
            description=description,
            size=size,
        )
    ys = [y for _, y in points] + [reference.y for reference in references]
    labels = [(line.label, *_last(line), line.style) for line in series if any(map(finite, line.points))]
    frame = _frame([x for x, _ in points], y_range or (min(ys), max(ys)), labels, references, size)
    parts = [
        *y_axis(frame, y_label),
        *x_axis(frame, x_label),
        *(_reference(frame, reference) for reference in references),
        *(part for line in series for part in _line(frame, line)),
        *_end_labels(frame, labels, references),
    ]
    return canvas("".join(parts), title=title, description=description, size=size)


def dots(
    rows: Sequence[Dot],
    *,
    title: str,
    description: str,
    x_label: str,
    x_range: Range,
    names: tuple[str, str],
    width: int,
) -> str:
    """Draws a row for each value: a filled dot with its interval, and a hollow square for what it is compared with."""
    top, step = 34.0, 56.0
    bottom = top + step * len(rows)
    frame = Frame(left=1, right=width - 1, top=top - 14, bottom=bottom, x_range=rounded_out(*x_range), y_range=(0, 1))
    parts = [*x_axis(frame, x_label), _key(names)]
    for index, row in enumerate(rows):
        parts += _dot_row(frame, row, names, top + step * index + 14)
    return canvas("".join(parts), title=title, description=description, size=(width, round(bottom) + 44))


def bars(
    rows: Sequence[Bar],
    *,
    title: str,
    description: str,
    x_label: str,
    width: int,
    limit: tuple[str, float] | None = None,
    key: Sequence[str] = (),
) -> str:
    """Draws a row for each bar: its parts one after another and a note; a line at the limit, a key of the parts."""
    rows_of_key, names = part_key(key, width=width)
    step, top = 40.0, 6.0 + (4 + 18 * rows_of_key if key else 0) + (18 if limit else 0)
    bottom = top + step * len(rows)
    reach = max([row.start + sum(length for _, length in row.parts) for row in rows], default=0.0)
    x_range = widened(0, max(reach, limit[1]) if limit else reach)
    frame = Frame(left=1, right=width - 1, top=top, bottom=bottom, x_range=x_range, y_range=(0, 1))
    parts = [*x_axis(frame, x_label), *names]
    for index, row in enumerate(rows):
        parts += _bar_row(frame, row, top + step * index, note_x=frame.right - (6 if limit else 0))
    parts += _limit(frame, *limit) if limit else []
    return canvas("".join(parts), title=title, description=description, size=(width, round(bottom) + 44))


def _frame(
    xs: Sequence[float],
    y_range: Range,
    labels: Sequence[tuple[str, float, float, str]],
    references: Sequence[Reference],
    size: Size,
) -> Frame:
    low, high = rounded_out(*y_range)
    steps = ticks(low, high)
    longest = max(len(label) for label in [*(label[0] for label in labels), *(each.label for each in references)])
    left = 12 + CHARACTER * max(len(short(value)) for value in steps)
    right = size[0] - 10 - BOLD * longest
    x_range = widened(min(xs), max(xs))
    return Frame(left=left, right=right, top=28, bottom=size[1] - 40, x_range=x_range, y_range=(low, high))


def _line(frame: Frame, line: Series) -> Iterator[str]:
    for drawn, run in groupby(_thinned(line.points), key=finite):
        if not drawn:
            continue
        places = [f"{frame.x(x):.1f} {frame.y(y):.1f}" for x, y in run]
        if len(places) == 1:
            x, y = places[0].split()
            yield f'<circle class="dot {escape(line.style)}" cx="{x}" cy="{y}" r="2.5"/>'
        else:
            yield f'<path class="line {escape(line.style)}" d="M{"L".join(places)}"/>'
    if len(line.points) <= _MOST_HINTS:
        yield from (_hint(frame, line.label, x, y) for x, y in line.points if finite((x, y)))


def _hint(frame: Frame, label: str, x: float, y: float) -> str:
    hint = escape(f"{label}: {y:.4g} at {short(x)}")
    return f'<circle class="hit" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="9"><title>{hint}</title></circle>'


def _reference(frame: Frame, reference: Reference) -> str:
    return rule((frame.left, frame.y(reference.y)), (frame.right, frame.y(reference.y)), style="reference")


def _end_labels(
    frame: Frame, labels: Sequence[tuple[str, float, float, str]], references: Sequence[Reference]
) -> Iterator[str]:
    """Writes the name of each line at its end, moved apart where they would overlap."""
    names = [(label, y, style) for label, _, y, style in labels] + [
        (each.label, each.y, "reference") for each in references
    ]
    wanted = [frame.y(y) + 4 for _, y, _ in names]
    places = spread(wanted, gap=LINE, low=frame.top + 4, high=frame.bottom)
    for (label, _, style), y in zip(names, places, strict=True):
        yield text(label, at=(frame.right + 8, y), anchor="start", style=f"label {style}")


def _dot_row(frame: Frame, row: Dot, names: tuple[str, str], y: float) -> list[str]:
    x, other = frame.x(row.value), frame.x(row.other)
    hint = escape(f"{row.label}: {names[0]} {row.value:.3g}, {names[1]} {row.other:.3g}")
    parts = [
        text(row.label, at=(frame.left, y), anchor="start", style="name"),
        text(row.note, at=(frame.right, y), anchor="end", style="tick"),
        rule((frame.left, y + 16), (frame.right, y + 16), style="grid"),
    ]
    for style, interval in (("other", row.other_interval), ("main", row.interval)):
        if interval:
            parts.append(
                rule((frame.x(interval[0]), y + 16), (frame.x(interval[1]), y + 16), style=f"interval {style}")
            )
    square = f'<rect class="square other" x="{other - 6:.1f}" y="{y + 10:.1f}" width="12" height="12"/>'
    dot = f'<circle class="dot main" cx="{x:.1f}" cy="{y + 16:.1f}" r="4.5"/>'
    return [*parts, f"<g><title>{hint}</title>{square}{dot}</g>"]


def _key(names: tuple[str, str]) -> str:
    second = 17 + BOLD * len(names[0]) + 14
    first = text(names[0], at=(17, 14), anchor="start", style="label main")
    return (
        f'<circle class="dot main" cx="6" cy="10" r="4.5"/>{first}'
        f'<rect class="square other" x="{second:.1f}" y="4" width="12" height="12"/>'
        f"{text(names[1], at=(second + 17, 14), anchor='start', style='label other')}"
    )


def _bar_row(frame: Frame, row: Bar, y: float, *, note_x: float) -> list[str]:
    parts, at = (
        [
            text(row.label, at=(frame.left, y + 12), anchor="start", style="name"),
            text(row.note, at=(note_x, y + 12), anchor="end", style="tick"),
        ],
        row.start,
    )
    for index, (name, length) in enumerate(row.parts):
        if not length and len(row.parts) > 1:
            continue
        x, width = frame.x(at), max(frame.x(at + length) - frame.x(at), 1.0)
        box = f'<rect class="part p{index}" x="{x:.1f}" y="{y + 18:.1f}" width="{width:.1f}" height="13">'
        parts.append(f"{box}<title>{escape(f'{row.label}, {name}: {length:.4g}')}</title></rect>")
        at += length
    return parts


def _limit(frame: Frame, label: str, value: float) -> list[str]:
    x = frame.x(value)
    line = rule((x, frame.top - 4), (x, frame.bottom), style="reference")
    return [line, text(label, at=(min(x + 4, frame.right), frame.top - 8), anchor="end", style="label reference")]


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Returns at most about _MOST_POINTS points: first, lowest, highest and last of each stretch, in their order."""
    if len(points) <= _MOST_POINTS:
        return points
    length = math.ceil(4 * len(points) / _MOST_POINTS)
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), length):
        part = points[start : start + length]
        drawn = [index for index, point in enumerate(part) if finite(point)] or [0]
        lowest, highest = min(drawn, key=lambda i: part[i][1]), max(drawn, key=lambda i: part[i][1])
        kept += [part[index] for index in sorted({0, lowest, highest, len(part) - 1})]
    return kept


def _last(line: Series) -> tuple[float, float]:
    return [point for point in line.points if finite(point)][-1]

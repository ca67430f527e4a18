"""Charts as inline SVG: pure functions from numbers to text. Colours and type are the page's (report.css)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

Size = tuple[int, int]
Range = tuple[float, float]

WIDE: Size = (736, 300)
NARROW: Size = (343, 260)  # a phone's page is 375 wide: text keeps its size there
SMALL: Size = (343, 210)

_CHARACTER = 7.0  # width at 12 px in a wide font; bold is wider
_BOLD = 8.4
_LINE = 15.0  # height of a line of text
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


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """Where the plot lies on the canvas and which values it spans."""

    left: float
    right: float
    top: float
    bottom: float
    x_range: Range
    y_range: Range

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)


def ticks(low: float, high: float, *, count: int = 5) -> list[float]:
    """Returns round values from `low` to `high`, about `count` of them, whose distance is 1, 2 or 5 times 10^n."""
    low, high = _widened(low, high)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if rough <= power * factor * (1 + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step)))
    return [round(index * step, digits) for index in range(first, last + 1)]


def short(value: float) -> str:
    """Returns a number as people read it on an axis: 0.25, 1,200, 3.5 M."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:,.0f}" if value == round(value) else f"{value:.3g}"


def spread(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Returns positions near the `wanted` ones, at least `gap` apart and, if they fit, within low..high."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    placed: dict[int, float] = {}
    floor = low
    for index in order:
        placed[index] = floor = max(wanted[index], floor)
        floor += gap
    ceiling = high
    for index in reversed(order):
        placed[index] = ceiling = min(placed[index], ceiling)
        ceiling -= gap
    return [placed[index] for index in range(len(wanted))]


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
    points = [point for line in series for point in line.points if _finite(point)]
    if not points:
        return _canvas(_text(size[0] / 2, size[1] / 2, "No points were recorded.", "middle"), title, description, size)
    ys = [y for _, y in points] + [reference.y for reference in references]
    labels = [(line.label, *_last(line), line.style) for line in series if any(map(_finite, line.points))]
    frame = _frame([x for x, _ in points], y_range or (min(ys), max(ys)), labels, references, size)
    parts = [
        *_y_axis(frame, y_label),
        *_x_axis(frame, x_label),
        *(_reference(frame, reference) for reference in references),
        *(part for line in series for part in _line(frame, line)),
        *_end_labels(frame, labels, references),
    ]
    return _canvas("".join(parts), title, description, size)


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
    frame = _Frame(left=1, right=width - 1, top=top - 14, bottom=bottom, x_range=_rounded_out(*x_range), y_range=(0, 1))
    parts = [*_x_axis(frame, x_label), _key(names)]
    for index, row in enumerate(rows):
        parts += _dot_row(frame, row, names, top + step * index + 14)
    return _canvas("".join(parts), title, description, (width, round(bottom) + 44))


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
    step, top = 40.0, 6.0 + (22 if key else 0) + (18 if limit else 0)
    bottom = top + step * len(rows)
    reach = max([row.start + sum(length for _, length in row.parts) for row in rows], default=0.0)
    x_range = _widened(0, max(reach, limit[1]) if limit else reach)
    frame = _Frame(left=1, right=width - 1, top=top, bottom=bottom, x_range=x_range, y_range=(0, 1))
    parts = [*_x_axis(frame, x_label), *_part_key(key)]
    for index, row in enumerate(rows):
        parts += _bar_row(frame, row, top + step * index)
    parts += _limit(frame, *limit) if limit else []
    return _canvas("".join(parts), title, description, (width, round(bottom) + 44))


def _frame(
    xs: Sequence[float],
    y_range: Range,
    labels: Sequence[tuple[str, float, float, str]],
    references: Sequence[Reference],
    size: Size,
) -> _Frame:
    low, high = _rounded_out(*y_range)
    steps = ticks(low, high)
    longest = max(len(label) for label in [*(label[0] for label in labels), *(each.label for each in references)])
    left = 12 + _CHARACTER * max(len(short(value)) for value in steps)
    right = size[0] - 10 - _BOLD * longest
    x_range = _widened(min(xs), max(xs))
    return _Frame(left=left, right=right, top=28, bottom=size[1] - 40, x_range=x_range, y_range=(low, high))


def _y_axis(frame: _Frame, label: str) -> Iterator[str]:
    yield _text(0, 12, label, "start", "axis")
    for value in ticks(*frame.y_range):
        y = frame.y(value)
        yield _rule(frame.left, y, frame.right, y, "grid")
        yield _text(frame.left - 6, y + 4, short(value), "end", "tick")


def _x_axis(frame: _Frame, label: str) -> list[str]:
    y, count = frame.bottom, 6 if frame.right - frame.left > 400 else 4
    parts = [_rule(frame.left, y, frame.right, y, "base")]
    for value in ticks(*frame.x_range, count=count):
        x = frame.x(value)
        edge = "start" if x < frame.left + 12 else "end" if x > frame.right - 8 and frame.right - x < 4 else "middle"
        parts.append(_rule(x, y, x, y + 4, "base"))
        parts.append(_text(x, y + 17, short(value), edge, "tick"))
    parts.append(_text(frame.right, y + 34, label, "end", "axis"))
    return parts


def _line(frame: _Frame, line: Series) -> Iterator[str]:
    for finite, run in groupby(_thinned(line.points), key=_finite):
        if not finite:
            continue
        places = [f"{frame.x(x):.1f} {frame.y(y):.1f}" for x, y in run]
        if len(places) == 1:
            x, y = places[0].split()
            yield f'<circle class="dot {escape(line.style)}" cx="{x}" cy="{y}" r="2.5"/>'
        else:
            yield f'<path class="line {escape(line.style)}" d="M{"L".join(places)}"/>'
    if len(line.points) <= _MOST_HINTS:
        yield from (_hint(frame, line.label, x, y) for x, y in line.points if _finite((x, y)))


def _hint(frame: _Frame, label: str, x: float, y: float) -> str:
    text = escape(f"{label}: {y:.4g} at {short(x)}")
    return f'<circle class="hit" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="9"><title>{text}</title></circle>'


def _reference(frame: _Frame, reference: Reference) -> str:
    return _rule(frame.left, frame.y(reference.y), frame.right, frame.y(reference.y), "reference")


def _end_labels(
    frame: _Frame, labels: Sequence[tuple[str, float, float, str]], references: Sequence[Reference]
) -> Iterator[str]:
    """Writes the name of each line at its end, moved apart where they would overlap."""
    names = [(label, y, style) for label, _, y, style in labels] + [
        (each.label, each.y, "reference") for each in references
    ]
    wanted = [frame.y(y) + 4 for _, y, _ in names]
    places = spread(wanted, gap=_LINE, low=frame.top + 4, high=frame.bottom)
    for (label, _, style), y in zip(names, places, strict=True):
        yield _text(frame.right + 8, y, label, "start", f"label {style}")


def _dot_row(frame: _Frame, row: Dot, names: tuple[str, str], y: float) -> list[str]:
    x, other = frame.x(row.value), frame.x(row.other)
    hint = escape(f"{row.label}: {names[0]} {row.value:.3g}, {names[1]} {row.other:.3g}")
    parts = [
        _text(frame.left, y, row.label, "start", "name"),
        _text(frame.right, y, row.note, "end", "tick"),
        _rule(frame.left, y + 16, frame.right, y + 16, "grid"),
    ]
    for style, interval in (("other", row.other_interval), ("main", row.interval)):
        if interval:
            parts.append(_rule(frame.x(interval[0]), y + 16, frame.x(interval[1]), y + 16, f"interval {style}"))
    square = f'<rect class="square other" x="{other - 6:.1f}" y="{y + 10:.1f}" width="12" height="12"/>'
    dot = f'<circle class="dot main" cx="{x:.1f}" cy="{y + 16:.1f}" r="4.5"/>'
    return [*parts, f"<g><title>{hint}</title>{square}{dot}</g>"]


def _key(names: tuple[str, str]) -> str:
    second = 17 + _BOLD * len(names[0]) + 14
    return (
        f'<circle class="dot main" cx="6" cy="10" r="4.5"/>{_text(17, 14, names[0], "start", "label main")}'
        f'<rect class="square other" x="{second:.1f}" y="4" width="12" height="12"/>'
        f"{_text(second + 17, 14, names[1], 'start', 'label other')}"
    )


def _part_key(names: Sequence[str]) -> Iterator[str]:
    x = 1.0
    for index, name in enumerate(names):
        yield f'<rect class="part p{index}" x="{x:.1f}" y="3" width="10" height="10"/>'
        yield _text(x + 14, 12, name, "start", "tick")
        x += 14 + _CHARACTER * len(name) + 5


def _bar_row(frame: _Frame, row: Bar, y: float) -> list[str]:
    parts, at = (
        [_text(frame.left, y + 12, row.label, "start", "name"), _text(frame.right, y + 12, row.note, "end", "tick")],
        row.start,
    )
    for index, (name, length) in enumerate(row.parts):
        x, width = frame.x(at), max(frame.x(at + length) - frame.x(at), 1.0)
        box = f'<rect class="part p{index}" x="{x:.1f}" y="{y + 18:.1f}" width="{width:.1f}" height="13">'
        parts.append(f"{box}<title>{escape(f'{row.label}, {name}: {length:.4g}')}</title></rect>")
        at += length
    return parts


def _limit(frame: _Frame, label: str, value: float) -> list[str]:
    x = frame.x(value)
    rule = _rule(x, frame.top - 4, x, frame.bottom, "reference")
    return [rule, _text(x + 4, frame.top - 8, label, "end", "label reference")]


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Returns at most about _MOST_POINTS points: first, lowest, highest and last of each stretch, in their order."""
    if len(points) <= _MOST_POINTS:
        return points
    length = math.ceil(4 * len(points) / _MOST_POINTS)
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), length):
        part = points[start : start + length]
        finite = [index for index, point in enumerate(part) if _finite(point)] or [0]
        lowest, highest = min(finite, key=lambda i: part[i][1]), max(finite, key=lambda i: part[i][1])
        kept += [part[index] for index in sorted({0, lowest, highest, len(part) - 1})]
    return kept


def _last(line: Series) -> tuple[float, float]:
    return [point for point in line.points if _finite(point)][-1]


def _finite(point: tuple[float, float]) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1])


def _widened(low: float, high: float) -> Range:
    """Returns a range that has a length: a constant gets some room around it."""
    if high > low:
        return low, high
    room = abs(low) * 0.1 or 1.0
    return low - room, high + room


def _rounded_out(low: float, high: float) -> Range:
    """Returns the smallest range around low..high that begins and ends at a tick."""
    low, high = _widened(low, high)
    first, second, *_ = ticks(low, high)
    step = second - first
    return first - step * math.ceil((first - low) / step - 1e-9), first + step * math.ceil((high - first) / step - 1e-9)


def _rule(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str, style: str = "tick") -> str:
    return f'<text class="{escape(style)}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _canvas(content: str, title: str, description: str, size: Size) -> str:
    """Returns the whole SVG. Its width is what it is drawn for: narrower pages scale it, wider ones do not."""
    width, height = size
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{content}</svg>"
    )

"""The canvas of the charts: axes, rules and text as SVG. Colours and type are the page's (report.css)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

Size = tuple[int, int]
Range = tuple[float, float]
Point = tuple[float, float]

WIDE: Size = (736, 300)
NARROW: Size = (343, 260)  # a phone's page is 375 wide: text keeps its size there
SMALL: Size = (343, 210)

CHARACTER = 7.0  # width at 12 px in a wide font; bold is wider
BOLD = 8.4
LINE = 15.0  # height of a line of text


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where the plot lies on the canvas and which values it spans."""

    left: float
    right: float
    top: float
    bottom: float
    x_range: Range
    y_range: Range

    def x(self, value: float) -> float:
        """Returns where a value lies from the left."""
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Returns where a value lies from the top."""
        low, high = self.y_range
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)


def ticks(low: float, high: float, *, count: int = 5) -> list[float]:
    """Returns round values from `low` to `high`, about `count` of them, whose distance is 1, 2 or 5 times 10^n."""
    low, high = widened(low, high)
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


def x_axis(frame: Frame, label: str) -> list[str]:
    """Draws ticks and the label of x below the plot."""
    y, count = frame.bottom, 6 if frame.right - frame.left > 400 else 4
    parts = [rule((frame.left, y), (frame.right, y), style="base")]
    for value in ticks(*frame.x_range, count=count):
        x = frame.x(value)
        edge = "start" if x < frame.left + 12 else "end" if x > frame.right - 8 and frame.right - x < 4 else "middle"
        parts.append(rule((x, y), (x, y + 4), style="base"))
        parts.append(text(short(value), at=(x, y + 17), anchor=edge, style="tick"))
    parts.append(text(label, at=(frame.right, y + 34), anchor="end", style="axis"))
    return parts


def y_axis(frame: Frame, label: str) -> Iterator[str]:
    """Draws grid lines, their values and the label of y above the plot."""
    yield text(label, at=(0, 12), anchor="start", style="axis")
    for value in ticks(*frame.y_range):
        y = frame.y(value)
        yield rule((frame.left, y), (frame.right, y), style="grid")
        yield text(short(value), at=(frame.left - 6, y + 4), anchor="end", style="tick")


def finite(point: Point) -> bool:
    """Says whether a point can be drawn."""
    return math.isfinite(point[0]) and math.isfinite(point[1])


def widened(low: float, high: float) -> Range:
    """Returns a range that has a length: a constant gets some room around it."""
    if high > low:
        return low, high
    room = abs(low) * 0.1 or 1.0
    return low - room, high + room


def rounded_out(low: float, high: float) -> Range:
    """Returns the smallest range around low..high that begins and ends at a tick."""
    low, high = widened(low, high)
    first, second, *_ = ticks(low, high)
    step = second - first
    return first - step * math.ceil((first - low) / step - 1e-9), first + step * math.ceil((high - first) / step - 1e-9)


def rule(start: Point, end: Point, *, style: str) -> str:
    """Returns a straight line."""
    (x1, y1), (x2, y2) = start, end
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def text(words: str, *, at: Point, anchor: str, style: str = "tick") -> str:
    """Returns a line of text; `anchor` says which end of it lies at x."""
    x, y = at
    return f'<text class="{escape(style)}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def canvas(content: str, *, title: str, description: str, size: Size) -> str:
    """Returns the whole SVG. Its width is what it is drawn for: narrower pages scale it, wider ones do not."""
    width, height = size
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{content}</svg>"
    )


def part_key(names: Sequence[str], *, width: float, style: str = "part") -> tuple[int, list[str]]:
    """Returns a key of coloured parts above a plot, and how many rows of 18 it takes at that width."""
    x, row, drawn = 1.0, 0, []
    for index, name in enumerate(names):
        length = 14 + CHARACTER * len(name)
        if x > 1 and x + length > width:
            x, row = 1.0, row + 1
        drawn.append(f'<rect class="{style} p{index}" x="{x:.1f}" y="{3 + 18 * row}" width="10" height="10"/>')
        drawn.append(text(name, at=(x + 14, 12 + 18 * row), anchor="start", style="tick"))
        x += length + 5
    return row + 1, drawn

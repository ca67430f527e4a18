"""Diagrams of a plan as inline SVG: a timeline of who does what when, and a cloud of choices with its front."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from evaluation.canvas import BOLD, CHARACTER, Frame, Point, canvas, part_key, rounded_out, short, text, x_axis, y_axis

SHADES = 4

_ROW = 22.0
_DIGIT = 6.5


@dataclass(frozen=True, kw_only=True)
class Block:
    """What a row does from `start` to `end`: the index of its kind, a word that is shown where there is room.

    `shade` makes blocks of one kind differ: 0 is the full colour, SHADES - 1 the palest.
    """

    row: int
    kind: int
    start: float
    end: float
    word: str = ""
    shade: int = 0


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A point that is named, above or below it; `style` is a class of report.css: main or other."""

    label: str
    at: Point
    style: str
    below: bool = False


def timeline(
    rows: Sequence[str],
    blocks: Sequence[Block],
    *,
    kinds: Sequence[str],
    title: str,
    description: str,
    x_label: str,
    width: int,
) -> str:
    """Draws what each row does when; what is left free is waiting."""
    rows_of_key, names = part_key(kinds, width=width, style="pass s0")
    top = 10.0 + 18 * rows_of_key
    bottom = top + _ROW * len(rows)
    left = 8 + CHARACTER * max(map(len, rows))
    end = max(block.end for block in blocks)
    frame = Frame(left=left, right=width - 2, top=top, bottom=bottom, x_range=(0, end), y_range=(0, 1))
    parts = [*x_axis(frame, x_label), *names]
    for index, name in enumerate(rows):
        y = top + _ROW * index
        parts.append(text(name, at=(left - 6, y + 14), anchor="end", style="tick"))
        parts.append(f'<rect class="idle" x="{left:.1f}" y="{y + 2:.1f}" width="{width - 2 - left:.1f}" height="18"/>')
    parts += [_block(frame, block, rows=rows, kinds=kinds) for block in blocks]
    return canvas("".join(parts), title=title, description=description, size=(width, round(bottom) + 44))


def cloud(
    points: Sequence[Point],
    front: Sequence[Point],
    *,
    marks: Sequence[Mark],
    title: str,
    description: str,
    x_label: str,
    y_label: str,
    size: tuple[int, int],
) -> str:
    """Draws choices as dots, a line along the front of those that no other beats, and some by name."""
    every = [*points, *front, *(mark.at for mark in marks)]
    x_range = rounded_out(min(x for x, _ in every), max(x for x, _ in every))
    y_range = rounded_out(min(y for _, y in every), max(y for _, y in every))
    left = 12 + CHARACTER * max(len(short(value)) for value in y_range)
    frame = Frame(left=left, right=size[0] - 12, top=28, bottom=size[1] - 40, x_range=x_range, y_range=y_range)
    parts = [*y_axis(frame, y_label), *x_axis(frame, x_label)]
    parts += [f'<circle class="dot faint" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="2"/>' for x, y in points]
    parts += _steps(frame, front)
    parts += [part for mark in marks for part in _mark(frame, mark)]
    return canvas("".join(parts), title=title, description=description, size=size)


def _block(frame: Frame, block: Block, *, rows: Sequence[str], kinds: Sequence[str]) -> str:
    x, y = frame.x(block.start), frame.top + _ROW * block.row + 2
    width = max(frame.x(block.end) - x, 0.5)
    hint = escape(f"{rows[block.row]}, {kinds[block.kind]} {block.word}: {block.start:.4g} to {block.end:.4g}")
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="18"'
    box = f'<rect class="pass p{block.kind} s{block.shade}" {place}><title>{hint}</title></rect>'
    roomy = width > 3 + _DIGIT * len(block.word)
    return box + (text(block.word, at=(x + width / 2, y + 13), anchor="middle", style="on") if roomy else "")


def _steps(frame: Frame, front: Sequence[Point]) -> list[str]:
    """The front's line: from one choice to the next nothing is gained before the next is reached."""
    ordered = sorted(front)
    if not ordered:
        return []
    places = [f"M{frame.x(ordered[0][0]):.1f} {frame.y(ordered[0][1]):.1f}"]
    places += [
        f"L{frame.x(x):.1f} {frame.y(before):.1f}L{frame.x(x):.1f} {frame.y(y):.1f}"
        for (_, before), (x, y) in pairwise(ordered)
    ]
    dots = [f'<circle class="dot main" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="2.5"/>' for x, y in ordered]
    return [f'<path class="line main" d="{"".join(places)}"/>', *dots]


def _mark(frame: Frame, mark: Mark) -> list[str]:
    x, y = frame.x(mark.at[0]), frame.y(mark.at[1])
    near_end = x + 12 + BOLD * len(mark.label) > frame.right
    below = mark.below and y + 30 < frame.bottom
    side, anchor = (-10, "end") if near_end else (10, "start")
    label = text(mark.label, at=(x + side, y + (20 if below else -10)), anchor=anchor, style=f"label halo {mark.style}")
    square = f'<rect class="square {mark.style}" x="{x - 6:.1f}" y="{y - 6:.1f}" width="12" height="12"/>'
    return [square, label]

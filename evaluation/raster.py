"""Charts as PNG: draws the few elements that our SVG is made of, in the light colours of report.css."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

_CSS = Path(__file__).parent / "report.css"
_PIXELS_PER_INCH = 96
_DPI = 192
_MARGIN, _GAP = 20.0, 28.0
_SIZES = {"name": 13.0, "on": 11.0}
_WIDTHS = {"grid": 1.0, "base": 1.0, "reference": 1.5, "main": 2.5, "faint": 1.25}


def draw(charts: Sequence[tuple[str, str]], path: Path) -> None:
    """Writes charts below one another, each under its title.

    Args:
        charts: (SVG of canvas.py, class of the figure it stands in: "stack" where parts have colours of their own).
        path: the PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    trees = [(ET.fromstring(svg), kind) for svg, kind in charts]  # noqa: S314 - our own text
    sizes = [(float(tree.get("width", 0)), float(tree.get("height", 0))) for tree, _ in trees]
    width = max(size[0] for size in sizes) + 2 * _MARGIN
    height = sum(size[1] + _GAP for size in sizes) + 2 * _MARGIN
    figure = Figure(figsize=(width / _PIXELS_PER_INCH, height / _PIXELS_PER_INCH), dpi=_DPI)
    FigureCanvasAgg(figure)
    figure.patch.set_facecolor(_colour("paper"))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    top = _MARGIN
    for (tree, kind), (_, tall) in zip(trees, sizes, strict=True):
        _write(axes, tree.findtext("title", ""), at=(_MARGIN, top + 12), style="name heading", anchor="start")
        for element in tree:
            _draw(axes, element, shift=(_MARGIN, top + _GAP - 6), stack=kind == "stack")
        top += tall + _GAP
    figure.savefig(path)


def _draw(axes: Any, element: ET.Element, *, shift: tuple[float, float], stack: bool) -> None:
    from matplotlib import patches

    style, number = element.get("class", ""), _numbers(element)
    x, y = number.get("x", 0) + shift[0], number.get("y", 0) + shift[1]
    if element.tag == "text":
        _write(axes, element.text or "", at=(x, y), style=style, anchor=element.get("text-anchor", "start"))
    elif element.tag == "line":
        ends = ([number["x1"] + shift[0], number["x2"] + shift[0]], [number["y1"] + shift[1], number["y2"] + shift[1]])
        dashes = (0, (5, 4)) if "reference" in style.split() else "-"
        order = 4 if "reference" in style.split() else 2  # a limit is seen across the bars that exceed it
        axes.plot(*ends, color=_ink(style), linewidth=_points(_width(style)), linestyle=dashes, zorder=order)
    elif element.tag == "rect":
        edge, line = _edge(style)
        face = _fill(style, stack=stack)
        box = patches.Rectangle((x, y), number["width"], number["height"], facecolor=face, edgecolor=edge)
        box.set_linewidth(_points(line))
        axes.add_patch(box)
        box.set_zorder(3 if "idle" not in style else 1)
    elif element.tag == "circle" and "hit" not in style.split():
        centre = (number["cx"] + shift[0], number["cy"] + shift[1])
        axes.add_patch(patches.Circle(centre, number["r"], facecolor=_ink(style), linewidth=0, zorder=3))
    elif element.tag == "path":
        places = re.findall(r"([-\d.]+) ([-\d.]+)", element.get("d", ""))
        xs, ys = ([float(place[axis]) + shift[axis] for place in places] for axis in (0, 1))
        axes.plot(xs, ys, color=_ink(style), linewidth=_points(_width(style)), zorder=4)


def _write(axes: Any, words: str, *, at: tuple[float, float], style: str, anchor: str) -> None:
    """Writes a line of text; dollar signs would start a formula."""
    from matplotlib import patheffects

    names = style.split()
    side = {"start": "left", "middle": "center", "end": "right"}[anchor]
    size = _points(next((size for name, size in _SIZES.items() if name in names), 12.0))
    weight = "bold" if {"label", "heading"} & set(names) else "normal"
    colour = _ink(style) if "label" in names else _colour("soft" if {"tick", "axis"} & set(names) else "ink")
    text = words.replace("$", r"\$")
    written = axes.text(*at, text, ha=side, va="baseline", fontsize=size, color=colour, fontweight=weight, zorder=5)
    if "halo" in names:
        written.set_path_effects([patheffects.withStroke(linewidth=_points(3), foreground=_colour("paper"))])


def _numbers(element: ET.Element) -> Mapping[str, float]:
    names = ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height")
    return {name: float(element.attrib[name]) for name in names if name in element.attrib}


def _fill(style: str, *, stack: bool) -> str:
    names = style.split()
    if "square" in names:
        return _colour("paper")
    if "idle" in names:
        return _colour("panel")
    if "pass" in names:
        return _rules()[" ".join(names[:1] + sorted(names[1:]))]
    part = next((name for name in names if re.fullmatch(r"p\d", name)), "")
    return _colour(part if stack and part else "main")


def _edge(style: str) -> tuple[str, float]:
    names = style.split()
    if "square" in names:
        return _ink(style), 2.0
    return _colour("paper"), 0.0 if "idle" in names else 0.5


def _ink(style: str) -> str:
    names = style.split()
    for name, colour in (("grid", "grid"), ("base", "soft"), ("reference", "other")):
        if name in names:
            return _colour(colour)
    return _colour(next((name for name in ("main", "faint", "other") if name in names), "ink"))


def _width(style: str) -> float:
    return next((width for name, width in _WIDTHS.items() if name in style.split()), 2.0)


def _points(pixels: float) -> float:
    return pixels * 72 / _PIXELS_PER_INCH


def _colour(name: str) -> str:
    return _variables()[name]


@cache
def _variables() -> Mapping[str, str]:
    """The light set of colours."""
    block = _CSS.read_text().partition(":root {")[2].partition("}")[0]
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))


@cache
def _rules() -> Mapping[str, str]:
    """The colours of the schedule's passes, by kind and shade: "pass p0 s1"."""
    found = re.findall(r"\.chart \.pass\.(p\d)\.(s\d) \{ fill: (#[0-9a-f]{6}); \}", _CSS.read_text())
    return {f"pass {kind} {shade}": colour for kind, shade, colour in found}

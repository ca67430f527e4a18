"""Charts: ticks, labels and lines for awkward data."""

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.canvas import short, spread, ticks
from evaluation.charts import Bar, Dot, Reference, Series, bars, dots, lines

Points = Sequence[tuple[float, float]]


def _draw(points: Points, *, references: Sequence[Reference] = ()) -> ET.Element:
    svg = lines(
        [Series(label="loss", points=points)],
        title="Loss",
        description="What it shows.",
        x_label="steps",
        y_label="nats",
        references=references,
    )
    return ET.fromstring(svg)  # noqa: S314 - our own text


def _classes(svg: ET.Element) -> list[str]:
    return [element.get("class", "") for element in svg.iter()]


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (2.6, 7.9, [4, 6]),
        (0, 0.41, [0, 0.1, 0.2, 0.3, 0.4]),
        (0, 200, [0, 50, 100, 150, 200]),
        (-3, 3, [-2, 0, 2]),
        (1e9, 6e9, [1e9, 2e9, 3e9, 4e9, 5e9, 6e9]),
    ],
)
def test_ticks_are_round(low: float, high: float, wanted: list[float]) -> None:
    assert ticks(low, high) == wanted


@settings(deadline=None)  # a busy machine is no failure
@given(st.floats(-1e12, 1e12), st.floats(1e-3, 1e12))
def test_ticks_lie_inside_and_are_neither_few_nor_many(low: float, length: float) -> None:
    high = low + length
    if high - low < 1e-9 * max(1.0, abs(low)):
        return
    found = ticks(low, high)
    assert 2 <= len(found) <= 11
    assert found == sorted(set(found))
    assert all(low - 1e-6 * length <= value <= high + 1e-6 * length for value in found)


@pytest.mark.parametrize("value", [0.0, 5.0, -2.5])
def test_a_constant_has_ticks(value: float) -> None:
    assert len(ticks(value, value)) >= 2


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.25"), (1200, "1,200"), (45_000, "45,000"), (3_500_000, "3.5 M"), (-0.1, "-0.1")],
)
def test_numbers_on_an_axis_are_short(value: float, text: str) -> None:
    assert short(value) == text


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.floats(0, 300), min_size=1, max_size=6))
def test_labels_are_moved_apart_and_stay_inside(wanted: list[float]) -> None:
    placed = spread(wanted, gap=15, low=0, high=300)
    assert all(b - a >= 15 - 1e-6 for a, b in zip(sorted(placed), sorted(placed)[1:], strict=False))
    assert min(placed) >= -1e-6
    assert max(placed) <= 300 + 1e-6


def test_labels_far_apart_stay_where_they_are() -> None:
    assert spread([100.0, 20.0], gap=15, low=0, high=300) == [100.0, 20.0]


def test_a_chart_has_a_title_a_description_and_a_view_box() -> None:
    svg = _draw([(1, 7.0), (2, 6.0)])
    assert svg.get("viewBox") == "0 0 736 300"
    assert svg.get("role") == "img"
    assert svg.findtext("title") == "Loss"
    assert svg.findtext("desc") == "What it shows."


def test_an_empty_series_says_so() -> None:
    text = "".join(_draw([]).itertext())
    assert "No points were recorded." in text
    assert "No points were recorded." in "".join(_draw([(1, math.nan)]).itertext())


def test_one_point_is_a_dot_and_a_gap_breaks_the_line() -> None:
    assert "dot main" in _classes(_draw([(1, 7.0)]))
    gapped = _classes(_draw([(1, 7.0), (2, 6.0), (3, math.nan), (4, 5.0), (5, 4.0)]))
    assert gapped.count("line main") == 2
    assert _classes(_draw([(1, 7.0), (2, math.inf), (3, 5.0)])).count("dot main") == 2


def test_a_constant_series_lies_inside_the_plot() -> None:
    path = next(element for element in _draw([(1, 3.0), (2, 3.0)]).iter() if element.get("class") == "line main")
    heights = {point.split()[1] for point in path.get("d", "").removeprefix("M").split("L")}
    assert len(heights) == 1
    assert 28 < float(heights.pop()) < 260


def test_a_reference_is_drawn_even_outside_the_data() -> None:
    svg = _draw([(1, 7.0), (2, 6.0)], references=[Reference(label="reference", y=2.0)])
    assert _classes(svg).count("reference") == 1
    assert "reference" in "".join(svg.itertext())


def test_a_long_series_is_thinned_but_keeps_its_extremes() -> None:
    points = [(float(x), 5.0) for x in range(100_000)]
    points[54_321] = (54_321.0, 9.0)
    points[77_777] = (77_777.0, 1.0)
    path = next(element for element in _draw(points).iter() if element.get("class") == "line main")
    heights = [float(point.split()[1]) for point in path.get("d", "").removeprefix("M").split("L")]
    assert len(heights) < 1000
    assert len(set(heights)) == 3


def test_hostile_labels_are_escaped() -> None:
    bad = '<script>alert("1")</script>'
    svgs = [
        lines([Series(label=bad, points=[(1, 1)])], title=bad, description=bad, x_label=bad, y_label=bad),
        bars(
            [Bar(label=bad, parts=[(bad, 1)], note=bad)],
            title=bad, description=bad, x_label=bad, width=300, key=[bad],
        ),
        dots(
            [Dot(label=bad, value=1, interval=None, other=2, note=bad)],
            title=bad, description=bad, x_label=bad, x_range=(0, 3), names=(bad, bad), width=300,
        ),
    ]  # fmt: skip
    for svg in svgs:
        assert "<script" not in svg
        assert bad in "".join(ET.fromstring(svg).itertext())  # noqa: S314 - our own text


def test_bars_show_parts_and_a_limit() -> None:
    rows = [Bar(label="a", parts=[("one", 2.0), ("two", 3.0)], note="5"), Bar(label="b", parts=[], note="none")]
    svg = ET.fromstring(  # noqa: S314 - our own text
        bars(rows, title="t", description="d", x_label="GiB", limit=("room", 8.0), width=300)
    )
    assert _classes(svg).count("part p0") == 1
    assert _classes(svg).count("part p1") == 1
    assert "room" in "".join(svg.itertext())
    places = {element.text: float(element.get("x", 0)) for element in svg.iter() if element.get("text-anchor") == "end"}
    assert places["5"] < places["room"] <= 300, "a note does not touch the limit's line, nor its name the edge"
    assert "No" not in bars([], title="t", description="d", x_label="x", width=300)


def test_dots_show_intervals_only_where_there_are_some() -> None:
    rows = [
        Dot(label="a", value=60, interval=(50, 70), other=40, other_interval=(30, 50)),
        Dot(label="b", value=60, interval=None, other=40),
    ]
    svg = ET.fromstring(  # noqa: S314 - our own text
        dots(
            rows,
            title="t",
            description="d",
            x_label="percent",
            x_range=(0, 100),
            names=("model", "baseline"),
            width=343,
        )
    )
    assert sum(name.startswith("interval") for name in _classes(svg)) == 2

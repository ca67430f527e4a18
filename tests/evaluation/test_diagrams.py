"""Diagrams of a plan: every pass and every choice is drawn, inside its canvas, with words for those who do not see."""

import xml.etree.ElementTree as ET

from evaluation.canvas import part_key
from evaluation.diagrams import Block, Mark, cloud, timeline


def _classes(svg: str) -> list[str]:
    return [element.get("class", "") for element in ET.fromstring(svg).iter()]  # noqa: S314 - our own text


def test_a_timeline_has_a_row_for_each_name_and_a_box_for_each_pass() -> None:
    blocks = [
        Block(row=0, kind=0, start=0, end=1, word="1"),
        Block(row=1, kind=1, start=1, end=3, word="1", shade=2),
        Block(row=1, kind=0, start=3, end=3.001, word="12"),
    ]
    svg = timeline(
        ["stage 0", "stage 1"],
        blocks,
        kinds=("forward", "backward"),
        title="The schedule",
        description="What it shows.",
        x_label="milliseconds",
        width=343,
    )
    classes = _classes(svg)
    assert classes.count("idle") == 2
    assert classes.count("pass p0 s0") == 2
    assert classes.count("pass s0 p0") == classes.count("pass s0 p1") == 1  # the key
    assert classes.count("pass p1 s2") == 1
    assert classes.count("on") == 2  # a word that has no room is left out
    assert "<title>stage 1, backward 1: 1 to 3</title>" in svg


def test_a_cloud_draws_every_choice_and_the_front_as_steps() -> None:
    svg = cloud(
        [(1, 5), (2, 4), (3, 3)],
        [(3, 2), (1, 4)],
        marks=[Mark(label="mine", at=(3, 2), style="main", below=True), Mark(label="own", at=(1, 4), style="other")],
        title="Memory against time",
        description="What it shows.",
        x_label="GiB",
        y_label="seconds",
        size=(343, 260),
    )
    classes = _classes(svg)
    assert classes.count("dot faint") == 3
    assert classes.count("dot main") == 2
    (path,) = [element.get("d", "") for element in ET.fromstring(svg).iter() if element.get("d")]  # noqa: S314 - ours
    assert path.count("L") == 2
    assert ">mine</text>" in svg
    assert ">own</text>" in svg
    for x, end in ((float(each.get("x", 0)), each.get("text-anchor")) for each in ET.fromstring(svg).iter("text")):  # noqa: S314 - ours
        assert 0 <= x <= 343 if end == "middle" else 0 <= x <= 343 + 1


def test_an_empty_front_draws_no_line() -> None:
    svg = cloud([(1, 1)], [], marks=[], title="t", description="d", x_label="x", y_label="y", size=(343, 260))
    assert "<path" not in svg


def test_a_key_takes_another_row_where_one_is_too_narrow() -> None:
    names = ("parameters", "gradients", "optimizer", "activations")
    assert part_key(names, width=736)[0] == 1
    assert part_key(names, width=343)[0] == 2
    assert part_key((), width=343) == (1, [])

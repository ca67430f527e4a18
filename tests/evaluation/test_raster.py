"""Charts as PNG: every kind of element comes out in its colour of report.css."""

from pathlib import Path

import pytest

from evaluation import raster
from evaluation.canvas import canvas, rule, text


def _colours(path: Path) -> set[str]:
    from matplotlib import image

    pixels = image.imread(path)[:, :, :3].reshape(-1, 3)
    return {"#" + "".join(f"{round(255 * float(part)):02x}" for part in pixel) for pixel in set(map(tuple, pixels))}


@pytest.mark.parametrize(
    ("element", "kind", "colour"),
    [
        ('<rect class="part p3" x="9" y="9" width="50" height="20"/>', "stack", "#c07a35"),
        ('<rect class="part p3" x="9" y="9" width="50" height="20"/>', "", "#0b57a4"),
        ('<rect class="pass p1 s2" x="9" y="9" width="50" height="20"/>', "", "#ebc08f"),
        ('<rect class="idle" x="9" y="9" width="50" height="20"/>', "", "#f3f3ef"),
        ('<rect class="square other" x="9" y="9" width="12" height="12"/>', "", "#a8470a"),
        ('<circle class="dot faint" cx="20" cy="20" r="9"/>', "", "#6a8fb5"),
        ('<path class="line main" d="M5 20L60 20"/>', "", "#0b57a4"),
        (rule((5, 20), (60, 20), style="reference"), "", "#a8470a"),
        (text("halo $1", at=(5, 20), anchor="start", style="label halo main"), "", "#0b57a4"),
    ],
)
def test_each_element_is_drawn_in_its_colour(element: str, kind: str, colour: str, tmp_path: Path) -> None:
    svg = canvas(element, title="A title", description="What it shows.", size=(80, 40))
    raster.draw([(svg, kind)], tmp_path / "chart.png")
    assert colour in _colours(tmp_path / "chart.png")


def test_a_limit_is_seen_across_the_bar_that_exceeds_it(tmp_path: Path) -> None:
    bar = '<rect class="part p0" x="0" y="0" width="80" height="40"/>'
    svg = canvas(bar + rule((40, 5), (40, 35), style="reference"), title="", description="", size=(80, 40))
    raster.draw([(svg, "")], tmp_path / "chart.png")
    assert "#a8470a" in _colours(tmp_path / "chart.png")


def test_what_only_a_pointer_meets_is_left_out(tmp_path: Path) -> None:
    svg = canvas(
        '<circle class="hit" cx="20" cy="20" r="9"><title>a hint</title></circle>',
        title="",
        description="",
        size=(80, 40),
    )
    raster.draw([(svg, "")], tmp_path / "chart.png")
    assert _colours(tmp_path / "chart.png") == {"#fcfcfa"}

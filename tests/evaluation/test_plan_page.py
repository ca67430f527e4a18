"""A plan's page and picture: complete in themselves, the run's own layout beside the planner's."""

import struct
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation import plan_figures, plan_page, report
from evaluation.planned import Alternative, Choice, Plan, Refusal, StageMemory

OWN = Choice(
    layout="TP2 PP4 DP1 MBS1",
    sizes={"world_size": 8},
    memory=[StageMemory(parameters=2e9, gradients=4e9, optimizer=1e9, activations=(4 - n) * 3e9) for n in range(4)],
    fits=True,
    times={"compute": 2.0, "moving": 0.5, "pipeline_sends": 0.1, "bubble": 0.4, "data_parallel": 0.2},
    passes=[(0.05, 0.1)] * 4,
    num_microbatches=16,
    num_model_chunks=1,
    bubble_fraction=3 / 19,
)
CHOSEN = replace(
    OWN,
    layout="TP2 PP2 VP2 DP2 MBS1",
    memory=OWN.memory[:2],
    times={name: value * 0.8 for name, value in OWN.times.items()},
    passes=[(0.1, 0.2)] * 2,
    num_model_chunks=2,
)
PLAN = Plan(
    own=OWN,
    chosen=CHOSEN,
    device_bytes=40e9,
    reserve_bytes=6e9,
    step_flops=6e15,
    tried=100,
    fitting=40,
    alternatives=[
        Alternative(layout=CHOSEN.layout, peak=CHOSEN.peak, bubble_fraction=0.1, slower_than_best=1.0, step=2.56),
        Alternative(layout=OWN.layout, peak=OWN.peak, bubble_fraction=0.2, slower_than_best=1.25, step=3.2),
    ],
    refused=[Refusal(reason="must fit <b>", count=60, example="TP1 PP1")],
    front=[Alternative(layout=CHOSEN.layout, peak=CHOSEN.peak, bubble_fraction=0.1, slower_than_best=1.0, step=2.56)],
    cloud=[(2e10, 1.3), (1.5e10, 1.1)],
    campaign={"days": ["12.3", "9.9"]},
    kernels=["optimizer: torch AdamW."],
    assumptions=["FLOPs: matmuls only."],
    warnings=["few microbatches"],
)


def _page(plan: Plan) -> str:
    return plan_page.render(plan, run="demo", site="laptop", made="Made here.")


def test_the_page_compares_the_runs_layout_with_the_planners() -> None:
    page = _page(PLAN)
    assert "The planner chose TP2 PP2 VP2 DP2 MBS1: 2.56 s a step, at 17.7 GiB on the fullest rank" in page
    assert "the run&#39;s layout is 25 % slower." in page
    assert "(the run's)" in page.replace("&#39;", "'").replace("&#x27;", "'")
    assert "must fit &lt;b&gt;" in page
    assert '<tr><th scope="row">days</th><td>12.3</td><td>9.9</td></tr>' in page
    assert "Layouts that fit, the best first (40 of 100 tried)" in page
    assert page.count("<figure") == 5  # memory, times, two schedules, the front
    assert page.count("<svg") == page.count("<desc>") == 10
    assert "http" not in page.replace("http-equiv", "")
    assert _page(PLAN) == page


def test_what_does_not_fit_is_said() -> None:
    bad = replace(PLAN, own=replace(OWN, fits=False))
    assert "does not fit" in _page(bad)
    assert report.verdict(replace(bad, chosen=None)).startswith("No layout fits: use more GPUs")


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (CHOSEN, "The planner chose the same layout."),
        (replace(OWN, fits=False), "2.56 s a step, at 17.7 GiB on the fullest rank; the run's layout does not fit."),
        (replace(OWN, times=CHOSEN.times), "the run's layout is as fast."),
        (replace(OWN, times={"compute": 2.0}), "the run's layout is 22 % faster."),
        (replace(OWN, times={}), "The planner chose TP2 PP2 VP2 DP2 MBS1, at 17.7 GiB on the fullest rank."),
    ],
)
def test_the_verdict_follows_the_times(own: Choice, says: str) -> None:
    assert report.verdict(replace(PLAN, own=own)).endswith(says)


def test_pictures_leave_out_what_is_not_known() -> None:
    plain = replace(OWN, times={}, passes=[(1e9, 2e9)], memory=OWN.memory[:1])
    plan = replace(PLAN, own=plain, chosen=None, front=[], alternatives=[])
    assert plan_figures.times(plan) is None
    assert plan_figures.front(plan) is None
    assert plan_figures.schedules(plan) == []
    assert _page(plan).count("<figure") == 1


def test_without_times_the_schedule_counts_passes_and_the_front_costs() -> None:
    untimed = [replace(choice, times={}) for choice in (OWN, CHOSEN)]
    rows = [replace(row, step=None) for row in PLAN.alternatives]
    plan = replace(PLAN, own=untimed[0], chosen=untimed[1], alternatives=rows, front=rows)
    assert "passes of the slowest stage" in plan_figures.schedules(plan)[0][1].wide
    front = plan_figures.front(plan)
    assert front
    assert "cost beside the best layout" in front.wide


def test_of_many_stages_the_picture_shows_the_first_the_last_and_some() -> None:
    many = replace(OWN, memory=[*OWN.memory] * 16)
    wide = plan_figures.memory(replace(PLAN, own=many, chosen=None)).wide
    labels = [each.text for each in ET.fromstring(wide).iter("text") if each.get("class") == "name"]  # noqa: S314 - ours
    assert len(labels) == 12
    assert labels[0] == "TP2 PP4 DP1 MBS1, stage 0"
    assert labels[-1] == "stage 63"


def test_the_picture_is_a_png_with_all_figures_below_one_another(tmp_path: Path) -> None:
    path, small = tmp_path / "plan.png", tmp_path / "small.png"
    plan_page.picture(PLAN, path)
    plan_page.picture(replace(PLAN, own=replace(OWN, times={}), front=[]), small)
    sizes = []
    for each in (path, small):
        data = each.read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        sizes.append(struct.unpack(">II", data[16:24]))
    assert sizes[0][0] == sizes[1][0] == 2 * (736 + 40)
    assert sizes[0][1] > sizes[1][1] > 500

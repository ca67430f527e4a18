"""The planner: what fits comes ranked, what does not comes with its reason, one is chosen, and the front is a front."""

from dataclasses import replace
from itertools import pairwise

import pytest

from parallelism.cost.devices import DEVICES
from parallelism.cost.schedule import simulate
from parallelism.layout import Layout
from parallelism.planner import ALIKE, HEADROOM, Job, Search, misfit, nearest, plan, search, stage_seconds
from parallelism.presets import VOCAB_SIZES, preset

LAYOUT = Layout(
    world_size=64,
    global_batch_size=128,
    seq_length=4096,
    tensor_model_parallel_size=8,
    pipeline_model_parallel_size=2,
    sequence_parallel=True,
)
JOB = Job(
    shape=preset("dense_32b"),
    vocab_size=152_064,
    precision="bf16",
    layout=LAYOUT,
    gpus_per_node=8,
    memory_gib=79.1,
    reserve_gib=6,
    device=DEVICES["h100"],
)
EXPERTS = replace(
    JOB,
    shape=preset("gravity_16b_a3b"),
    vocab_size=VOCAB_SIZES["gravity_16b_a3b"],
    layout=replace(LAYOUT, tensor_model_parallel_size=1, sequence_parallel=False, expert_model_parallel_size=8),
)


@pytest.fixture(scope="module")
def found() -> Search:
    return search(JOB)


def test_what_fits_is_ranked_and_all_candidates_are_accounted_for(found: Search) -> None:
    assert [item.cost for item in found.fitting] == sorted(item.cost for item in found.fitting)
    assert all(item.peak <= JOB.budget for item in found.fitting)
    assert LAYOUT in [item.layout for item in found.fitting]
    assert [item.count for item in found.refused] == sorted((item.count for item in found.refused), reverse=True)
    assert len({item.reason for item in found.refused}) == len(found.refused)
    # A layout may be refused for several reasons, none for no reason.
    assert sum(item.count for item in found.refused) >= found.tried - len(found.fitting)


def test_the_chosen_leaves_room_and_is_as_good_as_the_fastest_that_does(found: Search) -> None:
    roomy = [item for item in found.fitting if item.peak <= (1 - HEADROOM) * JOB.budget]
    assert len(roomy) < len(found.fitting)
    assert found.chosen
    assert found.chosen in roomy
    assert found.chosen.cost <= roomy[0].cost * (1 + ALIKE)
    saved = roomy[0].peak - found.chosen.peak
    assert found.chosen == roomy[0] or saved >= JOB.budget / 20


def test_where_only_tight_layouts_fit_one_of_them_is_chosen(found: Search) -> None:
    smallest = found.front[-1]
    tight = replace(found, fitting=(smallest,), budget=float(smallest.peak))
    assert tight.chosen == smallest


def test_the_front_gets_slower_as_it_gets_smaller_and_nothing_beats_it(found: Search) -> None:
    assert found.front[0] == found.fitting[0]
    assert found.front[-1].peak == min(item.peak for item in found.fitting)
    for faster, smaller in pairwise(found.front):
        assert faster.cost <= smaller.cost
        assert faster.peak > smaller.peak
    for item in found.fitting:
        assert any(each.cost <= item.cost and each.peak <= item.peak for each in found.front)


def test_where_nothing_fits_nothing_is_chosen() -> None:
    none = search(replace(JOB, memory_gib=6.5))
    assert (none.fitting, none.front, none.chosen) == ((), (), None)
    assert sum(item.count for item in none.refused) >= none.tried


def test_experts_are_spread_over_ranks() -> None:
    found = search(EXPERTS)
    assert EXPERTS.layout in [item.layout for item in found.fitting]
    assert found.chosen
    assert found.chosen.layout.expert_model_parallel_size > 1


def test_less_memory_refuses_more(found: Search) -> None:
    small = replace(JOB, memory_gib=39.4)
    assert len(search(small).fitting) < len(found.fitting)
    planned = plan(JOB, layout=replace(LAYOUT, tensor_model_parallel_size=2, pipeline_model_parallel_size=8))
    assert misfit(JOB, planned) == []
    assert misfit(small, planned) == ["must fit into 33.4 GiB of a rank after the reserve, but needs more"]


def test_the_nearest_change_least(found: Search) -> None:
    first, second = nearest(LAYOUT, found.fitting, count=2)
    assert first.layout == LAYOUT
    assert second.layout != LAYOUT
    assert nearest(LAYOUT, [], count=2) == []


def test_without_a_speed_layouts_are_ranked_by_work() -> None:
    on_a_cpu = replace(JOB, device=None)
    planned = plan(on_a_cpu, layout=LAYOUT)
    assert planned.time is None
    timed = plan(JOB, layout=LAYOUT)
    assert timed.cost == pytest.approx(timed.time.step if timed.time else 0)
    again = plan(on_a_cpu, layout=replace(LAYOUT, recompute_granularity="full"))
    assert 1.2 < again.cost / planned.cost < 1.4  # a third more matmuls, but not of the output layer


@pytest.mark.parametrize("device", ["h100", None])
@pytest.mark.parametrize("recompute", [None, "full"])
def test_the_schedule_played_through_takes_as_long_as_the_step(device: str | None, recompute: str | None) -> None:
    changed = Layout(**{**vars(LAYOUT), "recompute_granularity": recompute, "pipeline_model_parallel_size": 4})
    job = replace(JOB, device=DEVICES[device] if device else None)
    planned = plan(job, layout=changed)
    stages = stage_seconds(job, planned)
    played = simulate(stages, num_microbatches=changed.num_microbatches)
    if planned.time:
        once = planned.time.data_parallel + planned.time.optimizer
        assert played.end == pytest.approx(planned.time.step - once, rel=0.02)
    else:
        assert played.end == pytest.approx(planned.cost, rel=0.05)
    assert stages[0].backward / stages[0].forward == pytest.approx(3 if recompute else 2, rel=0.05)


def test_a_measured_efficiency_replaces_the_roofline() -> None:
    slow = plan(replace(JOB, efficiency=0.2), layout=LAYOUT)
    assert slow.cost > plan(JOB, layout=LAYOUT).cost
    assert slow.time
    assert slow.time.moving == 0

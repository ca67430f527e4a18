"""Alternatives: what fits comes ranked, what does not comes with its reason, and the nearest are near."""

from dataclasses import replace

import pytest

from parallelism.alternatives import Job, alternatives, misfit, nearest, plan
from parallelism.cost.devices import DEVICES
from parallelism.cost.memory import GIB
from parallelism.layout import Layout
from parallelism.presets import preset

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
    efficiency=0.6,
)


def test_what_fits_is_ranked_and_all_candidates_are_accounted_for() -> None:
    fitting, refused = alternatives(JOB)
    assert [item.cost for item in fitting] == sorted(item.cost for item in fitting)
    assert all(item.peak <= JOB.budget for item in fitting)
    assert LAYOUT in [item.layout for item in fitting]
    assert [item.count for item in refused] == sorted((item.count for item in refused), reverse=True)
    assert len({item.reason for item in refused}) == len(refused)


def test_less_memory_refuses_more() -> None:
    small = replace(JOB, memory_gib=39.4)
    assert len(alternatives(small)[0]) < len(alternatives(JOB)[0])
    planned = plan(JOB, layout=replace(LAYOUT, tensor_model_parallel_size=2, pipeline_model_parallel_size=8))
    assert misfit(JOB, planned) == []
    assert misfit(small, planned) == ["must fit into 33.4 GiB of a rank after the reserve, but needs more"]


def test_the_nearest_change_least() -> None:
    fitting, _ = alternatives(JOB)
    first, second = nearest(LAYOUT, fitting, count=2)
    assert first.layout == LAYOUT
    assert second.layout != LAYOUT
    assert nearest(LAYOUT, [], count=2) == []


def test_without_a_speed_layouts_are_ranked_by_work() -> None:
    planned = plan(replace(JOB, device=None), layout=LAYOUT)
    assert planned.time is None
    assert planned.cost == (planned.work, planned.peak)
    fused = plan(JOB, layout=LAYOUT)
    assert fused.peak < planned.peak
    assert fused.cost[0] == pytest.approx(fused.time.step if fused.time else 0)
    assert fused.peak / GIB < 79.1

"""The whole training in words: what each layout comes to, dates only where there is a begin, nothing without a time."""

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from jobs._campaign import Terms, campaign, in_words, metrics
from parallelism.cost.devices import DEVICES
from parallelism.layout import Layout
from parallelism.planner import Job, plan
from parallelism.presets import preset

LAYOUT = Layout(
    world_size=64, global_batch_size=128, seq_length=4096, tensor_model_parallel_size=8, sequence_parallel=True
)
JOB = Job(
    shape=preset("dense_7b"),
    vocab_size=32_768,
    precision="bf16",
    layout=LAYOUT,
    gpus_per_node=8,
    memory_gib=79.1,
    reserve_gib=6,
    device=DEVICES["h100"],
)
TERMS = Terms(
    train_iters=100_000,
    save_interval=500,
    storage_gb_per_s=10,
    stall_s=None,
    restart_s=900,
    failures_per_gpu_day=5e-4,
    watts=None,
    pue=1.3,
)
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_training_is_told_without_dates_where_it_has_no_begin() -> None:
    found = campaign(JOB, plan(JOB, layout=LAYOUT), terms=TERMS)
    assert found
    words = in_words([found, None], terms=TERMS)
    assert words["steps"] == ["100,000", "-"]
    assert words["best save_interval"][0].endswith("; the run's is 500")
    assert not any("finish" in name or "in time" in name for name in words)
    assert found.own_goodput
    assert found.own_goodput < found.goodput, "no other interval wastes less"
    size = 14 * JOB.shape.parameters(32_768) / 1e9
    assert words["a checkpoint"][0] == f"{size:.3g} GB, {size / 10:.3g} s to write; waited for {size / 10:.3g} s"
    assert words["goodput"][0].endswith(" with the run's save_interval")
    assert words["energy"][0].endswith(" MWh (910 W a GPU, building included)")
    step = metrics(found)["campaign/days"] * 86_400 / 100_000 * found.goodput
    planned = plan(JOB, layout=LAYOUT).time
    assert planned
    assert step == pytest.approx(planned.step)


def test_a_deadline_is_met_until_the_end_of_its_day() -> None:
    planned = plan(JOB, layout=LAYOUT)
    begun = replace(TERMS, start=START, train_iters=1_000_000)
    found = campaign(JOB, planned, terms=begun)
    assert found
    assert in_words([found], terms=begun)["finish, if started now"][0].startswith(f"{found.finish:%Y-%m-%d} (")
    for day, chance in ((found.finish_high.date(), 1.0), (date(2026, 3, 2), 0.0)):
        terms = replace(begun, deadline=day)
        judged = campaign(JOB, planned, terms=terms)
        assert judged
        assert judged.in_time == pytest.approx(chance, abs=0.06)
        (told,) = in_words([judged], terms=terms)[f"in time for {day}"]
        assert told.startswith("with a probability of ")


def test_more_power_and_more_failures_cost_more() -> None:
    planned = plan(JOB, layout=LAYOUT)
    usual = metrics(campaign(JOB, planned, terms=TERMS))
    worse = metrics(campaign(JOB, planned, terms=replace(TERMS, watts=1200, failures_per_gpu_day=5e-3)))
    assert worse["campaign/energy_mwh"] > usual["campaign/energy_mwh"] * 1200 / 700
    lasting = replace(TERMS, train_iters=100_000_000)
    assert in_words([campaign(JOB, planned, terms=lasting)], terms=lasting)["energy"][0].startswith("1,"), "no exponent"
    assert worse["campaign/goodput"] < usual["campaign/goodput"]
    assert worse["campaign/checkpoint_interval_steps"] < usual["campaign/checkpoint_interval_steps"]


def test_without_a_time_nothing_is_told() -> None:
    on_a_cpu = replace(JOB, device=None)
    found = campaign(on_a_cpu, plan(on_a_cpu, layout=LAYOUT), terms=TERMS)
    assert found is None
    assert in_words([found], terms=TERMS) == {}
    assert metrics(found) == {}

"""A step's time: what each part is made of, worked out by hand, and that a planner can ask for thousands."""

import time
from dataclasses import fields, replace

import pytest

from parallelism.cost.devices import DEVICES
from parallelism.cost.flops import stage_flops
from parallelism.cost.network import Group, Links, groups, seconds
from parallelism.cost.roofline import SPEEDS, stage_works
from parallelism.cost.time import MEGATRON, Time, step_time
from parallelism.cost.traffic import Traffic
from parallelism.layout import Layout
from parallelism.presets import preset

SHAPE, VOCAB, DEVICE = preset("dense_32b"), 152_064, DEVICES["h100"]
LAYOUT = Layout(
    world_size=256,
    global_batch_size=256,
    seq_length=4096,
    tensor_model_parallel_size=8,
    pipeline_model_parallel_size=4,
    sequence_parallel=True,
)
LINKS = Links(node=0.5, network=0.5, call_s=1e-5)


def predicted(layout: Layout = LAYOUT, **settings: object) -> Time:
    return step_time(SHAPE, layout=layout, vocab_size=VOCAB, device=DEVICE, **settings)  # type: ignore[arg-type]


def test_parts_add_up_to_the_step() -> None:
    found = predicted()
    assert sum(getattr(found, field.name) for field in fields(found)) == pytest.approx(found.step)


def test_a_measured_efficiency_replaces_the_roofline() -> None:
    slow, fast = predicted(efficiency=0.5), predicted(efficiency=0.6)
    assert fast.compute == pytest.approx(slow.compute * 0.5 / 0.6)
    assert fast.step < slow.step
    flops = stage_flops(SHAPE, layout=LAYOUT, vocab_size=VOCAB)
    assert slow.compute == pytest.approx(max(flops) / (989e12 * 0.5))
    assert slow.moving == 0


def test_bubble_is_the_other_stages_once() -> None:
    """Three other stages, a little less busy than the last, for one microbatch each; half of it with two chunks."""
    found = predicted()
    busy = found.compute + found.moving + found.tensor_parallel + found.pipeline_sends
    assert 0.85 < found.bubble / (busy / LAYOUT.num_microbatches * 3) < 1
    chunks = predicted(replace(LAYOUT, virtual_pipeline_model_parallel_size=2))
    assert chunks.bubble == pytest.approx(found.bubble / 2, rel=0.01)
    assert chunks.pipeline_sends > found.pipeline_sends


def test_matmuls_are_at_their_share_of_the_peak() -> None:
    """One layer of the 32B model on one rank: 6 x parameters x tokens at the peak, 3.5 forward passes of attention."""
    layout = Layout(world_size=1, global_batch_size=1, seq_length=4096)
    speed = SPEEDS["hopper"]
    one, two = (
        stage_works(replace(SHAPE, num_layers=layers), layout=layout, vocab_size=VOCAB, device=DEVICE, speed=speed)[0]
        for layers in (1, 2)
    )
    weights = 6 * SHAPE.layer_matmul_parameters(0) * 4096 / (989e12 * speed.matmul["bf16"])
    attention = 3.5 * 2 * SHAPE.attention_size * 4096 * 4096 / (989e12 * speed.attention)
    assert two.compute - one.compute == pytest.approx(weights + attention)


def test_recomputation_repeats_the_forward_pass() -> None:
    plain, selective, full = (
        predicted(replace(LAYOUT, recompute_granularity=policy)) for policy in (None, "selective", "full")
    )
    assert plain.step < selective.step < full.step
    assert full.compute / plain.compute == pytest.approx(4 / 3, abs=0.06)


def test_smaller_pieces_are_less_efficient() -> None:
    """The same work in more, smaller matmuls moves more memory, and no less time is spent computing."""
    big = predicted(Layout(world_size=8, global_batch_size=32, seq_length=4096, micro_batch_size=4))
    small = predicted(Layout(world_size=8, global_batch_size=32, seq_length=4096))
    assert small.compute == pytest.approx(big.compute)
    assert small.moving > 1.1 * big.moving


def test_narrow_matmuls_are_faster_but_not_twice() -> None:
    assert 0.5 < predicted(matmul="fp8").step / predicted().step < 0.9
    with pytest.raises(ValueError, match="matmul must be a format that the device computes in, but it has no fp4"):
        predicted(matmul="fp4")


def test_experts_cost_their_tokens_and_their_exchange() -> None:
    shape = preset("gravity_16b_a3b")
    layout = Layout(world_size=64, global_batch_size=256, seq_length=4096, expert_model_parallel_size=8)
    near, far = (step_time(shape, layout=layout, vocab_size=VOCAB, device=DEVICE, node_gpus=gpus) for gpus in (8, 4))
    assert near.expert_parallel > 0
    assert far.expert_parallel > 2 * near.expert_parallel
    assert near.moving == far.moving


def test_context_parallel_shares_a_long_sequence() -> None:
    long = Layout(world_size=8, global_batch_size=8, seq_length=32_768, context_parallel_size=8)
    found = predicted(long)
    assert found.context_parallel > 0
    assert found.compute == pytest.approx(predicted(replace(long, context_parallel_size=1)).compute, rel=0.01)


def test_gradients_travel_behind_the_last_microbatch() -> None:
    layout = Layout(world_size=64, global_batch_size=64, seq_length=4096)
    hidden, waited = predicted(layout), predicted(layout, stack=replace(MEGATRON, data=0.0))
    assert hidden.data_parallel < waited.data_parallel
    sharded = predicted(replace(layout, global_batch_size=256), shard_parameters=True)
    assert sharded.data_parallel > predicted(replace(layout, global_batch_size=256)).data_parallel


def test_groups_of_ranks_and_their_places() -> None:
    """Tensor 8 fills a node of 8: data parallel neighbours are in 8 nodes, pipeline neighbours too."""
    found = groups(LAYOUT, node_gpus=8)
    assert found["tensor"] == Group(ranks=8, near=8)
    assert found["data"] == Group(ranks=8, near=1)
    assert found["pipeline"] == Group(ranks=4, near=1)
    narrow = groups(replace(LAYOUT, tensor_model_parallel_size=2), node_gpus=8)
    assert narrow["data"] == Group(ranks=32, near=4)


def test_seconds_of_an_exchange() -> None:
    """Half of 450 GB/s in a node; half of 50 between nodes, times the members that a node has."""

    def took(operation: str, *, ranks: int, near: int) -> float:
        item = Traffic(group="data", operation=operation, calls=1, bytes=8_000_000_000)
        return seconds(item, group=Group(ranks=ranks, near=near), device=DEVICE, links=LINKS) - LINKS.call_s

    assert took("all-gather", ranks=8, near=8) == pytest.approx(7 / 225)
    assert took("all-reduce", ranks=8, near=8) == pytest.approx(14 / 225)
    assert took("all-gather", ranks=8, near=1) == pytest.approx(7 / 25)
    assert took("reduce-scatter", ranks=16, near=8) == pytest.approx(7.5 / 200)
    assert took("send", ranks=4, near=1) == pytest.approx(8 / 25)
    assert took("all-to-all", ranks=16, near=8) == pytest.approx(4 / 25)  # half of it is for the other node
    receive = Traffic(group="pipeline", operation="receive", calls=1, bytes=8)
    assert seconds(receive, group=Group(ranks=2, near=1), device=DEVICE, links=LINKS) == 0


def test_devices_are_as_their_data_sheets_say() -> None:
    assert DEVICES["h100"].matmul_tflops("fp8") == 1979
    assert DEVICES["a100_40gb"].hbm_gb_per_s == 1555
    assert DEVICES["gb300"].node_gpus == 72
    assert all(SPEEDS[device.family].matmul["bf16"] < 1 for device in DEVICES.values())
    assert all(device.watts > 0 for device in DEVICES.values())


def test_thousands_of_layouts_in_seconds() -> None:
    """A planner asks for 20,000; measured 110 µs each, so ten times that is a mistake."""
    layouts = [
        replace(
            LAYOUT,
            global_batch_size=2048,
            micro_batch_size=micro,
            tensor_model_parallel_size=tensor,
            pipeline_model_parallel_size=stages,
        )
        for micro in (1, 2, 4, 8)
        for tensor in (1, 2, 4, 8)
        for stages in (1, 2, 4, 8)
    ]
    begin = time.perf_counter()
    for layout in layouts:
        predicted(layout)
    assert (time.perf_counter() - begin) / len(layouts) < 1.1e-3

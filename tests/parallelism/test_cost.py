"""Memory and FLOPs against measurements: a 32B model on 256 ranks."""

from dataclasses import replace
from typing import Any

import pytest

from parallelism.cost.flops import stage_flops, step_flops
from parallelism.cost.kernels import Kernels
from parallelism.cost.memory import GIB, stage_memory, stage_parameters
from parallelism.cost.waiting import chunks_in_flight
from parallelism.layout import Layout
from parallelism.presets import preset

SHAPE, VOCAB = preset("dense_32b"), 152_064
LAYOUT = Layout(
    world_size=256,
    global_batch_size=256,
    seq_length=4096,
    tensor_model_parallel_size=8,
    pipeline_model_parallel_size=4,
    sequence_parallel=True,
)

# Measured by running Megatron's own model, 1F1B schedule, gradient buffers and distributed optimizer on tensors
# without storage, every allocation counted, with norms and SwiGLU made of separate operations: (parameters, state GiB,
# activations GiB) of each pipeline stage.
KERNELS = Kernels(norm_tensors=1, norm_fp32=2, mlp_tensors=5, own_tables=True, boundaries=2)
STAGES = [
    (1_072_674_816, 7.49, 13.11),
    (975_353_856, 6.81, 9.89),
    (975_353_856, 6.81, 6.64),
    (1_072_679_936, 7.49, 3.75),
]
# The same for the first stage of other layouts: peak in GiB.
VARIANTS: list[tuple[dict[str, Any], float]] = [
    ({"recompute_granularity": "full"}, 8.18),
    ({"virtual_pipeline_model_parallel_size": 2}, 25.5),
    ({"sequence_parallel": False}, 42.7),
    ({"tensor_model_parallel_size": 4, "pipeline_model_parallel_size": 8}, 34.1),
    ({"pipeline_model_parallel_size": 2}, 26.0),
    ({"pipeline_model_parallel_size": 8, "virtual_pipeline_model_parallel_size": 4}, 21.2),
    ({"seq_length": 8192}, 33.7),
]


def test_parameters_of_every_stage_are_exact() -> None:
    found = stage_parameters(SHAPE, layout=LAYOUT, vocab_size=VOCAB)
    assert found == [parameters for parameters, _, _ in STAGES]


def test_one_rank_holds_the_whole_model_once() -> None:
    for name in ("demo", "dense_1b", "dense_7b", "dense_32b"):
        shape = preset(name)
        layout = Layout(world_size=1, global_batch_size=1, seq_length=128)
        assert stage_parameters(shape, layout=layout, vocab_size=4096) == [shape.parameters(4096)]


def test_shared_tables_are_copied_to_the_last_stage() -> None:
    shape = preset("dense_1b")
    layout = Layout(world_size=2, global_batch_size=2, seq_length=128, pipeline_model_parallel_size=2)
    assert (
        sum(stage_parameters(shape, layout=layout, vocab_size=4096))
        == shape.parameters(4096) + 4096 * shape.hidden_size
    )


def test_state_and_activations_of_every_stage() -> None:
    memories = stage_memory(SHAPE, layout=LAYOUT, vocab_size=VOCAB, kernels=KERNELS)
    for memory, (_, state, activations) in zip(memories, STAGES, strict=True):
        assert memory.state / GIB == pytest.approx(state, abs=0.005)  # As exact as the measurement was printed.
        assert (memory.activations + memory.buffers) / GIB == pytest.approx(activations, rel=0.0025)


@pytest.mark.parametrize(("change", "peak"), VARIANTS)
def test_peak_of_the_first_stage_in_other_layouts(change: dict[str, Any], peak: float) -> None:
    memory = stage_memory(SHAPE, layout=replace(LAYOUT, **change), vocab_size=VOCAB, kernels=KERNELS)[0]
    assert memory.total / GIB == pytest.approx(peak, rel=0.005)


def test_optimizer_and_precision_change_the_state() -> None:
    count = STAGES[0][0]
    plain = replace(LAYOUT, use_distributed_optimizer=False)
    assert stage_memory(SHAPE, layout=plain, vocab_size=VOCAB)[0].state == 18 * count
    assert stage_memory(SHAPE, layout=LAYOUT, vocab_size=VOCAB, precision="fp32")[0].state == 9 * count


def test_forward_passes_in_flight() -> None:
    assert [chunks_in_flight(LAYOUT, stage=stage) for stage in range(4)] == [4, 3, 2, 1]
    assert chunks_in_flight(replace(LAYOUT, global_batch_size=16), stage=0) == 2
    assert chunks_in_flight(replace(LAYOUT, virtual_pipeline_model_parallel_size=2), stage=0) == 11


def test_matmul_flops_of_one_rank_are_the_counted_ones() -> None:
    """The measured step counted 766.9e12 matmul FLOPs on rank 0, attention's own products left out."""
    attention = 6 * 16 * SHAPE.attention_size * 4096 * (32 * 4096) // 8
    found = stage_flops(SHAPE, layout=LAYOUT, vocab_size=VOCAB)[0] - attention
    assert found / 1e12 == pytest.approx(766.9, abs=0.05)


def test_ranks_together_do_the_step() -> None:
    ranks = LAYOUT.world_size // LAYOUT.pipeline_model_parallel_size
    assert ranks * sum(stage_flops(SHAPE, layout=LAYOUT, vocab_size=VOCAB)) == step_flops(
        SHAPE, layout=LAYOUT, vocab_size=VOCAB
    )
    again = stage_flops(SHAPE, layout=replace(LAYOUT, recompute_granularity="full"), vocab_size=VOCAB)
    assert again[0] * 3 == stage_flops(SHAPE, layout=LAYOUT, vocab_size=VOCAB)[0] * 4

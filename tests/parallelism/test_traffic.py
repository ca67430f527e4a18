"""What ranks exchange: as counted on real models, and worked out by hand for what our trainer does not do."""

from dataclasses import replace
from typing import Any

import pytest

from parallelism.cost.memory import GIB, stage_parameters
from parallelism.cost.traffic import stage_traffic
from parallelism.layout import Layout
from parallelism.presets import preset

LAYOUT = Layout(
    world_size=256,
    global_batch_size=256,
    seq_length=4096,
    tensor_model_parallel_size=8,
    pipeline_model_parallel_size=4,
    sequence_parallel=True,
)

# Counted by running Megatron's own model, schedule and optimizer on tensors without storage, bf16, 16 samples of 128
# tokens, 512 words: layout, stage, and (calls, bytes of whole tensors) of every exchange but single numbers.
COUNTED: list[tuple[str, dict[str, Any], int, dict[tuple[str, str], tuple[int, int]]]] = [
    (
        "demo",
        {"world_size": 4, "tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2},
        1,
        {
            ("pipeline", "receive"): (16, 262_144),
            ("pipeline", "send"): (16, 262_144),
            ("tensor", "all-gather"): (224, 7_340_032),
            ("tensor", "all-reduce"): (49, 27_136),
            ("tensor", "reduce-scatter"): (144, 4_718_592),
        },
    ),
    (
        "demo",
        {
            "world_size": 8,
            "tensor_model_parallel_size": 2,
            "context_parallel_size": 2,
            "recompute_granularity": "full",
        },
        0,
        {
            ("context", "all-gather"): (64, 1_048_576),
            ("context", "reduce-scatter"): (32, 524_288),
            ("data", "all-gather"): (1, 919_808),
            ("data", "reduce-scatter"): (1, 1_839_616),
            ("tensor", "all-gather"): (280, 4_587_520),
            ("tensor", "all-reduce"): (25, 10_752),
            ("tensor", "reduce-scatter"): (208, 3_407_872),
        },
    ),
    (
        "demo_moe",
        {"world_size": 8, "tensor_model_parallel_size": 2, "expert_model_parallel_size": 2},
        0,
        {
            ("data", "all-gather"): (1, 702_208),
            ("data", "reduce-scatter"): (1, 1_404_416),
            ("expert", "all-gather"): (12, 768),
            ("expert", "all-to-all"): (72, 1_585_152),
            ("expert_data", "all-gather"): (1, 589_824),
            ("expert_data", "reduce-scatter"): (1, 1_179_648),
            ("tensor", "all-gather"): (220, 5_832_704),
            ("tensor", "all-reduce"): (13, 17_920),
            ("tensor", "reduce-scatter"): (120, 3_211_264),
        },
    ),
    (
        "demo_moe",
        {
            "world_size": 8,
            "pipeline_model_parallel_size": 2,
            "expert_model_parallel_size": 4,
            "recompute_granularity": "selective",
        },
        1,
        {
            ("data", "all-gather"): (1, 601_600),
            ("data", "reduce-scatter"): (1, 1_203_200),
            ("expert", "all-gather"): (16, 2048),
            ("expert", "all-to-all"): (72, 3_170_304),
            ("pipeline", "receive"): (4, 131_072),
            ("pipeline", "send"): (4, 131_072),
        },
    ),
    (
        "demo_moe",
        {
            "world_size": 4,
            "context_parallel_size": 2,
            "expert_model_parallel_size": 2,
            "recompute_granularity": "full",
        },
        0,
        {
            ("context", "all-gather"): (64, 5_242_880),
            ("context", "reduce-scatter"): (32, 2_621_440),
            ("data", "all-gather"): (1, 1_398_528),
            ("data", "reduce-scatter"): (1, 2_797_056),
            ("expert", "all-gather"): (48, 3072),
            ("expert", "all-to-all"): (216, 4_755_456),
            ("expert_data", "all-gather"): (1, 589_824),
            ("expert_data", "reduce-scatter"): (1, 1_179_648),
        },
    ),
    (
        "smollm2_135m",
        {"world_size": 2, "pipeline_model_parallel_size": 2},
        0,
        {
            ("embedding", "all-reduce"): (1, 1_179_648),
            ("pipeline", "receive"): (16, 2_359_296),
            ("pipeline", "send"): (16, 2_359_296),
        },
    ),
    (
        "demo",
        {"world_size": 4, "tensor_model_parallel_size": 2, "sequence_parallel": False},
        0,
        {
            ("data", "all-gather"): (1, 919_808),
            ("data", "reduce-scatter"): (1, 1_839_616),
            ("tensor", "all-reduce"): (168, 4_730_880),
        },
    ),
]


@pytest.mark.parametrize(("name", "sizes", "stage", "counted"), COUNTED)
def test_every_exchange_is_the_counted_one(
    name: str, sizes: dict[str, Any], stage: int, counted: dict[tuple[str, str], tuple[int, int]]
) -> None:
    wide = sizes.get("tensor_model_parallel_size", 1) > 1
    layout = Layout(global_batch_size=16, seq_length=128, **{"sequence_parallel": wide, **sizes})
    traffic = stage_traffic(preset(name), layout=layout, vocab_size=512, stage=stage)
    assert {(item.group, item.operation): (item.calls, item.bytes) for item in traffic} == counted


def test_traffic_of_a_32b_step_is_the_counted_one() -> None:
    found = {
        (item.group, item.operation): item
        for item in stage_traffic(preset("dense_32b"), layout=LAYOUT, vocab_size=152_064, stage=0)
    }
    assert found["tensor", "all-gather"].calls == 3104
    assert found["tensor", "reduce-scatter"].calls == 2080
    assert found["pipeline", "send"].calls == found["pipeline", "receive"].calls == 32
    gib = {key: item.bytes / GIB for key, item in found.items()}
    assert gib["tensor", "all-gather"] == pytest.approx(121.3, abs=0.06)
    assert gib["tensor", "reduce-scatter"] == pytest.approx(81.3, abs=0.06)
    assert gib["pipeline", "send"] == pytest.approx(0.156, abs=0.001)
    assert gib["data", "reduce-scatter"] == pytest.approx(4.0, abs=0.01)
    assert gib["data", "all-gather"] == pytest.approx(2.0, abs=0.01)


def test_one_rank_exchanges_nothing() -> None:
    layout = Layout(world_size=1, global_batch_size=1, seq_length=128)
    assert stage_traffic(preset("demo"), layout=layout, vocab_size=512, stage=0) == []
    plain = replace(
        layout,
        world_size=4,
        global_batch_size=2,
        tensor_model_parallel_size=2,
        use_distributed_optimizer=False,
    )
    kinds = [
        (item.group, item.operation) for item in stage_traffic(preset("demo"), layout=plain, vocab_size=512, stage=0)
    ]
    assert kinds == [("tensor", "all-reduce"), ("data", "all-reduce")]


def test_latent_attention_without_sequence_parallel() -> None:
    """Forward sums the output and gathers the latent; backward sums the inputs of three matmuls and the rotated key."""
    shape = replace(preset("demo_moe"), experts=None)
    layout = Layout(world_size=2, global_batch_size=1, seq_length=128, tensor_model_parallel_size=2)
    found = {item.operation: item for item in stage_traffic(shape, layout=layout, vocab_size=512, stage=0)}
    assert found["all-gather"].calls == 4
    assert found["all-gather"].bytes == 4 * (64 + 16) * 128 * 2
    layers = 4 * (1 + 2 + 1 + 1 + 2)  # the output; queries and latent; the way up; the rotated key; the MLP
    assert found["all-reduce"].calls == layers + 2 + 3
    widths = 4 * (5 * 128 + 64 + 16) + 2 * 128
    assert found["all-reduce"].bytes == widths * 128 * 2 + 3 * 128 * 4


def test_sharded_parameters_travel_with_every_microbatch() -> None:
    shape = preset("demo")
    layout = Layout(world_size=4, global_batch_size=16, seq_length=128)
    count = stage_parameters(shape, layout=layout, vocab_size=512)[0]
    gradients, parameters = stage_traffic(shape, layout=layout, vocab_size=512, stage=0, shard_parameters=True)
    assert (gradients.operation, gradients.calls, gradients.bytes) == ("reduce-scatter", 4, 4 * 4 * count)
    assert (parameters.operation, parameters.calls, parameters.bytes) == ("all-gather", 8, 8 * 2 * count)

"""Layouts: what the sizes imply, every refusal's text, all of them at once."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelism.layout import Layout, divisors, problems, warnings
from parallelism.presets import preset

SHAPE = preset("dense_32b")
LAYOUT = Layout(
    world_size=256,
    global_batch_size=256,
    seq_length=4096,
    tensor_model_parallel_size=8,
    pipeline_model_parallel_size=4,
    sequence_parallel=True,
)


def test_computed_sizes() -> None:
    assert (LAYOUT.data_parallel_size, LAYOUT.num_microbatches, LAYOUT.num_model_chunks) == (8, 32, 1)
    assert LAYOUT.bubble_fraction == pytest.approx(3 / 35)
    assert replace(LAYOUT, virtual_pipeline_model_parallel_size=4).bubble_fraction == pytest.approx(3 / 131)
    assert problems(SHAPE, layout=LAYOUT, vocab_size=152_064) == []


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"micro_batch_size": 0}, "micro_batch_size 0 must be at least 1; use 1 or more"),
        (
            {"tensor_model_parallel_size": 16, "pipeline_model_parallel_size": 2},
            "tensor_model_parallel_size 16 must divide num_attention_heads 40; use 1, 2, 4, 5 or 8",
        ),
        (
            {"tensor_model_parallel_size": 16, "pipeline_model_parallel_size": 2},
            "tensor_model_parallel_size 16 must divide num_query_groups 8; use 1, 2, 4 or 8",
        ),
        (
            {"tensor_model_parallel_size": 5},
            "tensor_model_parallel_size 5 must divide ffn_hidden_size 27648; use 1, 2, 3, 4 or 6",
        ),
        (
            {"tensor_model_parallel_size": 5},
            "tensor_model_parallel_size 5 must divide the padded vocabulary 152064; use 1, 2, 3, 4 or 6",
        ),
        (
            {"pipeline_model_parallel_size": 3},
            "pipeline_model_parallel_size 3 must divide num_layers 64; use 1, 2, 4, 8 or 16",
        ),
        (
            {"virtual_pipeline_model_parallel_size": 3},
            "pipeline_model_parallel_size 4 x virtual 3 = 12 must divide num_layers 64; use 1, 2, 4, 8 or 16",
        ),
        (
            {"world_size": 250},
            "world_size 250 must be a multiple of tensor 8 x pipeline 4 x context 1 = 32; use 224 or 256",
        ),
        (
            {"world_size": 16},
            "world_size 16 must be a multiple of tensor 8 x pipeline 4 x context 1 = 32; use 32",
        ),
        (
            {"global_batch_size": 100},
            (
                "global_batch_size 100 must be a multiple of micro_batch_size 1 x data_parallel_size 8 = 8; "
                "use 96 or 104"
            ),
        ),
        (
            {"pipeline_model_parallel_size": 1, "virtual_pipeline_model_parallel_size": 2},
            (
                "virtual_pipeline_model_parallel_size 2 needs pipeline_model_parallel_size above 1, which is 1; "
                "leave it out"
            ),
        ),
        (
            {"virtual_pipeline_model_parallel_size": 2, "global_batch_size": 264},
            (
                "num_microbatches 33 must be a multiple of pipeline_model_parallel_size "
                "(for virtual pipeline stages) 4; use 32 or 36"
            ),
        ),
        (
            {"seq_length": 262_144},
            "seq_length 262144 must be at most the model's max_position_embeddings; use 131072",
        ),
        (
            {"seq_length": 4100, "context_parallel_size": 4},
            "seq_length 4100 must be a multiple of 2 x context_parallel_size = 8; use 4096 or 4104",
        ),
        (
            {"tensor_model_parallel_size": 1},
            "sequence_parallel needs tensor_model_parallel_size above 1, which is 1; leave it out",
        ),
        (
            {"seq_length": 4100},
            ("seq_length 4100 must be a multiple of context x tensor (sequence_parallel) = 8; use 4096 or 4104"),
        ),
    ],
)
def test_each_refusal_says_what_to_use(change: dict[str, Any], refusal: str) -> None:
    assert refusal in problems(SHAPE, layout=replace(LAYOUT, **change), vocab_size=152_064)


@pytest.mark.parametrize(
    ("change", "refusals"),
    [
        ({"expert_model_parallel_size": 64}, []),  # over ranks of tensor, context and data parallel alike
        (
            {"expert_model_parallel_size": 3},
            [
                "expert_model_parallel_size 3 must divide num_moe_experts 64; use 1, 2, 4, 8 or 16",
                "expert_model_parallel_size 3 must divide the ranks of a pipeline stage 64; use 1, 2, 4, 8 or 16",
            ],
        ),
        (
            {"expert_model_parallel_size": 64, "world_size": 128},
            ["expert_model_parallel_size 64 must divide the ranks of a pipeline stage 32; use 1, 2, 4, 8 or 16"],
        ),
        (
            {"expert_model_parallel_size": 8, "world_size": 250},  # no stage has 62.5 ranks
            ["world_size 250 must be a multiple of tensor 8 x pipeline 4 x context 1 = 32; use 224 or 256"],
        ),
        (
            {"sequence_parallel": False},
            [
                (
                    "sequence_parallel must be true for a model with experts and tensor_model_parallel_size 8, "
                    "but is false; set it"
                )
            ],
        ),
    ],
)
def test_experts_lie_whole_on_ranks_of_a_stage(change: dict[str, Any], refusals: list[str]) -> None:
    assert problems(preset("gravity_16b_a3b"), layout=replace(LAYOUT, **change)) == refusals


def test_only_a_model_with_experts_spreads_them() -> None:
    (refusal,) = problems(SHAPE, layout=replace(LAYOUT, expert_model_parallel_size=2))
    expected = "expert_model_parallel_size 2 needs a model with experts, which this one has not; leave it out"
    assert refusal == expected


def test_all_refusals_come_at_once() -> None:
    layout = replace(LAYOUT, tensor_model_parallel_size=3, pipeline_model_parallel_size=5, seq_length=4097)
    found = problems(SHAPE, layout=layout, vocab_size=152_064)
    names = ("num_attention_heads", "num_query_groups", "num_layers", "world_size", "seq_length")
    assert len(found) == len(names)
    assert all(name in line for name, line in zip(names, found, strict=True))


def test_an_unfilled_pipeline_is_a_warning_with_its_bubble() -> None:
    layout = replace(LAYOUT, global_batch_size=16)
    assert problems(SHAPE, layout=layout) == []
    (warning,) = warnings(layout)
    assert warning == (
        "num_microbatches 2 is below pipeline_model_parallel_size 4: ranks wait 60% of each step; "
        "use a global_batch_size of 32 or more, or fewer stages"
    )
    assert warnings(LAYOUT) == []


@given(
    tensor=st.integers(1, 16),
    pipeline=st.integers(1, 16),
    context=st.integers(1, 4),
    world=st.integers(1, 512),
    batch=st.integers(1, 512),
)
def test_what_is_not_refused_divides_exactly(tensor: int, pipeline: int, context: int, world: int, batch: int) -> None:
    layout = Layout(
        world_size=world,
        global_batch_size=batch,
        seq_length=2048,
        tensor_model_parallel_size=tensor,
        pipeline_model_parallel_size=pipeline,
        context_parallel_size=context,
    )
    if problems(SHAPE, layout=layout):
        return
    assert layout.data_parallel_size * tensor * pipeline * context == world
    assert layout.num_microbatches * layout.data_parallel_size == batch
    assert SHAPE.num_layers % pipeline == SHAPE.num_query_groups % tensor == 0


def test_names_people_read() -> None:
    assert LAYOUT.describe() == "TP8 PP4 DP8 MBS1"
    long = replace(
        LAYOUT, virtual_pipeline_model_parallel_size=2, context_parallel_size=2, recompute_granularity="full"
    )
    assert long.describe() == "TP8 PP4 VP2 CP2 DP4 MBS1, full recompute"
    assert divisors(12) == [1, 2, 3, 4, 6, 12]

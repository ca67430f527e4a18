"""Candidates: all ranks and samples are used, nothing comes twice, and what cannot be comes once."""

from collections import Counter
from typing import Any

import pytest

from parallelism.candidates import MAX_RANK_TOKENS, MIN_CONTEXT_TOKENS, candidates
from parallelism.layout import Layout, problems
from parallelism.presets import preset

SIZES: dict[str, Any] = {"world_size": 64, "gpus_per_node": 8, "global_batch_size": 128, "seq_length": 4096}


def _cut(layout: Layout) -> tuple[int | None, ...]:
    return (
        layout.tensor_model_parallel_size,
        layout.pipeline_model_parallel_size,
        layout.virtual_pipeline_model_parallel_size,
        layout.context_parallel_size,
        layout.expert_model_parallel_size,
    )


@pytest.mark.parametrize("model", ["dense_32b", "gravity_16b_a3b"])
def test_every_candidate_without_problems_uses_all_ranks_and_all_samples(model: str) -> None:
    shape = preset(model)
    found = list(candidates(shape, **SIZES))
    sound = [layout for layout in found if not problems(shape, layout=layout)]
    assert 0 < len(sound) < len(found) == len(set(found))
    for layout in sound:
        assert layout.model_parallel_size * layout.data_parallel_size == 64
        assert layout.num_microbatches * layout.micro_batch_size * layout.data_parallel_size == 128
        assert layout.rank_tokens <= MAX_RANK_TOKENS
        assert layout.context_parallel_size == 1 or 4096 // layout.context_parallel_size >= MIN_CONTEXT_TOKENS
        assert layout.sequence_parallel == (layout.tensor_model_parallel_size > 1)


def test_a_cut_that_cannot_be_is_tried_once() -> None:
    shape = preset("gravity_16b_a3b")
    found = list(candidates(shape, **SIZES))
    times = Counter(_cut(layout) for layout in found)
    never = [layout for layout in found if layout.pipeline_model_parallel_size == 8]  # 28 layers
    assert never
    assert all(times[_cut(layout)] == 1 for layout in never)
    assert {layout.num_model_chunks for layout in never} == {1}


def test_all_kinds_of_parallelism_and_recomputation_are_tried() -> None:
    found = list(candidates(preset("gravity_16b_a3b"), **SIZES))
    assert {layout.expert_model_parallel_size for layout in found} == {1, 2, 4, 8, 16, 32, 64}
    assert {layout.context_parallel_size for layout in found} == {1, 2, 4}
    assert {layout.virtual_pipeline_model_parallel_size for layout in found} == {None, 2, 7, 14}
    assert {layout.recompute_granularity for layout in found} == {None, "selective", "full"}
    assert {layout.micro_batch_size for layout in found} == {1, 2, 4, 8, 16, 32}
    assert {layout.expert_model_parallel_size for layout in candidates(preset("dense_7b"), **SIZES)} == {1}


def test_a_sequence_longer_than_all_tokens_of_a_rank_is_tried_alone() -> None:
    found = list(candidates(preset("dense_32b"), **{**SIZES, "seq_length": 131_072}))
    assert {layout.micro_batch_size for layout in found if layout.context_parallel_size == 1} == {1}
    assert max(layout.context_parallel_size for layout in found) == 64

"""Presets: parameter counts against published ones, and a misspelt name."""

import pytest

from parallelism.presets import PRESETS, VOCAB_SIZES, padded_vocab_size, preset

PUBLISHED = {
    "gravity_16b_a3b": 16_242_180_096,  # the published shards hold these and the 1,728 biases of the routers
    "tri_21b": 20_725_519_360,  # 20.73B on its card
    "dense_32b": 32_763_876_352,  # Qwen2.5 32B
    "dense_7b": 7_248_023_552,  # Mistral 7B v0.3
    "dense_1b": 1_235_814_400,  # Llama 3.2 1B
    "smollm2_135m": 134_515_008,  # SmolLM2 135M
    "cell_368m": 368_144_384,  # 368M in its paper
    "demo": 1_508_480,
    "demo_moe": 1_878_912,
}


@pytest.mark.parametrize("name", PRESETS)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    assert preset(name).parameters(VOCAB_SIZES[name]) == PUBLISHED[name]


def test_of_the_mixture_of_experts_3_16b_work_on_a_token() -> None:
    shape = preset("gravity_16b_a3b")
    assert shape.parameters(VOCAB_SIZES["gravity_16b_a3b"], active=True) == 3_162_243_072
    assert shape.buffers == 1728


def test_heads_fill_the_hidden_size_and_split_over_groups() -> None:
    for shape in PRESETS.values():
        assert shape.attention_size == shape.hidden_size
        assert shape.num_attention_heads % shape.num_query_groups == 0


def test_a_misspelt_name_gets_the_nearest_one() -> None:
    with pytest.raises(
        ValueError, match=r"^model must be a named size, but 'dense_32' is not one; did you mean dense_32b\?$"
    ):
        preset("dense_32")
    with pytest.raises(ValueError, match=r"'xyz' is not one; use one of demo, demo_moe, smollm2_135m, "):
        preset("xyz")


def test_the_vocabulary_is_padded_alike_under_every_layout() -> None:
    assert [padded_vocab_size(size) for size in (1, 128, 129, 152_064)] == [128, 128, 256, 152_064]

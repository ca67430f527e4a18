"""Presets: parameter counts against published ones, and a misspelt name."""

import pytest

from parallelism.presets import PRESETS, padded_vocab_size, preset


@pytest.mark.parametrize(
    ("name", "vocab_size", "parameters"),
    [
        ("dense_32b", 152_064, 32_763_876_352),  # Qwen2.5 32B
        ("dense_7b", 32_768, 7_248_023_552),  # Mistral 7B v0.3
        ("dense_1b", 128_256, 1_235_814_400),  # Llama 3.2 1B
        ("demo", 4096, 1_836_160),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, vocab_size: int, parameters: int) -> None:
    assert preset(name).parameters(vocab_size) == parameters


def test_heads_fill_the_hidden_size_and_split_over_groups() -> None:
    for shape in PRESETS.values():
        assert shape.attention_size == shape.hidden_size
        assert shape.num_attention_heads % shape.num_query_groups == 0


def test_a_misspelt_name_gets_the_nearest_one() -> None:
    with pytest.raises(
        ValueError, match=r"^model must be a named size, but 'dense_32' is not one; did you mean dense_32b\?$"
    ):
        preset("dense_32")
    with pytest.raises(ValueError, match=r"'xyz' is not one; use one of demo, dense_1b, dense_7b, dense_32b$"):
        preset("xyz")


def test_the_vocabulary_is_padded_alike_under_every_layout() -> None:
    assert [padded_vocab_size(size) for size in (1, 128, 129, 152_064)] == [128, 128, 256, 152_064]

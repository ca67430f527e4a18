"""First weights: a pure function of the seed and of a weight's place in the whole model."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from parallelism import device, launch

device.prepare()

from parallelism import groups, model  # noqa: E402 - prepared above
from parallelism.layout import Layout  # noqa: E402
from parallelism.presets import ModelShape, padded_vocab_size, preset  # noqa: E402

pytestmark = pytest.mark.filterwarnings(r"ignore:::megatron\.")  # deprecations between its own parts


def build(shape: ModelShape, *, seed: int = 1, vocab_size: int = 300) -> dict[str, Tensor]:
    layout = Layout(world_size=1, global_batch_size=1, seq_length=32)
    with device.stand_in(), launch.joined(launch.place({})), groups.made(layout):
        (chunk,) = model.build(shape, layout=layout, precision="fp32", vocab_size=vocab_size, seq_length=32, seed=seed)
    return dict(chunk.named_parameters())


def test_matrices_are_normal_norms_are_one_and_biases_zero() -> None:
    shape = ModelShape(**{**vars(preset("demo")), "add_qkv_bias": True})
    weights = build(shape)
    deviation = math.sqrt(2 / (5 * shape.hidden_size))
    for name, weight in weights.items():
        if weight.ndim == 1:
            assert (weight == (0 if name.endswith("bias") else 1)).all(), name
            continue
        residual = "linear_proj" in name or "linear_fc2" in name
        expected = deviation / math.sqrt(2 * shape.num_layers) if residual else deviation
        assert weight.std().item() == pytest.approx(expected, rel=0.05), name
        assert abs(weight.mean().item()) < 0.02 * deviation, name
    assert sum(weight.numel() for weight in weights.values()) == shape.parameters(padded_vocab_size(300))


def test_layers_and_seeds_differ_and_one_seed_repeats() -> None:
    first, again, other = (build(preset("demo"), seed=seed) for seed in (1, 1, 2))
    name = "decoder.layers.{}.self_attention.linear_qkv.weight"
    assert not torch.equal(first[name.format(0)], first[name.format(1)])
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first[name.format(0)], other[name.format(0)])


@given(st.integers(1, 3000), st.integers(1, 6), st.data())
@settings(deadline=None, max_examples=25)
def test_a_part_of_a_weight_is_that_part_of_the_whole(rows: int, columns: int, draw: Any) -> None:
    whole = torch.empty(rows, columns)
    model._draw(whole, key="1/a", offsets=(0, 0), columns=columns, scale=1.0)
    top, left = draw.draw(st.integers(0, rows - 1)), draw.draw(st.integers(0, columns - 1))
    part = torch.empty(draw.draw(st.integers(1, rows - top)), draw.draw(st.integers(1, columns - left)))
    model._draw(part, key="1/a", offsets=(top, left), columns=columns, scale=1.0)
    assert torch.equal(part, whole[top : top + part.shape[0], left : left + part.shape[1]])


def test_a_larger_vocabulary_keeps_the_rows_it_had(tmp_path: Path) -> None:
    small, large = (build(preset("demo"), vocab_size=size) for size in (300, 600))
    name = "embedding.word_embeddings.weight"
    assert torch.equal(small[name], large[name][: len(small[name])])

"""FLOPs by convention, worked out by hand for a small model of each kind."""

import pytest

from parallelism.cost.flops import (
    CAUSAL,
    CONVENTIONS,
    FROZEN,
    HARDWARE_CAUSAL,
    HARDWARE_SQUARE,
    SQUARE,
    Convention,
    flops_per_token,
    layer_flops,
    step_flops,
)
from parallelism.layout import Layout
from parallelism.presets import VOCAB_SIZES, preset

DENSE = 128 * (8 * 32 + 128) + 3 * 128 * 384
"""Parameters of a layer of "demo": 4 heads and 2 groups of 32."""


@pytest.mark.parametrize(
    ("convention", "weights", "attention"),
    [(CAUSAL, 6, 6), (SQUARE, 6, 12), (HARDWARE_CAUSAL, 8, 8), (HARDWARE_SQUARE, 8, 16), (FROZEN, 4, 6)],
)
def test_a_layer_by_every_convention(convention: Convention, weights: int, attention: int) -> None:
    found = layer_flops(preset("demo"), 0, seq_length=1024, convention=convention)
    assert found == weights * DENSE + attention * 128 * 1024


def test_output_layer_is_not_recomputed() -> None:
    for convention, passes in ((HARDWARE_SQUARE, 6), (FROZEN, 4)):
        whole = flops_per_token(preset("demo"), seq_length=64, vocab_size=512, convention=convention)
        assert whole - 4 * layer_flops(preset("demo"), 0, seq_length=64, convention=convention) == passes * 512 * 128


def test_latent_attention_and_experts() -> None:
    """Queries of 48, keys and values from a latent of 64 and 16; two of four experts and one shared, each of 128."""
    shape = preset("demo_moe")
    latent = 128 * (4 * 48 + 4 * 32) + 128 * (64 + 16) + 64 * 4 * (32 + 32)
    attention = 3 * (4 * 48 + 4 * 32) * 256
    assert layer_flops(shape, 0, seq_length=256) == 6 * (latent + 3 * 128 * 384) + attention
    seen = 128 * 4 + 2 * 3 * 128 * 128 + 3 * 128 * 128
    assert layer_flops(shape, 1, seq_length=256) == 6 * (latent + seen) + attention
    whole = flops_per_token(shape, seq_length=256, vocab_size=512)
    assert whole == sum(layer_flops(shape, layer, seq_length=256) for layer in range(4)) + 6 * 512 * 128


def test_six_times_the_active_parameters() -> None:
    """3.16 billion of the 16 are active; attention adds its own."""
    shape, vocab_size = preset("gravity_16b_a3b"), VOCAB_SIZES["gravity_16b_a3b"]
    table = vocab_size * shape.hidden_size
    found = flops_per_token(shape, seq_length=0, vocab_size=vocab_size)
    assert found == pytest.approx(6 * (shape.parameters(vocab_size, active=True) - table), rel=1e-3)


def test_step_of_all_ranks() -> None:
    layout = Layout(world_size=2, global_batch_size=8, seq_length=64)
    per_token = flops_per_token(preset("demo"), seq_length=64, vocab_size=512, convention=SQUARE)
    assert step_flops(preset("demo"), layout=layout, vocab_size=500, convention=SQUARE) == 8 * 64 * per_token


def test_conventions_have_names() -> None:
    assert CONVENTIONS["model FLOPs, full square"] is SQUARE
    assert len(CONVENTIONS) == 5

"""Latent attention and experts: the same losses under every layout; what one saves continues under another."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from parallelism import device

device.prepare()

from megatron.core.transformer.multi_latent_attention import MLASelfAttention  # noqa: E402 - prepared above

from parallelism.latent import LatentAttention as OurLatentAttention  # noqa: E402
from parallelism.presets import Experts, LatentAttention, ModelShape  # noqa: E402

Start = Callable[..., Any]
LATENT = LatentAttention(kv_lora_rank=16, qk_head_dim=8, qk_pos_emb_head_dim=4, v_head_dim=8)
EXPERTS = Experts(num_moe_experts=4, moe_router_topk=2, moe_ffn_hidden_size=32, moe_shared_expert_intermediate_size=32)
TP2 = {"tensor_model_parallel_size": 2}
TP2_SP = {**TP2, "sequence_parallel": True}
PP2 = {"pipeline_model_parallel_size": 2}
EP2 = {"expert_model_parallel_size": 2}
LAYOUTS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "latent, TP2": ("latent", 2, TP2),
    "latent, TP2 with sequence parallel": ("latent", 2, TP2_SP),
    "experts, EP2": ("experts", 2, EP2),
    "experts, TP2 with sequence parallel, EP2, DP2": ("experts", 4, {**TP2_SP, **EP2}),
    "experts, recomputed": ("experts", 1, {"recompute_granularity": "selective"}),
    "both, TP2 with sequence parallel, PP2, EP2": ("both", 4, {**TP2_SP, **PP2, **EP2}),
    "both, PP2 with 2 chunks a stage, EP2": (
        "both",
        4,
        {**PP2, "virtual_pipeline_model_parallel_size": 2, **EP2},
    ),
}
TOLERANCE = 5e-6


@pytest.fixture(scope="module")
def shapes(small_shape: ModelShape) -> dict[str, ModelShape]:
    return {
        "latent": replace(small_shape, num_query_groups=4, latent=LATENT),
        "experts": replace(small_shape, experts=EXPERTS),
        "both": replace(small_shape, num_query_groups=4, latent=LATENT, experts=EXPERTS),
    }


@pytest.fixture(scope="module")
def alone(
    start_training: Start, shapes: dict[str, ModelShape], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[int, float]]:
    """The losses of each shape in one process."""
    attempts = {
        name: start_training(tmp_path_factory.mktemp(name), shape=shape, save_interval=4)
        for name, shape in shapes.items()
    }
    for attempt in attempts.values():
        attempt.wait()
    return {name: attempt.values() for name, attempt in attempts.items()}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_has_the_same_losses(
    name: str,
    start_training: Start,
    shapes: dict[str, ModelShape],
    alone: dict[str, dict[int, float]],
    tmp_path: Path,
) -> None:
    kind, world_size, sizes = LAYOUTS[name]
    attempt = start_training(tmp_path, shape=shapes[kind], world_size=world_size, **sizes)
    attempt.wait()
    losses = attempt.values()
    assert list(losses) == list(range(1, 9))
    assert max(abs(losses[step] - alone[kind][step]) for step in losses) < TOLERANCE


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_experts_continue_where_they_are_spread_otherwise(
    precision: str, start_training: Start, shapes: dict[str, ModelShape], tmp_path: Path
) -> None:
    """Weights, both optimizers' states and the routers' biases come back."""
    settings: dict[str, Any] = {"shape": shapes["both"], "precision": precision}
    whole = start_training(tmp_path / "whole", **settings)
    whole.wait()
    start_training(tmp_path / "first", world_size=4, train_iters=4, **PP2, **EP2, **settings).wait()
    again = start_training(tmp_path / "first", **settings)
    assert again.wait().resumed_from == 4
    allowed = 1e-6 if precision == "fp32" else 2e-3
    losses = again.values()
    assert all(losses[step] == pytest.approx(whole.values()[step], rel=allowed) for step in range(5, 9))


def test_the_same_layout_continues_bit_for_bit(
    start_training: Start, shapes: dict[str, ModelShape], tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"shape": shapes["both"], "world_size": 2, **EP2}
    whole = start_training(tmp_path / "whole", **settings)
    whole.wait()
    start_training(tmp_path / "first", train_iters=4, **settings).wait()
    again = start_training(tmp_path / "first", **settings)
    again.wait()
    assert again.values() == {step: loss for step, loss in whole.values().items() if step > 4}


def test_megatrons_own_way_still_loses_gradients(
    start_training: Start,
    shapes: dict[str, ModelShape],
    alone: dict[str, dict[int, float]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When this fails, Megatron sums the rotated key's gradient over all heads, and latent.py can go."""
    monkeypatch.setattr(OurLatentAttention, "_qkv_down_projection", MLASelfAttention._qkv_down_projection)
    attempt = start_training(tmp_path, shape=shapes["latent"], world_size=2, **TP2)
    attempt.wait()
    assert max(abs(loss - alone["latent"][step]) for step, loss in attempt.values().items()) > 100 * TOLERANCE

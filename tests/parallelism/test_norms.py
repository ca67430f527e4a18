"""Norms by layer: the same under every layout, and together the norm that is clipped by."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from parallelism import device

device.prepare()

from parallelism import norms as measured  # noqa: E402 - prepared above
from parallelism.presets import ModelShape  # noqa: E402

LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "DP2": (2, {}),
    "TP2xPP2": (4, {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2}),
    "TP2xDP2, sequence parallel": (4, {"tensor_model_parallel_size": 2, "sequence_parallel": True}),
    "PP2 with 2 chunks": (2, {"pipeline_model_parallel_size": 2, "virtual_pipeline_model_parallel_size": 2}),
}
PARTS = ["embedding", "layer_001", "layer_002", "layer_003", "layer_004", "final_norm"]


def norms(attempt: Any, kind: str) -> dict[str, float]:
    names = [*PARTS, "output"]
    return {name: found[4] for name in names if (found := attempt.values(f"{kind}/{name}"))}


@pytest.fixture(scope="module")
def alone(start_training: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    attempt = start_training(tmp_path_factory.mktemp("one"), train_iters=4, stats_interval=2)
    attempt.wait()
    return attempt


def test_they_add_up_to_the_norm_of_the_model(alone: Any) -> None:
    by_part = norms(alone, "grad_norm")
    assert set(by_part) == {*PARTS, "output"}
    assert math.hypot(*by_part.values()) == pytest.approx(alone.values("train/grad_norm")[4], rel=1e-5)
    assert list(alone.values("weight_norm/layer_001")) == list(alone.values("train/slowest_rank_ratio")) == [2, 4]
    assert norms(alone, "weight_norm")["final_norm"] == pytest.approx(math.sqrt(32), rel=0.01)  # 32 weights of 1


def test_they_are_summed_piece_by_piece(
    start_training: Callable[..., Any], alone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "_PIECE", 7)
    attempt = start_training(tmp_path, train_iters=4, stats_interval=4)
    attempt.wait()
    for kind in ("grad_norm", "weight_norm"):
        assert norms(attempt, kind) == pytest.approx(norms(alone, kind), rel=1e-9)


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_they_are_the_same_under_every_layout(
    name: str, start_training: Callable[..., Any], alone: Any, tmp_path: Path
) -> None:
    world_size, layout = LAYOUTS[name]
    attempt = start_training(tmp_path, world_size=world_size, train_iters=4, stats_interval=4, **layout)
    attempt.wait()
    for kind in ("grad_norm", "weight_norm"):
        assert norms(attempt, kind) == pytest.approx(norms(alone, kind), rel=1e-4)
    assert "slowest rank: " in attempt.notes()


def test_a_tied_table_counts_once(start_training: Callable[..., Any], small_shape: ModelShape, tmp_path: Path) -> None:
    tied = replace(small_shape, share_embeddings_and_output_weights=True)
    settings: dict[str, Any] = {"shape": tied, "train_iters": 4, "stats_interval": 4}
    one = start_training(tmp_path / "one", **settings)
    one.wait()
    two = start_training(tmp_path / "two", world_size=2, pipeline_model_parallel_size=2, **settings)
    two.wait()
    for kind in ("grad_norm", "weight_norm"):
        assert set(norms(one, kind)) == set(PARTS)
        assert norms(two, kind) == pytest.approx(norms(one, kind), rel=1e-4)

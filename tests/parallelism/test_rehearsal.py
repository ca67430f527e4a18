"""Rehearsals: as real processes do it, as the planner says it, and alike on the ranks of a stage."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from parallelism import device

device.prepare()

import torch  # noqa: E402 - prepared above
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from benchmarks.rehearsal import SHARED, allocated, toy  # noqa: E402
from parallelism import _rehearsed  # noqa: E402
from parallelism._meter import Meter  # noqa: E402
from parallelism.cost.memory import stage_memory  # noqa: E402
from parallelism.cost.traffic import stage_traffic  # noqa: E402
from parallelism.layout import Layout, Precision  # noqa: E402
from parallelism.learner import Recipe  # noqa: E402
from parallelism.presets import VOCAB_SIZES, preset  # noqa: E402
from parallelism.rehearsal import Rehearsed, rehearse  # noqa: E402

TINY = {"seq_length": 32, "micro_batch_size": 1, "global_batch_size": 8}


def rehearsed(recipe: Recipe, layout: Layout, **settings: Any) -> list[Rehearsed]:
    found = rehearse(recipe, layout=layout, processes=2, **settings)
    return sorted(found, key=lambda seen: seen.rank)


@pytest.mark.parametrize(("model", "precision"), [("demo", "bf16"), ("demo_moe", "fp32")])
def test_real_ranks_allocate_what_was_rehearsed(model: str, precision: Precision) -> None:
    """Counted by torch's profiler in two processes; docs/benchmarks/rehearsal.md has more of them."""
    recipe, layout = toy(model, precision=precision, global_batch_size=12)
    seen = rehearsed(recipe, layout, kernels="cpu")
    assert [rank.peak_bytes for rank in seen] == pytest.approx(allocated(recipe, layout), rel=0.02)


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        ("demo", {"tensor_model_parallel_size": 2, "sequence_parallel": True, "world_size": 8}),
        ("demo_moe", {"expert_model_parallel_size": 2, "world_size": 8}),
    ],
)
def test_the_ranks_of_a_stage_do_the_same(model: str, sizes: dict[str, Any]) -> None:
    """All but the shards of the optimizer: their bytes are known from one rank, and are those that each rank has."""
    recipe, layout = toy(model, precision="bf16", **TINY, **sizes)
    alike = [replace(seen, rank=0, update_bytes=0) for seen in rehearsed(recipe, layout, ranks=[4, 5, 6])]
    assert alike == alike[:1] * 3


def test_the_shards_of_the_optimizer_may_be_uneven() -> None:
    recipe, layout = toy("demo", precision="bf16", **TINY, world_size=16)
    seen = rehearsed(recipe, layout, ranks=[8])[0]
    assert len(set(seen.optimizer_bytes)) > 1
    assert seen.peak_bytes == seen.peak_on(seen.optimizer_bytes.index(max(seen.optimizer_bytes)))
    shared = sum(seen.optimizer_bytes)
    assert shared == pytest.approx(12 * seen.parameters, rel=0.001)


@pytest.mark.parametrize("chunks", [None, 2])
def test_a_few_microbatches_stand_for_all(chunks: int | None) -> None:
    sizes = {**TINY, "global_batch_size": 6}
    recipe, layout = toy("demo", precision="fp32", **sizes, virtual_pipeline_model_parallel_size=chunks)
    assert layout.num_microbatches == 6
    few, whole = (rehearsed(recipe, layout, ranks=[1], whole=every)[0] for every in (False, True))
    reports = 2 * 2 * 8  # the last stage keeps, of every microbatch, two numbers of fp64 for each stream
    assert replace(few, activation_bytes=few.activation_bytes + reports) == whole


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        ("demo", {"tensor_model_parallel_size": 2, "sequence_parallel": True, "world_size": 8}),
        ("demo_moe", {"tensor_model_parallel_size": 2, "sequence_parallel": True, "expert_model_parallel_size": 2}),
    ],
)
def test_the_planner_knows_what_is_sent(model: str, sizes: dict[str, Any]) -> None:
    recipe, layout = toy(model, precision="bf16", **TINY, **sizes)
    for seen in rehearsed(recipe, layout):
        found = {(item.group, item.operation): item.bytes for item in seen.exchanges}
        for item in stage_traffic(recipe.shape, layout=layout, vocab_size=recipe.vocab_size, stage=seen.stage):
            assert found.pop((item.group, item.operation)) == item.bytes
        assert sum(found.values()) < 1000  # what is left: the gradients' norm, tokens, the routers' loads


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        ("dense_32b", {"tensor_model_parallel_size": 8, "sequence_parallel": True}),
        ("gravity_16b_a3b", {"expert_model_parallel_size": 8}),
    ],
)
def test_the_planner_knows_what_256_ranks_need(model: str, sizes: dict[str, Any]) -> None:
    """One rank of the third of four stages, with the kernels of a GPU and as many microbatches as it has in flight."""
    sizes = {"world_size": 256, "pipeline_model_parallel_size": 4, "seq_length": 4096, **sizes}
    layout = Layout(global_batch_size=2 * 64 // sizes.get("tensor_model_parallel_size", 1), **sizes)
    batch: dict[str, Any] = {"seq_length": 4096, "global_batch_size": layout.global_batch_size}
    vocab_size = VOCAB_SIZES[model]
    recipe = Recipe(shape=preset(model), vocab_size=vocab_size, precision="bf16", **batch, **SHARED)
    seen = rehearsed(recipe, layout, ranks=[128])[0]
    planned = stage_memory(recipe.shape, layout=layout, vocab_size=vocab_size)[2]
    assert seen.peak_bytes == pytest.approx(planned.total, rel=0.02)


@pytest.mark.parametrize("needed", _rehearsed.NEEDED, ids=lambda needed: str(needed[1]))
def test_every_answer_is_needed(needed: tuple[Any, str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """One of torch's or Megatron's functions has learned to do without data when this fails; remove the answer then."""
    rest = tuple(item for item in _rehearsed.NEEDED if item is not needed)
    monkeypatch.setattr(_rehearsed, "NEEDED", rest)
    recipe, layout = toy("demo_moe", precision="bf16", **TINY)
    with pytest.raises(Exception, match=r"swap|numpy|not allocated|split"):
        rehearsed(recipe, layout, ranks=[0])


def test_what_is_answered_exists() -> None:
    for owner, name, _ in (*_rehearsed.NEEDED, *_rehearsed.GPU):
        assert callable(getattr(owner, name))


def test_even_splits_give_every_choice_to_an_expert() -> None:
    assert _rehearsed.even_splits(12, experts=4).tolist() == [3, 3, 3, 3]
    assert _rehearsed.even_splits(10, experts=4).tolist() == [3, 3, 2, 2]


def test_the_meter_counts_what_lives_and_what_is_multiplied(in_child: Callable[..., Any]) -> None:
    in_child(_multiply)


def _multiply() -> None:
    with FakeTensorMode(), Meter() as meter:
        left, right = torch.empty(64, 32), torch.empty(32, 16)
        assert meter.live == 4 * (64 * 32 + 32 * 16)
        product = left @ right
        assert meter.flops == 2 * 64 * 32 * 16
        seen = product[:3]
        del left, product
        assert meter.live == 4 * (32 * 16 + 64 * 16)  # a part keeps the whole
        del seen
        assert meter.live == 4 * 32 * 16
        assert meter.peak == 4 * (64 * 32 + 32 * 16 + 64 * 16)
        meter.restart()
        assert (meter.peak, meter.flops) == (meter.live, 0)


def test_a_rehearsal_refuses_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "has_gpu", lambda: True)
    recipe, layout = toy("demo", precision="fp32")
    with pytest.raises(RuntimeError, match="must not see a GPU, but one is visible; set CUDA_VISIBLE_DEVICES"):
        next(rehearse(recipe, layout=layout))

"""Context parallelism and packed documents by real ranks: the same losses as one process, under every mask."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from parallelism import context, device
from parallelism.presets import LatentAttention, ModelShape

device.prepare()

from parallelism import launch  # noqa: E402 - prepared above
from tests.parallelism.conftest import start_ranks  # noqa: E402

Start = Callable[..., Any]
TOLERANCE = 5e-6
TP2, PP2, CP2 = ({f"{kind}_parallel_size": 2} for kind in ("tensor_model", "pipeline_model", "context"))
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "TP2xPP2, sequence parallel, recomputed": (
        4,
        {**TP2, **PP2, "sequence_parallel": True, "recompute_granularity": "full"},
    ),
    "PP2 with 2 chunks a stage": (2, {**PP2, "virtual_pipeline_model_parallel_size": 2}),
    "CP2": (2, CP2),
    "CP2xTP2, sequence parallel": (4, {**CP2, **TP2, "sequence_parallel": True}),
    "CP2xPP2": (4, {**CP2, **PP2}),
    "CP2xDP2": (4, CP2),
}


@pytest.fixture(scope="module")
def one_process(start_training: Start, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    modes = ("causal", "document", "xlda")
    attempts = {mode: start_training(tmp_path_factory.mktemp(mode), attention_mask=mode) for mode in modes}
    for attempt in attempts.values():
        attempt.wait()
    return attempts


def furthest(one: Any, other: Any, name: str = "train/loss") -> float:
    losses, reference = one.values(name), other.values(name)
    assert losses.keys() == reference.keys()
    return float(max(abs(losses[step] - reference[step]) for step in losses))


def test_masks_make_a_difference(one_process: dict[str, Any]) -> None:
    for one, other in (("causal", "document"), ("causal", "xlda"), ("document", "xlda")):
        assert furthest(one_process[one], one_process[other]) > 100 * TOLERANCE


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_xlda_has_the_same_losses_under_every_layout(
    name: str, start_training: Start, one_process: dict[str, Any], tmp_path: Path
) -> None:
    world_size, sizes = LAYOUTS[name]
    attempt = start_training(tmp_path, world_size=world_size, attention_mask="xlda", **sizes)
    attempt.wait()
    assert furthest(attempt, one_process["xlda"]) < TOLERANCE
    assert furthest(attempt, one_process["xlda"], "valid/loss") < TOLERANCE
    assert furthest(attempt, one_process["xlda"], "train/grad_norm") < 1e-4


@pytest.mark.parametrize("mode", ["causal", "document"])
def test_other_masks_are_context_parallel_too(
    mode: str, start_training: Start, one_process: dict[str, Any], tmp_path: Path
) -> None:
    attempt = start_training(tmp_path, world_size=2, attention_mask=mode, **CP2)
    attempt.wait()
    assert furthest(attempt, one_process[mode]) < TOLERANCE


def test_latent_attention_is_context_parallel(start_training: Start, small_shape: ModelShape, tmp_path: Path) -> None:
    latent = LatentAttention(kv_lora_rank=16, qk_head_dim=8, qk_pos_emb_head_dim=4, v_head_dim=8)
    shape = replace(small_shape, latent=latent, num_query_groups=4, kv_channels=12)
    one, four = (
        start_training(tmp_path / name, world_size=size, shape=shape, attention_mask="xlda", **sizes)
        for name, size, sizes in (("one", 1, {}), ("four", 4, {**CP2, **TP2}))
    )
    one.wait()
    four.wait()
    assert furthest(four, one) < TOLERANCE


def test_shares_of_the_ranks_are_the_whole() -> None:
    whole = torch.arange(24).view(2, 12)
    parts = [context.local(whole, rank=rank, size=3) for rank in range(3)]
    assert [part[0].tolist() for part in parts] == [[0, 1, 10, 11], [2, 3, 8, 9], [4, 5, 6, 7]]
    for rank, part in enumerate(parts):
        places = [range(span.at, span.at + span.stop - span.start) for span in context.spans(4, rank=rank, size=3)]
        assert part[0].tolist() == [place for each in places for place in each]
    with pytest.raises(ValueError, match="must be a multiple of 2 x context_parallel_size = 10, but is 12; change one"):
        context.local(whole, rank=0, size=5)


def _gather(rank: int, folder: Path) -> None:
    place = launch.Place(rank=rank, world_size=2, local_rank=rank, rendezvous=f"file://{folder}/meet")
    with launch.joined(place):
        whole = torch.arange(8.0)[:, None] * torch.ones(8, 3)
        mine = context.local(whole, rank=rank, size=2, dim=0).requires_grad_()
        assert dist.group.WORLD is not None
        found = context.gathered(mine, dist.group.WORLD)
        assert torch.equal(found, whole)
        (found * (whole + rank)).sum().backward()
        assert mine.grad is not None
        assert torch.equal(mine.grad, context.local(2 * whole + 1, rank=rank, size=2, dim=0))


def test_what_is_gathered_is_in_order_and_gradients_return(tmp_path: Path) -> None:
    handle = start_ranks(_gather, 2, tmp_path)
    while not handle.join():
        pass

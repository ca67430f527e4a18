"""Core attention, beside the same sums written out in float64: every mask mode, grouped and latent, both kernels."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from parallelism import device

device.prepare()

from megatron.core.transformer.transformer_config import TransformerConfig  # noqa: E402 - prepared above

from parallelism import attention, flex, tiles, visibility  # noqa: E402
from parallelism.attention import CausalAttention  # noqa: E402
from parallelism.context import spans  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:::megatron\."),  # deprecations between its own parts
    pytest.mark.filterwarnings(r"ignore:flex_attention called without torch.compile:UserWarning"),
]

HEADS = 4


def core(**settings: Any) -> CausalAttention:
    config = TransformerConfig(num_layers=1, hidden_size=32, num_attention_heads=HEADS)
    built: dict[str, Any] = {
        "layer_number": 1,
        "attn_mask_type": None,
        "attention_type": "self",
        "pg_collection": None,
        **settings,
    }
    return CausalAttention(config, **built)


def ids(kind: str, *, batch: int, length: int, seed: int) -> Tensor | None:
    """Random documents of 1 to `length` tokens: alone, or in groups of up to three in up to two languages."""
    if kind == "causal":
        return None
    draws = np.random.default_rng(seed)
    rows = []
    for _ in range(batch):
        count = min(length - 1, int(draws.integers(0, 12)))
        cuts = np.sort(draws.choice(np.arange(1, length), size=count, replace=False))
        document = np.searchsorted(cuts, np.arange(length), side="right")
        group = document // 3 if kind == "xlda" else document
        language = draws.integers(0, 2, len(cuts) + 1)[document]
        rows.append(np.stack([document + 7, group + 3, language]))
    return torch.tensor(np.array(rows), dtype=torch.int32)


def written_out(inputs: Sequence[Tensor], found: Tensor | None, *, scale: float | None = None) -> Tensor:
    """(S, B, N, D), (S, B, G, D) and (S, B, G, E) to (S, B, N x E), with a dense mask."""
    query, key, value = inputs
    length, batch, heads, width = query.shape
    key, value = (tensor.repeat_interleave(heads // key.shape[2], dim=2) for tensor in (key, value))
    scores = torch.einsum("qbnd,kbnd->bnqk", query, key) * (1 / math.sqrt(width) if scale is None else scale)
    hidden = torch.ones(batch, length, length, dtype=torch.bool).triu(1)
    for row in range(batch) if found is not None else ():
        assert found is not None
        for one in range(length):
            for other in range(one):
                document, group, language = (found[row, :, one] == found[row, :, other]).tolist()
                hidden[row, one, other] = not (group and (document or not language))
    weights = scores.masked_fill(hidden[:, None], -math.inf).softmax(-1)
    return torch.einsum("bnqk,kbnd->qbnd", weights, value).flatten(2)


def draw(*, length: int, batch: int, groups: int, widths: tuple[int, int], seed: int = 0) -> list[Tensor]:
    draws = torch.Generator().manual_seed(seed)
    sizes = ((HEADS, widths[0]), (groups, widths[0]), (groups, widths[1]))
    return [torch.randn(length, batch, *size, dtype=torch.float64, generator=draws) for size in sizes]


def both(exact: Sequence[Tensor], found: Tensor | None, module: CausalAttention) -> tuple[list[Tensor], list[Tensor]]:
    """Returns output and gradients of our attention and of the sums written out."""
    answers = []
    for dtype in (torch.float32, torch.float64):
        inputs = [tensor.to(dtype).requires_grad_() for tensor in exact]
        if dtype == torch.float32:
            output = module(*inputs, found, attn_mask_type=None, packed_seq_params=None)
        else:
            output = written_out(inputs, found, scale=module.softmax_scale)
        answers.append([output.detach(), *torch.autograd.grad(output.sin().sum(), inputs)])
    return answers[0], answers[1]


@pytest.mark.parametrize("mode", ["causal", "document", "xlda"])
@pytest.mark.parametrize(("groups", "widths"), [(1, (8, 8)), (2, (8, 8)), (4, (8, 8)), (4, (24, 16))])
def test_it_is_the_rule_with_its_gradient(
    mode: str, groups: int, widths: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "TILE", 16)
    monkeypatch.setattr(tiles, "KEPT_KEYS", 24)  # so that both ways of the backward pass are taken
    for seed, length in enumerate((1, 17, 75)):
        exact = draw(length=length, batch=2, groups=groups, widths=widths, seed=seed)
        found, expected = both(exact, ids(mode, batch=2, length=length, seed=seed), core())
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine.double(), theirs, atol=1e-5, rtol=1e-6)


def test_tiles_of_their_real_size_and_a_given_scale() -> None:
    exact = draw(length=300, batch=1, groups=2, widths=(8, 8))
    found, expected = both(exact, ids("xlda", batch=1, length=300, seed=5), core(softmax_scale=0.2))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.double(), theirs, atol=1e-5, rtol=1e-6)


def test_bf16_is_as_near_as_its_digits() -> None:
    exact = draw(length=200, batch=1, groups=2, widths=(16, 16))
    expected = written_out(exact, None)
    found = core()(*[tensor.bfloat16() for tensor in exact], None)
    assert found.dtype == torch.bfloat16
    assert (found.double() - expected).abs().max() < 0.03


@pytest.mark.parametrize("mode", ["document", "xlda"])
@pytest.mark.parametrize("widths", [(16, 16), (24, 16)])
def test_the_block_table_of_the_gpu_kernel_hides_nothing_and_shows_nothing(
    mode: str, widths: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """FlexAttention has no backward pass on a CPU, but reads the same table and rule in its forward pass."""
    monkeypatch.setattr(flex, "BLOCK", 16)
    for seed, length in enumerate((48, 75)):
        exact = [tensor.float() for tensor in draw(length=length, batch=2, groups=2, widths=widths, seed=seed)]
        found = ids(mode, batch=2, length=length, seed=seed)
        output = attention._on_gpu(*exact, ids=found, spans=spans(length, rank=0, size=1), scale=None)
        torch.testing.assert_close(output, written_out(exact, found), atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["causal", "document", "xlda"])
def test_each_context_ranks_chunks_see_what_they_saw_in_the_whole(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from parallelism.context import local

    monkeypatch.setattr(tiles, "TILE", 16)
    monkeypatch.setattr(flex, "BLOCK", 16)
    exact = [tensor.float() for tensor in draw(length=72, batch=2, groups=2, widths=(16, 16))]
    found = ids(mode, batch=2, length=72, seed=3)
    whole = written_out(exact, found)
    for rank in range(3):
        query = local(exact[0], rank=rank, size=3, dim=0)
        lie = spans(24, rank=rank, size=3)
        expected = local(whole, rank=rank, size=3, dim=0)
        for kernel in (attention._on_cpu, attention._on_gpu):
            output = kernel(query, *exact[1:], ids=found, spans=lie, scale=None)
            torch.testing.assert_close(output, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("widths", [(16, 16), (24, 16)])
def test_without_documents_a_gpu_takes_flash_attention(widths: tuple[int, int]) -> None:
    exact = [tensor.float() for tensor in draw(length=50, batch=2, groups=2, widths=widths)]
    output = attention._on_gpu(*exact, ids=None, spans=spans(50, rank=0, size=1), scale=None)
    torch.testing.assert_close(output, written_out(exact, None), atol=1e-5, rtol=0)


def test_most_of_a_table_of_pairs_is_skipped() -> None:
    pairs = torch.arange(2048, dtype=torch.int32) // 256
    found = torch.stack([pairs, pairs // 2, pairs % 2])[None]
    mask = flex.block_mask(found, spans=spans(2048, rank=0, size=1))
    assert mask.sparsity() == pytest.approx(100 * (1 - 4 * 10 / 256))  # 4 groups of 4 x 4 blocks, 10 of each visible
    assert int(mask.full_kv_num_blocks.sum()) == 4 * 6  # type: ignore[union-attr]  # those below the diagonal
    assert sum(tile.last - tile.first for tile in tiles.plan(found[0].numpy(), spans=spans(2048, rank=0, size=1))) == (
        4 * (128 + 256 + 384 + 512)
    )


def test_many_short_documents_share_a_tile() -> None:
    short = torch.arange(1024, dtype=torch.int32) // 10
    plan = tiles.plan(torch.stack([short, short, short * 0]).numpy(), spans=spans(1024, rank=0, size=1))
    assert len(plan) <= 1024 // (tiles.TILE // 2)
    assert [tile.start for tile in plan[1:]] == [tile.stop for tile in plan[:-1]]
    assert all(tile.masked for tile in plan)


def test_plans_are_made_once_for_all_layers_and_anew_for_other_ids() -> None:
    first = ids("xlda", batch=1, length=40, seed=1)
    assert first is not None
    made: list[int] = []
    for found in (first, first.detach(), first.clone()):
        visibility.per_batch(found, kind="kind", make=lambda: made.append(1))
    assert len(made) == 2
    first += 1
    visibility.per_batch(first, kind="kind", make=lambda: made.append(1))
    assert len(made) == 3


@pytest.mark.parametrize("wrong", [torch.zeros(1, 3, 9), torch.zeros(1, 3, 8, dtype=torch.int32)])
def test_a_mask_of_another_kind_is_refused(wrong: Tensor) -> None:
    exact = [tensor.float() for tensor in draw(length=9, batch=1, groups=2, widths=(8, 8))]
    with pytest.raises(ValueError, match="must be None or document, group and language ids, an int tensor"):
        core()(*exact, wrong)

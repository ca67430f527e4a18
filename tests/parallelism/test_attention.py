"""Causal attention, beside the same sums written out in float64."""

import math

import pytest
import torch
from torch import Tensor

from parallelism import device

device.prepare()

from megatron.core.transformer.transformer_config import TransformerConfig  # noqa: E402 - prepared above

from parallelism.attention import CausalAttention  # noqa: E402

pytestmark = pytest.mark.filterwarnings(r"ignore:::megatron\.")  # deprecations between its own parts


def attention(**settings: int) -> CausalAttention:
    config = TransformerConfig(num_layers=1, hidden_size=32, num_attention_heads=4, **settings)
    return CausalAttention(config, layer_number=1, attn_mask_type=None, attention_type="self", pg_collection=None)


def written_out(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(S, B, N, D) and (S, B, G, D) to (S, B, N x D)."""
    times = query.shape[2] // key.shape[2]
    key, value = (tensor.repeat_interleave(times, dim=2) for tensor in (key, value))
    scores = torch.einsum("qbnd,kbnd->bnqk", query, key) / math.sqrt(query.shape[3])
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    weights = scores.masked_fill(later, -math.inf).softmax(-1)
    return torch.einsum("bnqk,kbnd->qbnd", weights, value).flatten(2)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_it_is_causal_grouped_attention_with_its_gradient(groups: int) -> None:
    draws = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(17, 3, heads, 8, dtype=torch.float64, generator=draws) for heads in (4, groups, groups)
    )
    inputs = [tensor.float().requires_grad_() for tensor in (query, key, value)]
    exact = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
    found, expected = attention()(*inputs, None), written_out(*exact)
    torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=0)
    found.sin().sum().backward()
    expected.sin().sum().backward()
    for mine, theirs in zip(inputs, exact, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(mine.grad.double(), theirs.grad, atol=5e-6, rtol=0)


def test_context_parallelism_is_refused() -> None:
    with pytest.raises(ValueError, match="context_parallel_size must be 1 with this attention, but is 2; use 1"):
        attention(context_parallel_size=2)

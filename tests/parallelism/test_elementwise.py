"""Rotation, SwiGLU and RMSNorm against Megatron's and torch's own, gradients included, and what they keep."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import rms_norm, silu

from parallelism import device, elementwise

device.prepare()

from megatron.core.fusions import fused_bias_swiglu  # noqa: E402 - prepared above
from megatron.core.models.common.embeddings import rope_utils  # noqa: E402

TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 4e-2}
DTYPES = list(TOLERANCE)


def angles(length: int, rotated: int) -> Tensor:
    half = torch.outer(torch.arange(length).float(), 10_000 ** -(torch.arange(0, rotated, 2) / rotated))
    return torch.cat([half, half], -1)[:, None, None]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("width", [16, 24])
def test_rotation_is_megatrons(dtype: torch.dtype, interleaved: bool, width: int) -> None:
    heads, turns = torch.randn(12, 2, 3, width, dtype=dtype), angles(12, 16)
    expect_same(
        lambda values: rope_utils._apply_rotary_pos_emb_bshd(values, turns, mla_rotary_interleaved=interleaved),
        lambda values: elementwise.rotated(values, turns, mla_rotary_interleaved=interleaved),
        heads,
        within=TOLERANCE[dtype],
    )


def test_pairs_that_stay_interleaved_are_refused() -> None:
    with pytest.raises(ValueError, match="rotary_interleaved must be false, but is true; leave it out"):
        elementwise.rotated(torch.randn(4, 1, 1, 8), angles(4, 8), rotary_interleaved=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_swiglu_is_megatrons(dtype: torch.dtype) -> None:
    inputs, gradient = torch.randn(10, 16, dtype=dtype), torch.randn(10, 8, dtype=dtype)
    leaf = inputs.clone().requires_grad_()
    (expected,) = torch.autograd.grad(silu(leaf[:, :8]) * leaf[:, 8:], leaf, gradient)
    assert torch.equal(elementwise.swiglu(inputs), fused_bias_swiglu.swiglu(inputs))
    assert (elementwise.swiglu_back(gradient, inputs) - expected).abs().max() <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_norm_is_torchs(dtype: torch.dtype) -> None:
    values = torch.randn(5, 2, 32, dtype=dtype)
    weight = (torch.rand(32) + 0.5).to(dtype).requires_grad_()
    expect_same(
        lambda inputs: rms_norm(inputs, (32,), weight, 1e-5),
        lambda inputs: elementwise.rms_norm(inputs, weight, eps=1e-5),
        values,
        weight,
        within=TOLERANCE[dtype],
    )


def test_only_the_input_and_one_number_a_token_are_kept() -> None:
    values, weight = torch.randn(5, 32, requires_grad=True), torch.ones(32, requires_grad=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda saved: saved):
        elementwise.rms_norm(values, weight, eps=1e-5)
        elementwise.rotated(values.view(5, 1, 1, 32), angles(5, 32))
    assert sorted(saved.numel() for saved in kept) == [5, 32, 80, 80, 160]  # rms, weight, cos, sin, values


def expect_same(
    expected: Callable[[Tensor], Tensor],
    found: Callable[[Tensor], Tensor],
    values: Tensor,
    *more: Tensor,
    within: float,
) -> None:
    """Compares results and gradients, the latter relative to the largest."""
    leaf = values.clone().requires_grad_()
    outputs = expected(leaf), found(leaf)
    gradient = torch.randn_like(outputs[0])
    gradients = [torch.autograd.grad(output, (leaf, *more), gradient) for output in outputs]
    assert outputs[0].dtype == outputs[1].dtype
    assert (outputs[0] - outputs[1]).abs().max() <= within
    for one, other in zip(*gradients, strict=True):
        assert (one - other).abs().max() <= within * max(1, one.abs().max())

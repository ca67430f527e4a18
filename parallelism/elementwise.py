"""Rotary positions, SwiGLU and RMSNorm in few passes over memory, keeping for the backward pass only what it needs.

Megatron leaves these to compilers and to TransformerEngine; without them each is a chain of six to ten operations that
move more memory than the matrix products beside them.

Legend: S sequence, B micro batch, N heads, D width of a head, R the part of it that is rotated, T tokens, H hidden
size, F width of the MLP.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakTensorKeyDictionary

_tables: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # of angles, which Megatron keeps for all layers


def rotated(
    heads_SBND: Tensor,
    angles_S11R: Tensor,
    *,
    rotary_interleaved: bool = False,
    mla_rotary_interleaved: bool = False,
    mscale: float = 1.0,
) -> Tensor:
    """Returns heads with their first R numbers rotated by position; takes the arguments of Megatron's function.

    Numbers i and i + R / 2 are a pair; with `mla_rotary_interleaved`, 2 i and 2 i + 1 become one. The same angle stands
    twice in `angles_S11R`, as Megatron makes it.

    Raises:
        ValueError: pairs are asked for that stay interleaved.
    """
    if rotary_interleaved:
        raise ValueError("rotary_interleaved must be false, but is true; leave it out of the model's config")
    cos, sin = _cos_sin(angles_S11R, dtype=heads_SBND.dtype, scale=mscale)
    found: Tensor = _Rotated.apply(heads_SBND, cos, sin, mla_rotary_interleaved)  # type: ignore[no-untyped-call]
    return found


def _cos_sin(angles: Tensor, *, dtype: torch.dtype, scale: float) -> tuple[Tensor, Tensor]:
    kept: dict[tuple[torch.dtype, float], tuple[Tensor, Tensor]] = _tables.setdefault(angles, {})
    if (dtype, scale) not in kept:
        half = angles[..., : angles.shape[-1] // 2]
        kept[dtype, scale] = (half.cos() * scale).to(dtype), (half.sin() * scale).to(dtype)
    return kept[dtype, scale]


class _Rotated(torch.autograd.Function):
    """Rotation, whose gradient is the rotation back."""

    @staticmethod
    def forward(ctx: Any, heads: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:  # noqa: FBT001 - autograd passes no keywords
        ctx.save_for_backward(cos, sin)
        ctx.interleaved = interleaved
        size = 2 * cos.shape[-1]
        turned = torch.empty_like(heads, memory_format=torch.contiguous_format)
        pairs = (heads[..., 0:size:2], heads[..., 1:size:2]) if interleaved else heads[..., :size].chunk(2, -1)
        _turn(pairs, cos, sin, turned[..., :size].chunk(2, -1))
        turned[..., size:] = heads[..., size:]
        return turned

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = gradients
        cos, sin = ctx.saved_tensors
        size = 2 * cos.shape[-1]
        back = torch.empty_like(gradient, memory_format=torch.contiguous_format)
        pairs = (back[..., 0:size:2], back[..., 1:size:2]) if ctx.interleaved else back[..., :size].chunk(2, -1)
        _turn(gradient[..., :size].chunk(2, -1), cos, -sin, pairs)
        back[..., size:] = gradient[..., size:]
        return back, None, None, None


def _turn(pairs: tuple[Tensor, ...], cos: Tensor, sin: Tensor, out: tuple[Tensor, ...]) -> None:
    torch.mul(pairs[0], cos, out=out[0]).addcmul_(pairs[1], sin, value=-1)
    torch.mul(pairs[1], cos, out=out[1]).addcmul_(pairs[0], sin)


def swiglu(gate_and_up_T2F: Tensor) -> Tensor:
    """Returns SiLU(gate) x up, (T, F)."""
    gate, up = gate_and_up_T2F.chunk(2, -1)
    return torch.nn.functional.silu(gate).mul_(up)


def swiglu_back(gradient_TF: Tensor, gate_and_up_T2F: Tensor) -> Tensor:
    """Returns the gradient of `swiglu`'s input, (T, 2 F)."""
    gate, up = gate_and_up_T2F.chunk(2, -1)
    back = torch.empty_like(gate_and_up_T2F)
    of_gate, of_up = back.chunk(2, -1)
    torch.mul(torch.nn.functional.silu(gate), gradient_TF, out=of_up)
    torch.ops.aten.silu_backward.grad_input(torch.mul(gradient_TF, up), gate, grad_input=of_gate)
    return back


def rms_norm(values: Tensor, weight_H: Tensor, *, eps: float) -> Tensor:
    """Returns values / rms x weight, over the last dimension, reckoned in fp32."""
    found: Tensor = _RmsNorm.apply(values, weight_H, eps)  # type: ignore[no-untyped-call]
    return found


class _RmsNorm(torch.autograd.Function):
    """Keeps its input and 1/rms."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(values, dim=-1, keepdim=True, dtype=torch.float32)
        inverse = norm.square_().div_(values.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(values, weight, inverse)
        return torch.mul(values, inverse).mul_(weight).to(values.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        values, weight, inverse = ctx.saved_tensors
        normal = torch.mul(values, inverse)
        product = gradients[0] * normal
        of_weight = product.flatten(0, -2).sum(0).to(weight.dtype)
        share = torch.matmul(product, weight.to(product.dtype)).div_(-values.shape[-1]).unsqueeze(-1)
        of_values = torch.addcmul(gradients[0] * weight, normal, share).mul_(inverse)
        return of_values.to(values.dtype), of_weight, None

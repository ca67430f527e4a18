"""What a rehearsal answers in place of torch 2.13 and megatron-core 0.19.2, where they need numbers or a GPU's kernels.

tests/parallelism/test_rehearsal.py fails when one of the first four is no longer needed.

Without data (torch's FakeTensorMode),

1. Module.to() and .bfloat16() swap parameters, which fails for those that someone holds weakly: here a parameter keeps
   its identity, as it does where there is data;
2. all_gather_object reads bytes out of a tensor: here every rank has what this one has;
3. the norm of the gradients (utils.local_multi_tensor_l2_norm) builds a tensor from a list of numbers: here it is
   stacked from tensors;
4. the token dispatcher reads how many tokens each expert gets: here they are spread evenly, tokens x top-k / experts
   for each, the first experts taking the remainder. The counts are exchanged all the same.

With the kernels of a GPU,

5. attention is flash attention (attention.py); RMSNorm and SwiGLU are one kernel each, which has no tensors of its own
   while it runs, as torch and torch.compile have them on a GPU.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from megatron.core.fusions import fused_bias_swiglu
from megatron.core.optimizer import clip_grads
from megatron.core.transformer.moe.token_dispatcher import MoEAlltoAllTokenDispatcher
from numpy.typing import NDArray
from torch import Tensor

from parallelism import attention, model

Kernels = Literal["cpu", "gpu"]
"""Whose kernels are rehearsed: those of this machine's CPU, or those of a GPU."""


@contextlib.contextmanager
def answered(kernels: Kernels) -> Iterator[None]:
    """Puts the answers in place while open."""
    with contextlib.ExitStack() as stack:
        for owner, name, answer in [*NEEDED, *(GPU if kernels == "gpu" else ())]:
            kept = getattr(owner, name)
            stack.callback(setattr, owner, name, kept)
            setattr(owner, name, answer)
        yield


def even_splits(rows: int, *, experts: int) -> NDArray[np.int64]:
    """Returns how many of `rows` choices each expert gets: as many as every other, one more for the first ones."""
    each, left = divmod(rows, experts)
    return np.array([each + (number < left) for number in range(experts)])


def _converted(self: torch.nn.Module, function: Callable[[Tensor], Tensor], *_: Any) -> torch.nn.Module:
    for child in self.children():
        child._apply(function)  # noqa: SLF001 - as torch does it
    for parameter in self._parameters.values():
        if parameter is not None:
            converted = function(parameter.detach())
            if converted.dtype != parameter.dtype:
                parameter.data = converted
    for name, buffer in self._buffers.items():
        self._buffers[name] = None if buffer is None else function(buffer)
    return self


def _gathered(everyone: list[Any], mine: Any, *_: Any, **__: Any) -> None:
    everyone[:] = [mine] * len(everyone)


def _norm(_: int, __: Tensor, lists: list[list[Tensor]], *___: Any) -> tuple[Tensor, None]:
    norms = [torch.norm(tensor) for tensors in lists for tensor in tensors]
    return torch.norm(torch.stack(norms)).reshape(1), None


_preprocess = MoEAlltoAllTokenDispatcher.preprocess


def _spread_evenly(self: Any, routing_map: Tensor) -> NDArray[np.int64]:
    """Counts and exchanges as the original does, then tells even counts, as arrays, which no mode of torch sees."""
    _preprocess(self, routing_map)
    each = even_splits(routing_map.shape[0] * self.config.moe_router_topk, experts=self.num_experts)
    mine, places = each[self.local_expert_indices], np.arange(self.num_experts)
    self.sort_input_by_local_experts = places.reshape(-1, self.num_local_experts).T.ravel()
    self.restore_output_by_local_experts = places.reshape(self.num_local_experts, -1).T.ravel()
    if self.ep_size > 1:
        self.input_splits = each.reshape(self.ep_size, self.num_local_experts).sum(1)
        self.output_splits = mine.sum().repeat(self.ep_size)
    if self.num_local_experts > 1:
        self.num_global_tokens_per_local_expert = np.tile(mine, (self.ep_size, 1))
    spread: NDArray[np.int64] = mine * self.ep_size
    return spread


def _flash(query: Tensor, key: Tensor, value: Tensor, *, scale: float | None, **_: Any) -> Tensor:
    parts = [part.permute(1, 2, 0, 3) for part in (query, key, value)]
    attended: Tensor = attention._flash(*parts, scale=scale)  # noqa: SLF001 - what its _on_gpu calls
    return attended.permute(2, 0, 1, 3).flatten(2)


class _RMSNorm(torch.autograd.Function):
    """Keeps input, weight and 1/rms in fp32, and makes what torch's kernel makes."""

    @staticmethod
    def forward(context: Any, tensor: Tensor, weight: Tensor) -> Tensor:
        statistics = tensor.new_empty(*tensor.shape[:-1], 1, dtype=torch.float32)
        context.save_for_backward(tensor, weight, statistics)
        return torch.empty_like(tensor)

    @staticmethod
    def backward(context: Any, *_: Tensor) -> tuple[Tensor, Tensor]:
        tensor, weight, _ = context.saved_tensors
        return torch.empty_like(tensor), torch.empty_like(weight)


def _norm_kernel(self: model.Norm, values: Tensor) -> Tensor:
    answer: Tensor = _RMSNorm.apply(values, self.weight)  # type: ignore[no-untyped-call]
    return answer


def _half(tensor: Tensor, *_: Any) -> Tensor:
    return tensor.new_empty(*tensor.shape[:-1], tensor.shape[-1] // 2)


NEEDED: tuple[tuple[Any, str, Any], ...] = (
    (torch.nn.Module, "_apply", _converted),
    (dist, "all_gather_object", _gathered),
    (clip_grads, "l2_norm_impl", _norm),
    (MoEAlltoAllTokenDispatcher, "preprocess", _spread_evenly),
)
GPU: tuple[tuple[Any, str, Any], ...] = (
    (attention, "_on_cpu", _flash),
    (model.Norm, "forward", _norm_kernel),
    (fused_bias_swiglu, "swiglu", _half),
    (fused_bias_swiglu, "swiglu_back", lambda _, kept: torch.empty_like(kept)),
    (fused_bias_swiglu, "weighted_swiglu", _half),
    (
        fused_bias_swiglu,
        "weighted_swiglu_back",
        lambda _, kept, weights: (torch.empty_like(kept), torch.empty_like(weights)),
    ),
)

"""Norms of gradients and weights, layer by layer over the whole model: the same numbers under every layout."""

import math
from collections.abc import Iterator

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel import param_is_not_tensor_parallel_duplicate
from megatron.core.transformer.module import param_is_not_shared
from megatron.core.utils import unwrap_model
from torch import Tensor

from parallelism import device
from parallelism.learner import Learner, chained

_PIECE = 1 << 24
"""Numbers that are squared at once: a GPU makes a float64 copy of them."""

_ENDS = {"embedding": "embedding", "decoder.final_layernorm": "final_norm", "output_layer": "output"}


def measure(learner: Learner, *, num_layers: int) -> dict[str, float]:
    """Returns grad_norm/<part> and weight_norm/<part> of the embedding, of each layer and of the end of the model.

    Call it on every rank between `learner.gradient_norm` and `learner.update`: gradients are those before clipping.
    Each rank adds the squares of the shards that it optimizes; what tensor-parallel ranks all hold counts once.
    """
    parts = ["embedding", *(f"layer_{number:03d}" for number in range(1, num_layers + 1)), "final_norm", "output"]
    places = {part: place for place, part in enumerate(parts)}
    squares = torch.zeros(2, len(parts), dtype=torch.float64, device=device.current())
    for part, weight in _shards(learner):
        for row, values in enumerate((weight.grad, weight)):
            if values is not None:
                for piece in values.detach().flatten().split(_PIECE):
                    squares[row, places[part]] += torch.linalg.vector_norm(piece, dtype=torch.float64) ** 2
    dist.all_reduce(squares)
    rows = zip(("grad_norm", "weight_norm"), squares.tolist(), strict=True)
    return {
        f"{kind}/{part}": math.sqrt(square)
        for kind, row in rows
        for part, square in zip(parts, row, strict=True)
        if square  # a tied output table is the embedding's
    }


def _shards(learner: Learner) -> Iterator[tuple[str, Tensor]]:
    """Yields (part of the model, fp32 weights with their gradient) of what this rank optimizes and answers for."""
    parts = _parts(learner)
    for single in chained(learner.optimizer):
        if single.is_stub_optimizer:
            continue
        halves = zip(single.model_float16_groups, single.shard_fp32_from_float16_groups, strict=True)
        wholes = zip(single.model_fp32_groups, single.shard_fp32_groups, strict=True)
        for models, shards in (*halves, *wholes):
            for parameter, shard in zip(models, shards, strict=True):
                expert = not getattr(parameter, "allreduce", True)  # whole on its rank: there are no duplicates
                if param_is_not_shared(parameter) and (expert or param_is_not_tensor_parallel_duplicate(parameter)):
                    yield parts[parameter], shard


def _parts(learner: Learner) -> dict[Tensor, str]:
    """Returns which part of the model each of this rank's parameters belongs to."""
    found: dict[Tensor, str] = {}
    for chunk in learner.chunks:
        inner = unwrap_model(chunk)
        for prefix, part in _ENDS.items():
            found |= {parameter: part for name, parameter in inner.named_parameters() if name.startswith(prefix)}
        for layer in inner.decoder.layers:
            found |= dict.fromkeys(layer.parameters(), f"layer_{layer.layer_number:03d}")
    return found

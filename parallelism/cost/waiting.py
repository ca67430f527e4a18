"""What waits for its backward pass on a pipeline stage at its peak, and what comes and goes beside it."""

from dataclasses import dataclass, replace

from parallelism.cost.activations import layer_activations, norm
from parallelism.cost.kernels import Kernels
from parallelism.cost.layers import chunk_layers
from parallelism.layout import BYTES, Layout, Precision
from parallelism.presets import ModelShape


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """Bytes of one kind of layer: kept for its backward pass, and more while that pass runs."""

    kept: int
    backward: int


def stage_activations(
    shape: ModelShape, *, layout: Layout, padded: int, precision: Precision, kernels: Kernels
) -> list[int]:
    """Returns what waits for backward at each stage's peak, plus the larger of the logits and one layer's backward.

    `padded` is the vocabulary as the tables have it.
    """
    dense = _kind(shape, layout=layout, precision=precision, kernels=kernels, experts=False)
    mixed = _kind(shape, layout=layout, precision=precision, kernels=kernels, experts=True) if shape.experts else dense
    boundary = BYTES[precision] * shape.hidden_size * layout.sharded_tokens
    last = layout.pipeline_model_parallel_size - 1
    sizes = []
    for stage, layers in enumerate(chunk_layers(shape, layout=layout)):
        flights = _flights(layout, stage=stage)
        waiting = sum(
            count * (plain * dense.kept + routed * mixed.kept + kernels.boundaries * boundary)
            for count, (plain, routed) in zip(flights, layers, strict=True)
        )
        if kernels.dropout and stage == 0:  # the masks of the embedding, in the first chunk
            waiting += flights[0] * shape.hidden_size * layout.sharded_tokens
        passing = mixed.backward if any(routed for _, routed in layers) else dense.backward
        if stage == last:
            # The last norm, then the logits; they are gone before a layer's backward begins.
            passing = max(passing, _loss(shape, layout=layout, padded=padded, precision=precision, kernels=kernels))
        sizes.append(waiting + passing)
    return sizes


def chunks_in_flight(layout: Layout, *, stage: int) -> int:
    """Returns how many forward passes of a model chunk wait for their backward pass at the peak of a stage.

    Source: the warm-up of Megatron's 1F1B and interleaved schedules, plus the forward pass that follows it.
    """
    stages, chunks = layout.pipeline_model_parallel_size, layout.num_model_chunks
    behind = stages - stage - 1
    warmup = behind if chunks == 1 else 2 * behind + (chunks - 1) * stages
    return min(warmup + 1, layout.num_microbatches * chunks)


def _flights(layout: Layout, *, stage: int) -> list[int]:
    """Of the forward passes in flight, how many each chunk has: as many microbatches as stages at a time, in turn."""
    stages, chunks = layout.pipeline_model_parallel_size, layout.num_model_chunks
    flying = chunks_in_flight(layout, stage=stage)
    if chunks == 1:
        return [flying]
    rounds, rest = divmod(flying, stages * chunks)
    return [rounds * stages + min(max(rest - chunk * stages, 0), stages) for chunk in range(chunks)]


def _kind(shape: ModelShape, *, layout: Layout, precision: Precision, kernels: Kernels, experts: bool) -> _Kind:
    """A layer with or without experts; its backward needs gradients of its widest part, and what is computed again."""
    element, tokens, recompute = BYTES[precision], layout.rank_tokens, layout.recompute_granularity
    kept = layer_activations(shape, layout=layout, precision=precision, experts=experts, kernels=kernels)
    tensor = layout.tensor_model_parallel_size
    # Gradients around the activation; then, with half of them gone, the gradient of the MLP's first matrix.
    matrix = 0 if kernels.spare_gradients else (kernels.mlp_matrices - 1) * shape.hidden_size
    wide = element * shape.ffn_hidden_size * max(4 * tokens, 2 * tokens + matrix) // tensor
    if experts and shape.experts:
        # Gradients of the rows; and of the experts' input: by the router, by shared, by routed ones, past them all.
        tensors = kernels.row_gradients * shape.experts.moe_router_topk + 4
        wide = element * tensors * layout.sharded_tokens * shape.hidden_size
    # The gradient of the layer's input, of the whole sequence; its share's is in the buffer that memory.py counts.
    backward = wide + (0 if layout.sequence_parallel else element * tokens * shape.hidden_size)
    if recompute is None:
        return _Kind(kept=kept, backward=backward)
    plain = replace(layout, recompute_granularity=None)
    whole = layer_activations(shape, layout=plain, precision=precision, experts=experts, kernels=kernels)
    if recompute == "selective":
        return _Kind(kept=kept, backward=backward + whole - kept)
    return _Kind(kept=element * shape.hidden_size * layout.sharded_tokens, backward=backward + whole)


def _loss(shape: ModelShape, *, layout: Layout, padded: int, precision: Precision, kernels: Kernels) -> int:
    """The last norm and its output's gradient; the logits as computed and as fp32."""
    element = BYTES[precision]
    ends = norm(shape.hidden_size, layout=layout, element=element, kernels=kernels)
    ends += element * shape.hidden_size * layout.sharded_tokens
    # In fp32 the logits as computed are the first of those in fp32.
    per_token = (element + 4 * (kernels.logits_fp32 - (element == BYTES["fp32"]))) * padded
    return ends + per_token * layout.rank_tokens // layout.tensor_model_parallel_size

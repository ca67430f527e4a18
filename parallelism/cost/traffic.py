"""What ranks send each other in one step, kind by kind."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from parallelism.cost.layers import Kinds, stage_layers
from parallelism.cost.memory import stage_parameters
from parallelism.layout import BYTES, Layout, Precision
from parallelism.presets import ModelShape, padded_vocab_size

Calls = Counter[tuple[str, int]]
"""How often (operation, elements per token) happens in one layer and one microbatch."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """One kind of exchange of one rank in one optimizer step; `bytes` counts whole (gathered) tensors.

    `group` is named as Megatron names it: tensor, pipeline, data (with context), context, expert, expert_data, and
    embedding (the stages that share a table). An all-to-all's tensor is what one rank has before it.
    """

    group: str
    operation: str
    calls: int
    bytes: int


def stage_traffic(
    shape: ModelShape,
    *,
    layout: Layout,
    vocab_size: int,
    stage: int,
    precision: Precision = "bf16",
    shard_parameters: bool = False,
) -> list[Traffic]:
    """Returns what one rank of a stage exchanges in one step, kind by kind; all-reduced scalars are left out.

    Args:
        shape: The model.
        layout: Sizes without problems.
        vocab_size: Tokens of the tokenizer.
        stage: Number of the pipeline stage, from 0.
        precision: Of activations and parameters on their way; gradients go as fp32.
        shard_parameters: parameters are sharded over the data group too (FSDP, ZeRO-3), as in other trainers: every
            microbatch gathers them for its forward and for its backward pass and scatters its gradients.
    """
    element = BYTES[precision]
    return [
        *_tensor_traffic(shape, layout=layout, stage=stage, element=element),
        *_context_traffic(shape, layout=layout, element=element),
        *_expert_traffic(shape, layout=layout, stage=stage, element=element),
        *_pipeline_traffic(shape, layout=layout, stage=stage, element=element),
        *_embedding_traffic(shape, layout=layout, vocab_size=vocab_size, stage=stage),
        *_data_traffic(
            shape,
            layout=layout,
            vocab_size=vocab_size,
            stage=stage,
            element=element,
            shard_parameters=shard_parameters,
        ),
    ]


@lru_cache(maxsize=4096)
def data_parameters(shape: ModelShape, *, layout: Layout, vocab_size: int) -> tuple[tuple[int, int], ...]:
    """Returns the parameters of one rank of each stage: (those reduced over data, experts over expert_data)."""
    kinds = stage_layers(shape, layout=layout)
    local = shape.experts.num_moe_experts // layout.expert_model_parallel_size if shape.experts else 0
    totals = stage_parameters(shape, layout=layout, vocab_size=vocab_size)
    experts = [count * local * shape.expert_parameters for _, count in kinds]
    return tuple((total - part, part) for total, part in zip(totals, experts, strict=True))


def model_sizes(layout: Layout) -> Layout:
    """Returns the same cut of the model with the smallest batch: a key under which parameters can be remembered."""
    model = layout.model_parallel_size * layout.expert_model_parallel_size
    return Layout(
        world_size=model,
        global_batch_size=1,
        seq_length=1,
        tensor_model_parallel_size=layout.tensor_model_parallel_size,
        pipeline_model_parallel_size=layout.pipeline_model_parallel_size,
        virtual_pipeline_model_parallel_size=layout.virtual_pipeline_model_parallel_size,
        context_parallel_size=layout.context_parallel_size,
        expert_model_parallel_size=layout.expert_model_parallel_size,
    )


def _tensor_traffic(shape: ModelShape, *, layout: Layout, stage: int, element: int) -> list[Traffic]:
    """Sequence parallel gathers and scatters the residual stream around attention and MLP, else all-reduces."""
    if layout.tensor_model_parallel_size == 1:
        return []
    calls = _stage_tensor_calls(
        shape,
        kinds=stage_layers(shape, layout=layout)[stage],
        first=stage == 0,
        last=stage == layout.pipeline_model_parallel_size - 1,
        sequence=layout.sequence_parallel,
        recompute=layout.recompute_granularity,
    )
    scale = layout.num_microbatches * layout.rank_tokens * element
    found: dict[str, list[int]] = {}
    for (operation, width), count in calls.items():
        entry = found.setdefault(operation, [0, 0])
        entry[0] += count * layout.num_microbatches
        entry[1] += count * width * scale
    for made, size in _tensor_sums(shape, layout=layout, stage=stage):
        entry = found.setdefault("all-reduce", [0, 0])
        entry[0], entry[1] = entry[0] + made, entry[1] + size
    return [Traffic(group="tensor", operation=name, calls=made, bytes=size) for name, (made, size) in found.items()]


def _tensor_sums(shape: ModelShape, *, layout: Layout, stage: int) -> list[tuple[int, int]]:
    """(calls, bytes) of small sums in fp32: the loss over parts of the vocabulary, gradients of what is not divided."""
    found = []
    if stage == layout.pipeline_model_parallel_size - 1:  # largest logit, the label's logit, sum of exponentials
        calls = 3 * layout.num_microbatches
        found.append((calls, 4 * calls * layout.rank_tokens))
    if layout.sequence_parallel:
        found.append((1, 4 * _whole_parameters(shape, layout=layout, stage=stage)))
    return found


def _whole_parameters(shape: ModelShape, *, layout: Layout, stage: int) -> int:
    """Norms and routers of a stage: each tensor parallel rank sees its share of the sequence and has all of them."""
    kinds = stage_layers(shape, layout=layout)
    dense, experts = kinds[stage]
    norms = shape.layer_vector_parameters - (shape.qkv_size if shape.add_qkv_bias else 0)
    router = shape.hidden_size * shape.experts.num_moe_experts if shape.experts else 0
    last = shape.hidden_size if stage == layout.pipeline_model_parallel_size - 1 else 0
    return norms * (dense + experts) + router * experts + last


@lru_cache(maxsize=4096)
def _stage_tensor_calls(
    shape: ModelShape, *, kinds: Kinds, first: bool, last: bool, sequence: bool, recompute: str | None
) -> Calls:
    dense, experts = kinds
    shared = experts if shape.shared_expert_parameters else 0
    attention, mlp = _attention_calls(shape, sequence=sequence), _mlp_calls(shape, sequence=sequence)
    total: Calls = Counter()
    for count, (forward, backward), again in (
        (dense + experts, attention, recompute == "full"),
        (dense, mlp, recompute is not None),
        (shared, mlp, recompute is not None),
    ):
        for key, number in forward.items():
            total[key] += count * number * (1 + again)
        for key, number in backward.items():
            total[key] += count * number
    _add_ends(total, shape.hidden_size, first=first, last=last, sequence=sequence)
    return Counter({key: number for key, number in total.items() if number})


def _add_ends(total: Calls, width: int, *, first: bool, last: bool, sequence: bool) -> None:
    """The embedding's sum over the parts of the table, and the input of the output layer with its gradient."""
    if sequence:
        total["all-gather", width] += first + 2 * last
        total["reduce-scatter", width] += first + last
    else:
        total["all-reduce", width] += first + last


def _column(width: int, *, sequence: bool) -> tuple[Calls, Calls]:
    """Calls (forward, backward) of a matmul whose outputs are divided, with an input of `width`."""
    if not sequence:
        return Counter(), Counter({("all-reduce", width): 1})
    # Backward gathers the input once more, for the weight gradient.
    return Counter({("all-gather", width): 1}), Counter({("all-gather", width): 1, ("reduce-scatter", width): 1})


def _row(width: int, *, sequence: bool) -> tuple[Calls, Calls]:
    """Calls (forward, backward) of a matmul whose inputs are divided, with an output of `width`."""
    if not sequence:
        return Counter({("all-reduce", width): 1}), Counter()
    return Counter({("reduce-scatter", width): 1}), Counter({("all-gather", width): 1})


def _together(parts: Iterable[tuple[Calls, Calls]]) -> tuple[Calls, Calls]:
    forward, backward = Counter[tuple[str, int]](), Counter[tuple[str, int]]()
    for first, second in parts:
        forward += first
        backward += second
    return forward, backward


def _mlp_calls(shape: ModelShape, *, sequence: bool) -> tuple[Calls, Calls]:
    hidden = shape.hidden_size
    return _together([_column(hidden, sequence=sequence), _row(hidden, sequence=sequence)])


def _attention_calls(shape: ModelShape, *, sequence: bool) -> tuple[Calls, Calls]:
    hidden, latent = shape.hidden_size, shape.latent
    parts = [_column(hidden, sequence=sequence), _row(hidden, sequence=sequence)]
    if latent is None:
        return _together(parts)
    rotated = latent.qk_pos_emb_head_dim
    whole = latent.kv_lora_rank + rotated
    parts += [_column(hidden, sequence=sequence), _column(latent.kv_lora_rank, sequence=sequence)]
    # The latent's parts come together; then each rank keeps its share of the sequence, and gathers the rotated key.
    parts.append((Counter({("all-gather", whole): 1}), Counter({("all-gather", whole): int(sequence)})))
    if sequence:
        parts.append((Counter({("all-gather", rotated): 1}), Counter({("reduce-scatter", rotated): 1})))
    else:
        parts.append((Counter(), Counter({("all-reduce", rotated): 1})))
    return _together(parts)


def _context_traffic(shape: ModelShape, *, layout: Layout, element: int) -> list[Traffic]:
    """Every layer gathers the keys and values of the whole sequence together, and scatters their gradients."""
    if layout.context_parallel_size == 1:
        return []
    layers = shape.num_layers // layout.pipeline_model_parallel_size * layout.num_microbatches
    size = element * context_width(shape) * layout.micro_batch_size * layout.seq_length
    size //= layout.tensor_model_parallel_size
    gathers = layers * (2 if layout.recompute_granularity == "full" else 1)
    return [
        Traffic(group="context", operation="all-gather", calls=gathers, bytes=gathers * size),
        Traffic(group="context", operation="reduce-scatter", calls=layers, bytes=layers * size),
    ]


def context_width(shape: ModelShape) -> int:
    """Returns the width of all keys and values of one token; latent attention has them for every head."""
    if shape.latent:
        return shape.query_size + shape.attention_size
    return 2 * shape.num_query_groups * shape.kv_channels


def _expert_traffic(shape: ModelShape, *, layout: Layout, stage: int, element: int) -> list[Traffic]:
    """Tokens go to their experts and come back, and so do their gradients: four all-to-alls of activations a layer.

    The weights of the chosen experts go along (fp32), and every rank tells how many tokens it has for each expert.
    """
    if shape.experts is None or layout.expert_model_parallel_size == 1:
        return []
    kinds = stage_layers(shape, layout=layout)
    layers = kinds[stage][1] * layout.num_microbatches
    again = layers if layout.recompute_granularity else 0
    chosen = shape.experts.moe_router_topk * layout.sharded_tokens
    passes = 2 * layers + again
    counts = 8 * shape.experts.num_moe_experts * layout.expert_model_parallel_size
    exchanged = passes * chosen * (2 * element * shape.hidden_size + 4)
    return [
        Traffic(group="expert", operation="all-to-all", calls=3 * passes, bytes=exchanged),
        Traffic(group="expert", operation="all-gather", calls=layers + again, bytes=(layers + again) * counts),
    ]


def _pipeline_traffic(shape: ModelShape, *, layout: Layout, stage: int, element: int) -> list[Traffic]:
    """Every chunk sends its output on and its input's gradient back, except at the two ends of the model."""
    if layout.pipeline_model_parallel_size == 1:
        return []
    ends = (stage == 0) + (stage == layout.pipeline_model_parallel_size - 1)
    calls = (2 * layout.num_model_chunks - ends) * layout.num_microbatches
    size = element * shape.hidden_size * layout.sharded_tokens
    return [Traffic(group="pipeline", operation=name, calls=calls, bytes=calls * size) for name in ("send", "receive")]


def _embedding_traffic(shape: ModelShape, *, layout: Layout, vocab_size: int, stage: int) -> list[Traffic]:
    """The first and the last stage add up the gradients of a table that both hold."""
    stages = layout.pipeline_model_parallel_size
    if stages == 1 or not shape.share_embeddings_and_output_weights or stage not in (0, stages - 1):
        return []
    table = padded_vocab_size(vocab_size) // layout.tensor_model_parallel_size * shape.hidden_size
    return [Traffic(group="embedding", operation="all-reduce", calls=1, bytes=4 * table)]


def _data_traffic(
    shape: ModelShape, *, layout: Layout, vocab_size: int, stage: int, element: int, shard_parameters: bool
) -> list[Traffic]:
    """Gradients are added up over the copies of a parameter; experts have their own, fewer copies."""
    sizes = data_parameters(shape, layout=model_sizes(layout), vocab_size=vocab_size)[stage]
    copies = (layout.data_parallel_size * layout.context_parallel_size, layout.expert_data_parallel_size)
    found = []
    for group, parameters, count in zip(("data", "expert_data"), sizes, copies, strict=True):
        if count == 1 or not parameters:
            continue
        if not (layout.use_distributed_optimizer or shard_parameters):
            found.append(Traffic(group=group, operation="all-reduce", calls=1, bytes=4 * parameters))
            continue
        times = layout.num_microbatches if shard_parameters else 1
        gathers = 2 * times if shard_parameters else 1
        found += [
            Traffic(group=group, operation="reduce-scatter", calls=times, bytes=4 * parameters * times),
            Traffic(group=group, operation="all-gather", calls=gathers, bytes=element * parameters * gathers),
        ]
    return found

"""What one layer keeps for the backward pass of one microbatch, in bytes on one rank.

Every formula is a list of the tensors that autograd saves, read off a layer of the real model
(tests/parallelism/test_layer_activations.py holds them to the byte).
"""

from collections.abc import Iterator
from functools import lru_cache

from parallelism.cost.kernels import CPU, GPU, Kernels
from parallelism.layout import BYTES, Layout, Precision
from parallelism.presets import Experts, LatentAttention, ModelShape

TILE, KEPT_KEYS = 128, 1024
"""Of parallelism/tiles.py, which a test compares."""


def layer_activations(
    shape: ModelShape,
    *,
    layout: Layout,
    precision: Precision = "bf16",
    fused: bool = True,
    experts: bool = False,
    kernels: Kernels | None = None,
) -> int:
    """Returns the bytes that one layer keeps for the backward pass of one microbatch.

    Args:
        shape: The model.
        layout: Its sizes on ranks; of its recomputation "selective" counts here, "full" is for the caller.
        precision: Of tensors.
        fused: Says that a GPU's kernels do the work, which store no weights of attention.
        experts: Says that the layer has experts in place of its MLP; tokens are taken to be spread evenly.
        kernels: Another implementation than ours.
    """
    kernels = kernels or (GPU if fused else CPU)
    element = BYTES[precision]
    kept = 2 * norm(shape.hidden_size, layout=layout, element=element, kernels=kernels)
    kept += 2 * shape.hidden_size * layout.sharded_tokens if kernels.dropout else 0
    if shape.latent is None:
        kept += attention(shape, layout=layout, element=element, kernels=kernels)
    else:
        kept += latent_attention(shape, latent=shape.latent, layout=layout, element=element, kernels=kernels)
    if layout.recompute_granularity == "selective":
        return kept  # The MLP's or the experts' input is the norm's output, which is counted.
    if experts and shape.experts:
        return kept + experts_mlp(shape, routed=shape.experts, layout=layout, element=element, kernels=kernels)
    return kept + mlp(shape.ffn_hidden_size, layout=layout, element=element, kernels=kernels)


def norm(width: int, *, layout: Layout, element: int, kernels: Kernels) -> int:
    """One norm: input and output, or fp32 copies and the output; and one or two statistics per token."""
    return ((kernels.norm_tensors * element + 4 * kernels.norm_fp32) * width + kernels.norm_statistics) * (
        layout.sharded_tokens
    )


def mlp(width: int, *, layout: Layout, element: int, kernels: Kernels) -> int:
    """An MLP, or shared experts: what its activation keeps, its output included; the input is the norm's output."""
    return kernels.mlp_tensors * element * width * layout.rank_tokens // layout.tensor_model_parallel_size


def attention(shape: ModelShape, *, layout: Layout, element: int, kernels: Kernels) -> int:
    """Attention: the projection of queries, keys and values, rotated queries and keys, output.

    Kernels without the square matrix keep one number per head and token, those with it every score. Where copies are
    what attention works on (tiles; context parallel, which gathers keys and values), the projection is not kept.
    """
    tensor, keys = layout.tensor_model_parallel_size, shape.num_query_groups * shape.kv_channels
    tables = _tables(shape.kv_channels, layout=layout, element=element) if kernels.own_tables else 0
    if kernels.tiles or layout.context_parallel_size > 1:
        return tables + _copied(shape, keys=2 * keys, layout=layout, element=element, kernels=kernels) // tensor
    width = shape.qkv_size + (1 + kernels.score_copies) * shape.attention_size
    width += shape.attention_size + keys if kernels.rotary else 0
    return tables + (element * width * layout.rank_tokens + _scores(shape, layout=layout, kernels=kernels)) // tensor


def latent_attention(
    shape: ModelShape, *, latent: LatentAttention, layout: Layout, element: int, kernels: Kernels
) -> int:
    """Latent attention: the latent and its norm, queries, keys and values of all heads, output, tables of angles.

    Each layer has angles of its own; half of them are kept, as each stands twice. A norm that keeps its input keeps the
    latent of the whole sequence with the rotated key beside it, of which its input is a view. Flash kernels want values
    as wide as queries, so they and the output are kept that wide, and the output once more without the filling.
    """
    tensor, query, value = layout.tensor_model_parallel_size, shape.query_size, shape.attention_size
    kept = norm(latent.kv_lora_rank, layout=layout, element=element, kernels=kernels)
    if kernels.norm_tensors > 1 or element == BYTES["fp32"]:
        whole = latent.kv_lora_rank + latent.qk_pos_emb_head_dim
        kept += element * (whole * layout.rank_tokens - latent.kv_lora_rank * layout.sharded_tokens)
    tables = _tables(latent.qk_pos_emb_head_dim, layout=layout, element=element)
    kept += tables if kernels.own_tables else tables // 4
    if kernels.tiles or layout.context_parallel_size > 1:
        return kept + _copied(shape, keys=query + value, layout=layout, element=element, kernels=kernels) // tensor
    width = 4 * query + value if kernels.padded_values and query != value else 2 * query + 2 * value
    return kept + (element * width * layout.rank_tokens + _scores(shape, layout=layout, kernels=kernels)) // tensor


def experts_mlp(shape: ModelShape, *, routed: Experts, layout: Layout, element: int, kernels: Kernels) -> int:
    """Router, routed experts on this rank and shared experts.

    Each token is sent to `moe_router_topk` experts: with tokens spread evenly a rank receives as many rows as it
    sends, top-k of its share of the sequence. Kept of a row: the expert's input, its weight, and what its activation
    keeps. Kept by the router per token: scores (fp32) and the sorting order (int64) per expert; weights and indices,
    three times, per choice; their sum.
    """
    top, tokens = routed.moe_router_topk, layout.sharded_tokens
    router = (4 + 12 * routed.num_moe_experts + 20 * top) * tokens
    shared = mlp(routed.moe_shared_expert_intermediate_size, layout=layout, element=element, kernels=kernels)
    parts = kernels.expert_tensor_parallel_size
    row = element * (shape.hidden_size + kernels.expert_tensors * routed.moe_ffn_hidden_size // parts) + 4
    return router + shared + top * tokens * parts * row


def _copied(shape: ModelShape, *, keys: int, layout: Layout, element: int, kernels: Kernels) -> int:
    """Attention on copies, of all heads: queries, keys and values of the whole sequence, the output for the projection.

    `keys` is the width of keys and values together. Tiles keep the weights of short tiles, others one number a query.
    """
    tokens = layout.rank_tokens
    kept = element * tokens * (shape.query_size + shape.attention_size + keys * layout.context_parallel_size)
    if not kernels.tiles:
        return kept + _scores(shape, layout=layout, kernels=kernels)
    weights = _tile_weights(layout.seq_length // layout.context_parallel_size, parts=layout.context_parallel_size)
    return kept + element * shape.num_attention_heads * layout.micro_batch_size * weights


@lru_cache(maxsize=256)
def _tile_weights(length: int, *, parts: int) -> int:
    """Weights that tiles keep of one head and sequence on the first of `parts` ranks, which has the shortest tiles."""
    chunks = [(0, length)] if parts == 1 else [(0, length // 2), ((2 * parts - 1) * (length // 2), length // 2)]
    ends = [(at + size, size) for first, whole in chunks for at, size in _tiles(first, whole)]
    return sum(size * end for end, size in ends if end <= KEPT_KEYS)


def _tiles(first: int, length: int) -> Iterator[tuple[int, int]]:
    """Where each tile of a stretch of a sequence begins, and its length."""
    for at in range(first, first + length, TILE):
        yield at, min(TILE, first + length - at)


def _scores(shape: ModelShape, *, layout: Layout, kernels: Kernels) -> int:
    """The square matrix of all heads, or one number per head and token where it is not stored."""
    per_token = kernels.score_bytes * layout.seq_length if kernels.score_bytes else 4
    return shape.num_attention_heads * layout.rank_tokens * per_token


def _tables(width: int, *, layout: Layout, element: int) -> int:
    """Cosines and sines for queries and for keys, alike for every sample of the microbatch."""
    return 4 * element * width * layout.rank_tokens // layout.micro_batch_size

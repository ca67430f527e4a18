"""How a whole tensor of Megatron's is put together from rows of Hugging Face's, both ways.

Megatron keeps the queries, keys and values of each group side by side, and gate above up. One table says which rows of
which tensor follow one another; export cuts by it, and import reads any part of a whole tensor by it. Latent attention
needs no reordering: both rotate the pairs (0, 1), (2, 3), ... of what lies in the file.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from parallelism.hf_config import Kind
from parallelism.presets import Experts, LatentAttention, ModelShape

ExpertLayout = Literal["per_expert", "fused"]
"""Experts as tensors of their own (vLLM, files from before transformers 5) or stacked, gate above up (transformers)."""
_FUSED = "gate_up_proj"


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Rows `start` to `stop` of a tensor in a Hugging Face file; of its part `expert`, where it stacks experts."""

    name: str
    start: int
    stop: int
    expert: int | None = None

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.stop - self.start


type Table = dict[str, tuple[Piece, ...]]
"""Pieces from top to bottom by the name of a whole tensor, as model.parts has it: 3/decoder.layers.mlp... is its
part for layer 3, or for expert 3 where the layers are no longer alike and carry their number in the name."""


def table(shape: ModelShape, *, vocab_size: int, experts: ExpertLayout = "fused") -> Table:
    """Returns the pieces of every tensor of a model; the padding of the vocabulary has none."""
    pieces = {
        "embedding.word_embeddings.weight": _rows("model.embed_tokens.weight", vocab_size),
        "decoder.final_layernorm.weight": _rows("model.norm.weight", shape.hidden_size),
    }
    if not shape.share_embeddings_and_output_weights:
        pieces["output_layer.weight"] = _rows("lm_head.weight", vocab_size)
    for layer in range(shape.num_layers):
        for name, found, expert in _layer(shape, layer, experts=experts):
            alike = f"{layer}/decoder.layers." if shape.experts is None else f"decoder.layers.{layer}."
            pieces[("" if expert is None else f"{expert}/") + alike + name] = found
    return pieces


def _rows(name: str, count: int, *, expert: int | None = None) -> tuple[Piece, ...]:
    return (Piece(name=name, start=0, stop=count, expert=expert),)


type _Named = Iterator[tuple[str, tuple[Piece, ...], int | None]]


def _layer(shape: ModelShape, layer: int, *, experts: ExpertLayout) -> _Named:
    """Yields (name, pieces, expert) for one layer."""
    hf = f"model.layers.{layer}."
    latent, mixed = shape.latent is not None, shape.has_experts(layer)
    first = "input_layernorm.weight" if latent else "self_attention.linear_qkv.layer_norm_weight"
    second = "pre_mlp_layernorm.weight" if latent or mixed else "mlp.linear_fc1.layer_norm_weight"
    yield first, _rows(f"{hf}input_layernorm.weight", shape.hidden_size), None
    yield second, _rows(f"{hf}post_attention_layernorm.weight", shape.hidden_size), None
    yield "self_attention.linear_proj.weight", _rows(f"{hf}self_attn.o_proj.weight", shape.hidden_size), None
    attention = f"{hf}self_attn."
    yield from _latent(shape.latent, attention, shape=shape) if shape.latent else _grouped(shape, attention)
    if shape.experts and mixed:
        yield from _experts(shape.experts, f"{hf}mlp.", hidden=shape.hidden_size, layout=experts)
    else:
        yield from _mlp("mlp.", f"{hf}mlp.", width=shape.ffn_hidden_size, hidden=shape.hidden_size)


def _grouped(shape: ModelShape, hf: str) -> _Named:
    queries = shape.num_attention_heads // shape.num_query_groups
    heads = {"q": queries, "k": 1, "v": 1}
    for kind in ("weight", "bias") if shape.add_qkv_bias else ("weight",):
        pieces = tuple(
            Piece(
                name=f"{hf}{letter}_proj.{kind}",
                start=group * count * shape.kv_channels,
                stop=(group + 1) * count * shape.kv_channels,
            )
            for group in range(shape.num_query_groups)
            for letter, count in heads.items()
        )
        yield f"self_attention.linear_qkv.{kind}", pieces, None


def _latent(latent: LatentAttention, hf: str, *, shape: ModelShape) -> _Named:
    own = "self_attention."
    down = latent.kv_lora_rank + latent.qk_pos_emb_head_dim
    up = shape.num_attention_heads * (latent.qk_head_dim + latent.v_head_dim)
    yield f"{own}linear_q_proj.weight", _rows(f"{hf}q_proj.weight", shape.query_size), None
    yield f"{own}linear_kv_down_proj.weight", _rows(f"{hf}kv_a_proj_with_mqa.weight", down), None
    yield f"{own}kv_layernorm.weight", _rows(f"{hf}kv_a_layernorm.weight", latent.kv_lora_rank), None
    yield f"{own}linear_kv_up_proj.weight", _rows(f"{hf}kv_b_proj.weight", up), None


def _mlp(own: str, hf: str, *, width: int, hidden: int, expert: int | None = None) -> _Named:
    gate_up = _rows(f"{hf}gate_proj.weight", width) + _rows(f"{hf}up_proj.weight", width)
    yield f"{own}linear_fc1.weight", gate_up, expert
    yield f"{own}linear_fc2.weight", _rows(f"{hf}down_proj.weight", hidden), expert


def _experts(experts: Experts, hf: str, *, hidden: int, layout: ExpertLayout) -> _Named:
    count, width, own = experts.num_moe_experts, experts.moe_ffn_hidden_size, "mlp.experts.experts."
    yield "mlp.router.weight", _rows(f"{hf}gate.weight", count), None
    yield "mlp.router.expert_bias", _rows(f"{hf}gate.e_score_correction_bias", count), None
    shared = experts.moe_shared_expert_intermediate_size
    yield from _mlp("mlp.shared_experts.", f"{hf}shared_experts.", width=shared, hidden=hidden)
    for expert in range(count):
        if layout == "per_expert":
            yield from _mlp(own, f"{hf}experts.{expert}.", width=width, hidden=hidden, expert=expert)
        else:
            yield f"{own}linear_fc1.weight", _rows(f"{hf}experts.{_FUSED}", 2 * width, expert=expert), expert
            yield f"{own}linear_fc2.weight", _rows(f"{hf}experts.down_proj", hidden, expert=expert), expert


def experts_of(names: Mapping[str, object]) -> ExpertLayout:
    """Returns how the tensors of these names hold experts."""
    return "fused" if any(name.endswith(_FUSED) for name in names) else "per_expert"


def rows_of(pieces: Table) -> dict[str, int]:
    """Returns how many rows each tensor in the files must have; those of one expert where it stacks experts."""
    rows: dict[str, int] = {}
    for piece in (piece for whole in pieces.values() for piece in whole):
        rows[piece.name] = max(rows.get(piece.name, 0), piece.stop)
    return rows


def to_hf(
    weights: Mapping[str, Tensor], *, shape: ModelShape, vocab_size: int, kind: Kind, experts: ExpertLayout = "fused"
) -> dict[str, Tensor]:
    """Returns a model's tensors by Hugging Face's names, the padding of the vocabulary cut off.

    Args:
        weights: whole tensors by Megatron's names, layers and experts stacked on axis 0 (`export.read_weights`).
        shape: the model's size.
        vocab_size: the tokenizer's.
        kind: the type; a Llama with our bias has one on the output too, here 0.
        experts: how experts are written.
    """
    cut: dict[str, list[tuple[Piece, Tensor]]] = {}
    for name, pieces in table(shape, vocab_size=vocab_size, experts=experts).items():
        below = _whole(weights, name)
        for piece in pieces:
            cut.setdefault(piece.name, []).append((piece, below[: piece.rows]))
            below = below[piece.rows :]
    named = {name: _joined(parts) for name, parts in cut.items()}
    if shape.add_qkv_bias and kind == "llama":
        zeros = named["model.layers.0.self_attn.q_proj.bias"].new_zeros(shape.hidden_size)
        named |= {f"model.layers.{layer}.self_attn.o_proj.bias": zeros.clone() for layer in range(shape.num_layers)}
    if shape.share_embeddings_and_output_weights:
        named["lm_head.weight"] = named["model.embed_tokens.weight"]
    return named


def _whole(weights: Mapping[str, Tensor], name: str) -> Tensor:
    *prefix, key = name.split("/")
    found = weights[key]
    for number in map(int, prefix):
        found = found[number]
    return found


def _joined(parts: list[tuple[Piece, Tensor]]) -> Tensor:
    """Puts the pieces of one tensor in their order; a single one is not copied."""
    tensors = [tensor for _, tensor in sorted(parts, key=lambda part: (part[0].expert or 0, part[0].start))]
    if parts[0][0].expert is not None:
        return torch.stack(tensors)
    return tensors[0].contiguous() if len(tensors) == 1 else torch.cat(tensors)

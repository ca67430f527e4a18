"""How one training step is spread over ranks: sizes, what they imply, and every reason to refuse them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from parallelism.presets import ModelShape, padded_vocab_size

Precision = Literal["fp32", "bf16"]
Recompute = Literal["full", "selective"]
BYTES: Mapping[Precision, int] = {"bf16": 2, "fp32": 4}
"""Bytes of one element."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Parallel sizes and batch sizes of one run, in Megatron's names; `problems` checks them.

    `recompute_granularity` "full" keeps only each layer's input for the backward pass and computes the rest
    again; "selective" computes each layer's MLP, or its experts, again. `expert_model_parallel_size` spreads the
    experts of a layer over ranks of a pipeline stage; an expert is whole on its rank, whatever the tensor size.
    """

    world_size: int
    global_batch_size: int
    seq_length: int
    micro_batch_size: int = 1
    tensor_model_parallel_size: int = 1
    pipeline_model_parallel_size: int = 1
    virtual_pipeline_model_parallel_size: int | None = None
    context_parallel_size: int = 1
    expert_model_parallel_size: int = 1
    sequence_parallel: bool = False
    use_distributed_optimizer: bool = True
    recompute_granularity: Recompute | None = None

    @property
    def model_parallel_size(self) -> int:
        """Ranks that together hold one copy of the model: tensor x pipeline x context."""
        return self.tensor_model_parallel_size * self.pipeline_model_parallel_size * self.context_parallel_size

    @property
    def data_parallel_size(self) -> int:
        """Copies of the model that see different samples."""
        return self.world_size // self.model_parallel_size

    @property
    def expert_data_parallel_size(self) -> int:
        """Copies of each expert."""
        return self.world_size // (self.pipeline_model_parallel_size * self.expert_model_parallel_size)

    @property
    def num_microbatches(self) -> int:
        """Forward passes of each copy in one optimizer step."""
        return self.global_batch_size // (self.micro_batch_size * self.data_parallel_size)

    @property
    def rank_tokens(self) -> int:
        """Tokens that one rank works on at a time: micro_batch_size x seq_length / context_parallel_size."""
        return self.micro_batch_size * self.seq_length // self.context_parallel_size

    @property
    def sharded_tokens(self) -> int:
        """Those of `rank_tokens` whose residual stream this rank keeps: a share of them under sequence_parallel."""
        return self.rank_tokens // (self.tensor_model_parallel_size if self.sequence_parallel else 1)

    @property
    def num_model_chunks(self) -> int:
        """Pieces of the model on one rank: 1, or virtual_pipeline_model_parallel_size."""
        return self.virtual_pipeline_model_parallel_size or 1

    @property
    def bubble_fraction(self) -> float:
        """Share of the step in which a rank waits for the pipeline: (p - 1) / (v m + p - 1).

        Source: Narayanan et al. 2021 (arXiv:2104.04473), section 2.2, with p stages, m microbatches and v
        chunks; theirs is relative to the ideal time, this is relative to the whole.
        """
        waiting = self.pipeline_model_parallel_size - 1
        return waiting / (self.num_model_chunks * self.num_microbatches + waiting)

    def describe(self) -> str:
        """Returns the short name people use, such as "TP8 PP4 VP2 DP8 MBS1, full recompute"."""
        parts = [f"TP{self.tensor_model_parallel_size}", f"PP{self.pipeline_model_parallel_size}"]
        parts += [f"VP{self.num_model_chunks}"] if self.num_model_chunks > 1 else []
        parts += [f"CP{self.context_parallel_size}"] if self.context_parallel_size > 1 else []
        parts += [f"EP{self.expert_model_parallel_size}"] if self.expert_model_parallel_size > 1 else []
        parts += [f"DP{self.data_parallel_size}", f"MBS{self.micro_batch_size}"]
        recompute = f", {self.recompute_granularity} recompute" if self.recompute_granularity else ""
        return " ".join(parts) + recompute


def problems(shape: ModelShape, *, layout: Layout, vocab_size: int | None = None) -> list[str]:
    """Returns every reason why `layout` cannot train `shape`, one line each; empty when it can.

    Args:
        shape: The model.
        layout: The sizes to check.
        vocab_size: Tokens of the tokenizer, where it is known already; the padded size is checked.
    """
    found = _too_small(layout)
    if found:
        return found  # The rules below divide by these sizes.
    return [
        *_model_problems(shape, layout=layout, vocab_size=vocab_size),
        *_rank_problems(layout),
        *_expert_problems(shape, layout=layout),
        *_sequence_problems(shape, layout=layout),
    ]


def warnings(layout: Layout) -> list[str]:
    """Returns what is allowed but wasteful, one line each, for a layout without problems."""
    stages, microbatches = layout.pipeline_model_parallel_size, layout.num_microbatches
    if microbatches >= stages:
        return []
    enough = stages * layout.micro_batch_size * layout.data_parallel_size
    line = (
        f"num_microbatches {microbatches} is below pipeline_model_parallel_size {stages}: ranks wait "
        f"{layout.bubble_fraction:.0%} of each step; use a global_batch_size of {enough} or more, "
        "or fewer stages"
    )
    return [line]


def divisors(number: int) -> list[int]:
    """Returns the divisors of a positive number, ascending."""
    return [size for size in range(1, number + 1) if number % size == 0]


def _too_small(layout: Layout) -> list[str]:
    sizes = {
        "world_size": layout.world_size,
        "global_batch_size": layout.global_batch_size,
        "seq_length": layout.seq_length,
        "micro_batch_size": layout.micro_batch_size,
        "tensor_model_parallel_size": layout.tensor_model_parallel_size,
        "pipeline_model_parallel_size": layout.pipeline_model_parallel_size,
        "virtual_pipeline_model_parallel_size": layout.num_model_chunks,
        "context_parallel_size": layout.context_parallel_size,
        "expert_model_parallel_size": layout.expert_model_parallel_size,
    }
    return [f"{name} {size} must be at least 1; use 1 or more" for name, size in sizes.items() if size < 1]


def _model_problems(shape: ModelShape, *, layout: Layout, vocab_size: int | None) -> list[str]:
    tensor, pipeline = layout.tensor_model_parallel_size, layout.pipeline_model_parallel_size
    split = {
        "num_attention_heads": shape.num_attention_heads,
        "num_query_groups": shape.num_query_groups if shape.latent is None else tensor,
        "ffn_hidden_size": shape.ffn_hidden_size,
        "moe_shared_expert_intermediate_size": (
            shape.experts.moe_shared_expert_intermediate_size if shape.experts else tensor
        ),
        "the padded vocabulary": padded_vocab_size(vocab_size) if vocab_size else tensor,
    }
    found = [_must_divide("tensor_model_parallel_size", tensor, what, size) for what, size in split.items()]
    stages = pipeline * layout.num_model_chunks
    if layout.num_model_chunks > 1:
        name = f"pipeline_model_parallel_size {pipeline} x virtual {layout.num_model_chunks} ="
        found.append(_must_divide(name, stages, "num_layers", shape.num_layers))
    else:
        found.append(_must_divide("pipeline_model_parallel_size", stages, "num_layers", shape.num_layers))
    return [line for line in found if line]


def _rank_problems(layout: Layout) -> list[str]:
    size = layout.model_parallel_size
    if layout.world_size % size:
        tensor, pipeline = layout.tensor_model_parallel_size, layout.pipeline_model_parallel_size
        name = f"tensor {tensor} x pipeline {pipeline} x context {layout.context_parallel_size} ="
        return [_must_be_multiple("world_size", layout.world_size, name, size)]
    found, micro, copies = [], layout.micro_batch_size, layout.data_parallel_size
    if layout.global_batch_size % (micro * copies):
        name = f"micro_batch_size {micro} x data_parallel_size {copies} ="
        found.append(_must_be_multiple("global_batch_size", layout.global_batch_size, name, micro * copies))
    return found + _interleaving_problems(layout)


def _interleaving_problems(layout: Layout) -> list[str]:
    pipeline, chunks = layout.pipeline_model_parallel_size, layout.num_model_chunks
    if chunks > 1 and pipeline == 1:
        line = (
            f"virtual_pipeline_model_parallel_size {chunks} needs pipeline_model_parallel_size above 1, "
            "which is 1; leave it out"
        )
        return [line]
    if chunks > 1 and layout.num_microbatches % pipeline:
        name = "pipeline_model_parallel_size (for virtual pipeline stages)"
        return [_must_be_multiple("num_microbatches", layout.num_microbatches, name, pipeline)]
    return []


def _expert_problems(shape: ModelShape, *, layout: Layout) -> list[str]:
    size = layout.expert_model_parallel_size
    if shape.experts is None:
        if size == 1:
            return []
        return [f"expert_model_parallel_size {size} needs a model with experts, which this one has not; leave it out"]
    found = [_must_divide("expert_model_parallel_size", size, "num_moe_experts", shape.experts.num_moe_experts)]
    ranks, rest = divmod(layout.world_size, layout.pipeline_model_parallel_size)
    if not rest:  # Otherwise a stage has no whole number of ranks, which _rank_problems says.
        found.append(_must_divide("expert_model_parallel_size", size, "the ranks of a pipeline stage", ranks))
    if layout.tensor_model_parallel_size > 1 and not layout.sequence_parallel:
        found.append(
            f"sequence_parallel must be true for a model with experts and tensor_model_parallel_size "
            f"{layout.tensor_model_parallel_size}, but is false; set it"
        )
    return [line for line in found if line]


def _sequence_problems(shape: ModelShape, *, layout: Layout) -> list[str]:
    found, seq = [], layout.seq_length
    tensor, context = layout.tensor_model_parallel_size, layout.context_parallel_size
    if seq > shape.max_position_embeddings:
        found.append(
            f"seq_length {seq} must be at most the model's max_position_embeddings; use {shape.max_position_embeddings}"
        )
    if context > 1 and seq % (2 * context):
        found.append(_must_be_multiple("seq_length", seq, "2 x context_parallel_size =", 2 * context))
    if not layout.sequence_parallel:
        return found
    if tensor == 1:
        found.append("sequence_parallel needs tensor_model_parallel_size above 1, which is 1; leave it out")
    elif seq % (context * tensor):
        found.append(_must_be_multiple("seq_length", seq, "context x tensor (sequence_parallel) =", context * tensor))
    return found


def _must_divide(name: str, size: int, what: str, whole: int) -> str | None:
    if whole % size == 0:
        return None
    return f"{name} {size} must divide {what} {whole}; use {_either(divisors(whole)[:5])}"


def _must_be_multiple(name: str, size: int, what: str, unit: int) -> str:
    below = size // unit * unit
    nearest = [number for number in (below, below + unit) if number]
    return f"{name} {size} must be a multiple of {what} {unit}; use {_either(nearest)}"


def _either(sizes: list[int]) -> str:
    names = [str(size) for size in sizes]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"

"""Layouts worth comparing: every cut of a model over the ranks, with every micro-batch and recomputation."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from parallelism.layout import Layout, Recompute, divisors, problems
from parallelism.presets import ModelShape

MIN_CONTEXT_TOKENS = 1024
"""Context parallel pays for long sequences; `candidates` leaves each rank at least so much of one."""

MAX_RANK_TOKENS = 32_768
"""Matmuls of a GPU are as fast as they get long before; `candidates` tries no larger micro-batch."""


def candidates(
    shape: ModelShape, *, world_size: int, gpus_per_node: int, global_batch_size: int, seq_length: int
) -> Iterator[Layout]:
    """Yields layouts worth comparing, refused ones among them.

    Tensor parallel stays within a node; sequence parallel is on wherever tensor parallel is, since it only saves
    memory; context parallel leaves each rank MIN_CONTEXT_TOKENS of a sequence; a micro-batch is a power of two of at
    most MAX_RANK_TOKENS tokens a rank. Parallel sizes that cannot be are yielded once, not with every batch.
    """
    whole = Layout(world_size=world_size, global_batch_size=global_batch_size, seq_length=seq_length)
    for tensor, pipeline in product(divisors(gpus_per_node), divisors(world_size)):
        if pipeline > shape.num_layers or world_size % (tensor * pipeline):
            continue
        sizes = product(
            _chunks(shape, pipeline), _contexts(whole, world_size // (tensor * pipeline)), _experts(shape, whole)
        )
        for chunks, context, expert in sizes:
            cut = replace(
                whole,
                tensor_model_parallel_size=tensor,
                pipeline_model_parallel_size=pipeline,
                virtual_pipeline_model_parallel_size=chunks,
                context_parallel_size=context,
                expert_model_parallel_size=expert,
                sequence_parallel=tensor > 1,
            )
            yield from (cut,) if problems(shape, layout=cut) else _batches(cut)


def _batches(cut: Layout) -> Iterator[Layout]:
    """Yields a cut of the model with every micro-batch and every kind of recomputation."""
    granularities: tuple[Recompute | None, ...] = (None, "selective", "full")
    most = min(MAX_RANK_TOKENS // cut.rank_tokens, cut.global_batch_size // cut.data_parallel_size)
    for power in range(max(most, 1).bit_length()):
        yield from (replace(cut, micro_batch_size=2**power, recompute_granularity=name) for name in granularities)


def _chunks(shape: ModelShape, pipeline: int) -> list[int | None]:
    """Virtual sizes that divide the layers of a stage; none where there is no pipeline or no whole stage."""
    if pipeline == 1 or shape.num_layers % pipeline:
        return [None]
    return [None, *(size for size in divisors(shape.num_layers // pipeline) if size > 1)]


def _contexts(whole: Layout, ranks: int) -> list[int]:
    return [size for size in divisors(ranks) if size == 1 or whole.seq_length >= size * MIN_CONTEXT_TOKENS]


def _experts(shape: ModelShape, whole: Layout) -> list[int]:
    if shape.experts is None:
        return [1]
    return [size for size in divisors(shape.experts.num_moe_experts) if size <= whole.world_size]

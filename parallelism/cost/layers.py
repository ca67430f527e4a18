"""Which kinds of layers a pipeline stage has: dense ones, and ones with experts, which come after them."""

from functools import lru_cache

from parallelism.layout import Layout
from parallelism.presets import ModelShape

type Kinds = tuple[int, int]
"""How many dense layers, how many layers with experts."""


def stage_layers(shape: ModelShape, *, layout: Layout) -> tuple[Kinds, ...]:
    """Returns the layers of each stage, those of all its chunks together."""
    return _stage_layers(*_cut(shape, layout))


def chunk_layers(shape: ModelShape, *, layout: Layout) -> tuple[tuple[Kinds, ...], ...]:
    """Returns the layers of each chunk of each stage."""
    return _chunk_layers(*_cut(shape, layout))


def _cut(shape: ModelShape, layout: Layout) -> tuple[int, int, int, int]:
    leading = shape.experts.first_k_dense if shape.experts else shape.num_layers
    return shape.num_layers, leading, layout.pipeline_model_parallel_size, layout.num_model_chunks


@lru_cache(maxsize=4096)
def _chunk_layers(num_layers: int, leading: int, stages: int, chunks: int) -> tuple[tuple[Kinds, ...], ...]:
    size = num_layers // (stages * chunks)
    dense = [min(max(leading - number * size, 0), size) for number in range(stages * chunks)]
    return tuple(tuple((count, size - count) for count in dense[stage::stages]) for stage in range(stages))


@lru_cache(maxsize=4096)
def _stage_layers(num_layers: int, leading: int, stages: int, chunks: int) -> tuple[Kinds, ...]:
    found = _chunk_layers(num_layers, leading, stages, chunks)
    return tuple((sum(few for few, _ in stage), sum(many for _, many in stage)) for stage in found)

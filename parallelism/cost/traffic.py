"""What ranks send each other in one step, kind by kind."""

from dataclasses import dataclass

from parallelism.cost.memory import stage_parameters
from parallelism.layout import BYTES, Layout, Precision
from parallelism.presets import ModelShape


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """One kind of exchange of one rank in one optimizer step; `bytes` counts whole (gathered) tensors."""

    group: str
    operation: str
    calls: int
    bytes: int


def stage_traffic(
    shape: ModelShape, *, layout: Layout, vocab_size: int, stage: int, precision: Precision = "bf16"
) -> list[Traffic]:
    """Returns what one rank of a stage exchanges in one step, kind by kind; all-reduced scalars are left out."""
    element = BYTES[precision]
    found = [
        *_tensor_traffic(shape, layout=layout, stage=stage, element=element),
        *_pipeline_traffic(shape, layout=layout, stage=stage, element=element),
    ]
    if layout.data_parallel_size * layout.context_parallel_size > 1:
        count = stage_parameters(shape, layout=layout, vocab_size=vocab_size)[stage]
        found += _data_traffic(count, layout=layout, element=element)
    return found


def _tensor_traffic(shape: ModelShape, *, layout: Layout, stage: int, element: int) -> list[Traffic]:
    """Sequence parallel gathers and scatters the residual stream around attention and MLP, else all-reduces."""
    if layout.tensor_model_parallel_size == 1:
        return []
    layers = shape.num_layers // layout.pipeline_model_parallel_size
    first, last = stage == 0, stage == layout.pipeline_model_parallel_size - 1
    again = 2 * layers if layout.recompute_granularity == "full" else 0
    size = element * shape.hidden_size * layout.rank_tokens
    if layout.sequence_parallel:
        # Backward gathers the inputs of qkv and fc1 once more, for their weight gradients.
        calls = {
            "all-gather": 6 * layers + again + first + 2 * last,
            "reduce-scatter": 4 * layers + again + first + last,
        }
    else:
        calls = {"all-reduce": 4 * layers + again + first + last}
    times = layout.num_microbatches
    return [
        Traffic(group="tensor", operation=name, calls=count * times, bytes=count * times * size)
        for name, count in calls.items()
    ]


def _pipeline_traffic(shape: ModelShape, *, layout: Layout, stage: int, element: int) -> list[Traffic]:
    """Every chunk sends its output on and its input's gradient back, except at the two ends of the model."""
    if layout.pipeline_model_parallel_size == 1:
        return []
    ends = (stage == 0) + (stage == layout.pipeline_model_parallel_size - 1)
    calls = (2 * layout.num_model_chunks - ends) * layout.num_microbatches
    size = element * shape.hidden_size * layout.sharded_tokens
    return [Traffic(group="pipeline", operation=name, calls=calls, bytes=calls * size) for name in ("send", "receive")]


def _data_traffic(parameters: int, *, layout: Layout, element: int) -> list[Traffic]:
    if not layout.use_distributed_optimizer:
        return [Traffic(group="data", operation="all-reduce", calls=1, bytes=4 * parameters)]
    return [
        Traffic(group="data", operation="reduce-scatter", calls=1, bytes=4 * parameters),
        Traffic(group="data", operation="all-gather", calls=1, bytes=element * parameters),
    ]

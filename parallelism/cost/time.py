"""How long a step takes: the slowest stage's computing, its transfers and its waits."""

from dataclasses import dataclass

from parallelism.cost.devices import Device
from parallelism.cost.flops import stage_flops
from parallelism.cost.traffic import Traffic, stage_traffic
from parallelism.layout import Layout, Precision
from parallelism.presets import ModelShape


@dataclass(frozen=True, kw_only=True)
class Time:
    """Seconds of one optimizer step on the slowest rank, by what they go into; they follow one another."""

    compute: float
    tensor_parallel: float
    pipeline_sends: float
    bubble: float
    data_parallel: float

    @property
    def step(self) -> float:
        """Seconds of the whole step."""
        return self.compute + self.tensor_parallel + self.pipeline_sends + self.bubble + self.data_parallel


def step_time(
    shape: ModelShape,
    *,
    layout: Layout,
    vocab_size: int,
    device: Device,
    efficiency: float,
    precision: Precision = "bf16",
) -> Time:
    """Estimates a step's time from the slowest stage.

    Tensor and pipeline traffic is taken as exposed. Data-parallel traffic hides behind the first forward and the
    last backward pass, as the trainer overlaps them; what is longer than that is exposed.

    Args:
        shape: The model.
        layout: Sizes without problems.
        vocab_size: Tokens of the tokenizer.
        device: Peak and bandwidths; tensor parallel groups are inside a node, the others cross the network.
        efficiency: Share of the peak that computing reaches, waits left out: an assumption, to be measured.
        precision: Of activations and parameters on their way.
    """
    flops = stage_flops(shape, layout=layout, vocab_size=vocab_size)
    slowest = flops.index(max(flops))
    traffic = stage_traffic(shape, layout=layout, vocab_size=vocab_size, stage=slowest, precision=precision)
    compute = flops[slowest] / (device.peak_tflops * 1e12 * efficiency)
    tensor = _seconds(traffic, "tensor", ranks=layout.tensor_model_parallel_size, rate=device.node_gb_per_s)
    sends = _seconds(traffic, "pipeline", ranks=1, rate=device.network_gb_per_s)
    replicas = layout.data_parallel_size * layout.context_parallel_size
    data = _seconds(traffic, "data", ranks=replicas, rate=device.network_gb_per_s)
    exposed = max(0.0, data - compute / layout.num_microbatches)
    busy = compute + tensor + sends
    bubble = busy * layout.bubble_fraction / (1 - layout.bubble_fraction)
    return Time(compute=compute, tensor_parallel=tensor, pipeline_sends=sends, bubble=bubble, data_parallel=exposed)


def _seconds(traffic: list[Traffic], group: str, *, ranks: int, rate: float) -> float:
    """Seconds of a group's traffic at `rate` GB/s: a ring moves (n-1)/n of a tensor, an all-reduce twice that."""
    share = (ranks - 1) / ranks if ranks > 1 else 1
    weights = {"all-reduce": 2 * share, "receive": 0.0, "send": 1.0}  # Links carry both directions at once.
    moved = sum(item.bytes * weights.get(item.operation, share) for item in traffic if item.group == group)
    return moved / (rate * 1e9)

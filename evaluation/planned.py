"""What a plan found, as plain values: what jobs/plan.py works out and the plan's page and the report show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class StageMemory:
    """Bytes on one rank of a pipeline stage at the peak of a step, as planned."""

    parameters: float
    gradients: float
    optimizer: float
    activations: float
    buffers: float = 0.0

    @property
    def total(self) -> float:
        """Bytes in all."""
        return self.parameters + self.gradients + self.optimizer + self.activations + self.buffers


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A layout and what it costs.

    Attributes:
        layout: in short, such as "TP2 PP2 DP1 MBS1".
        sizes: Megatron's name of each size -> its value.
        memory: one for each pipeline stage.
        fits: whether the fullest rank has room on its device.
        times: what a step goes into -> seconds, in the order they are added up; empty where no time can be told.
        passes: (forward, backward) of one microbatch on each pipeline stage: seconds, or FLOPs where there is no time.
        num_microbatches, num_model_chunks: of the pipeline's schedule.
        bubble_fraction: share of a step that ranks wait for the pipeline.
        mfu: model FLOPs over time and peak of the devices, where a time can be told.
    """

    layout: str
    sizes: Mapping[str, int | str | bool | None]
    memory: Sequence[StageMemory]
    fits: bool
    times: Mapping[str, float]
    passes: Sequence[tuple[float, float]]
    num_microbatches: int
    num_model_chunks: int
    bubble_fraction: float
    mfu: float | None = None

    @property
    def peak(self) -> float:
        """Bytes on the fullest rank."""
        return max(stage.total for stage in self.memory)

    @property
    def step(self) -> float | None:
        """Seconds of a step, where they can be told."""
        return sum(self.times.values()) if self.times else None


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """A layout that fits.

    Attributes:
        peak: bytes on its fullest rank.
        bubble_fraction: share of a step that ranks wait for the pipeline.
        slower_than_best: its cost as a multiple of the best one's.
        step: seconds of a step, where they can be told.
    """

    layout: str
    peak: float
    bubble_fraction: float
    slower_than_best: float
    step: float | None = None


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why layouts are out: one reason, how many of those tried it meets, and one of them."""

    reason: str
    count: int
    example: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The sizes of the parallel job: what the run asks for, and what else there is.

    Attributes:
        own: the run's own layout.
        chosen: the planner's; None where nothing fits.
        device_bytes: memory of the device, or of a process's share of the machine.
        reserve_bytes: of it, what is not for tensors.
        step_flops: of one optimizer step, over all ranks.
        tried: layouts looked at; `fitting` of them fit.
        alternatives: the best that fit, the best first.
        front: those that fit and of which none other is both faster and smaller, fastest first.
        cloud: (bytes of the fullest rank, cost beside the best) of a part of those that fit.
        campaign: what the whole training takes: name -> a value in words for each of `shown`; empty where no time can
            be told.
        kernels: which code will run the heavy operations, as far as it is known before.
        assumptions: how FLOPs, memory and speed are counted, one sentence each.
        warnings: what is allowed but wasteful.
    """

    own: Choice
    chosen: Choice | None
    device_bytes: float
    reserve_bytes: float
    step_flops: float
    tried: int = 0
    fitting: int = 0
    alternatives: Sequence[Alternative]
    refused: Sequence[Refusal]
    front: Sequence[Alternative] = ()
    cloud: Sequence[tuple[float, float]] = ()
    campaign: Mapping[str, Sequence[str]] = field(default_factory=dict)
    kernels: Sequence[str] = ()
    assumptions: Sequence[str]
    warnings: Sequence[str]

    @property
    def room(self) -> float:
        """Bytes of one device that tensors may take."""
        return self.device_bytes - self.reserve_bytes

    @property
    def shown(self) -> Sequence[Choice]:
        """The run's own layout and the planner's, where it is another one; a picture has a row for each."""
        others = [self.chosen] if self.chosen and self.chosen.layout != self.own.layout else []
        return [self.own, *others]

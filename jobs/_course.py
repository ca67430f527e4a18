"""How a training runs: a batch that grows, later mixtures, setbacks, saving and what is looked at on the way."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from jobs._stage import StageConfig
from parallelism.batches import Ramp
from parallelism.setbacks import Policy


class RampupConfig(BaseModel):
    """The `rampup_batch_size:` setting: from `start` by `increment` to global_batch_size over `samples` samples."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: int = Field(ge=1)
    increment: int = Field(ge=1)
    samples: int = Field(ge=0)

    @property
    def ramp(self) -> Ramp:
        """The ramp of these sizes."""
        return Ramp(start=self.start, increment=self.increment, samples=self.samples)


class PhaseConfig(BaseModel):
    """One of the `phases:`: from step `start_iter` on, samples come by `mixture`.

    That is one of tokenize's phases, or stream -> weight; they sum to 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    start_iter: int = Field(ge=2)
    mixture: str | dict[str, Annotated[float, Field(gt=0)]]


class CourseConfig(StageConfig):
    """Settings that every section which trains has beside its own.

    Attributes:
        phases: later mixtures, the first one being tokenize's; for a constant and an annealing phase, let one start
            where the decay of "WSD" does.
        on_nan: what is done about a loss or gradient norm that is not finite.
        on_spike: what is done about a loss far above those before it.
        spike_window: losses that a loss is compared with.
        spike_factor: median absolute deviations above their median that make a loss a spike.
        max_skips: batches in a row that are left out before training stops.
        max_rewinds: returns to a checkpoint before training stops.
        async_save: whether training goes on while a checkpoint is written.
        stats_interval: steps between two reports of norms by layer and of the slowest rank; 0 for none.
        profile_steps: first and last step that rank 0 profiles, into the stage's folder `profile`.
        deterministic: whether only kernels run that give the same bits each time.
    """

    rampup_batch_size: RampupConfig | None = None
    phases: tuple[PhaseConfig, ...] = ()
    on_nan: Literal["stop", "skip", "rewind"] = "stop"
    on_spike: Literal["ignore", "stop", "skip", "rewind"] = "ignore"
    spike_window: int = Field(default=100, ge=4)
    spike_factor: float = Field(default=10.0, gt=0)
    max_skips: int = Field(default=3, ge=1)
    max_rewinds: int = Field(default=3, ge=1)
    async_save: bool = True
    stats_interval: int = Field(default=100, ge=0)
    profile_steps: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
    deterministic: bool = False

    @property
    def setbacks(self) -> Policy:
        """What is done about setbacks."""
        return Policy(**{name: getattr(self, name) for name in Policy.__dataclass_fields__})

    def course_problems(self, *, global_batch_size: int, decay_iters: int, tokenize: Any) -> Iterator[str]:
        """Yields what cannot be; `tokenize` is the section of that name, if there is one."""
        if self.rampup_batch_size:
            for line in self.rampup_batch_size.ramp.problems(global_batch_size):
                yield f"rampup_batch_size: {line}"
        if self.profile_steps and self.profile_steps[0] > self.profile_steps[1]:
            first, last = self.profile_steps
            yield f"profile_steps: must be a first step and a last, not before it, but is {first} and {last}; swap them"
        yield from self._phase_problems(decay_iters=decay_iters, tokenize=tokenize)

    def _phase_problems(self, *, decay_iters: int, tokenize: Any) -> Iterator[str]:
        before = 1
        for number, phase in enumerate(self.phases):
            place = f"phases.{number}"
            if not before < phase.start_iter <= decay_iters:
                yield (
                    f"{place}.start_iter: must be above {before}, where the phase before it starts, and at most "
                    f"lr_decay_iters (train_iters unless given) {decay_iters}, but is {phase.start_iter}; change it"
                )
            before = phase.start_iter
            if isinstance(phase.mixture, str):
                yield from _unknown_phase(place, phase.mixture, known=getattr(tokenize, "phases", None))
            else:
                yield from _bad_weights(place, phase.mixture, streams=getattr(tokenize, "mixture", None))


def _unknown_phase(place: str, name: str, *, known: Mapping[str, Any] | None) -> Iterator[str]:
    if known is not None and name not in known:
        there = ", ".join(known) or "none"
        yield f"{place}.mixture: must name one of tokenize.phases ({there}), but is {name}; correct it, or add it there"


def _bad_weights(place: str, mixture: Mapping[str, float], *, streams: Mapping[str, Any] | None) -> Iterator[str]:
    from parallelism.data import quotas

    try:
        quotas(mixture)
    except ValueError as error:
        yield f"{place}.mixture: {error}"
    unknown = [name for name in mixture if streams is not None and name not in streams]
    if unknown:
        yield (
            f"{place}.mixture.{unknown[0]}: must be a stream that tokenize mixes, {', '.join(streams or ())}, "
            "but is not; correct the name, or add it there"
        )

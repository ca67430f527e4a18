"""How many samples each optimizer step takes, and which: pure functions of the step, for a batch that may grow."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A batch that grows from `start` by `increment` to its full size, while the first `samples` samples are read.

    Every size holds for the same number of samples, up to the end of a step (Megatron's --rampup-batch-size).
    """

    start: int
    increment: int
    samples: int

    def problems(self, global_batch_size: int) -> Iterator[str]:
        """Yields why the batch cannot grow to `global_batch_size` in this way."""
        rise = global_batch_size - self.start
        if rise <= 0 or rise % self.increment:
            yield (
                f"must rise from below global_batch_size {global_batch_size} to it in whole increments, but "
                f"{self.start} plus steps of {self.increment} does not; change start or increment"
            )


@dataclass(frozen=True, kw_only=True)
class _Stretch:
    """Steps of one size: the first of them, its first sample, and the samples of each."""

    step: int
    sample: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Batches:
    """The samples of every step; steps count from 1."""

    global_batch_size: int
    ramp: Ramp | None = None

    def size(self, step: int) -> int:
        """Returns the samples of `step`."""
        return self._stretch(step).size

    def end(self, step: int) -> int:
        """Returns the samples of all steps up to `step` together; 0 for step 0."""
        if step == 0:
            return 0
        stretch = self._stretch(step)
        return stretch.sample + (step - stretch.step + 1) * stretch.size

    @property
    def sizes(self) -> list[int]:
        """All sizes that steps have, ascending."""
        return [stretch.size for stretch in self._stretches]

    @property
    def ramp_steps(self) -> int:
        """Steps before the batch has its full size."""
        return self._stretches[-1].step - 1

    def _stretch(self, step: int) -> _Stretch:
        starts = [stretch.step for stretch in self._stretches]
        return self._stretches[bisect_right(starts, step) - 1]

    @cached_property
    def _stretches(self) -> list[_Stretch]:
        if self.ramp is None:
            return [_Stretch(step=1, sample=0, size=self.global_batch_size)]
        found: list[_Stretch] = []
        step, sample, rises = 1, 0, (self.global_batch_size - self.ramp.start) // self.ramp.increment
        while True:
            done = sample * rises // self.ramp.samples if self.ramp.samples else rises
            size = min(self.ramp.start + done * self.ramp.increment, self.global_batch_size)
            found.append(_Stretch(step=step, sample=sample, size=size))
            if size == self.global_batch_size:
                return found
            next_rise = -(-(done + 1) * self.ramp.samples // rises)
            steps = -(-(next_rise - sample) // size)
            step, sample = step + steps, sample + steps * size

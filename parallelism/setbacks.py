"""What training does about a loss that jumps or is no number: stops, leaves the batch out, or goes back and around.

Every rank judges by the same figures, the losses and norms that were summed over all ranks, so all decide alike. What
was decided is part of each checkpoint: a resumed training decides as the whole one did.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, Literal, Self

Answer = Literal["stop", "skip", "rewind"]
Kind = Literal["nan", "spike"]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What to do about a setback; part of the recipe, since it changes the losses.

    Attributes:
        on_nan: about a loss or gradient norm that is not finite.
        on_spike: about a loss that is a spike; "ignore" looks for none.
        spike_window: losses of earlier steps that a loss is compared with; before there are so many, none is a spike.
        spike_factor: a loss is a spike when it is above their median by this many median absolute deviations.
        max_skips: batches in a row that may be left out; one more stops.
        max_rewinds: how often training may go back; once more stops.
    """

    on_nan: Answer = "stop"
    on_spike: Answer | Literal["ignore"] = "ignore"
    spike_window: int = 100
    spike_factor: float = 10.0
    max_skips: int = 3
    max_rewinds: int = 3


@dataclass(frozen=True, kw_only=True)
class History:
    """What led here; JSON values only, for the manifest.

    Attributes:
        losses: of the last steps that counted, the newest last; as many as a spike is measured by.
        skipped: steps that changed no weight.
        in_a_row: how many of these came last, one after another.
        rewinds: (step that was judged, step that was gone back to) of each return.
        left_out: samples that returns have passed over: the data of every later step lies so much further on.
    """

    losses: tuple[float, ...] = ()
    skipped: tuple[int, ...] = ()
    in_a_row: int = 0
    rewinds: tuple[tuple[int, int], ...] = ()
    left_out: int = 0

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Self:
        """Returns the history that `write` made a value of; of a checkpoint without one, an empty one."""
        return cls(
            losses=tuple(value.get("losses", ())),
            skipped=tuple(value.get("skipped", ())),
            in_a_row=value.get("in_a_row", 0),
            rewinds=tuple((judged, back) for judged, back in value.get("rewinds", ())),
            left_out=value.get("left_out", 0),
        )

    def write(self) -> dict[str, Any]:
        """Returns this as JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Setback:
    """A step that must not count, and what is done about it.

    Attributes:
        why: what must hold and what was found.
    """

    kind: Kind
    answer: Answer
    why: str


def judge(policy: Policy, *, history: History, figures: Mapping[str, float]) -> Setback | None:
    """Returns what is wrong with a step, if anything.

    Args:
        policy: what to do then.
        history: of the steps before.
        figures: what must be finite, by name; "loss" must be no spike either.
    """
    for name, value in figures.items():
        if not math.isfinite(value):
            why = f"the {name} must be finite, but is {value}"
            return _limited(policy, history, Setback(kind="nan", answer=policy.on_nan, why=why))
    if policy.on_spike == "ignore" or len(history.losses) < policy.spike_window or "loss" not in figures:
        return None
    middle = median(history.losses)
    spread = median(abs(loss - middle) for loss in history.losses)
    most = middle + policy.spike_factor * spread
    if figures["loss"] <= most:
        return None
    why = (
        f"the loss must be at most {most:.4f}, the median {middle:.4f} of the last {len(history.losses)} plus "
        f"{policy.spike_factor:g} x their median absolute deviation {spread:.4f}, but is {figures['loss']:.4f}"
    )
    return _limited(policy, history, Setback(kind="spike", answer=policy.on_spike, why=why))


def counted(policy: Policy, *, history: History, loss: float) -> History:
    """Returns the history after a step that counts."""
    kept = (*history.losses, loss)[-policy.spike_window :] if policy.on_spike != "ignore" else ()
    return replace(history, losses=kept, in_a_row=0)


def skipped(history: History, *, step: int) -> History:
    """Returns the history after a step that was left out."""
    return replace(history, skipped=(*history.skipped, step), in_a_row=history.in_a_row + 1)


def rewound(history: History, *, saved: History, judged: int, back: int, samples: int) -> History:
    """Returns the history after going back.

    Args:
        history: at the step that was judged.
        saved: at the checkpoint.
        judged: the step that was judged.
        back: the step of the checkpoint.
        samples: of the steps after `back` up to `judged`; they are passed over.
    """
    return replace(saved, rewinds=(*history.rewinds, (judged, back)), left_out=history.left_out + samples)


def _limited(policy: Policy, history: History, setback: Setback) -> Setback:
    """Turns an answer that was given too often into "stop"."""
    if setback.answer == "skip" and history.in_a_row >= policy.max_skips:
        why = f"{setback.why}, after {history.in_a_row} batches in a row were left out (max_skips)"
        return replace(setback, answer="stop", why=why)
    if setback.answer == "rewind" and len(history.rewinds) >= policy.max_rewinds:
        why = f"{setback.why}, after going back {len(history.rewinds)} times (max_rewinds)"
        return replace(setback, answer="stop", why=why)
    return setback

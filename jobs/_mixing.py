"""The mixtures that a training follows, tokenize's or its phases' own, with caps, and how often it sees each stream."""

from collections.abc import Iterator, Mapping
from typing import Any

from corpus.mixture import MAIN, Course, Stretch, course
from jobs._course import CourseConfig
from parallelism.batches import Batches


def follow(
    section: CourseConfig, manifest: Mapping[str, Any], *, batches: Batches, train_iters: int, seq_length: int
) -> Course:
    """Returns the mixtures of a training on the shards of a manifest: tokenize's, then those of the phases.

    Raises:
        ValueError: a phase is named that tokenize did not mix, or the caps leave too few tokens.
    """
    entries = {name: splits["train"] for name, splits in manifest["streams"].items()}
    return course(
        list(_stretches(section, manifest, batches=batches, train_iters=train_iters)),
        tokens={name: int(entry["tokens"]) for name, entry in entries.items()},
        seq_length=seq_length,
    )


def _stretches(
    section: CourseConfig, manifest: Mapping[str, Any], *, batches: Batches, train_iters: int
) -> Iterator[Stretch]:
    main = manifest["phases"].get(MAIN, {})
    first_mixing = {"mixture": manifest["mixture"], "max_epochs": main.get("max_epochs")}
    told: list[tuple[int, str, Mapping[str, Any]]] = [(1, "tokenize", first_mixing)]
    told += [(phase.start_iter, *_told(phase.mixture, manifest)) for phase in section.phases]
    ends = [first - 1 for first, _, _ in told[1:]] + [train_iters]
    for (first, place, mixing), last in zip(told, ends, strict=True):
        yield Stretch(
            name=place,
            samples=max(0, batches.end(last) - batches.end(first - 1)),
            mixture={name: weight for name, weight in mixing["mixture"].items() if weight > 0},
            max_epochs=mixing["max_epochs"],
        )


def _told(mixture: str | Mapping[str, float], manifest: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Returns who says how a phase is mixed, and how."""
    if not isinstance(mixture, str):
        return "tokenize", {"mixture": mixture, "max_epochs": manifest["phases"].get(MAIN, {}).get("max_epochs")}
    if mixture not in manifest["phases"]:
        known = ", ".join(manifest["phases"])
        raise ValueError(
            f"pretrain.phases: must name a phase of tokenize, {known}, but names {mixture}; tokenize again"
        )
    return f"tokenize.phases.{mixture}", manifest["phases"][mixture]

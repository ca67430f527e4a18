"""Mixtures: each stream's share of training, by modality, language and phase, and how often it is then seen.

Without weights, a stream counts by its tokens to the power 1/temperature: 1 is by size, where small scales drown; a
high one is in equal shares, where they are repeated until they are known by heart. 2, the square root, lies between: of
a stream 100 times smaller, each token is seen 10 times as often.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAIN = "main"
"""The phase that training begins with."""

LEAST = 1024
"""Training deals out samples in blocks of this many: no share can be finer."""

_LANGUAGE = re.compile(r"[a-z]{2,3}")


_TEMPERATURE = 2.0  # the square root: between shares by size and equal ones


class LanguageSampling(BaseModel):
    """Languages by XLDA's rule (Trillion-7B, arXiv 2504.15431): alpha x share by tokens + (1 - alpha) x beta.

    Attributes:
        alpha: 1 leaves languages to their sizes, 0 to `beta`.
        beta: language -> weight, for languages that have few tokens; one that is not named has 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    alpha: float = Field(ge=0, le=1)
    beta: Annotated[dict[str, Annotated[float, Field(ge=0)]], Field(min_length=1)]

    @model_validator(mode="after")
    def _weighted(self) -> Self:
        if not sum(self.beta.values()):
            raise ValueError("beta: must have a weight above 0, but has none; add one")
        return self


class Mixing(BaseModel):
    """How the streams of one phase are mixed.

    Attributes:
        mixture: stream -> weight; by tokens and temperature when not given.
        temperature: streams count by their tokens to the power 1/temperature; 2 when not given.
        languages: how the languages of a modality share what it has; streams of pairs are left out of that.
        upsample: factor of a stream, a modality or a language; a stream that several names meet takes their product.
        max_epochs: how often a stream may be seen over all planned steps up to the end of this phase; what a stream
            then has to give away goes to the others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mixture: dict[str, Annotated[float, Field(ge=0)]] | None = None
    temperature: float | None = Field(default=None, gt=0)
    languages: LanguageSampling | None = None
    upsample: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    max_epochs: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.mixture is None:
            return self
        if not sum(self.mixture.values()):
            raise ValueError("mixture: must have a weight above 0, but has none; add one")
        for name in ("temperature", "languages"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name}: must be left out where mixture gives the weights, but is given; choose one")
        return self

    def misnamed(self, modalities: Sequence[str]) -> Iterator[str]:
        """Yields names that no stream can have: what must hold, what was found, what to do."""
        known = ", ".join(modalities)
        for name in self.mixture or {}:
            if name.partition(".")[0] not in modalities:
                yield f"mixture.{name}: must be a modality of {known}, with .en or so for text, but is not; change it"
        for name in self.upsample:
            if name.partition(".")[0] not in modalities and not _LANGUAGE.fullmatch(name):
                yield f"upsample.{name}: must be a stream, a language or a modality of {known}, but is not; change it"


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Samples that are drawn by one mixture: who says so, how many, and how often a stream may be seen at their end."""

    name: str
    samples: int
    mixture: Mapping[str, float]
    max_epochs: float | None = None


@dataclass(frozen=True, kw_only=True)
class Course:
    """The mixtures of a whole training.

    Attributes:
        mixtures: of each stretch, with caps applied.
        epochs: stream -> how often it is seen over all of it.
        notes: what the caps changed, a line each.
    """

    mixtures: tuple[dict[str, float], ...]
    epochs: Mapping[str, float]
    notes: tuple[str, ...]


def languages(stream: str) -> list[str]:
    """Returns the languages that a stream's name tells: en and ko of text.en+ko, none of protein.

    Documents of a stream of pairs are labelled with their language's number here.
    """
    told = stream.partition(".")[2]
    return told.split("+") if told else []


def shares(tokens: Mapping[str, int], mixing: Mixing, *, place: str = "tokenize") -> tuple[dict[str, float], list[str]]:
    """Returns each stream's share of training, and what people should know of it.

    Args:
        tokens: training tokens of every stream.
        mixing: how they are mixed.
        place: the section that says so, for messages.

    Raises:
        ValueError: a name is of no stream with training tokens.
    """
    usable = {name: number for name, number in tokens.items() if number}
    _require_known(usable, mixing, place=place)
    raw = mixing.mixture or _by_size(usable, mixing)
    scaled = {name: weight * _factor(name, mixing.upsample) for name, weight in raw.items() if weight}
    found = _normal(scaled)
    if mixing.mixture is not None:
        return found, []
    small = sorted(name for name, share in found.items() if share < 1 / LEAST)
    notes = [f"{place}: {name} is left out: its share would be {found[name]:.2g}, below 1/{LEAST}" for name in small]
    return _normal({name: scaled[name] for name in scaled if name not in small}), notes


def course(stretches: Sequence[Stretch], *, tokens: Mapping[str, int], seq_length: int) -> Course:
    """Returns the mixtures with their caps, and how often every stream is seen.

    Args:
        stretches: in order.
        tokens: of every stream to train on, with padding.
        seq_length: tokens of a sample.

    Raises:
        ValueError: not even all streams together have enough tokens for the caps.
    """
    epochs: dict[str, float] = defaultdict(float)
    mixtures: list[dict[str, float]] = []
    notes: list[str] = []
    for stretch in stretches:
        mixture = dict(stretch.mixture)
        if stretch.max_epochs is not None:
            mixture = _within(stretch, dict(epochs), tokens=tokens, seq_length=seq_length)
            notes += _changes(stretch, mixture)
        for name, share in mixture.items():
            if name in tokens:
                epochs[name] += stretch.samples * seq_length * share / max(1, tokens[name])
        mixtures.append(mixture)
    return Course(mixtures=tuple(mixtures), epochs=dict(epochs), notes=tuple(notes))


def capped(mixture: Mapping[str, float], *, most: Mapping[str, float]) -> dict[str, float] | None:
    """Returns a mixture whose shares are at most `most`: what is cut goes to the others by their weights; or None."""
    fixed: dict[str, float] = {}
    free = dict(mixture)
    while free:
        left, total = 1 - sum(fixed.values()), sum(free.values())
        over = [name for name, weight in free.items() if weight / total * left > most[name] + 1e-12]
        if not over:
            return {name: fixed[name] if name in fixed else free[name] / total * left for name in mixture}
        fixed |= {name: most[name] for name in over}
        free = {name: weight for name, weight in free.items() if name not in fixed}
    return fixed if abs(sum(fixed.values()) - 1) < 1e-9 else None


def _within(
    stretch: Stretch, epochs: Mapping[str, float], *, tokens: Mapping[str, int], seq_length: int
) -> dict[str, float]:
    """Returns the stretch's mixture with no stream seen more often than its max_epochs, in whole parts of a block."""
    planned = stretch.samples * seq_length
    limit = stretch.max_epochs or 0.0
    room = {name: max(0.0, limit - epochs.get(name, 0.0)) * tokens[name] / max(1, planned) for name in stretch.mixture}
    most = {name: 1.0 if share >= 1 else floor(share * LEAST) / LEAST for name, share in room.items()}
    found = capped(stretch.mixture, most=most)
    if found is None:
        enough = int(sum(room.values()) * stretch.samples)
        told = f"must leave tokens for all {stretch.samples:,} planned samples, but {limit:g} epochs are {enough:,}"
        raise ValueError(f"{stretch.name}.max_epochs: {told}; raise it, lower train_iters or add data")
    return {name: share for name, share in found.items() if share}


def _changes(stretch: Stretch, mixture: Mapping[str, float]) -> Iterator[str]:
    for name, share in stretch.mixture.items():
        now = mixture.get(name, 0.0)
        if now < share - 1e-9:
            yield f"{stretch.name}.max_epochs: {name} has {now:.4g} of the samples instead of {share:.4g}"


def _require_known(usable: Mapping[str, int], mixing: Mixing, *, place: str) -> None:
    known = ", ".join(sorted(usable))
    unknown = sorted((mixing.mixture or {}).keys() - usable.keys())
    if unknown:
        raise ValueError(f"{place}.mixture: must name streams of {known}, but has {', '.join(unknown)}; change it")
    names = {name for stream in usable for name in _names(stream)}
    if strange := sorted(mixing.upsample.keys() - names):
        told = f"must name one of {', '.join(sorted(names))}, but has {strange[0]}; change it"
        raise ValueError(f"{place}.upsample: {told}")


def _names(stream: str) -> list[str]:
    """Returns what may stand for a stream: itself, its modality and its languages."""
    return list(dict.fromkeys([stream, stream.partition(".")[0], *languages(stream)]))


def _factor(stream: str, upsample: Mapping[str, float]) -> float:
    factor = 1.0
    for name in _names(stream):
        factor *= upsample.get(name, 1.0)
    return factor


def _normal(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def _by_size(tokens: Mapping[str, int], mixing: Mixing) -> dict[str, float]:
    """Returns weights by tokens and temperature, each modality's shared among its languages where that is asked for."""
    found = {name: number ** (1 / (mixing.temperature or _TEMPERATURE)) for name, number in tokens.items()}
    together: dict[str, list[str]] = defaultdict(list)
    for name in tokens:
        if mixing.languages and len(languages(name)) == 1:
            together[name.partition(".")[0]].append(name)
    for names in together.values():
        found |= _sampled(names, found, tokens, mixing)
    return found


def _sampled(
    names: Sequence[str], raw: Mapping[str, float], tokens: Mapping[str, int], mixing: Mixing
) -> dict[str, float]:
    whole, size = sum(raw[name] for name in names), sum(tokens[name] for name in names)
    told = mixing.languages.beta if mixing.languages else {}
    beta = {name: told.get(languages(name)[0], 0.0) for name in names}
    alpha = mixing.languages.alpha if mixing.languages and sum(beta.values()) else 1.0
    part = sum(beta.values()) or 1.0
    return {name: whole * (alpha * tokens[name] / size + (1 - alpha) * beta[name] / part) for name in names}

"""What a corpus is made of, as plain values: tokens by kind, what was left out and why, overlaps, and samples."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Source:
    """A raw source and what became of its items; None where the records do not tell.

    Attributes:
        commercial: whether its licence allows commercial use.
        terms: what its licence allows: commercial, derivatives, share_alike, dua, expires.
        rejects: items left out by its reader, by reason.
        contaminated: records that hold an item of a benchmark.
        quarantined: records that hold personal data, set aside.
        filtered: records of too low quality.
        share: of the corpus's tokens.
        sha256: of the list of its files' digests.
    """

    name: str
    modality: str
    license: str
    commercial: bool
    records: int
    duplicates: int
    rejects: Mapping[str, int]
    notes: Sequence[str]
    scale: str = ""
    path: str = ""
    sha256: str = ""
    terms: Mapping[str, Any] = field(default_factory=dict)
    files: int | None = None
    bytes: int | None = None
    seconds: float | None = None
    near_duplicates: int | None = None
    contaminated: int | None = None
    quarantined: int | None = None
    filtered: int | None = None
    tokens: int | None = None
    documents: int | None = None
    share: float | None = None


@dataclass(frozen=True, kw_only=True)
class Contamination:
    """What of one benchmark was found in the corpus: how many of its items, and in how many records."""

    benchmark: str
    items: int
    found: int
    records: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One record as people read it."""

    stream: str
    id: str
    source: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The corpus beside its sources and streams.

    Attributes:
        modalities: modality -> language ("" for none) -> training tokens.
        languages: language -> tokens.
        scales: scale -> tokens.
        personal: personal data found, by kind.
        quality: records of too low quality, by reason.
        crossings: (source, earlier source, records of the first that the second has too).
        phases: phase of training -> stream -> share.
        padding: stream -> share of its tokens that only fill windows.
        chars_per_token: stream -> characters a token.
        untold: what the records do not tell, one line each.
    """

    modalities: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    languages: Mapping[str, int] = field(default_factory=dict)
    scales: Mapping[str, int] = field(default_factory=dict)
    personal: Mapping[str, int] = field(default_factory=dict)
    quality: Mapping[str, int] = field(default_factory=dict)
    contamination: Sequence[Contamination] = ()
    crossings: Sequence[tuple[str, str, int]] = ()
    phases: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    padding: Mapping[str, float] = field(default_factory=dict)
    chars_per_token: Mapping[str, float] = field(default_factory=dict)
    samples: Sequence[Sample] = ()
    untold: Sequence[str] = ()

    @property
    def tokens(self) -> int:
        """All training tokens."""
        return sum(sum(each.values()) for each in self.modalities.values())


def left_out(sources: Sequence[Source]) -> list[tuple[str, int]]:
    """Returns why items and records were left out, and how many, the most frequent reason first."""
    counted: Counter[str] = Counter()
    for source in sources:
        counted.update({reason.replace("_", " "): number for reason, number in source.rejects.items()})
        counted["exact duplicate"] += source.duplicates
        counted["near duplicate"] += source.near_duplicates or 0
        counted["holds a benchmark's item"] += source.contaminated or 0
        counted["holds personal data"] += source.quarantined or 0
        counted["low quality"] += source.filtered or 0
    return sorted(((reason, number) for reason, number in counted.items() if number), key=lambda each: (-each[1], each))


def told_terms(terms: Mapping[str, Any], *, bound: bool = False) -> str:
    """Returns a licence's terms in words: 'commercial use, derivatives, share alike, until 2027-01-01'.

    With `bound`, what it allows is left out: 'share alike, until 2027-01-01'.
    """
    words = {"commercial": "commercial use", "derivatives": "derivatives"}
    told = [name for name in words if terms.get(name) is not None and not (bound and terms[name])]
    said = [words[name] if terms[name] else f"no {words[name]}" for name in told]
    said += ["share alike"] if terms.get("share_alike") else []
    said += [f"agreement: {terms['dua']}"] if terms.get("dua") else []
    said += [f"until {terms['expires']}"] if terms.get("expires") else []
    return ", ".join(said)

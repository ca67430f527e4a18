"""Packing: translations of each other side by side in one stream, so that one is read in the light of the other.

Of the pairs that a source holds, a share (`rate`, the rho of XLDA) goes to a stream named after their languages,
text.en+ko; which language comes first is drawn for each. The rest stays in text.en and text.ko. What is drawn is a pure
function of the seed and the pair, so both splits, every machine and every repetition agree.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corpus.records import SPLITS, read_records, streams
from corpus.shards import Shards

TogetherKey = tuple[str, str]
Found = tuple[str, int]
"""A record of a pair: its stream, and where in the stream's file it begins."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """A record as it stands in a stream; in streams of pairs, its label is its group and its language's number."""

    record: Mapping[str, Any]
    label: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Where every record goes.

    Attributes:
        records: prepare's folder.
        together: the pairs of each stream of pairs and split: their records in the order drawn.
        taken: the pairs of each split that are in one of those.
    """

    records: Path
    together: Mapping[TogetherKey, list[tuple[Found, ...]]]
    taken: Mapping[str, frozenset[str]]

    def streams(self) -> list[str]:
        """Returns all streams: those that prepare wrote and those of pairs."""
        return sorted({*streams(self.records), *(name for name, _ in self.together)})

    def documents(self, stream: str, split: str) -> Iterator[Document]:
        """Yields the documents of a stream and split in order."""
        if (stream, split) in self.together:
            yield from self._pairs(stream, split)
        elif "+" not in stream:
            for record in read_records(self.records, stream, split):
                if record.get("pair") not in self.taken[split]:
                    yield Document(record=record)

    def _pairs(self, stream: str, split: str) -> Iterator[Document]:
        numbers = {language: number for number, language in enumerate(languages(stream))}
        for group, pair in enumerate(self.together[stream, split]):
            for name, place in pair:
                record = _record_at(_file(self.records, name, split), place)
                yield Document(record=record, label=(group, numbers[record["language"]]))


def languages(stream: str) -> list[str]:
    """Returns the languages that a stream's name tells: en and ko of text.en+ko, none of proteins.

    Documents of a stream of pairs are labelled with their language's number here.
    """
    told = stream.partition(".")[2]
    return told.split("+") if told else []


def plan(records: Path, *, rate: float, seed: int) -> Packing:
    """Returns where every record goes when `rate` of the pairs are packed side by side."""
    together: dict[TogetherKey, list[tuple[Found, ...]]] = defaultdict(list)
    taken: dict[str, frozenset[str]] = {}
    for split in SPLITS:
        pairs = _translated(records, split) if rate else ()
        chosen = {pair: found for pair, found in pairs if _drawn(seed, "packed", pair) < rate}
        for pair, found in chosen.items():
            modality, told = found[0][0].partition(".")[0], "+".join(languages(name)[0] for name, _ in found)
            order = sorted(found, key=lambda each: _drawn(seed, "order", f"{pair}/{each[0]}"))
            together[f"{modality}.{told}", split].append(tuple(order))
        taken[split] = frozenset(chosen)
    return Packing(records=records, together=dict(together), taken=taken)


def _translated(records: Path, split: str) -> Iterator[tuple[str, list[Found]]]:
    """Yields the pairs that are there in two languages or more, in the order of the first language's file."""
    pairs: dict[str, list[Found]] = defaultdict(list)
    for stream in filter(languages, streams(records)):
        place = 0
        with _file(records, stream, split).open("rb") as file:
            for line in file:
                pair = json.loads(line).get("pair")
                if pair is not None:
                    pairs[pair].append((stream, place))
                place += len(line)
    return ((pair, found) for pair, found in pairs.items() if len(found) > 1)


def _file(records: Path, stream: str, split: str) -> Path:
    return records / "records" / f"{stream}.{split}.jsonl"


def _record_at(path: Path, place: int) -> dict[str, Any]:
    with path.open("rb") as file:
        file.seek(place)
        return dict(json.loads(file.readline()))


def _drawn(seed: int, what: str, of: str) -> float:
    """Returns a number in [0, 1) drawn for this use of this thing."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{what}:{of}".encode()).digest()[:8]) / 2**64


def shares(shards: Shards, *, seq_length: int, attention_mask: str, windows: int = 256) -> dict[str, float]:
    """Returns how often training meets two languages together, from `windows` windows of each stream, by the mixture.

    `bilingual` is the share of windows that hold two languages or more; `ko_after_en` the share of Korean tokens that
    see an English one before them, and so on for each two languages.
    """
    known = {language for name in shards.mixture for language in languages(name)}
    counts: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name, weight in shards.mixture.items():
        stream = shards.stream(name, "train")
        starts = np.unique(np.linspace(0, max(0, len(stream) - seq_length), windows).astype(int))
        for start in starts.tolist():
            ids = stream.ids(start, min(start + seq_length, len(stream)))
            _count(counts, ids, told=languages(name), known=known, mode=attention_mask, weight=weight / len(starts))
    return {key: part / whole for key, (part, whole) in sorted(counts.items()) if whole}


def _count(
    counts: dict[str, list[float]],
    ids: NDArray[np.int32],
    *,
    told: list[str],
    known: set[str],
    mode: str,
    weight: float,
) -> None:
    """Adds one window to (what counts, of what) of every figure."""
    numbers = {language: number for number, language in enumerate(told)}
    counts["bilingual"][0] += weight * (len(np.unique(ids[2])) > 1)
    counts["bilingual"][1] += weight
    for language, other in permutations(sorted(known), 2):
        here = ids[2] == numbers.get(language, -1)
        seen = _seen(ids, ids[2] == numbers.get(other, -1), mode=mode)
        counts[f"{language}_after_{other}"][0] += weight * float((here & seen).sum())
        counts[f"{language}_after_{other}"][1] += weight * float(here.sum())


def _seen(ids: NDArray[np.int32], others: NDArray[np.bool_], *, mode: str) -> NDArray[np.bool_]:
    """Returns for each token whether it sees one of `others` before it."""
    if mode == "document":
        return np.zeros_like(others)
    before = np.cumsum(others) - others
    first = np.zeros(len(others), np.int64) if mode == "causal" else np.searchsorted(ids[1], ids[1])
    seen: NDArray[np.bool_] = before > before[first]
    return seen

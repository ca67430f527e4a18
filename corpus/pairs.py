"""Pairs: translations of each other side by side in one stream, so that one is read in the light of the other.

Of the pairs that a source holds, a share (`rate`, the rho of XLDA) goes to a stream named after their languages,
text.en+ko; which language comes first is drawn for each. The rest stays in text.en and text.ko. What is drawn is a pure
function of the seed and the pair, so both splits, every machine and every repetition agree.

Which records are translations of each other is found once: each range of records notes the pairs drawn from it, and the
notes of a stream are sorted into one table of 16 bytes a pair, which workers map.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corpus.mixture import languages
from corpus.ranges import Range, lines, records_file
from corpus.records import SPLITS, streams

NOTED = np.dtype([("pair", "<u8"), ("place", "<u8")])
"""A record of a pair: the pair's digest, and where in its file the record begins."""

Table = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Document:
    """A record as it stands in a stream; in streams of pairs, its label is its group and its language's number."""

    record: Mapping[str, Any]
    label: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Where every record goes; safe to pickle.

    Attributes:
        records: prepare's folder.
        tables: where the tables of pairs lie; nothing lies there where none is packed.
        rate: share of pairs that stand side by side.
        seed: what is drawn depends on it.
    """

    records: Path
    tables: Path
    rate: float = 0.0
    seed: int = 0

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}  # no mapped table

    def streams(self) -> list[str]:
        """Returns all streams: those that prepare wrote and those of pairs."""
        together = {name for split in SPLITS for name in self._together(split)} if self.rate else set()
        return sorted({*streams(self.records), *together})

    def ranges(self, stream: str, split: str, *, size: int) -> list[Range]:
        """Returns the ranges of records, of about `size` bytes, that hold the documents of a stream and split.

        A pair lies where its first language does.
        """
        first = self._singles(stream)[0]
        return Range.of(records_file(self.records, stream=first, split=split), size=size)

    def documents(self, within: Range, *, stream: str, split: str) -> Iterator[Document]:
        """Yields the documents of a stream and split that lie in a range of records, in order."""
        told = self._singles(stream)
        if len(told) == 1 and (not self.rate or not languages(stream)):
            yield from (Document(record=json.loads(line)) for _, line in lines(within))
        elif len(told) == 1:
            yield from self._alone(stream, split, within)
        else:
            yield from self._pairs(told, split, within)

    def note(self, within: Range) -> Table:
        """Returns the pairs drawn from a range of records."""
        noted = [(_digest(pair), place) for place, pair in _paired(within) if self._packs(pair)]
        return np.array(noted, NOTED)

    def keep(self, stream: str, split: str, *, notes: Sequence[Table]) -> None:
        """Sorts the notes of a stream and split into its table; of a pair told twice the first counts."""
        whole = np.concatenate([np.empty(0, NOTED), *notes])
        whole = whole[np.argsort(whole["pair"], kind="stable")]
        first = np.ones(len(whole), np.bool_)
        first[1:] = whole["pair"][1:] != whole["pair"][:-1]
        self.tables.mkdir(parents=True, exist_ok=True)
        np.save(self._table_file(stream, split), whole[first])

    def _alone(self, stream: str, split: str, within: Range) -> Iterator[Document]:
        """Yields the records that no stream of pairs has."""
        for place, line in lines(within):
            record = json.loads(line)
            if len(self._stands_with(stream, split, record.get("pair"), place)) < 2:
                yield Document(record=record)

    def _pairs(self, told: list[str], split: str, within: Range) -> Iterator[Document]:
        numbers, group = {name: number for number, name in enumerate(told)}, 0
        for place, line in lines(within):
            record = json.loads(line)
            found = self._stands_with(told[0], split, record.get("pair"), place)
            if sorted(found) != told:
                continue
            for name in sorted(found, key=lambda each: _drawn(self.seed, "order", f"{record['pair']}/{each}")):
                other = record if name == told[0] else self._record_at(name, split, found[name])
                yield Document(record=other, label=(group, numbers[name]))
            group += 1

    def _stands_with(self, stream: str, split: str, pair: str | None, place: int) -> dict[str, int]:
        """Returns where the records of a pair lie, by stream, if it is packed and this record is one of them."""
        if pair is None or not self._packs(pair):
            return {}
        key, found = _digest(pair), {}
        for name, table in self._tables[split].items():
            if name.partition(".")[0] == stream.partition(".")[0]:
                row = int(np.searchsorted(table["pair"], key))
                if row < len(table) and int(table["pair"][row]) == key:
                    found[name] = int(table["place"][row])
        return found if found.get(stream) == place else {}

    def _packs(self, pair: str) -> bool:
        return _drawn(self.seed, "packed", pair) < self.rate

    def _together(self, split: str) -> set[str]:
        """Returns the streams of pairs: one for each set of languages that some pair has."""
        found: set[str] = set()
        by_modality: dict[str, list[str]] = {}
        for name in self._tables[split]:
            by_modality.setdefault(name.partition(".")[0], []).append(name)
        for modality, names in by_modality.items():
            tables = [self._tables[split][name]["pair"] for name in names]
            pairs = np.unique(np.concatenate(tables))
            which = np.zeros(len(pairs), np.int64)
            for bit, table in enumerate(tables):
                which[np.searchsorted(pairs, table)] |= 1 << bit
            for mask in np.unique(which).tolist():
                told = [languages(name)[0] for bit, name in enumerate(names) if mask >> bit & 1]
                found |= {f"{modality}.{'+'.join(told)}"} if len(told) > 1 else set()
        return found

    @cached_property
    def _tables(self) -> dict[str, dict[str, Table]]:
        names = spoken(self.records)
        return {split: {name: _mapped(self._table_file(name, split)) for name in names} for split in SPLITS}

    def _table_file(self, stream: str, split: str) -> Path:
        return self.tables / f"{stream}.{split}.npy"

    def _record_at(self, stream: str, split: str, place: int) -> dict[str, Any]:
        with records_file(self.records, stream=stream, split=split).open("rb") as file:
            file.seek(place)
            return dict(json.loads(file.readline()))

    @staticmethod
    def _singles(stream: str) -> list[str]:
        """Returns the streams of one language that a stream's documents come from."""
        modality, told = stream.partition(".")[0], languages(stream)
        return [f"{modality}.{language}" for language in told] if len(told) > 1 else [stream]


def spoken(records: Path) -> list[str]:
    """Returns the streams of one language, whose records may have translations."""
    return [name for name in streams(records) if languages(name)]


def _mapped(path: Path) -> Table:
    return np.asarray(np.load(path, mmap_mode="r" if path.stat().st_size > 1 << 20 else None))


def _paired(within: Range) -> Iterator[tuple[int, str]]:
    for place, line in lines(within):
        pair = json.loads(line).get("pair") if b'"pair"' in line else None
        if pair is not None:
            yield place, pair


def _digest(pair: str) -> int:
    return int.from_bytes(hashlib.blake2b(pair.encode(), digest_size=8).digest())


def _drawn(seed: int, what: str, of: str) -> float:
    """Returns a number in [0, 1) drawn for this use of this thing."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{what}:{of}".encode()).digest()[:8]) / 2**64

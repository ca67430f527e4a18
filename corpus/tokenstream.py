"""The tokens of one stream and split, one after another through all its shards, read straight from the mapped files."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corpus.shardfile import Opened, Stored, open_array

ID_BYTES = 12
"""Bytes of a record's id, which is written as 24 hexadecimal digits."""


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """What a reader needs to know of a shard before it opens it.

    Attributes:
        path: its folder, below tokenize's.
        tokens: padding included.
        pieces: documents; of one that is longer than a window, every part.
        breaks: tokens that do not follow from the one before them, though no document ends there.
        labelled: whether documents have a group and a language.
        packed: whether padding may follow a piece.
    """

    path: str
    tokens: int
    pieces: int
    breaks: int = 0
    labelled: bool = False
    packed: bool = False


@dataclass(frozen=True, kw_only=True)
class Located:
    """Where a token comes from: shard, document (counted in the shard) and record; padding has no record."""

    shard: str
    document: int
    record: str | None


@dataclass(frozen=True, kw_only=True)
class TokenStream:
    """The tokens of one stream and split; safe to pickle and to use after a fork.

    Attributes:
        folder: tokenize's.
        shards: in order.
        pad_id: fills windows behind their documents.
    """

    folder: Path
    shards: tuple[ShardEntry, ...]
    pad_id: int
    _opened: Opened[tuple[int, str], Stored] = field(default_factory=Opened, repr=False, compare=False)

    def __len__(self) -> int:
        return self._firsts[-1]

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.folder, self.shards, self.pad_id)

    def tokens(self, start: int, stop: int) -> NDArray[np.int64]:
        """Returns tokens start to stop as int64 (stop - start,).

        Raises:
            IndexError: they do not lie within the stream.
            ValueError: a chunk of them is damaged.
        """
        self._require_within(start, stop)
        found = np.empty(stop - start, np.int64)
        self.copy_into(found, start)
        return found

    def copy_into(self, out: NDArray[np.int64], start: int) -> None:
        """Copies the tokens from `start` on into `out`, which they must fill.

        Raises:
            IndexError: they do not lie within the stream.
            ValueError: a chunk of them is damaged.
        """
        for shard, first, place, count in self._parts(start, start + len(out)):
            self._array(shard, "tokens").copy_into(out[place : place + count], first)

    def counted(self, start: int, tokens: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Returns which of `tokens` behind the first, all from `start` on, follow from what is before; None for all.

        Padding does not, nor what is behind it, nor a part of a long document whose beginning is elsewhere.
        """
        if not self._packed:
            return None
        real = tokens != self.pad_id
        found: NDArray[np.bool_] = real[1:] & real[:-1]
        for shard, first, place, count in self._parts(start + 1, start + len(tokens)):
            if self.shards[shard].breaks:
                breaks = self._array(shard, "breaks")
                low, high = breaks.position(first - 1), breaks.position(first + count - 1)
                found[breaks.rows(low, high) - first + place] = False
        return found

    def doc_offsets(self) -> NDArray[np.int64]:
        """Returns where documents begin, and where the last one ends, as int64 (documents + 1,)."""
        parts = [self._rows(shard, "doc_offsets")[:-1] + self._firsts[shard] for shard in range(len(self.shards))]
        return np.concatenate([*parts, np.array([len(self)])])

    def ids(self, start: int, stop: int) -> NDArray[np.int32]:
        """Returns document, group and language of tokens start to stop as int32 (3, stop - start).

        Documents are numbered through the stream. Where tokenize packed no pairs, each is a group of its own. Padding
        has the numbers after those of the document before it: in its window, nothing else has.

        Raises:
            IndexError: they do not lie within the stream.
            ValueError: a chunk of them is damaged.
        """
        found = np.empty((3, stop - start), np.int32)
        for shard, first, place, count in self._parts(start, stop):
            self._number(found[:, place : place + count], shard=shard, first=first)
        return found

    def locate(self, index: int) -> Located:
        """Returns where token `index` comes from.

        Raises:
            IndexError: it does not lie within the stream.
            ValueError: a chunk is damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self._name}: must be a token of 0 to {len(self) - 1}, but is {index}")
        shard = bisect_right(self._firsts, index) - 1
        place = index - self._firsts[shard]
        offsets = self._array(shard, "doc_offsets")
        document = offsets.position(place) - 1
        begin = int(offsets.rows(document, document + 1)[0])
        fill = place - begin >= int(self._lengths(shard, document, document + 1)[0])
        record = None if fill else self._array(shard, "doc_ids").rows(document, document + 1)[0].tobytes().hex()
        return Located(shard=self.shards[shard].path, document=document, record=record)

    def unigram_entropy(self) -> float:
        """Returns the entropy of the tokens' own frequencies, in nats a token: the loss of the best constant guess."""
        counts = np.zeros(0, np.int64)
        for shard, entry in enumerate(self.shards):
            stored = self._array(shard, "tokens")
            for number in range(len(stored.starts)):
                left = entry.tokens - number * stored.rows_per_chunk
                found = np.bincount(stored.chunk(number)[:left])
                longer = max(len(counts), len(found))
                counts = np.pad(counts, (0, longer - len(counts))) + np.pad(found, (0, longer - len(found)))
        if self._packed and len(counts) > self.pad_id:
            counts[self.pad_id] = 0
        share = counts[counts > 0] / max(1, int(counts.sum()))
        return float(0.0 - (share * np.log(share)).sum())

    @cached_property
    def _firsts(self) -> list[int]:
        """The first token of every shard, and the end."""
        return list(accumulate((entry.tokens for entry in self.shards), initial=0))

    @cached_property
    def _pieces_before(self) -> list[int]:
        return list(accumulate((entry.pieces for entry in self.shards), initial=0))

    @cached_property
    def _packed(self) -> bool:
        return any(entry.packed for entry in self.shards)

    @property
    def _name(self) -> str:
        return str(self.folder / self.shards[0].path) if self.shards else str(self.folder)

    def _array(self, shard: int, name: str) -> Stored:
        return self._opened.of((shard, name), lambda: open_array(self.folder / self.shards[shard].path / name))

    def _rows(self, shard: int, name: str) -> NDArray[Any]:
        stored = self._array(shard, name)
        return stored.rows(0, len(stored))

    def _require_within(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"{self._name}: must read within 0 to {len(self)}, but asked for {start} to {stop}")

    def _parts(self, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        """Yields (shard, first token in it, place in what is read, how many) of tokens start to stop."""
        self._require_within(start, stop)
        firsts = self._firsts
        shard, place = bisect_right(firsts, start) - 1, start
        while place < stop:
            end = min(stop, firsts[shard + 1])
            if end > place:
                yield shard, place - firsts[shard], place - start, end - place
            shard, place = shard + 1, end

    def _number(self, out: NDArray[np.int32], *, shard: int, first: int) -> None:
        """Fills in document, group and language of one shard's tokens from `first` on."""
        offsets, stop = self._array(shard, "doc_offsets"), first + out.shape[1]
        low, high = offsets.position(first) - 1, offsets.position(stop - 1)
        begins = np.asarray(offsets.rows(low, high + 1))
        within = np.clip(begins, first, stop) - first
        before = self._pieces_before[shard]
        each = np.zeros((3, high - low), np.int32)
        each[:2] = np.arange(low, high) + before
        if self.shards[shard].labelled:
            each[1] = self._array(shard, "doc_groups").rows(low, high) + before
            each[2] = self._array(shard, "doc_languages").rows(low, high)
        out[:] = np.repeat(each, np.diff(within), axis=1)
        if self.shards[shard].packed:
            ends = begins[:-1] + self._lengths(shard, low, high)
            fill = np.arange(first, stop) >= np.repeat(ends, np.diff(within))
            out[:2, fill] += 1
            out[2, fill] = 0

    def _lengths(self, shard: int, low: int, high: int) -> NDArray[np.int64]:
        """Returns the tokens of pieces low to high, without the padding behind them."""
        if self.shards[shard].packed:
            return self._array(shard, "doc_lengths").rows(low, high).astype(np.int64)
        return np.diff(self._array(shard, "doc_offsets").rows(low, high + 1))


def token_stream(folder: Path, entry: Mapping[str, Any], *, pad_id: int) -> TokenStream:
    """Returns the tokens that a manifest's entry of a stream and split tells of."""
    names = ShardEntry.__dataclass_fields__
    shards = tuple(ShardEntry(**{name: each[name] for name in names}) for each in entry["shards"])
    return TokenStream(folder=folder, shards=shards, pad_id=pad_id)


def _reopened(folder: Path, shards: tuple[ShardEntry, ...], pad_id: int) -> TokenStream:
    return TokenStream(folder=folder, shards=shards, pad_id=pad_id)

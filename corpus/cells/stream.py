"""Cells as a stream of tokens: every cell a document of one length, tokenized when it is read.

A row is <|cell|>, the cell's highest genes, <|/cell|>, <|eod|>, filled up with padding; in bins, each gene is followed
by its value. Training reads such a stream as it reads any other (corpus/tokenstream.py), and nothing is stored but the
cells themselves: another length or encoding is another reading of the same store.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from corpus.cells.rank import BINS, bins, rank, rank_tokens
from corpus.cells.store import CellSplit, open_store
from corpus.tokenstream import Located

_FRAME = 3  # tokens of a row that are no gene: the tags, and the end
_CELLS = 256  # tokenized at a time
_SAMPLE = 1 << 14  # cells that the entropy is taken from


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How a cell is written.

    Attributes:
        length: tokens of a row.
        encoding: rank or bins.
        opening: id of <|cell|>; `closing` of <|/cell|>, `end` of <|eod|>, `pad` of what fills up.
        genes: id of each gene, (genes,) uint32.
        values: id of each bin, (BINS,) uint32.
    """

    length: int
    encoding: str
    opening: int
    closing: int
    end: int
    pad: int
    genes: NDArray[np.uint32]
    values: NDArray[np.uint32]

    @property
    def room(self) -> int:
        """Genes that a row has room for."""
        return (self.length - _FRAME) // _width(self.encoding)


def frame(genes: NDArray[np.int64], *, length: int, encoding: str) -> NDArray[np.int64]:
    """Returns the tokens that are no padding of cells with so many genes."""
    return np.minimum(genes, (length - _FRAME) // _width(encoding)) * _width(encoding) + _FRAME


def _width(encoding: str) -> int:
    return 2 if encoding == "bins" else 1


@dataclass(frozen=True, kw_only=True)
class CellStream:
    """The cells of one split as tokens; safe to pickle and to use after a fork."""

    split: CellSplit
    writing: Writing
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.split) * self.writing.length

    @classmethod
    def open(cls, folder: Path, entry: Mapping[str, Any], *, manifest: Mapping[str, Any]) -> Self:
        """Opens what tokenize committed of a stream and split; its files were hashed with all others.

        Raises:
            ValueError: the store is none, or belongs to other genes than the ids.
        """
        store = open_store(folder / entry["path"], hashed=False)
        genes = np.array(entry["gene_ids"], dtype=np.uint32)
        if len(genes) != len(store.genes):
            told = f"but has {len(store.genes)} genes and {len(genes)} ids; run tokenize again"
            raise ValueError(f"{folder / entry['path']}: must have an id for each gene, {told}")
        writing = Writing(
            length=entry["length"],
            encoding=entry["encoding"],
            opening=entry["opening_id"],
            closing=entry["closing_id"],
            end=int(manifest["eod_id"]),
            pad=int(manifest["pad_id"]),
            genes=genes,
            values=np.array(entry["value_ids"], dtype=np.uint32),
        )
        names = tuple(told["name"] for told in store.manifest["sources"])
        return cls(split=store.split(entry["split"]), writing=writing, sources=names)

    def tokens(self, start: int, stop: int) -> NDArray[np.int64]:
        """Returns tokens start to stop as int64 (stop - start,).

        Raises:
            IndexError: they do not lie within the stream.
            ValueError: what is read is damaged.
        """
        if not 0 <= start <= stop <= len(self):
            where = self.split.folder
            raise IndexError(f"{where}: must read within 0 to {len(self)}, but asked for {start} to {stop}")
        found = np.empty(stop - start, np.int64)
        self.copy_into(found, start)
        return found

    def copy_into(self, out: NDArray[np.int64], start: int) -> None:
        """Writes the tokens from `start` on into `out`, which they must fill."""
        length = self.writing.length
        place = 0
        while place < len(out):
            cell, offset = divmod(start + place, length)
            last = min(-(-(start + len(out)) // length), cell + _CELLS)
            rows = self.rows(np.arange(cell, last)).ravel()[offset : offset + len(out) - place]
            out[place : place + len(rows)] = rows
            place += len(rows)

    def rows(self, positions: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Returns the cells at these positions as rows of tokens (cells, length)."""
        writing = self.writing
        view = self.split.view(positions)
        ends = frame(view.ends - view.begins, length=writing.length, encoding=writing.encoding)
        rows = np.full((len(positions), writing.length), writing.pad, dtype=np.uint32)
        if writing.encoding == "bins":
            self._bins(rows, positions)
        else:
            rank_tokens(
                view, length=writing.room, tokens=writing.genes, pad=writing.pad, out=rows[:, 1 : 1 + writing.room]
            )
        each = np.arange(len(rows))
        rows[:, 0] = writing.opening
        rows[each, ends - 2], rows[each, ends - 1] = writing.closing, writing.end
        return rows

    def counted(self, _start: int, tokens: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Returns which of `tokens` behind the first follow from what is before: padding does not."""
        real = tokens != self.writing.pad
        found: NDArray[np.bool_] = real[1:] & real[:-1]
        return found

    def doc_offsets(self) -> NDArray[np.int64]:
        """Returns where cells begin, and where the last one ends, as int64 (cells + 1,)."""
        return np.arange(len(self.split) + 1, dtype=np.int64) * self.writing.length

    def ids(self, start: int, stop: int) -> NDArray[np.int32]:
        """Returns document, group and language of tokens start to stop as int32 (3, stop - start).

        A cell's number is counted from the first cell of the range: more cells than int32 counts can be in a stream.
        """
        cells = np.arange(start, stop) // self.writing.length - start // self.writing.length
        documents = 2 * cells + (self.tokens(start, stop) == self.writing.pad)
        return np.stack([documents, documents, np.zeros_like(documents)]).astype(np.int32)

    def locate(self, index: int) -> Located:
        """Returns where token `index` comes from: the shard, the cell, and the source and row; padding has no record.

        Raises:
            IndexError: it does not lie within the stream.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.split.folder}: must be a token of 0 to {len(self) - 1}, but is {index}")
        cell = index // self.writing.length
        source, row = (int(found[0]) for found in self.split.origin(np.array([cell])))
        padding = int(self.tokens(index, index + 1)[0]) == self.writing.pad
        shard, document = self.split.place(cell)
        record = None if padding else f"{self.sources[source]}, row {row}"
        return Located(shard=shard, document=document, record=record)

    def unigram_entropy(self) -> float:
        """Returns the entropy of the tokens' own frequencies, in nats a token, from cells evenly spread over all."""
        step = max(1, len(self.split) // _SAMPLE)
        counts = np.zeros(0, np.int64)
        for first in range(0, len(self.split), _CELLS * step):
            rows = self.rows(np.arange(first, min(first + _CELLS * step, len(self.split)), step))
            found = np.bincount(rows[rows != self.writing.pad])
            longer = max(len(counts), len(found))
            counts = np.pad(counts, (0, longer - len(counts))) + np.pad(found, (0, longer - len(found)))
        share = counts[counts > 0] / max(1, int(counts.sum()))
        return float(-(share * np.log(share)).sum())

    def _bins(self, rows: NDArray[np.uint32], positions: NDArray[np.int64]) -> None:
        writing = self.writing
        cells = self.split.take(positions)
        places = rank(cells, length=writing.room)
        there = places >= 0
        body = rows[:, 1 : 1 + 2 * writing.room]
        body[:, ::2][there] = writing.genes[cells.genes[places[there]]]
        body[:, 1::2][there] = writing.values[bins(cells, count=BINS)[places[there]]]

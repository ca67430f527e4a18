"""Cells to train from: shuffled shards of sparse rows, mapped into memory; a damaged or unfinished store is refused.

corpus/cells/build.py writes them. Each shard is a zarr group of plain, checksummed arrays: indptr, genes and values of
its rows, the source and row that each cell came from, and a code for each label.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corpus.cells.rank import Cells
from corpus.shardfile import Opened, Stored, open_array
from slurm.files import digest, read_json, sha256_file

FORMAT = "cells-1"
MANIFEST = "manifest.json"
GENES = "genes.json"
_AGAIN = "build it again"


@dataclass(frozen=True, kw_only=True)
class CellSplit:
    """The cells of one split, by position in the shuffled order; safe to pickle and to use after a fork.

    Attributes:
        folder: of the store.
        shards: folder and cells of each.
        labels: the categories of each label.
        ranked: whether a cell's genes are in order of rank.
    """

    folder: Path
    shards: tuple[tuple[str, int], ...]
    labels: Mapping[str, list[str]]
    ranked: bool
    _opened: Opened[tuple[int, str], "_Array"] = field(default_factory=Opened, repr=False, compare=False)

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.folder, self.shards, self.labels, self.ranked)

    def view(self, positions: NDArray[np.int64]) -> "CellView":
        """Returns the cells at these positions, in their order, where they lie: nothing is copied.

        Raises:
            IndexError: a position is none of the split's.
            ValueError: what is read is damaged.
        """
        shards, rows = self._locate(positions)
        begins, ends = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        for shard in set(shards.tolist()):
            mine = shards == shard
            stored = self._array(shard, "indptr")
            begins[mine], ends[mine] = stored.take(rows[mine]), stored.take(rows[mine] + 1)
        arrays = {shard: (self._array(shard, "genes"), self._array(shard, "values")) for shard in set(shards.tolist())}
        return CellView(shards=shards, begins=begins, ends=ends, ranked=self.ranked, arrays=arrays)

    def take(self, positions: NDArray[np.int64]) -> Cells:
        """Returns the cells at these positions, in their order, one behind the other.

        Raises:
            IndexError: a position is none of the split's.
            ValueError: what is read is damaged.
        """
        return self.view(positions).copied()

    def label(self, name: str, positions: NDArray[np.int64]) -> NDArray[np.int32]:
        """Returns the codes of a label, which index `labels[name]`; -1 where a cell has none.

        Raises:
            IndexError: a position is none of the split's.
            KeyError: the store has no such label.
            ValueError: what is read is damaged.
        """
        if name not in self.labels:
            raise KeyError(f"a label must be one of {', '.join(self.labels) or 'none'}, but is {name}; change it")
        return self._column(f"label.{name}", positions).astype(np.int32)

    def origin(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the number of each cell's source, and its row in that.

        Raises:
            IndexError: a position is none of the split's.
            ValueError: what is read is damaged.
        """
        return self._column("sources", positions), self._column("rows", positions)

    def place(self, position: int) -> tuple[str, int]:
        """Returns the folder of the shard that holds a cell, and the cell's row in it.

        Raises:
            IndexError: the position is none of the split's.
        """
        shards, rows = self._locate(np.array([position]))
        return self.shards[int(shards[0])][0], int(rows[0])

    def fetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Asks the kernel to read ranges of cells into its cache, and does not wait: for a disk that is slow."""
        for first, last in ranges:
            shard, row = (int(found[0]) for found in self._locate(np.array([first])))
            rows = np.array([row, min(row + last - first, self.shards[shard][1])])
            begin, end = self._array(shard, "indptr").take(rows).tolist()
            for name in ("genes", "values"):
                self._array(shard, name).fetch(begin, end)

    @cached_property
    def _firsts(self) -> NDArray[np.int64]:
        return np.array([0, *accumulate(cells for _, cells in self.shards)], dtype=np.int64)

    def _locate(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if len(positions) and (positions.min() < 0 or positions.max() >= len(self)):
            wrong = int(positions.min()) if positions.min() < 0 else int(positions.max())
            raise IndexError(f"{self.folder}: a position must be from 0 to {len(self) - 1}, but is {wrong}")
        shards = np.searchsorted(self._firsts, positions, side="right") - 1
        return shards, positions - self._firsts[shards]

    def _column(self, name: str, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        shards, rows = self._locate(positions)
        found = np.empty(len(rows), np.int64)
        for shard in set(shards.tolist()):
            mine = shards == shard
            found[mine] = self._array(shard, name).take(rows[mine])
        return found

    def _array(self, shard: int, name: str) -> "_Array":
        return self._opened.of((shard, name), lambda: _Array(open_array(self.folder / self.shards[shard][0] / name)))


@dataclass(frozen=True, kw_only=True)
class CellView:
    """Cells where they lie in a store: for each its shard, and its first value and the one behind its last."""

    shards: NDArray[np.int64]
    begins: NDArray[np.int64]
    ends: NDArray[np.int64]
    ranked: bool
    arrays: Mapping[int, tuple["_Array", "_Array"]]

    def __len__(self) -> int:
        return len(self.shards)

    def each(self) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yields the genes and the values of each cell, read-only."""
        for shard, begin, end in zip(self.shards.tolist(), self.begins.tolist(), self.ends.tolist(), strict=True):
            genes, values = self.arrays[shard]
            yield genes.part(begin, end), values.part(begin, end)

    def copied(self) -> Cells:
        """Returns the cells in memory, one behind the other."""
        indptr: NDArray[np.int64] = np.concatenate([[0], np.cumsum(self.ends - self.begins)])
        some = next(iter(self.arrays.values()), None)
        kinds = (np.dtype(np.uint16), np.dtype(np.uint16)) if some is None else (some[0].dtype, some[1].dtype)
        genes, values = (np.empty(int(indptr[-1]), dtype=kind) for kind in kinds)
        places = indptr.tolist()
        for (some_genes, some_values), first, last in zip(self.each(), places, places[1:], strict=False):
            genes[first:last], values[first:last] = some_genes, some_values
        return Cells(indptr=indptr, genes=genes, values=values, ranked=self.ranked)


class _Array:
    """One array of a shard: its chunks as the rows of a rectangle that lies in the file."""

    def __init__(self, stored: Stored) -> None:
        self._stored, self._size, self.dtype = stored, stored.rows_per_chunk, stored.dtype
        step = stored.chunk_bytes + 4  # its CRC-32C
        starts = stored.starts
        if starts != list(range(starts[0], starts[0] + step * len(starts), step) if starts else []):
            raise ValueError(f"{stored.path}: chunks must lie one behind the other, but do not; {_AGAIN}")
        self._rows: NDArray[Any] = np.ndarray(
            (len(starts), self._size), self.dtype, stored.data, starts[0] if starts else 0, (step, self.dtype.itemsize)
        )

    def part(self, begin: int, end: int) -> NDArray[Any]:
        """Returns values begin to end, without a copy where they lie in one chunk."""
        chunk, first = divmod(begin, self._size)
        last = first + end - begin
        if last > self._size:
            out = np.empty(end - begin, self.dtype)
            self._stored.copy_into(out, begin)
            return out
        if begin < end and not self._stored.checked[chunk]:
            self._stored.chunk(chunk)
        found: NDArray[Any] = self._rows[chunk, first:last] if begin < end else np.empty(0, self.dtype)
        return found

    def take(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """Returns the values at these places."""
        chunks, offsets = np.divmod(places, self._size)
        for chunk in set(chunks.tolist()):
            if not self._stored.checked[chunk]:
                self._stored.chunk(chunk)
        found: NDArray[Any] = self._rows[chunks, offsets]
        return found

    def fetch(self, begin: int, end: int) -> None:
        """Asks the kernel to read values begin to end."""
        step = self._rows.strides[0]
        first = begin // self._size * step + begin % self._size * self.dtype.itemsize
        length = (end - begin) * self.dtype.itemsize
        file = os.open(self._stored.path / "c" / "0", os.O_RDONLY)
        try:
            os.posix_fadvise(file, first, length, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(file)


@dataclass(frozen=True, kw_only=True)
class CellStore:
    """A committed store."""

    folder: Path
    manifest: Mapping[str, Any]

    @cached_property
    def genes(self) -> list[str]:
        """The genes by gene id, in alphabetical order."""
        found: list[str] = read_json(self.folder / GENES)
        return found

    def split(self, name: str) -> CellSplit:
        """Returns the cells of train or valid.

        Raises:
            ValueError: there is no such split.
        """
        known = self.manifest["splits"]
        if name not in known:
            raise ValueError(f"{self.folder}: must hold {name}, but has {', '.join(known)}")
        shards = tuple((_folder(entry), entry["cells"]) for entry in known[name])
        ranked = self.manifest["order"] == "rank"
        return CellSplit(folder=self.folder, shards=shards, labels=self.manifest["labels"], ranked=ranked)


def open_store(folder: Path, *, hashed: bool = True, share: tuple[int, int] = (0, 1)) -> CellStore:
    """Opens a store that was committed.

    Args:
        folder: of the store.
        hashed: whether every file is compared with its digest now. Without it, names and sizes are, and each chunk's
            CRC-32C when it is first read: what is damaged is never given out, but is found later, and whole files that
            somebody exchanged are not.
        share: (this process, all processes) that open the same store at once and divide the hashing.

    Raises:
        ValueError: nothing was committed, or a file is missing, added or changed.
    """
    if not (folder / MANIFEST).is_file():
        raise ValueError(f"{folder}: must hold a committed {MANIFEST}, but has none; {_AGAIN}")
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"{folder / MANIFEST}: must be of format {FORMAT}, but is not; {_AGAIN}")
    if manifest.pop("digest", None) != digest(manifest):
        raise ValueError(f"{folder / MANIFEST}: must match its own digest, but does not; {_AGAIN}")
    if not (folder / GENES).is_file() or sha256_file(folder / GENES) != manifest["genes_digest"]:
        raise ValueError(f"{folder / GENES}: must be as committed, but is missing or changed; {_AGAIN}")
    entries = [entry for split in manifest["splits"].values() for entry in split]
    _check_names(folder, entries)
    files = [(folder / _folder(entry) / name, told) for entry in entries for name, told in entry["files"].items()]
    wanted = files if hashed else [(path, told) for path, told in files if path.suffix == ".json"]
    for path, told in wanted[share[0] :: share[1]]:
        if sha256_file(path) != told:
            raise ValueError(f"{path}: must be as committed, but has changed; {_AGAIN}")
    return CellStore(folder=folder, manifest=manifest)


def _check_names(folder: Path, entries: list[Any]) -> None:
    below = folder / "shards"
    found = {str(path.relative_to(folder)) for path in below.rglob("*") if path.is_file()}
    wanted = {f"{_folder(entry)}/{name}" for entry in entries for name in entry["files"]}
    wrong = sorted(found ^ wanted)
    if wrong:
        raise ValueError(f"{folder / wrong[0]}: must be as committed, but is missing or was added; {_AGAIN}")


def _folder(entry: Mapping[str, Any]) -> str:
    return f"shards/{entry['split']}/{entry['number']:05d}"


def _reopened(folder: Path, shards: Any, labels: Any, ranked: bool) -> CellSplit:  # noqa: FBT001 - called by pickle
    return CellSplit(folder=folder, shards=shards, labels=labels, ranked=ranked)

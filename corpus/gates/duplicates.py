"""Duplicates: equal records by their digests, nearly equal texts by MinHash; over any number of records in flat memory.

A worker collects `Keys` for the records of one folder; `find` compares those of all folders. Of records that are alike
the earlier is kept: by the order of the folders, then by their order within. The result depends on nothing else.
"""

import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from shutil import copyfileobj
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from corpus.gates.buckets import Buckets
from corpus.gates.config import DuplicatesConfig
from corpus.gates.shingles import mix32, shingles

KEYS, SIGNATURES, SIGNED = "keys.bin", "signatures.bin", "signed.bin"
FOUND = np.dtype([("record", "u8"), ("folder", "u4"), ("of", "u8"), ("similarity", "f4"), ("exact", "?")])
_LETTERS = 1 << 18  # of texts that are signed together: what they need stays in the cache
_IN_MEMORY = 1 << 26  # bytes of a file that may stay in memory
_ROWS = 1 << 18  # keys that are read at once


class Keys:
    """The keys of one folder's records, collected in their order.

    Args:
        config: how texts are signed; must be the same for all folders that are compared.
    """

    def __init__(self, config: DuplicatesConfig) -> None:
        self._config = config
        with ExitStack() as stack:
            self._files = {
                name: stack.enter_context(tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))
                for name in (KEYS, SIGNATURES, SIGNED)
            }
            self._stack = stack.pop_all()
        self._records = 0
        self._texts: list[str] = []
        self._numbers: list[int] = []
        self._letters = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, key: bytes, text: str | None) -> None:
        """Adds the next record: the first 16 bytes of its digest, and its text where near duplicates are looked for.

        Raises:
            ValueError: the key has another length.
        """
        if len(key) != 16:
            raise ValueError(f"a key must have 16 bytes, but has {len(key)}; cut the digest")
        self._files[KEYS].write(key)
        if text is not None and self._config.near and text:
            self._texts.append(text)
            self._numbers.append(self._records)
            self._letters += len(text)
            if self._letters >= _LETTERS:
                self._sign()
        self._records += 1

    def save(self, folder: Path) -> list[Path]:
        """Writes the keys into a folder that is there, and returns the files; nothing can be added afterwards."""
        self._sign()
        for name, file in self._files.items():
            file.seek(0)
            with (folder / name).open("wb") as written:
                copyfileobj(file, written)
        self._stack.close()
        return [folder / name for name in self._files]

    def _sign(self) -> None:
        if self._texts:
            signed, enough = signatures(self._texts, self._config)
            numbers = np.asarray(self._numbers, dtype=np.uint64)
            self._files[SIGNATURES].write(signed[enough].tobytes())
            self._files[SIGNED].write(numbers[enough].tobytes())
        self._texts, self._numbers, self._letters = [], [], 0


def signatures(texts: Sequence[str], config: DuplicatesConfig) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """Returns datasketch's MinHash of each text, and whether the text is long enough to be compared."""
    found, starts, counts = shingles(texts, config.shingle)
    enough = counts >= config.min_units
    signed = np.zeros((len(texts), config.num_perm), dtype=np.uint32)
    some = np.diff(starts) > 0
    if some.any():
        hashes = mix32((found >> np.uint64(32)).astype(np.uint32))
        begins = starts[:-1][some]
        moved = np.empty_like(hashes)
        columns = np.empty((config.num_perm, len(begins)), dtype=np.uint32)
        for number, (factor, summand) in enumerate(zip(*_permutations(config.num_perm), strict=True)):
            np.multiply(hashes, factor, out=moved)
            np.add(moved, summand, out=moved)
            np.minimum.reduceat(moved, begins, out=columns[number])
        signed[some] = columns.T
    return signed, enough


@cache
def _permutations(number: int) -> NDArray[np.uint32]:
    from datasketch import MinHash

    found: NDArray[np.uint32] = MinHash(num_perm=number, seed=1).permutations
    return found


@dataclass(frozen=True, kw_only=True)
class Found:
    """The duplicates of some folders; read from disk as they are asked for.

    Attributes:
        path: holds rows of FOUND, folder by folder.
        starts: of each folder, and the end.
        exact: how many have an equal.
        near: how many have a near one only.
    """

    path: Path
    starts: NDArray[np.int64]
    exact: int
    near: int

    def of(self, folder: int) -> NDArray[Any]:
        """Returns the duplicates in the n-th folder by record: record, folder and record it repeats, similarity."""
        first, last = int(self.starts[folder]), int(self.starts[folder + 1])
        return np.fromfile(self.path, dtype=FOUND, count=last - first, offset=first * FOUND.itemsize)

    def pairs(self, sources: Sequence[str]) -> list[tuple[str, str, int]]:
        """Returns how many records of one source repeat one of another (or of itself): source, earlier source, number.

        Args:
            sources: the source of each folder.
        """
        counted: Counter[tuple[str, str]] = Counter()
        for number, name in enumerate(sources):
            earlier, times = np.unique(self.of(number)["folder"], return_counts=True)
            for folder, many in zip(earlier, times, strict=True):
                counted[name, sources[folder]] += int(many)
        return [(first, second, number) for (first, second), number in sorted(counted.items())]


def find(folders: Sequence[Path], *, config: DuplicatesConfig, workdir: Path) -> Found:
    """Compares the records of all folders.

    Args:
        folders: where `Keys.save` wrote, in the order that decides which of two records is the earlier.
        config: as the keys were collected with.
        workdir: an empty folder for what does not fit memory, and for the result.
    """
    counts = np.asarray([(folder / KEYS).stat().st_size // 16 for folder in folders], dtype=np.int64)
    first = np.concatenate(([0], np.cumsum(counts)))
    found = Buckets(
        workdir / "found", rows=int(first[-1]), dtype=[("at", "u8"), ("of", "u8"), ("similarity", "f4"), ("exact", "?")]
    )
    gone = np.memmap(workdir / "gone.bin", dtype=bool, mode="w+", shape=(max(1, int(first[-1])),))
    exact = _exact(folders, first, found=found, gone=gone, workdir=workdir)
    near = 0
    if config.near:
        from corpus.gates.near import near_duplicates

        near = near_duplicates(folders, first, found=found, gone=gone, config=config, workdir=workdir)
    del gone
    (workdir / "gone.bin").unlink()
    starts = _write(found, first, workdir / "duplicates.bin")
    return Found(path=workdir / "duplicates.bin", starts=starts, exact=exact, near=near)


def report(found: Buckets, *, at: NDArray[Any], of: NDArray[Any], similarity: Any = None, total: int) -> None:
    """Adds duplicates to what was found, by their place among all records; those without similarity are exact."""
    rows = np.zeros(len(at), dtype=found.dtype)
    rows["at"], rows["of"] = at, of
    rows["similarity"], rows["exact"] = (1.0, True) if similarity is None else (similarity, False)
    found.add(rows, buckets=rows["at"] * np.uint64(len(found)) // np.uint64(max(1, total)))


def _exact(folders: Iterable[Path], first: NDArray[np.int64], *, found: Buckets, gone: Any, workdir: Path) -> int:
    total, number = int(first[-1]), 0
    parts = Buckets(workdir / "exact", rows=total, dtype=[("high", "u8"), ("low", "u8"), ("at", "u8")])
    for folder, start in zip(folders, first[:-1], strict=True):
        for begin in range(0, (folder / KEYS).stat().st_size // 16, _ROWS):
            some = np.fromfile(folder / KEYS, dtype=">u8", count=2 * _ROWS, offset=16 * begin).reshape(-1, 2)
            rows = np.zeros(len(some), dtype=parts.dtype)
            rows["high"], rows["low"] = some[:, 0], some[:, 1]
            rows["at"] = np.arange(len(some), dtype=np.uint64) + np.uint64(int(start) + begin)
            parts.add(rows, buckets=_top(rows["high"], parts.bits))
    for rows in parts:
        ordered = rows[np.lexsort((rows["low"], rows["high"]))]  # stable: the earlier first
        same = (ordered["high"][1:] == ordered["high"][:-1]) & (ordered["low"][1:] == ordered["low"][:-1])
        later = np.flatnonzero(same) + 1
        earliest = first_of_each(same)[later]
        gone[ordered["at"][later]] = True
        report(found, at=ordered["at"][later], of=ordered["at"][earliest], total=total)
        number += len(later)
    return number


def first_of_each(same: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Returns where the group of each row begins; `same` says of each row but the first if it is as the one before."""
    begins = np.concatenate(([True], ~same))
    found: NDArray[np.int64] = np.maximum.accumulate(np.where(begins, np.arange(len(begins)), 0))
    return found


def _top(values: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
    return values >> np.uint64(64 - bits) if bits else np.zeros(len(values), dtype=np.uint64)


def _write(found: Buckets, first: NDArray[np.int64], path: Path) -> NDArray[np.int64]:
    counted = np.zeros(len(first) - 1, dtype=np.int64)
    with path.open("wb") as file:
        for rows in found:
            ordered = rows[np.argsort(rows["at"], kind="stable")]
            folder = np.searchsorted(first, ordered["at"], side="right") - 1
            earlier = np.searchsorted(first, ordered["of"], side="right") - 1
            written = np.zeros(len(rows), dtype=FOUND)
            written["record"] = ordered["at"] - first[folder].astype(np.uint64)
            written["folder"] = earlier
            written["of"] = ordered["of"] - first[earlier].astype(np.uint64)
            written["similarity"], written["exact"] = ordered["similarity"], ordered["exact"]
            written.tofile(file)
            counted += np.bincount(folder, minlength=len(counted))
    return np.concatenate(([0], np.cumsum(counted)))

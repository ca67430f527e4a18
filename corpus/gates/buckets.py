"""Buckets: rows on disk, in parts that fit memory one by one, however many rows there are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROWS = 1 << 20  # of a bucket, about: some 25 MB, and a few times as much to sort them


class Buckets:
    """Files of rows of one type below a folder.

    Args:
        folder: is made; must not be there.
        rows: about how many there will be.
        dtype: of a row.
    """

    def __init__(self, folder: Path, *, rows: int, dtype: Any) -> None:
        folder.mkdir(parents=True)
        self.folder, self.dtype = folder, np.dtype(dtype)
        self.bits = min(10, max(0, (rows // _ROWS).bit_length()))

    def __len__(self) -> int:
        return 1 << self.bits

    def add(self, rows: NDArray[Any], *, buckets: NDArray[Any]) -> None:
        """Appends rows to their buckets; the rows of a bucket stay in the order in which they came."""
        order = np.argsort(buckets, kind="stable")
        edges = np.searchsorted(buckets[order], np.arange(len(self) + 1))
        for number in np.flatnonzero(np.diff(edges)):
            with (self.folder / f"{number:04d}").open("ab") as file:
                rows[order[edges[number] : edges[number + 1]]].astype(self.dtype).tofile(file)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Yields the rows of each bucket, and removes it."""
        for number in range(len(self)):
            path = self.folder / f"{number:04d}"
            rows = np.fromfile(path, dtype=self.dtype) if path.exists() else np.zeros(0, dtype=self.dtype)
            path.unlink(missing_ok=True)
            yield rows
        self.folder.rmdir()

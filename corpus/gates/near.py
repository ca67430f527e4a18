"""Near duplicates: texts whose signatures share a band are compared; one like an earlier one that stays goes."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corpus.gates.buckets import Buckets
from corpus.gates.config import DuplicatesConfig
from corpus.gates.duplicates import SIGNATURES, SIGNED, first_of_each, report
from corpus.gates.shingles import mix

_ROWS = 1 << 16  # signatures that are read at once
_BEFORE = 2  # of the texts that share a band, each is compared with the first and with so many before it
_PAIR = np.dtype([("at", "u8"), ("of", "u8")])


class _Signatures:
    """The signatures of all folders as one list; a number in it is what the rest of this file calls a text."""

    def __init__(self, folders: Sequence[Path], first: NDArray[np.int64], *, num_perm: int) -> None:
        self.folders, self._records, self._num_perm = folders, first, num_perm
        counts = [(folder / SIGNED).stat().st_size // 8 for folder in folders]
        self.starts = np.concatenate(([0], np.cumsum(np.asarray(counts, dtype=np.int64))))

    def __len__(self) -> int:
        return int(self.starts[-1])

    def chunks(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint32]]]:
        """Yields texts, the places of their records among all records, and their signatures."""
        for number, folder in enumerate(self.folders):
            count = int(self.starts[number + 1] - self.starts[number])
            for begin in range(0, count, _ROWS):
                size = min(_ROWS, count - begin)
                texts = np.arange(size) + self.starts[number] + begin
                signed = np.fromfile(
                    folder / SIGNATURES,
                    dtype=np.uint32,
                    count=size * self._num_perm,
                    offset=begin * self._num_perm * 4,
                )
                yield texts, self.records(texts), signed.reshape(size, self._num_perm)

    def records(self, texts: NDArray[Any]) -> NDArray[np.int64]:
        """Returns the places of texts' records among all records."""
        found = np.zeros(len(texts), dtype=np.int64)
        for number, rows in self._by_folder(texts):
            signed = np.memmap(self.folders[number] / SIGNED, dtype=np.uint64, mode="r")
            local = texts[rows].astype(np.int64) - self.starts[number]
            found[rows] = signed[local].astype(np.int64) + self._records[number]
        return found

    def similarity(self, left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float32]:
        """Returns the estimated Jaccard similarity of texts with texts."""
        found = np.zeros(len(left), dtype=np.float32)
        for begin in range(0, len(left), _ROWS):
            some = slice(begin, begin + _ROWS)
            found[some] = (self._take(left[some]) == self._take(right[some])).mean(axis=1, dtype=np.float32)
        return found

    def _take(self, texts: NDArray[Any]) -> NDArray[np.uint32]:
        found = np.zeros((len(texts), self._num_perm), dtype=np.uint32)
        for number, rows in self._by_folder(texts):
            path = self.folders[number] / SIGNATURES
            signed = np.memmap(path, dtype=np.uint32, mode="r").reshape(-1, self._num_perm)
            found[rows] = signed[texts[rows].astype(np.int64) - self.starts[number]]
        return found

    def _by_folder(self, texts: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        folder = np.searchsorted(self.starts, texts, side="right") - 1
        order = np.argsort(folder, kind="stable")
        numbers, begins = np.unique(folder[order], return_index=True)
        if len(texts):  # np.split makes one piece of nothing
            yield from zip(numbers.tolist(), np.split(order, begins[1:]), strict=True)


def near_duplicates(
    folders: Sequence[Path],
    first: NDArray[np.int64],
    *,
    found: Buckets,
    gone: Any,
    config: DuplicatesConfig,
    workdir: Path,
) -> int:
    """Adds the near duplicates to what was found, and returns their number.

    A text is one when its similarity to an earlier text, which is itself none, reaches the threshold.

    Args:
        folders: where keys lie, in their order.
        first: of each folder, the place of its first record among all; and the end.
        found: where duplicates are reported.
        gone: of each record, whether it is an exact duplicate; such a one is compared with nothing.
        config: as the signatures were made with.
        workdir: for what does not fit memory.
    """
    signed = _Signatures(folders, first, num_perm=config.num_perm)
    if not len(signed):
        return 0
    keepers = np.memmap(workdir / "keepers.bin", dtype=np.int64, mode="w+", shape=(len(signed),))
    keepers[:] = -1
    number = 0
    for pairs in _candidates(signed, gone, config=config, workdir=workdir):
        number += _keep_earlier(pairs, signed, keepers=keepers, config=config, found=found, total=int(first[-1]))
    del keepers
    (workdir / "keepers.bin").unlink()
    return number


def _candidates(signed: _Signatures, gone: Any, *, config: DuplicatesConfig, workdir: Path) -> Buckets:
    width = config.num_perm // config.bands
    rows = len(signed) * config.bands
    bands = Buckets(workdir / "bands", rows=rows, dtype=[("band", "u8"), ("at", "u8")])
    for texts, records, signatures in signed.chunks():
        stays = ~gone[records]
        for band in range(config.bands):
            part = signatures[stays, band * width : (band + 1) * width].astype(np.uint64)
            some = np.zeros(len(part), dtype=bands.dtype)
            some["band"], some["at"] = _joined(part, band), texts[stays]
            bands.add(some, buckets=some["band"] >> np.uint64(64 - bands.bits) if bands.bits else some["band"] * 0)
    pairs = Buckets(workdir / "pairs", rows=rows // 8, dtype=_PAIR)
    for part in bands:
        some = _pairs(part)
        pairs.add(some, buckets=some["at"] * np.uint64(len(pairs)) // np.uint64(len(signed)))
    return pairs


def _joined(part: NDArray[np.uint64], band: int) -> NDArray[np.uint64]:
    found = np.full(len(part), band + 1, dtype=np.uint64)
    for column in range(part.shape[1]):
        found = mix(found ^ part[:, column])
    return found


def _pairs(rows: NDArray[Any]) -> NDArray[Any]:
    ordered = rows[np.argsort(rows["band"], kind="stable")]  # within a band, the earlier first
    begins = first_of_each(ordered["band"][1:] == ordered["band"][:-1])
    places = np.arange(len(ordered))
    parts = []
    for before in (places - begins, *([np.full(len(places), step) for step in range(1, _BEFORE + 1)])):
        held = (before > 0) & (places - before >= begins)
        some = np.zeros(int(held.sum()), dtype=_PAIR)
        some["at"], some["of"] = ordered["at"][held], ordered["at"][(places - before)[held]]
        parts.append(some)
    return np.unique(np.concatenate(parts))


def _keep_earlier(
    pairs: NDArray[Any], signed: _Signatures, *, keepers: Any, config: DuplicatesConfig, found: Buckets, total: int
) -> int:
    pairs = np.unique(pairs)  # by the later text, then by the earlier
    alike = signed.similarity(pairs["at"], pairs["of"])
    held = alike >= config.threshold
    kept: dict[int, tuple[int, float]] = {}
    for later, earlier, similarity in zip(
        pairs["at"][held].tolist(), pairs["of"][held].tolist(), alike[held].tolist(), strict=True
    ):
        if later in kept:
            continue
        keeper = int(keepers[earlier])
        if keeper >= 0:
            similarity = float(signed.similarity(np.asarray([later]), np.asarray([keeper]))[0])  # noqa: PLW2901
        if similarity >= config.threshold:
            kept[later] = (keeper if keeper >= 0 else earlier, similarity)
            keepers[later] = kept[later][0]
    at = np.fromiter(kept, dtype=np.int64, count=len(kept))
    of = np.asarray([earlier for earlier, _ in kept.values()], dtype=np.int64)
    similarities = np.asarray([similarity for _, similarity in kept.values()], dtype=np.float32)
    report(found, at=signed.records(at), of=signed.records(of), similarity=similarities, total=total)
    return len(kept)

"""Contamination: evaluation sets as hashed runs of words and ids, and the records that hold something of them.

`build` writes the index into a folder, once; every worker loads it. An item is found when a record has a run of 13 of
its words (30 letters of Korean, Chinese or Japanese) in common with it, or all of a shorter item, or one of its ids.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corpus.gates.benchmarks import Item, items
from corpus.gates.config import ContaminationConfig
from corpus.gates.shingles import Hashes, mix, runs, units
from slurm.files import read_json, write_json

_FILES = ("runs.npy", "owners.npy", "short.npy")
_SHORT = np.dtype([("start", "u8"), ("whole", "u8"), ("length", "u4"), ("owner", "u4")])


@dataclass(frozen=True, kw_only=True)
class _Texts:
    """What of a benchmark's texts can be looked for."""

    hashes: Hashes
    owners: NDArray[np.uint32]
    short: NDArray[Any]
    checkable: set[int]


def build(config: ContaminationConfig, root: Path, *, folder: Path) -> None:
    """Builds the index of all benchmarks; the same files give the same bytes.

    Raises:
        ValueError: a benchmark cannot be read, or has no items.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[_Texts] = []
    about, ids, first = list[dict[str, Any]](), dict[str, list[int]](), 0
    for benchmark in config.benchmarks:
        found = list(items(benchmark, root))
        part = _texts(found, config, first=first)
        for number, item in enumerate(found, start=first):
            for name in item.ids:
                ids.setdefault(name.casefold(), []).append(number)
        named = sum(bool(item.ids) for item in found)
        counts = {"items": len(found), "checkable": len(part.checkable), "with_ids": named}
        about.append({"name": benchmark.name, "first": first, **counts})
        first += len(found)
        parts.append(part)
    hashes = np.concatenate([part.hashes for part in parts])
    order = np.argsort(hashes, kind="stable")
    np.save(folder / "runs.npy", hashes[order])
    np.save(folder / "owners.npy", np.concatenate([part.owners for part in parts])[order])
    short = np.concatenate([part.short for part in parts])
    np.save(folder / "short.npy", short[np.argsort(short["start"], kind="stable")])
    sizes = {"words": config.words, "letters": config.letters}
    least = {"words": config.min_words, "letters": config.min_letters}
    index = {"benchmarks": about, "ids": ids, "sizes": sizes, "least": least}
    write_json(folder / "index.json", index)


class Index:
    """The index, as every worker holds it."""

    def __init__(self, folder: Path) -> None:
        about = read_json(folder / "index.json")
        self._benchmarks, self._ids = about["benchmarks"], about["ids"]
        self._sizes, self._least = about["sizes"], about["least"]
        self._runs, self._owners, self._short = (_mapped(folder / name) for name in _FILES)
        self._firsts = np.asarray([benchmark["first"] for benchmark in self._benchmarks])
        self._filter = _Filter(self._runs)
        self._starts = np.ascontiguousarray(self._short["start"])
        self._start_filter = _Filter(self._starts)

    @classmethod
    def load(cls, folder: Path) -> "Index":
        """Loads what `build` wrote."""
        return cls(folder)

    def benchmarks(self) -> dict[str, dict[str, int]]:
        """Returns of each benchmark how many items it has, can be looked for by their text, and have ids."""
        names = ("items", "checkable", "with_ids")
        return {about["name"]: {name: about[name] for name in names} for about in self._benchmarks}

    def check(self, text: str, ids: Iterable[str]) -> dict[str, set[int]]:
        """Returns the items of each benchmark that a record holds, by their number in it."""
        owners = {number for name in ids for number in self._ids.get(name.casefold(), ())}
        owners |= self._by_text(text)
        found: dict[str, set[int]] = {}
        for owner in owners:
            about = self._benchmarks[int(np.searchsorted(self._firsts, owner, side="right")) - 1]
            found.setdefault(about["name"], set()).add(owner - about["first"])
        return found

    def _by_text(self, text: str) -> set[int]:
        if len(text) < min(self._least.values()):
            return set()
        found = units([text])
        kinds = ("words", "letters") if found.letters.any() else ("words",)
        owners: set[int] = set()
        for kind in kinds:
            owners |= self._long(found.hashes, self._sizes[kind])
            owners |= self._whole(found.hashes, self._least[kind])
        return owners

    def _long(self, hashes: Hashes, size: int) -> set[int]:
        found = _told(runs(hashes, size), size)
        probable = np.unique(found[self._filter.passes(found)])
        begins = np.searchsorted(self._runs, probable, side="left").tolist()
        ends = np.searchsorted(self._runs, probable, side="right").tolist()
        return {owner for begin, end in zip(begins, ends, strict=True) for owner in self._owners[begin:end].tolist()}

    def _whole(self, hashes: Hashes, least: int) -> set[int]:
        starts = _told(runs(hashes, least), least)
        owners: set[int] = set()
        for place in np.flatnonzero(self._start_filter.passes(starts)).tolist():
            begin = int(np.searchsorted(self._starts, starts[place], side="left"))
            for row in self._short[begin:]:
                if row["start"] != starts[place]:
                    break
                part = hashes[place : place + int(row["length"])]
                if len(part) == row["length"] and runs(part, len(part))[0] == row["whole"]:
                    owners.add(int(row["owner"]))
        return owners


class _Filter:
    """Says of most hashes at once that they are not there, by their highest bits."""

    def __init__(self, hashes: Hashes) -> None:
        bits = min(27, max(12, (8 * len(hashes)).bit_length()))
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, dtype=bool)
        self._table[hashes >> self._shift] = True

    def passes(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Says of each hash whether it may be there."""
        passed: NDArray[np.bool_] = self._table[hashes >> self._shift]
        return passed


def _mapped(path: Path) -> NDArray[Any]:
    found: NDArray[Any] = np.asarray(
        np.load(path, mmap_mode="r")
    )  # a plain view: a memmap's own costs more than a search
    return found


def _told(hashes: Hashes, size: int) -> Hashes:
    """Tells runs of one length from those of another."""
    return mix(hashes ^ np.uint64(size))


def _texts(found: list[Item], config: ContaminationConfig, *, first: int) -> _Texts:
    parts, short, checkable = list[tuple[Hashes, list[int]]](), list[Any](), set[int]()
    texts: dict[str, list[int]] = {}
    for number, item in enumerate(found, start=first):
        for text in item.texts:
            texts.setdefault(text, []).append(number)
    for own, numbers, size, least in _measured(texts, config):
        if len(own) >= size:
            parts.append((np.unique(_told(runs(own, size), size)), numbers))
        elif len(own) >= least:
            start = _told(runs(own[:least], least), least)[0]
            short += [(start, runs(own, len(own))[0], len(own), number) for number in numbers]
        if len(own) >= least:
            checkable.update(numbers)
    hashes, owners = _without_templates(parts, most=config.template_items)
    return _Texts(hashes=hashes, owners=owners, short=np.asarray(short, dtype=_SHORT), checkable=checkable)


def _measured(texts: dict[str, list[int]], config: ContaminationConfig) -> Iterator[tuple[Hashes, list[int], int, int]]:
    for text, numbers in texts.items():
        own = units([text])
        lettered = 2 * int(own.letters.sum()) > len(own.hashes)
        size = config.letters if lettered else config.words
        yield own.hashes, numbers, size, min(size, config.min_letters if lettered else config.min_words)


def _without_templates(parts: list[tuple[Hashes, list[int]]], *, most: int) -> tuple[Hashes, NDArray[np.uint32]]:
    """Leaves out runs that stand in many different texts; a passage that many items share is one text."""
    none = np.zeros(0, dtype=np.uint64)
    values, times = np.unique(np.concatenate([none, *(hashes for hashes, _ in parts)]), return_counts=True)
    forms = values[times >= most]
    kept = [(hashes[~np.isin(hashes, forms)], numbers) for hashes, numbers in parts] if len(forms) else parts
    every = [hashes for hashes, numbers in kept for _ in numbers]
    owners = [np.full(len(hashes), number, dtype=np.uint32) for hashes, numbers in kept for number in numbers]
    return np.concatenate([none, *every]), np.concatenate([none.astype(np.uint32), *owners])

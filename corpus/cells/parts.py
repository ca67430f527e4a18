"""The two passes of a shuffle that is larger than memory: cells scattered to their shards, then shards put in order.

A part holds a chunk of one source: its cells in order of split, shard and slot, so that a shard is one run of it.
"""

import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corpus.cells.plan import Layout, StorePlan
from corpus.cells.rank import Cells, rank
from corpus.clean import is_missing
from corpus.formats.cellmatrix import Block, Request, read_cells
from corpus.modality import SourceError
from corpus.records import SPLITS
from corpus.shardfile import ROWS, write_array
from corpus.units import split_of
from corpus.workers import beat
from slurm.files import fsync_file, read_json, sha256_files, write_json

_MOST = np.iinfo(np.uint16).max
_CHUNK = 1 << 18  # values of a chunk, half a mebibyte of counts: few cells lie in two


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """Reads chunks: the work of the first pass; picklable.

    Attributes:
        plan: of the store.
        layout: where cells go.
        genes: of the store, in alphabetical order.
        parts: folder of the parts.
        apart: whether a process of its own reads each file.
    """

    plan: StorePlan
    layout: Layout
    genes: tuple[str, ...]
    parts: Path
    apart: bool

    @cached_property
    def genes_at(self) -> dict[str, int]:
        """Each gene's id."""
        return {gene: number for number, gene in enumerate(self.genes)}

    def __call__(self, unit: tuple[int, int, int]) -> None:
        """Writes one part and commits it.

        Raises:
            ValueError: the source cannot be used; one line.
        """
        number, first, last = unit
        source, folder = self.plan.sources[number], part(self.parts, unit)
        wanted = tuple(dict.fromkeys([*self.plan.labels, *([self.plan.group] if self.plan.group else [])]))
        changed = {"rows": (first, last), "columns": wanted, "counts": self.plan.values == "counts"}
        try:
            found, ids = [], np.empty(0, dtype=np.int64)
            request = Request(**{**asdict(source.request), **changed})
            for told in read_cells(request, timeout_s=source.timeout_s, apart=self.apart):
                if isinstance(told, Block):
                    found.append(self._kept(told, ids, number))
                    beat(len(told.names))
                else:
                    ids = np.array([self.genes_at.get(gene, -1) for gene in told.genes], dtype=np.int64)
        except SourceError as error:
            raise ValueError(f"{source.name} ({source.request.path}): {error.reason}") from error
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        report = self._write(folder, _joined([cells for cells, _ in found]))
        rejects: Counter[str] = sum((counted for _, counted in found), Counter())
        write_json(folder / "report.json", {**report, "rejects": dict(sorted(rejects.items()))})

    def _kept(self, block: Block, ids: NDArray[np.int64], source: int) -> tuple[dict[str, Any], Counter[str]]:
        """Returns the usable cells of a block as arrays, and what is wrong with the others."""
        problems = np.array(block.problems, dtype=object)
        sizes = np.diff(block.indptr)
        row = np.repeat(np.arange(len(sizes)), sizes)
        known = ids[block.genes] >= 0
        if self.plan.values == "counts":
            high = np.unique(row[known & (block.values > _MOST)])
            problems[high[problems[high] == None]] = "too_high"  # noqa: E711 - compared one by one
        expressed = np.bincount(row[known], minlength=len(sizes))
        problems[(expressed == 0) & (problems == None)] = "empty"  # noqa: E711 - likewise
        usable = problems == None  # noqa: E711 - likewise
        kept = known & usable[row]
        rows = np.flatnonzero(usable) + block.start
        names = {name: [values[at] for at in np.flatnonzero(usable)] for name, values in block.columns.items()}
        splits = self._splits(names.get(self.plan.group or ""), rows, source)
        cells = {
            "sizes": expressed[usable].astype(np.int64),
            "genes": ids[block.genes[kept]].astype(np.uint16 if len(self.genes) <= _MOST + 1 else np.uint32),
            "values": block.values[kept].astype(np.uint16 if self.plan.values == "counts" else np.float32),
            "rows": rows,
            "splits": splits,
            "slots": self.layout.slots(source, rows),
            "labels": {name: names[name] for name in self.plan.labels},
        }
        return cells, Counter(problem for problem in problems.tolist() if problem)

    def _splits(self, groups: list[Any] | None, rows: NDArray[np.int64], source: int) -> NDArray[np.int64]:
        """Returns the number of each cell's split: that of its group, or its own where it has none."""
        drawn: dict[str, int] = {}
        found = np.empty(len(rows), dtype=np.int64)
        for place, row in enumerate(rows.tolist()):
            group = None if groups is None else groups[place]
            name = f"{source}:{row}" if is_missing(group) else str(group)
            if name not in drawn:
                split = split_of(name, seed=self.plan.seed, valid_fraction=self.plan.valid_fraction)
                drawn[name] = SPLITS.index(split)
            found[place] = drawn[name]
        return found

    def _write(self, folder: Path, cells: dict[str, Any]) -> dict[str, Any]:
        splits, slots = cells["splits"], cells["slots"]
        shards = np.where(splits == 0, self.layout.shard(0, slots), self.layout.shard(1, slots) + self.layout.shards[0])
        order = np.lexsort((slots, shards))
        ends = np.concatenate([[0], np.cumsum(cells["sizes"])])
        values = _expand(ends[:-1][order], cells["sizes"][order])
        labels = {}
        for name, column in cells["labels"].items():
            told = [None if is_missing(value) else str(value) for value in column]
            labels[name] = sorted({value for value in told if value is not None})
            code = {value: number for number, value in enumerate(labels[name])}
            codes = np.array([-1 if value is None else code[value] for value in told], dtype=np.int32)
            np.save(folder / f"label.{name}.npy", codes[order])
        for name in ("sizes", "rows", "slots"):
            np.save(folder / f"{name}.npy", cells[name][order])
        for name in ("genes", "values"):
            np.save(folder / f"{name}.npy", cells[name][values])
        firsts = np.searchsorted(shards[order], np.arange(sum(self.layout.shards) + 1))
        np.save(folder / "firsts.npy", firsts)
        for path in sorted(folder.iterdir()):
            fsync_file(path)
        return {"cells": len(order), "labels": labels}


@dataclass(frozen=True, kw_only=True)
class Gather:
    """Writes shards: the work of the second pass; picklable.

    Attributes:
        plan: of the store.
        layout: where cells lie.
        genes: of the store.
        parts: folder of the parts.
        units: the parts, in order.
        labels: the categories of each label.
        folder: of the store that is being written.
    """

    plan: StorePlan
    layout: Layout
    genes: tuple[str, ...]
    parts: Path
    units: tuple[tuple[int, int, int], ...]
    labels: dict[str, list[str]]
    folder: Path

    def __call__(self, unit: tuple[str, int]) -> None:
        """Writes one shard and commits it."""
        import zarr

        split, number = unit
        place = number + (self.layout.shards[0] if split == SPLITS[1] else 0)
        folder = shard_folder(self.folder, unit)
        shutil.rmtree(folder, ignore_errors=True)
        runs = [self._run(source, place) for source in self.units]
        cells = {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}
        found, order = self._ordered(cells)
        group = zarr.create_group(folder, zarr_format=3)
        write_array(group, "indptr", values=found.indptr, chunk=ROWS)
        for name, values in (("genes", found.genes), ("values", found.values)):
            write_array(group, name, values=values, chunk=_chunk(len(values)))
        for name in ("sources", "rows", *(f"label.{label}" for label in self.plan.labels)):
            write_array(group, name, values=cells[name][order], chunk=ROWS)
        beat(len(order))
        files = sha256_files(folder)
        for name in files:
            fsync_file(folder / name)
        entry = {"split": split, "number": number, "cells": len(order), "values": len(found.genes), "files": files}
        write_json(folder / "entry.json", entry)

    def _run(self, unit: tuple[int, int, int], place: int) -> dict[str, NDArray[Any]]:
        """Returns what a part holds of a shard."""
        folder = part(self.parts, unit)
        firsts = np.load(folder / "firsts.npy", mmap_mode="r")
        first, last = int(firsts[place]), int(firsts[place + 1])
        sizes = np.load(folder / "sizes.npy", mmap_mode="r")
        begin = int(sizes[:first].sum())
        end = begin + int(sizes[first:last].sum())
        names = ("sizes", "rows", "slots")
        found = {name: np.array(np.load(folder / f"{name}.npy", mmap_mode="r")[first:last]) for name in names}
        for name in ("genes", "values"):
            found[name] = np.array(np.load(folder / f"{name}.npy", mmap_mode="r")[begin:end])
        found["sources"] = np.full(last - first, unit[0], dtype=np.int32)
        report = read_json(folder / "report.json")
        for name in self.plan.labels:
            codes = np.load(folder / f"label.{name}.npy", mmap_mode="r")[first:last]
            whole = {category: code for code, category in enumerate(self.labels[name])}
            mapped = np.array([*(whole[category] for category in report["labels"][name]), -1], dtype=np.int32)
            found[f"label.{name}"] = mapped[codes]
        return found

    def _ordered(self, cells: dict[str, NDArray[Any]]) -> tuple[Cells, NDArray[np.int64]]:
        """Returns the cells in order of their slots, their genes in the store's order, and the order of the cells."""
        order = np.argsort(cells["slots"], kind="stable")
        sizes = cells["sizes"]
        begins = np.concatenate([[0], np.cumsum(sizes)])[:-1]
        values = _expand(begins[order], sizes[order])
        indptr = np.concatenate([[0], np.cumsum(sizes[order])]).astype(np.int64)
        found = Cells(indptr=indptr, genes=cells["genes"][values], values=cells["values"][values])
        return (found if self.plan.order == "gene" else self._ranked(found)), order

    def _ranked(self, cells: Cells) -> Cells:
        known = dict(self.plan.medians)
        medians = np.array([known[gene] for gene in self.genes], dtype=np.float32) if known else None
        longest = int(np.diff(cells.indptr).max(initial=1))
        places = np.empty(len(cells.genes), dtype=np.int64)
        for first in range(0, len(cells), 1024):
            last = min(first + 1024, len(cells))
            begin, end = cells.indptr[first], cells.indptr[last]
            some = Cells(
                indptr=cells.indptr[first : last + 1] - begin,
                genes=cells.genes[begin:end],
                values=cells.values[begin:end],
            )
            found = rank(some, length=longest, medians=medians)
            places[begin:end] = found[found >= 0] + begin
        return Cells(indptr=cells.indptr, genes=cells.genes[places], values=cells.values[places], ranked=True)


def part(parts: Path, unit: tuple[int, int, int]) -> Path:
    """Returns the folder of a part."""
    return parts / f"{unit[0]:05d}" / f"{unit[1]:012d}"


def shard_folder(folder: Path, unit: tuple[str, int]) -> Path:
    """Returns the folder of a shard."""
    return folder / "shards" / unit[0] / f"{unit[1]:05d}"


def _chunk(length: int) -> int:
    return max(1 << 12, min(_CHUNK, 1 << max(0, length - 1).bit_length()))


def _expand(begins: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns begin, begin + 1, ... of every cell, one cell after the other."""
    shifts = begins - np.concatenate([[0], np.cumsum(sizes)])[:-1]
    return np.repeat(shifts, sizes) + np.arange(int(sizes.sum()))


def _joined(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    joined: dict[str, Any] = {
        name: np.concatenate([block[name] for block in blocks]) for name in blocks[0] if name != "labels"
    }
    joined["labels"] = {
        name: [value for block in blocks for value in block["labels"][name]] for name in blocks[0]["labels"]
    }
    return joined

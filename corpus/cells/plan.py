"""What a cell store is built from, and where each cell of it will lie: decided before any value is read."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from corpus.formats.cellmatrix import Opened, Request, read_cells
from corpus.modality import SourceError
from corpus.order import key, permute
from corpus.records import SPLITS
from slurm.files import digest, read_json, sha256_file, sha256_files, write_json


@dataclass(frozen=True, kw_only=True)
class CellSource:
    """One matrix: what the store calls it, how it is read, and how long its reader may be silent."""

    name: str
    request: Request
    license: str = ""
    timeout_s: float = 300.0


@dataclass(frozen=True, kw_only=True)
class StorePlan:
    """How a store is built. Equal plans of equal files give equal bytes, whoever builds them.

    Attributes:
        sources: in order; a cell's number is its place in all of them.
        labels: columns of obs to keep, as categories.
        group: column of obs whose values stay in one split, such as the donor; each cell by itself when not given.
        seed: of the shuffle and of the splits.
        valid_fraction: share of groups held out.
        values: counts (uint16; a fraction or more than 65,535 is refused) or floats (float32).
        order: gene (ascending ids) or rank (highest first), which tokens by rank are read from without sorting.
        medians: gene -> median, for rank; genes that have none are left out.
        genes: those to keep; all where none are given.
        shard_cells: cells of a shard, about: rejects leave gaps.
        chunk_cells: cells that are read at a time.
    """

    sources: tuple[CellSource, ...]
    labels: tuple[str, ...] = ()
    group: str | None = None
    seed: int = 0
    valid_fraction: float = 0.05
    values: Literal["counts", "floats"] = "counts"
    order: Literal["gene", "rank"] = "gene"
    medians: tuple[tuple[str, float], ...] = ()
    genes: tuple[str, ...] = ()
    shard_cells: int = 32_768
    chunk_cells: int = 16_384

    def digest(self) -> str:
        """Returns what tells this plan from others; where the files lie is no part of it, what they hold is."""
        told = asdict(self)
        for source in told["sources"]:
            source["request"] = {name: value for name, value in source["request"].items() if name != "path"}
            source.pop("timeout_s")
            source["request"].pop("memory_gb")
        return digest(told)


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What one source holds, found without its values."""

    sha256: str
    rows: int
    by_rows: bool
    genes: tuple[str, ...]
    told: str


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where cells go: the numbers of rows decide it, and the seed.

    Attributes:
        bases: number of each source's first cell; the last is the number of all.
        shards: of each split.
        seed: of the plan.
    """

    bases: tuple[int, ...]
    shards: tuple[int, int]
    seed: int

    def slots(self, source: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns each row's place in the shuffled order of all cells."""
        total = self.bases[-1]
        return permute(self.bases[source] + rows, size=total, key=key(self.seed, "cells", total))

    def shard(self, split: int, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the shard that holds each slot, in a split."""
        return slots * self.shards[split] // self.bases[-1]


def survey(source: CellSource, folder: Path, *, apart: bool) -> None:
    """Writes what a source holds; `apart` says whether a process of its own reads it.

    Raises:
        ValueError: the source cannot be used; one line.
    """
    request = source.request
    try:
        wanted = Request(**{**asdict(request), "rows": (0, 0)})
        found = next(read_cells(wanted, timeout_s=source.timeout_s, apart=apart))
        if not isinstance(found, Opened):
            raise TypeError(f"the first message must be what was opened, but is {type(found).__name__}")
    except SourceError as error:
        raise ValueError(f"{source.name} ({request.path}): {error.reason}") from error
    told = {"sha256": source_digest(request.path), **asdict(found), "genes": found.genes}
    write_json(folder / "survey.json", told)


def read_survey(folder: Path) -> Survey:
    """Reads what `survey` wrote."""
    told = read_json(folder / "survey.json")
    return Survey(**{**told, "genes": tuple(told["genes"])})


def layout(plan: StorePlan, surveys: list[Survey]) -> Layout:
    """Returns where cells go.

    Raises:
        ValueError: there are no cells.
    """
    bases = np.concatenate([[0], np.cumsum([found.rows for found in surveys])])
    total = int(bases[-1])
    if not total:
        raise ValueError("a cell store must be built from cells, but its sources have none; give others")
    shares = (1 - plan.valid_fraction, plan.valid_fraction)
    shards = tuple(max(1, round(total * share / plan.shard_cells)) for share in shares)
    return Layout(bases=tuple(bases.tolist()), shards=(shards[0], shards[1]), seed=plan.seed)


def vocabulary(plan: StorePlan, surveys: list[Survey]) -> list[str]:
    """Returns the genes of all sources in alphabetical order: those to keep, and with medians those that have one.

    Raises:
        ValueError: there is none.
    """
    genes = {gene for found in surveys for gene in found.genes}
    kept = genes & set(plan.genes or genes)
    kept &= dict(plan.medians).keys() if plan.medians else genes
    if not kept:
        told = ", ".join(sorted(genes)[:3])
        raise ValueError(f"a cell store must keep a gene, but of {told}... none is wanted; set genes: to other names")
    return sorted(kept)


def chunks(plan: StorePlan, surveys: list[Survey]) -> Iterator[tuple[int, int, int]]:
    """Yields (source, first row, one behind the last) of what is read at a time; all where rows cannot be chosen."""
    for number, found in enumerate(surveys):
        step = plan.chunk_cells if found.by_rows else max(1, found.rows)
        for first in range(0, found.rows, step):
            yield number, first, min(first + step, found.rows)


def shard_units(found: Layout) -> list[tuple[str, int]]:
    """Returns (split, number) of every shard."""
    return [(split, number) for split, count in zip(SPLITS, found.shards, strict=True) for number in range(count)]


def source_digest(path: Path) -> str:
    """Returns the SHA-256 of a file, or of the names and digests of a folder's."""
    return digest(sha256_files(path)) if path.is_dir() else sha256_file(path)


def describe(plan: StorePlan, surveys: list[Survey]) -> list[dict[str, Any]]:
    """Returns each source for the manifest."""
    return [
        {"name": source.name, "license": source.license, "sha256": found.sha256, "rows": found.rows, "told": found.told}
        for source, found in zip(plan.sources, surveys, strict=True)
    ]

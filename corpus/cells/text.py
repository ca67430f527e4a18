"""Cells as lists: the genes of each, by value or by value / median, and their bins; for records that people read."""

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from corpus.cells.rank import Cells, bins, rank
from corpus.formats.cellmatrix import Block
from corpus.modality import SourceError, UnusableError

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """How the cells of one file become lists.

    Attributes:
        genes: by gene id, in alphabetical order.
        medians: of each gene; NaN where it is not known. None normalises nothing.
        notes: what a person should know.
    """

    genes: list[str]
    encoding: Literal["names", "rank", "bins"]
    bins: int
    top: int
    medians: NDArray[np.float32] | None = None
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, genes: list[str], *, encoding: Literal["names", "rank", "bins"], bins: int, top: int) -> Self:
        """Returns the encoder of a file with these genes."""
        return cls(genes=genes, encoding=encoding, bins=bins, top=top)

    def normalised(self, table: str) -> Self:
        """Returns this encoder with the medians of a table; a relative path starts at the repository.

        Raises:
            SourceError: it is no table of positive medians, or names none of the genes.
        """
        known = read_medians(ROOT / os.path.expandvars(table))
        medians = np.array([known.get(gene, np.nan) for gene in self.genes], dtype=np.float32)
        missing = int(np.isnan(medians).sum())
        if missing == len(medians):
            told = f"must name the file's genes, but has none of {', '.join(self.genes[:3])}; set genes: to their ids"
            raise SourceError("medians", f"{table} {told}")
        note = (f"{missing} genes left out: they have no median in {table}",) if missing else ()
        return replace(self, medians=medians, notes=note)

    def encode(self, block: Block) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields each row's number and its genes (and bins); a row with a problem has neither, one left out is not."""
        usable = [row for row, problem in enumerate(block.problems) if problem is None]
        cells = self._cells(block, usable)
        places = rank(
            cells, length=min(self.top, max(1, int(np.diff(cells.indptr).max(initial=1)))), medians=self.medians
        )
        binned = bins(cells, count=self.bins) if self.encoding == "bins" else None
        found = dict(zip(usable, places, strict=True))
        for row, problem in enumerate(block.problems):
            if problem == "not_primary":
                continue
            kept = found[row][found[row] >= 0] if row in found else ()
            yield row, {} if problem else self._lists(cells, kept, binned)

    def _lists(self, cells: Cells, kept: Any, binned: NDArray[np.uint16] | None) -> dict[str, Any]:
        genes = [self.genes[gene] for gene in cells.genes[kept]]
        return {"genes": genes} if binned is None else {"genes": genes, "bins": binned[kept].tolist()}

    def _cells(self, block: Block, usable: list[int]) -> Cells:
        """Returns the usable rows, without genes that have no median."""
        sizes = np.diff(block.indptr)
        wanted = np.zeros(len(sizes), dtype=bool)
        wanted[usable] = True
        kept = np.repeat(wanted, sizes)
        if self.medians is not None:
            kept &= ~np.isnan(self.medians[block.genes])
        ends = np.concatenate([[0], np.cumsum(kept)])[block.indptr]
        lengths = np.diff(ends)[wanted]
        return Cells(
            indptr=np.concatenate([[0], np.cumsum(lengths)]), genes=block.genes[kept], values=block.values[kept]
        )


def read_medians(path: Path) -> dict[str, float]:
    """Reads gene -> median from a .json object or the first two columns of a .csv or .tsv.

    Raises:
        SourceError: it is not there, or a median is no number above 0.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = (
            json.loads(text) if path.suffix == ".json" else dict(_pairs(text, "\t" if path.suffix == ".tsv" else ","))
        )
        medians = {str(gene): float(value) for gene, value in found.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SourceError("medians", f"{path} must hold genes and medians, but {error}; mend it") from error
    wrong = next((gene for gene, value in medians.items() if not 0 < value < float("inf")), None)
    if wrong is not None:
        raise SourceError("medians", f"{path} must hold medians above 0, but {wrong} has {medians[wrong]}; mend it")
    return medians


def _pairs(text: str, mark: str) -> Iterator[tuple[str, float]]:
    for number, row in enumerate(csv.reader(text.splitlines(), delimiter=mark)):
        try:
            yield row[0].strip(), float(row[1])
        except (ValueError, IndexError) as error:
            if number:  # the first line may name the columns
                raise UnusableError("medians", f"line {number + 1} is {row}") from error

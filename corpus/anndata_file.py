"""AnnData on disk, as .h5ad or as zipped zarr: the part of it that a cell sentence needs, row by row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import zarr
from scipy import sparse

from corpus.annotations import find_column
from corpus.modality import SourceError


@dataclass(frozen=True, kw_only=True)
class Row:
    """One cell: values (n,) of its stored genes; gene ids index `names`, which is sorted."""

    name: str
    columns: dict[str, Any]
    values: np.ndarray
    genes: np.ndarray
    names: list[str]

    def problem(self) -> str | None:
        """Returns what is wrong with the values, or None."""
        if not np.isfinite(self.values).all():
            return "not_finite"
        if (self.values < 0).any():
            return "negative"
        return None if (self.values > 0).any() else "empty"

    def top(self, number: int) -> list[str]:
        """Returns the names of the highest genes, highest first, equal ones in alphabetical order."""
        expressed = self.values > 0
        genes, values = self.genes[expressed], self.values[expressed]
        order = np.lexsort((genes, -values))[:number]
        return [self.names[gene] for gene in genes[order]]


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A cell matrix: what was chosen, its names and its rows."""

    told: str
    data: Any
    obs: pd.DataFrame
    names: list[str]
    ranks: np.ndarray

    def __len__(self) -> int:
        return len(self.obs)

    def rows(self, start: int, stop: int) -> Iterator[Row]:
        """Yields rows start to stop; a matrix on disk is read in one slice."""
        block = sparse.csr_matrix(self.data[start:stop])
        cells = self.obs.iloc[start:stop].astype(object)
        for number, (name, columns) in enumerate(zip(cells.index, cells.to_dict("records"), strict=True)):
            part = slice(block.indptr[number], block.indptr[number + 1])
            genes = self.ranks[block.indices[part]]
            yield Row(name=str(name), columns=columns, values=block.data[part], genes=genes, names=self.names)


def open_matrix(path: Path, *, matrix: str, genes: str | None, columns: Sequence[str]) -> Matrix:
    """Opens a file and chooses a matrix; `auto` takes raw where there is one, else X.

    Raises:
        SourceError: the matrix, a column or unique gene names are missing.
    """
    parts = _from_zip(path) if path.suffix == ".zip" else _from_h5ad(path)
    chosen = ("raw" if "raw" in parts.matrices else "X") if matrix == "auto" else matrix
    if chosen not in parts.matrices:
        found = ", ".join(parts.matrices)
        raise SourceError("wrong_columns", f"must have a matrix {chosen}, but has {found}; set matrix:")
    data, var = parts.matrices[chosen]
    in_order = _gene_names(var, genes)
    names = sorted(in_order)
    rank = {name: number for number, name in enumerate(names)}
    ranks = np.array([rank[name] for name in in_order])
    available = [str(column) for column in parts.obs]
    obs = pd.DataFrame({wanted: parts.obs[find_column(wanted, available)] for wanted in columns}, index=parts.obs.index)
    told = f"{len(parts.obs)} cells x {len(names)} genes of {chosen}"
    return Matrix(told=told, data=data, obs=obs, names=names, ranks=ranks)


@dataclass(frozen=True, kw_only=True)
class _Parts:
    obs: pd.DataFrame
    matrices: dict[str, tuple[Any, pd.DataFrame]]


def _from_h5ad(path: Path) -> _Parts:
    data: Any = anndata.read_h5ad(path, backed="r")
    layers = {str(name): (data.layers[name], data.var) for name in data.layers if name is not None}  # None is X
    raw = {} if data.raw is None else {"raw": (data.raw.X, data.raw.var)}
    return _Parts(obs=data.obs, matrices={"X": (data.X, data.var), **raw, **layers})


def _from_zip(path: Path) -> _Parts:
    """Reads element by element: other parts of a store may hold types that zarr does not know."""
    store = zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r")
    var = anndata.io.read_elem(store["var"])
    found = {"X": (_stored(store["X"]), var)}
    if isinstance(store.get("raw"), zarr.Group):
        found["raw"] = (_stored(store["raw/X"]), anndata.io.read_elem(store["raw/var"]))
    layers = store.get("layers")
    for name in layers.keys() if isinstance(layers, zarr.Group) else ():
        found[name] = (_stored(store[f"layers/{name}"]), var)
    return _Parts(obs=anndata.io.read_elem(store["obs"]), matrices=found)


def _stored(element: Any) -> Any:
    return element if isinstance(element, zarr.Array) else anndata.io.sparse_dataset(element)


def _gene_names(var: pd.DataFrame, column: str | None) -> list[str]:
    if column is not None and column not in var:
        found = ", ".join(map(str, var))
        raise SourceError("wrong_columns", f"must have a var column {column}, but has {found}; set genes:")
    names = [str(name).strip() for name in (var.index if column is None else var[column])]
    twice = pd.Index(names)[pd.Index(names).duplicated()]
    if len(twice):
        told = f"must name each gene once, but has {twice[0]!r} twice; set genes: to a column of ids"
        raise SourceError("duplicate_genes", told)
    return names

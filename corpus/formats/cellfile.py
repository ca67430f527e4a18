"""A cell matrix that is open: whatever its format, its rows as blocks, and what is wrong with them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from corpus.annotations import find_column
from corpus.formats.cellmatrix import Block, Request
from corpus.modality import SourceError

_VERSIONED = re.compile(r"(ENS[A-Z]*[GTP]\d{11})\.\d+")
_IDS = ("gene_ids", "gene_id", "ensembl_id", "ensembl", "feature_id", "ENSEMBL", "id")
_HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a file holds, before anything is chosen.

    Attributes:
        obs: one row per cell.
        matrices: name -> the matrix, cells in rows, and its var; the rows are read by slicing.
        uns: what is known about the whole file, texts only.
        told: what a person should know about the choice of parts.
    """

    obs: pd.DataFrame
    matrices: dict[str, tuple[Any, pd.DataFrame]]
    uns: dict[str, str]
    told: str = ""


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A cell matrix: what was chosen, its genes in alphabetical order, and its rows.

    Attributes:
        ranks: for each column of the data its place among the names, or -1 where it is left out.
        problems: what is known to be wrong with rows before their values are seen.
        by_rows: whether some rows can be read without all others.
    """

    told: str
    data: Any
    obs: pd.DataFrame
    names: list[str]
    ranks: np.ndarray
    problems: np.ndarray
    counts: bool
    by_rows: bool

    def __len__(self) -> int:
        return len(self.obs)

    @property
    def values_per_row(self) -> float:
        """Values that a row holds in memory before zeros are left out, on average."""
        group = getattr(self.data, "group", None)
        stored = getattr(self.data, "nnz", None) if group is None else group["indices"].shape[0]
        return float(self.data.shape[1] if stored is None else stored / max(1, len(self)))

    def block(self, start: int, stop: int) -> Block:
        """Reads rows start to stop in one slice."""
        rows = _clean(sparse.csr_matrix(self.data[start:stop]), self.ranks, genes=len(self.names))
        obs = self.obs.iloc[start:stop]
        known = self.problems[start:stop]
        found = [before or after for before, after in zip(known, _problems(rows, counts=self.counts), strict=True)]
        columns = {str(name): obs[name].astype(object).tolist() for name in obs}
        return Block(
            start=start,
            names=[str(name) for name in obs.index],
            columns=columns,
            indptr=rows.indptr.astype(np.int64),
            genes=rows.indices.astype(np.int32),
            values=rows.data,
            problems=found,
        )


def open_matrix(request: Request) -> Matrix:
    """Opens a file and chooses a matrix; `auto` takes raw where there is one, else X.

    Raises:
        SourceError: the matrix, a column or unique gene names are missing, or the file is of another kind.
    """
    from corpus.formats import cellxgene

    parts = _open(request.path)
    if request.cellxgene:
        cellxgene.check_file(parts)
    chosen = ("raw" if "raw" in parts.matrices else next(iter(parts.matrices))) if request.matrix == "auto" else ""
    chosen = chosen or request.matrix
    if chosen not in parts.matrices:
        found = ", ".join(parts.matrices)
        raise SourceError("wrong_columns", f"must have a matrix {chosen}, but has {found}; set matrix:")
    data, var = parts.matrices[chosen]
    _check_shape(data, parts.obs, var)
    in_order, named_by = gene_names(var, request.genes)
    kept = _kept_features(var, request.features)
    names = sorted(name for name, keep in zip(in_order, kept, strict=True) if keep)
    rank = {name: number for number, name in enumerate(names)}
    ranks = np.array([rank[name] if keep else -1 for name, keep in zip(in_order, kept, strict=True)], dtype=np.int64)
    available = [str(column) for column in parts.obs]
    obs = pd.DataFrame(
        {wanted: parts.obs[find_column(wanted, available)] for wanted in request.columns}, index=parts.obs.index
    )
    left_out = f", {len(in_order) - len(names)} other features left out" if len(names) < len(in_order) else ""
    told = f"{len(parts.obs)} cells x {len(names)} genes of {chosen}{named_by}{left_out}{parts.told}"
    problems = np.full(len(obs), None, dtype=object)
    if not request.same_names:
        problems[parts.obs.index.duplicated()] = "same_name"
    if request.cellxgene:
        problems[~cellxgene.primary(parts.obs)] = "not_primary"
    return Matrix(
        told=told,
        data=_by_rows(data),
        obs=obs,
        names=names,
        ranks=ranks,
        problems=problems,
        counts=request.counts or request.cellxgene,
        by_rows=_reads_by_rows(data),
    )


@lru_cache(maxsize=1)
def reopened(request: Request) -> Matrix:
    """Returns an open matrix, the same one while the same is asked for: rows of a large file are read part by part."""
    return open_matrix(request)


def gene_names(var: pd.DataFrame, column: str | None) -> tuple[list[str], str]:
    """Returns each gene's name, without the version of an Ensembl id, and where they come from if not as expected.

    Without a column it is the index, or a column of ids where the index names a gene twice.

    Raises:
        SourceError: the column is not there, or a gene is named twice.
    """
    if column is not None and column not in var:
        found = ", ".join(map(str, var))
        raise SourceError("wrong_columns", f"must have a var column {column}, but has {found}; set genes:")
    names = _stripped(var.index if column is None else var[column])
    if pd.Index(names).is_unique:
        return names, ""
    for other in _IDS if column is None else ():
        ids = _stripped(var[other]) if other in var else names
        if pd.Index(ids).is_unique:
            return ids, f" named by {other}"
    twice = pd.Index(names)[pd.Index(names).duplicated()][0]
    told = f"must name each gene once, but has {twice!r} twice; set genes: to a column of ids"
    raise SourceError("duplicate_genes", told)


def _stripped(names: Any) -> list[str]:
    found = [str(name).strip() for name in names]
    bare = [match.group(1) if (match := _VERSIONED.fullmatch(name)) else name for name in found]
    return bare if len(set(bare)) == len(set(found)) else found


def _open(path: Path) -> Parts:
    from corpus.formats import anndata_file, tenx_file
    from corpus.formats.bundle import Bundle

    if path.is_file() and _starts_with(path, _HDF5):
        return tenx_file.from_hdf5(path) if tenx_file.is_hdf5(path) else anndata_file.from_hdf5(path)
    if path.suffix.lower() in (".h5ad", ".h5"):
        raise SourceError("damaged", "must be a cell matrix in HDF5, but does not begin like one; fetch it again")
    bundle = Bundle.open(path)
    if (root := anndata_file.zarr_root(bundle)) is not None:
        return anndata_file.from_zarr(path, root)
    return tenx_file.from_bundle(bundle)


def _starts_with(path: Path, start: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(start)) == start


def _kept_features(var: pd.DataFrame, features: tuple[str, ...]) -> list[bool]:
    column = next((name for name in ("feature_types", "feature_type") if name in var), None)
    if column is None or not features:
        return [True] * len(var)
    kept = [str(kind) in features for kind in var[column]]
    if not any(kept):
        found = ", ".join(sorted({str(kind) for kind in var[column]}))
        raise SourceError(
            "wrong_columns", f"must have features of {', '.join(features)}, but has {found}; set features:"
        )
    return kept


def _check_shape(data: Any, obs: pd.DataFrame, var: pd.DataFrame) -> None:
    if tuple(data.shape) != (len(obs), len(var)):
        told = f"must be {len(obs)} cells x {len(var)} genes, but is {' x '.join(map(str, data.shape))}; fetch it again"
        raise SourceError("damaged", told)


def _reads_by_rows(data: Any) -> bool:
    return getattr(data, "format", "csr") != "csc"


def _by_rows(data: Any) -> Any:
    """Returns what can be sliced by rows fast: a matrix stored by columns is turned around in memory, once."""
    if _reads_by_rows(data):
        return data
    whole: Callable[[], Any] = getattr(data, "to_memory", lambda: data)
    return sparse.csr_matrix(whole())


def _clean(rows: sparse.csr_matrix, ranks: np.ndarray, *, genes: int) -> sparse.csr_matrix:
    """Returns rows with genes numbered in alphabetical order, ascending, without zeros and without other features."""
    if len(rows.indices) and (rows.indices.min() < 0 or rows.indices.max() >= len(ranks)):
        raise SourceError("damaged", f"must have {len(ranks)} genes, but a value belongs to another; fetch it again")
    if (np.diff(rows.indptr) < 0).any():
        raise SourceError("damaged", "must have rows that follow each other, but has not; fetch it again")
    exact = rows.dtype if rows.dtype in (np.float32, np.float64) else np.float64
    values = rows.data.astype(np.float32 if rows.dtype.itemsize <= 2 else exact)
    columns = ranks[rows.indices]
    kept = (columns >= 0) & (values != 0)
    indptr = np.concatenate([[0], np.cumsum(kept)])[rows.indptr]
    found = sparse.csr_matrix((values[kept], columns[kept], indptr), shape=(rows.shape[0], genes))
    found.sum_duplicates()
    return found


def _problems(rows: sparse.csr_matrix, *, counts: bool) -> list[str | None]:
    values, number = rows.data, np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    found = np.full(rows.shape[0], None, dtype=object)
    found[np.bincount(number[values > 0], minlength=len(found)) == 0] = "empty"
    if counts:
        found[number[values != np.rint(values)]] = "fractional"
    found[number[values < 0]] = "negative"
    found[number[~np.isfinite(values)]] = "not_finite"
    listed: list[str | None] = found.tolist()
    return listed

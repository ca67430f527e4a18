"""10x Genomics' matrices: CellRanger's HDF5 (version 2 and 3) and its folder of a matrix, barcodes and features."""

import io
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.io
from scipy import sparse

from corpus.formats.bundle import Bundle
from corpus.formats.cellfile import Parts
from corpus.modality import SourceError

_VERSION_2 = {"barcodes", "data", "indices", "indptr", "shape"}
_FEATURES = ("features.tsv", "genes.tsv", "features.txt", "genes.txt", "features.csv", "genes.csv", "gene_names.tsv")
_BARCODES = ("barcodes.tsv", "barcodes.txt", "barcodes.csv", "cells.tsv", "cell_barcodes.tsv")


def is_hdf5(path: Path) -> bool:
    """Whether an HDF5 file is laid out by CellRanger, in either version."""
    with h5py.File(path, mode="r") as file:
        return ("matrix" in file and "barcodes" in file["matrix"]) or bool(_genomes(file))


def from_hdf5(path: Path) -> Parts:
    """Reads CellRanger's HDF5; where version 2 has several genomes, their cells come one genome after the other."""
    with h5py.File(path, mode="r") as file:
        if "matrix" in file:
            return _parts(_matrix(file["matrix"]), _barcodes(file["matrix"]), _features(file["matrix"]["features"]))
        names = _genomes(file)
        if len(names) == 1:
            return _parts(_matrix(file[names[0]]), _barcodes(file[names[0]]), _genes(file[names[0]], names[0]))
        cells = [f"{name}/{barcode}" for name in names for barcode in _barcodes(file[name])]
        var = pd.concat([_genes(file[name], name) for name in names])
        data = sparse.block_diag([_matrix(file[name]) for name in names], format="csr")
        return _parts(data, cells, var, told=f", of the genomes {', '.join(names)}")


def from_bundle(bundle: Bundle) -> Parts:
    """Reads matrix.mtx with its barcodes and features, each plain or gzipped, from wherever they lie together.

    Raises:
        SourceError: there is no such matrix, there are several, or its barcodes or features are not there.
    """
    found = [name for name in bundle.names if _bare(name).endswith(".mtx") and "/__MACOSX/" not in f"/{name}"]
    if len(found) != 1:
        told = ", ".join(found[:4]) or "none"
        raise SourceError("wrong_columns", f"must hold one matrix.mtx or a zarr store, but has {told}; name one alone")
    matrix = found[0]
    features = _table(bundle, _beside(bundle, matrix, _FEATURES))
    barcodes = [row[0] for row in _table(bundle, _beside(bundle, matrix, _BARCODES))]
    data = _read_mtx(bundle, matrix)
    by_genes = data.shape[0] == len(features) and data.shape[1] == len(barcodes)
    return _parts(sparse.csr_matrix(data.T if by_genes else data), barcodes, _named(features))


def _genomes(file: Any) -> list[str]:
    return [name for name in file if isinstance(file[name], h5py.Group) and set(file[name]) >= _VERSION_2]


def _matrix(group: Any) -> sparse.csr_matrix:
    """Returns cells x genes: CellRanger stores genes x cells by columns, which is the same."""
    genes, cells = (int(size) for size in group["shape"][:])
    parts = tuple(group[name][:] for name in ("data", "indices", "indptr"))
    return sparse.csr_matrix(parts, shape=(cells, genes))


def _barcodes(group: Any) -> list[str]:
    return _texts(group["barcodes"])


def _features(group: Any) -> pd.DataFrame:
    columns = {
        ours: _texts(group[theirs])
        for ours, theirs in (("name", "name"), ("feature_types", "feature_type"), ("genome", "genome"))
        if theirs in group
    }
    return pd.DataFrame(columns, index=_texts(group["id"]))


def _genes(group: Any, genome: str) -> pd.DataFrame:
    ids = _texts(group["genes"])
    return pd.DataFrame({"name": _texts(group["gene_names"]) if "gene_names" in group else ids, "genome": genome}, ids)


def _texts(dataset: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in dataset[:]]


def _parts(data: sparse.csr_matrix, cells: list[str], var: pd.DataFrame, *, told: str = "") -> Parts:
    data.check_format(full_check=True)  # slices of one that lies about itself can crash
    return Parts(obs=pd.DataFrame(index=cells), matrices={"X": (data, var)}, uns={}, told=told)


def _bare(name: str) -> str:
    return PurePosixPath(name).name.lower().removesuffix(".gz")


def _beside(bundle: Bundle, matrix: str, endings: tuple[str, ...]) -> str:
    folder = PurePosixPath(matrix).parent
    near = [name for name in bundle.names if PurePosixPath(name).parent == folder]
    stem = _bare(matrix).removesuffix("matrix.mtx") if _bare(matrix).endswith("matrix.mtx") else ""
    for ending in endings:
        for wanted in (f"{stem}{ending}", ending):
            found = [name for name in near if _bare(name) == wanted]
            if found:
                return found[0]
    told = ", ".join(PurePosixPath(name).name for name in near[:6])
    raise SourceError("wrong_columns", f"must hold {endings[0]} beside its matrix, but has {told}; fetch it whole")


def _table(bundle: Bundle, name: str) -> list[list[str]]:
    with bundle.read(name) as file, io.TextIOWrapper(file, encoding="utf-8-sig") as text:
        mark = "," if _bare(name).endswith(".csv") else "\t"
        return [[cell.strip().strip('"') for cell in line.rstrip("\r\n").split(mark)] for line in text if line.strip()]


def _named(rows: list[list[str]]) -> pd.DataFrame:
    """Returns var from the rows of features.tsv: id, name, type; version 2 has no type, other tools only names."""
    columns: dict[str, list[str]] = {}
    width = min((len(row) for row in rows), default=0)
    for number, name in ((1, "name"), (2, "feature_types")):
        if width > number:
            columns[name] = [row[number] for row in rows]
    return pd.DataFrame(columns, index=[row[0] for row in rows])


def _read_mtx(bundle: Bundle, name: str) -> sparse.coo_matrix:
    with bundle.read(name) as file:
        found = scipy.io.mmread(io.BytesIO(file.read()), spmatrix=True)  # its parser stumbles over gzip within zip
    if isinstance(found, np.ndarray):
        found = sparse.coo_matrix(found)
    return found

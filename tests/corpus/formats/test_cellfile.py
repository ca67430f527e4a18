"""Cell matrices in every layout: the same cells come out of all of them."""

import gzip
import io
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
from scipy import sparse

from corpus.formats.bundle import Bundle
from corpus.formats.cellfile import Matrix, gene_names, open_matrix
from corpus.formats.cellmatrix import Request
from corpus.modality import SourceError

pytestmark = pytest.mark.filterwarnings("ignore:The 'future.infer_string' option")  # anndata asks pandas for it

COUNTS = np.array([[5, 0, 1, 5, 9], [0, 2, 0, 0, 1], [1, 1, 0, 3, 0]], dtype=np.float32)
IDS = [f"ENSG{number:011d}.{number}" for number in (4, 2, 9, 1, 7)]
BARE = [name.partition(".")[0] for name in IDS]
BARCODES = ["AAAC-1", "AAAG-1", "AAAT-1"]
TYPES = ["Gene Expression"] * 4 + ["Antibody Capture"]
LAYOUTS: dict[str, Callable[[Path], Path]] = {}


def layout(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
    LAYOUTS[make.__name__.strip("_")] = make
    return make


def _anndata(matrix: Any = None) -> anndata.AnnData:
    obs = pd.DataFrame({"type": pd.Categorical(["T", None, "B"]), "age": [1.0, np.nan, 3.0]}, index=BARCODES)
    return anndata.AnnData(COUNTS if matrix is None else matrix, obs=obs, var=pd.DataFrame(index=IDS))


@layout
def _dense(folder: Path) -> Path:
    _anndata().write_h5ad(folder / "a.h5ad")
    return folder / "a.h5ad"


@layout
def _csr(folder: Path) -> Path:
    _anndata(sparse.csr_matrix(COUNTS)).write_h5ad(folder / "a.h5ad", compression="gzip")
    return folder / "a.h5ad"


@layout
def _csc(folder: Path) -> Path:
    _anndata(sparse.csc_matrix(COUNTS)).write_h5ad(folder / "a.h5ad")
    return folder / "a.h5ad"


@layout
def _only_a_layer(folder: Path) -> Path:
    data = _anndata(sparse.csr_matrix(COUNTS))
    data.layers["counts"] = data.X
    data.X = None
    data.write_h5ad(folder / "a.h5ad")
    return folder / "a.h5ad"


@layout
def _raw_of_more_genes(folder: Path) -> Path:
    whole = _anndata(sparse.csr_matrix(COUNTS))
    data = anndata.AnnData(np.log1p(COUNTS[:, :2]), obs=whole.obs, var=whole.var.iloc[:2])
    data.raw = whole
    data.write_h5ad(folder / "a.h5ad")
    return folder / "a.h5ad"


@layout
def _before_encodings_had_names(folder: Path) -> Path:
    """Writes what anndata 0.6 wrote: tables as records, sparse matrices with h5sparse attributes."""
    matrix = sparse.csr_matrix(COUNTS)
    with h5py.File(folder / "a.h5ad", "w") as file:
        group = file.create_group("X")
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csr", COUNTS.shape
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        file["obs"] = np.array([(name, code) for name, code in zip(BARCODES, [1, 0, 1], strict=True)], "S10,i8")
        file["var"] = np.array([(name,) for name in IDS], [("index", "S20")])
        for name, table in (("obs", file["obs"][:]), ("var", file["var"][:])):
            del file[name]
            file[name] = table if name == "var" else table.astype([("index", "S10"), ("n", "i8")])
    return folder / "a.h5ad"


def _zarr(version: int, matrix: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # anndata will no longer write version 2
            with anndata.settings.override(zarr_write_format=version):
                _anndata(matrix).write_zarr(folder / "a.zarr")
        return folder / "a.zarr"

    return make


LAYOUTS["zarr_2_csr"] = _zarr(2, sparse.csr_matrix(COUNTS))
LAYOUTS["zarr_3_csc"] = _zarr(3, sparse.csc_matrix(COUNTS))
LAYOUTS["zarr_3_dense"] = _zarr(3, COUNTS)


@layout
def _zarr_zipped_with_its_folder(folder: Path) -> Path:
    return _zipped(_zarr(3, sparse.csr_matrix(COUNTS))(folder), below="a.zarr/")


def _zipped(path: Path, *, below: str = "") -> Path:
    with zipfile.ZipFile(path.parent / "a.zip", "w") as file:
        for found in sorted(path.rglob("*")):
            if found.is_file():
                file.write(found, below + str(found.relative_to(path)))
    return path.parent / "a.zip"


def _cellranger(group: Any, *, ids: list[str], old: bool) -> None:
    matrix = sparse.csc_matrix(COUNTS.T.astype(np.int32))
    for name in ("data", "indices", "indptr"):
        group[name] = getattr(matrix, name)
    group["shape"], group["barcodes"] = np.array(matrix.shape, np.int32), np.array(BARCODES, "S")
    if old:
        group["genes"], group["gene_names"] = np.array(ids, "S"), np.array(["same"] * 5, "S")
        return
    features = group.create_group("features")
    for name, values in (("id", ids), ("name", ["same"] * 5), ("feature_type", TYPES), ("genome", ["GRCh38"] * 5)):
        features[name] = np.array(values, "S")


@layout
def _cellranger_2(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        _cellranger(file.create_group("hg19"), ids=IDS, old=True)
    return folder / "a.h5"


@layout
def _cellranger_3(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        _cellranger(file.create_group("matrix"), ids=IDS, old=False)
    return folder / "a.h5"


def _mtx(folder: Path, *, old: bool, prefix: str = "", zipped: bool = False) -> Path:
    matrix = io.BytesIO()
    scipy.io.mmwrite(matrix, sparse.csc_matrix(COUNTS.T.astype(np.int32)))
    features = "".join(
        f"{name}\tsame\n" if old else f"{name}\tsame\t{kind}\n" for name, kind in zip(IDS, TYPES, strict=True)
    )
    texts = {"matrix.mtx": matrix.getvalue(), "barcodes.tsv": "".join(f"{name}\n" for name in BARCODES).encode()}
    texts["genes.tsv" if old else "features.tsv"] = features.encode()
    folder.mkdir(exist_ok=True)
    for name, data in texts.items():
        (folder / (prefix + name + (".gz" if zipped else ""))).write_bytes(gzip.compress(data) if zipped else data)
    return folder


@layout
def _mtx_2(folder: Path) -> Path:
    return _mtx(folder / "filtered", old=True) / "matrix.mtx"


@layout
def _mtx_3(folder: Path) -> Path:
    return _mtx(folder / "filtered", old=False, zipped=True)


@layout
def _mtx_of_geo(folder: Path) -> Path:
    _mtx(folder / "geo", old=False, zipped=True, prefix="GSM1_a_")
    _mtx(folder / "geo", old=True, prefix="GSM2_")
    return folder / "geo" / "GSM1_a_matrix.mtx.gz"


@layout
def _mtx_zip(folder: Path) -> Path:
    return _zipped(_mtx(folder / "filtered", old=False, zipped=True), below="filtered/")


@layout
def _mtx_tar(folder: Path) -> Path:
    with tarfile.open(folder / "a.tar.gz", "w:gz") as file:
        file.add(_mtx(folder / "filtered", old=False), "filtered")
    return folder / "a.tar.gz"


def _rows(matrix: Matrix) -> list[dict[str, float]]:
    block = matrix.block(0, len(matrix))
    values: Any = vars(block)["values"]  # a linter takes it for pandas'
    assert block.problems == [None] * len(matrix)
    return [
        {matrix.names[gene]: float(value) for gene, value in zip(block.genes[part], values[part], strict=True)}
        for part in (slice(*ends) for ends in zip(block.indptr, block.indptr[1:], strict=False))
    ]


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_same_cells(name: str, tmp_path: Path) -> None:
    path = LAYOUTS[name](tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as where it is read: anndata tells of old layouts
        matrix = open_matrix(Request(path=path))
    typed = name in ("cellranger_3", "mtx_3", "mtx_of_geo", "mtx_zip", "mtx_tar")
    genes = BARE[:4] if typed else BARE
    assert matrix.names == sorted(genes)
    assert [str(cell) for cell in matrix.obs.index] == BARCODES
    expected = [{gene: float(row[at]) for at, gene in enumerate(genes) if row[at]} for row in COUNTS]
    assert _rows(matrix) == expected
    assert ("1 other features left out" in matrix.told) == typed


def test_obs_comes_as_it_is(tmp_path: Path) -> None:
    matrix = open_matrix(Request(path=_csr(tmp_path), columns=("Type", "age")))
    columns = matrix.block(0, 3).columns
    assert columns["Type"][::2] == ["T", "B"]
    assert columns["age"][::2] == [1.0, 3.0]


def test_the_cells_of_several_genomes_follow_each_other(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        _cellranger(file.create_group("hg19"), ids=IDS, old=True)
        _cellranger(file.create_group("mm10"), ids=[f"ENSMUSG{number:011d}" for number in range(5)], old=True)
    matrix = open_matrix(Request(path=tmp_path / "a.h5"))
    assert matrix.told == "6 cells x 10 genes of X, of the genomes hg19, mm10"
    assert matrix.obs.index[3] == "mm10/AAAC-1"
    assert [list(row) for row in _rows(matrix)][4] == ["ENSMUSG00000000001", "ENSMUSG00000000004"]


def test_other_features_are_read_when_asked_for(tmp_path: Path) -> None:
    matrix = open_matrix(Request(path=_cellranger_3(tmp_path), features=("Antibody Capture",)))
    assert matrix.names == ["ENSG00000000007"]
    with pytest.raises(
        SourceError, match="must have features of Peaks, but has Antibody Capture, Gene Expression; set"
    ):
        open_matrix(Request(path=tmp_path / "a.h5", features=("Peaks",)))


def test_a_gene_twice_is_refused_unless_ids_name_it() -> None:
    var = pd.DataFrame({"gene_ids": IDS[:2], "n": [1, 2]}, index=["CD3E", "CD3E"])
    assert gene_names(var, None) == (BARE[:2], " named by gene_ids")
    assert gene_names(var, "n") == (["1", "2"], "")
    with pytest.raises(SourceError, match="must name each gene once, but has 'CD3E' twice; set genes: to a column of"):
        gene_names(var.drop(columns="gene_ids"), None)
    with pytest.raises(SourceError, match="must have a var column symbol, but has gene_ids, n; set genes:"):
        gene_names(var, "symbol")


def test_versions_stay_where_they_tell_genes_apart() -> None:
    twice = pd.DataFrame(index=["ENSG00000000001.1", "ENSG00000000001.2"])
    assert gene_names(twice, None)[0] == list(twice.index)


def test_cells_that_cannot_be_used_are_told_apart(tmp_path: Path) -> None:
    values = np.array([[1, 2], [0.5, 1], [0, 0], [-1, 1], [np.nan, 1], [1, 1]], dtype=np.float32)
    obs = pd.DataFrame(index=["a", "b", "c", "d", "e", "a"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata tells that a name comes twice
        data = anndata.AnnData(sparse.csr_matrix(values), obs=obs, var=pd.DataFrame(index=["A", "B"]))
        data.write_h5ad(tmp_path / "a.h5ad")
    wanted = {"path": tmp_path / "a.h5ad", "counts": True}
    expected = [None, "fractional", "empty", "negative", "not_finite", "same_name"]
    assert open_matrix(Request(**wanted)).block(0, 6).problems == expected  # type: ignore[arg-type]
    found = open_matrix(Request(**{**wanted, "same_names": True, "counts": False})).block(0, 6).problems  # type: ignore[arg-type]
    assert found == [None, None, "empty", "negative", "not_finite", None]


def _without_barcodes(folder: Path) -> Path:
    (_mtx(folder / "m", old=True) / "barcodes.tsv").unlink()
    return folder / "m"


def _two_matrices(folder: Path) -> Path:
    _mtx(folder / "m", old=True, prefix="a_")
    return _mtx(folder / "m", old=True, prefix="b_")


def _escaping(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "a.zip", "w") as file:
        file.writestr("../matrix.mtx", "x")
    return folder / "a.zip"


def _too_few_barcodes(folder: Path) -> Path:
    (_mtx(folder / "m", old=True) / "barcodes.tsv").write_text("one\n")
    return folder / "m"


def _no_matrix(folder: Path) -> Path:
    with h5py.File(folder / "a.h5ad", "w") as file:
        file["y"] = [1]
    return folder / "a.h5ad"


def _text(folder: Path) -> Path:
    (folder / "a.h5ad").write_text("a,b\n")
    return folder / "a.h5ad"


def _lying(folder: Path) -> Path:
    path = _csr(folder)
    with h5py.File(path, "r+") as file:
        file["X"].attrs["shape"] = (3, 4)
    return path


@pytest.mark.parametrize(
    ("make", "code", "message"),
    [
        (_without_barcodes, "wrong_columns", "must hold barcodes.tsv beside its matrix, but has genes.tsv, matrix.mtx"),
        (
            _two_matrices,
            "wrong_columns",
            "must hold one matrix.mtx or a zarr store, but has a_matrix.mtx, b_matrix.mtx",
        ),
        (_escaping, "archive_path", "must hold names below one folder, but holds '../matrix.mtx'; do not trust it"),
        (_too_few_barcodes, "damaged", "must be 1 cells x 5 genes, but is 5 x 3; fetch it again"),
        (_no_matrix, "damaged", "must hold X, obs and var, but holds y; convert it"),
        (_text, "damaged", "must be a cell matrix in HDF5, but does not begin like one; fetch it again"),
        (_lying, "damaged", "must be 3 cells x 5 genes, but is 3 x 4; fetch it again"),
    ],
)
def test_what_is_no_matrix_is_one_line(make: Callable[[Path], Path], code: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=message.replace("(", r"\(")) as error:
        open_matrix(Request(path=make(tmp_path)))
    assert error.value.code == code


def test_what_macos_adds_to_an_archive_is_no_member(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name in ("hg19/matrix.mtx", "hg19/._matrix.mtx", "__MACOSX/hg19/._matrix.mtx"):
            file.writestr(name, "x")
    assert Bundle.open(tmp_path / "a.zip").names == ("hg19/matrix.mtx",)


def test_a_bundle_is_a_folder_a_zip_or_a_tar(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"x")
    with pytest.raises(SourceError, match="must be a folder, a zip or a tar of cell data, but is none; fetch it again"):
        Bundle.open(tmp_path / "a.bin")

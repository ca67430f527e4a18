"""Cells: what AnnData files hold, and how damaged ones end."""

import multiprocessing
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import psutil
import pytest
import zarr
from scipy import sparse

from corpus.anndata_file import _gene_names, open_matrix
from corpus.cellmatrix import Request, _explain_end, _receive, read_cells
from corpus.modality import SourceError

pytestmark = pytest.mark.filterwarnings("ignore:The 'future.infer_string' option")  # anndata asks pandas for it

Read = Callable[..., Any]
GENES = ["CD3E", "ALB", "LYZ", "HLA-DRA"]
VALUES = np.array([[5, 0, 1, 5], [0, 2, 0, 0], [0, 0, 0, 0], [1, np.nan, 0, 0], [1, -1, 0, 0]], dtype=np.float32)


def _anndata(values: np.ndarray = VALUES, genes: list[str] = GENES) -> anndata.AnnData:
    obs = pd.DataFrame(
        {"type": ["T", None, "B", "B", "B"][: len(values)], "donor": "d1"}, index=[f"c{n}" for n in range(len(values))]
    )
    return anndata.AnnData(sparse.csr_matrix(values), obs=obs, var=pd.DataFrame({"id": range(len(genes))}, index=genes))


@pytest.fixture
def h5ad(tmp_path: Path) -> Path:
    _anndata().write_h5ad(tmp_path / "a.h5ad")
    return tmp_path / "a.h5ad"


def test_cells_are_ranked_and_bad_ones_rejected(h5ad: Path, read: Read) -> None:
    found = read("omics", h5ad, top_genes=2, properties={"cell type": "Type"}, group="donor")
    assert [(record.content, record.group) for record in found.records] == [
        ({"genes": ["CD3E", "HLA-DRA"], "properties": {"cell type": "T"}}, "d1"),
        ({"genes": ["ALB"], "properties": {}}, "d1"),
    ]
    assert [(item.where, item.code) for item in found.rejects] == [
        ("cell c2", "empty"),
        ("cell c3", "not_finite"),
        ("cell c4", "negative"),
    ]
    assert [note.text for note in found.notes] == ["5 cells x 4 genes of X"]


def test_raw_is_taken_where_there_is_one(tmp_path: Path, read: Read) -> None:
    data = _anndata(VALUES[:2])
    data.raw = data.copy()
    data.X = sparse.csr_matrix(-VALUES[:2])
    data.layers["counts"] = sparse.csr_matrix(VALUES[:2])
    data.write_h5ad(tmp_path / "a.h5ad")
    assert read("omics", tmp_path / "a.h5ad").notes[0].text == "2 cells x 4 genes of raw"
    assert read("omics", tmp_path / "a.h5ad", matrix="X").codes() == ["negative", "negative"]
    assert len(read("omics", tmp_path / "a.h5ad", matrix="counts").records) == 2
    with pytest.raises(SourceError, match="must have a matrix other, but has X, raw, counts; set matrix:"):
        open_matrix(tmp_path / "a.h5ad", matrix="other", genes=None, columns=())


def test_a_zipped_zarr_store_reads_the_same(h5ad: Path, tmp_path: Path, read: Read) -> None:
    with zarr.storage.ZipStore(tmp_path / "a.zarr.zip", mode="w") as store, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a zip may hold a name twice
        _anndata().write_zarr(store)
    assert read("omics", tmp_path / "a.zarr.zip").records == read("omics", h5ad).records


def test_an_obs_column_that_is_not_there_is_refused(h5ad: Path, read: Read) -> None:
    with pytest.raises(SourceError, match="must have a column 'y', but has type, donor; name one"):
        read("omics", h5ad, properties={"x": "y"})


def test_a_var_column_that_is_not_there_is_refused() -> None:
    with pytest.raises(SourceError, match="must have a var column symbol, but has id; set genes:"):
        _gene_names(_anndata().var, "symbol")


def test_a_gene_twice_is_refused_unless_another_column_names_it() -> None:
    var = pd.DataFrame({"id": [1, 2]}, index=["CD3E", "CD3E"])
    with pytest.raises(SourceError, match="must name each gene once, but has 'CD3E' twice; set genes: to a column"):
        _gene_names(var, None)
    assert _gene_names(var, "id") == ["1", "2"]


def test_a_gene_that_cannot_be_a_symbol_is_rejected(tmp_path: Path, read: Read) -> None:
    _anndata(VALUES[:1], genes=["CD3E", "ALB", "LYZ", "a b"]).write_h5ad(tmp_path / "a.h5ad")
    assert read("omics", tmp_path / "a.h5ad").codes() == ["gene_name"]


@pytest.mark.parametrize("damage", ["cut", "text"])
def test_a_damaged_file_is_refused(h5ad: Path, read: Read, damage: str) -> None:
    content = h5ad.read_bytes()
    h5ad.write_bytes({"cut": content[:-500], "text": b"a,b\n"}[damage])
    with pytest.raises(SourceError, match=r"must be an AnnData file, but .* fetch it again"):
        read("omics", h5ad)


@pytest.mark.parametrize("seed", range(3))
def test_a_flipped_file_never_takes_us_with_it(h5ad: Path, read: Read, seed: int) -> None:
    content, draw = bytearray(h5ad.read_bytes()), random.Random(seed)
    for _ in range(8):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    h5ad.write_bytes(content)
    try:
        read("omics", h5ad)
    except SourceError as error:
        assert error.code in ("damaged", "wrong_columns", "duplicate_genes")  # noqa: PT017 - either end is right


def test_a_reader_that_dies_is_one_clear_error(tmp_path: Path) -> None:
    genes = [f"LONG-GENE-NAME-{number}" for number in range(8000)]  # more than a pipe holds
    _anndata(np.ones((5, 8000), dtype=np.float32), genes=genes).write_h5ad(tmp_path / "a.h5ad")
    request = Request(path=tmp_path / "a.h5ad", matrix="auto", genes=None, top_genes=8000, columns=())
    cells = read_cells(request, timeout_s=100)
    assert next(cells) == "5 cells x 8000 genes of X"
    (child,) = psutil.Process().children()
    child.kill()
    with pytest.raises(SourceError, match="but its reader died of SIGKILL; fetch it again, or give it more memory"):
        list(cells)
    assert psutil.Process().children() == []


def test_a_reader_that_cannot_start_is_not_called_damage() -> None:
    assert str(_explain_end(1)) == "no_reader: must be read, but its reader ended with code 1; mend what the log says"


def test_a_reader_that_hangs_is_one_clear_error() -> None:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    with receiver, sender, pytest.raises(SourceError, match=r"its reader was silent for .* s; raise timeout_s"):
        list(_receive(receiver, 0.01))

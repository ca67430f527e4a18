"""Omics: what the cells of a matrix become, in every encoding, and how damaged files end."""

import json
import multiprocessing
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import psutil
import pytest
from scipy import sparse

from corpus.cells.text import read_medians
from corpus.formats import cellmatrix, cellxgene
from corpus.formats.cellmatrix import Opened, Request, read_cells
from corpus.modalities import omics
from corpus.modality import SourceError

pytestmark = pytest.mark.filterwarnings("ignore:The 'future.infer_string' option")  # anndata asks pandas for it

Read = Callable[..., Any]
GENES = ["CD3E", "ALB", "LYZ", "HLA-DRA"]
VALUES = np.array([[5, 0, 1, 5], [0, 2, 0, 0], [0, 0, 0, 0], [1, np.nan, 0, 0], [1, -1, 0, 0]], dtype=np.float32)


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads here: a process for each of these files would take a second. Tests of that process start it themselves."""

    def here(request: Request, *, timeout_s: float) -> Any:
        return read_cells(request, timeout_s=timeout_s, apart=False)

    monkeypatch.setattr(omics, "read_cells", here)


def _anndata(values: np.ndarray = VALUES, genes: list[str] = GENES, **obs: Any) -> anndata.AnnData:
    columns = {"type": ["T", None, "B", "B", "B"][: len(values)], "donor": "d1", **obs}
    table = pd.DataFrame(columns, index=[f"c{number}" for number in range(len(values))])
    return anndata.AnnData(sparse.csr_matrix(values), obs=table, var=pd.DataFrame(index=genes))


@pytest.fixture
def h5ad(tmp_path: Path) -> Path:
    _anndata().write_h5ad(tmp_path / "a.h5ad")
    return tmp_path / "a.h5ad"


def test_cells_are_ranked_and_bad_ones_rejected(h5ad: Path, read: Read) -> None:
    found = read("omics", h5ad, top_genes=2, properties={"cell type": "Type"}, group="donor")
    assert [(record.content, record.group, record.where) for record in found.records] == [
        ({"genes": ["CD3E", "HLA-DRA"], "properties": {"cell type": "T"}}, "d1", "cell c0"),
        ({"genes": ["ALB"], "properties": {}}, "d1", "cell c1"),
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
        read("omics", tmp_path / "a.h5ad", matrix="other")


def test_an_obs_column_that_is_not_there_is_refused(h5ad: Path, read: Read) -> None:
    with pytest.raises(SourceError, match="must have a column 'y', but has type, donor; name one"):
        read("omics", h5ad, properties={"x": "y"})


def test_a_gene_that_cannot_be_a_symbol_is_rejected(tmp_path: Path, read: Read) -> None:
    _anndata(VALUES[:1], genes=["CD3E", "ALB", "LYZ", "a b"]).write_h5ad(tmp_path / "a.h5ad")
    assert read("omics", tmp_path / "a.h5ad").codes() == ["gene_name"]


def test_bins_are_written_behind_their_genes(tmp_path: Path, read: Read) -> None:
    _anndata(np.array([[1, 2, 3, 100]], dtype=np.float32)).write_h5ad(tmp_path / "a.h5ad")
    (record,) = read("omics", tmp_path / "a.h5ad", encoding="bins", bins=5, top_genes=3).records
    assert record.content == {"genes": ["HLA-DRA", "LYZ", "ALB"], "bins": [4, 3, 2], "properties": {}}
    assert omics.render(record.content).startswith("<|cell|><|gene:HLA-DRA|><|value:4|><|gene:LYZ|><|value:3|>")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json"])
def test_ranks_are_by_value_over_median_and_only_of_genes_that_have_one(
    suffix: str, h5ad: Path, tmp_path: Path, read: Read
) -> None:
    medians = {"CD3E": 10.0, "LYZ": 0.1, "HLA-DRA": 1.0}
    mark = "," if suffix == ".csv" else "\t"
    table = "".join(f"{gene}{mark}{value}\n" for gene, value in {"gene": "median", **medians}.items())
    path = tmp_path / f"medians{suffix}"
    path.write_text(json.dumps(medians) if suffix == ".json" else table)
    found = read("omics", h5ad, encoding="rank", medians=str(path))
    assert [record.content["genes"] for record in found.records] == [["LYZ", "HLA-DRA", "CD3E"]]
    assert found.codes()[0] == "empty"
    assert found.notes[1].text == f"1 genes left out: they have no median in {path}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CD3E,0\n", "must hold medians above 0, but CD3E has 0.0; mend it"),
        ("a,1\nCD3E,x\n", r"must hold genes and medians, but .*line 2 is \['CD3E', 'x'\]; mend it"),
        ("other,1\n", "must name the file's genes, but has none of ALB, CD3E, HLA-DRA; set genes: to their ids"),
    ],
)
def test_medians_that_cannot_be_used_are_refused(
    text: str, message: str, h5ad: Path, tmp_path: Path, read: Read
) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(SourceError, match=message):
        read("omics", h5ad, encoding="rank", medians=str(tmp_path / "m.csv"))
    with pytest.raises(SourceError, match=r"must hold genes and medians, but .*No such file"):
        read_medians(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"medians": "m.csv"}, "medians: must be left out unless encoding is rank, but is given; set encoding: rank"),
        (
            {"perturbation": {"column": "a", "name": "x"}, "properties": {"x": "b"}},
            "perturbation.name: must not be a property too, but 'x' is; rename one",
        ),
    ],
)
def test_options_that_contradict_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        omics.Options.model_validate(options)


def test_what_was_done_to_a_cell_is_told(tmp_path: Path, read: Read) -> None:
    values = np.ones((4, 4), dtype=np.float32) * np.arange(1, 5)
    data = _anndata(values, guide=["KLF1", "Non-Targeting", "A+B", None])
    data.write_h5ad(tmp_path / "a.h5ad")
    found = read("omics", tmp_path / "a.h5ad", perturbation={"column": "guide"}, top_genes=1)
    told = [record.content["properties"]["perturbation"] for record in found.records]
    assert told == ["KLF1", "control", "A+B"]
    assert found.codes() == ["no_perturbation"]


def _cellxgene(**obs: Any) -> anndata.AnnData:
    terms = {name: "EFO:0009899" for name in cellxgene.REQUIRED if name.endswith("_term_id")}
    terms["disease_ontology_term_id"] = "MONDO:0005015 || MONDO:0004995"
    known = {"donor_id": "d", "suspension_type": "cell", "organism_ontology_term_id": "NCBITaxon:9606"}
    genes = [f"ENSG{number:011d}" for number in range(4)]
    return _anndata(
        np.array([[1, 2, 0, 3], [4, 0, 0, 1]], dtype=np.float32),
        genes=genes,
        **{**terms, **known, "is_primary_data": [True, False], "disease": "a || b", **obs},
    )


def test_a_cellxgene_file_gives_its_primary_cells(tmp_path: Path, read: Read) -> None:
    _cellxgene().write_h5ad(tmp_path / "a.h5ad")
    found = read("omics", tmp_path / "a.h5ad", cellxgene=True, properties={"disease": "disease"})
    assert [record.content["properties"] for record in found.records] == [{"disease": "a; b"}]
    assert found.rejects == []
    assert found.notes[1].text.startswith("1 cells left out: is_primary_data is false")


def _without(column: str) -> anndata.AnnData:
    data = _cellxgene()
    data.obs = pd.DataFrame(data.obs).drop(columns=column)
    return data


def _with_fractions() -> anndata.AnnData:
    data = _cellxgene()
    data.X = data.X * 0.5  # type: ignore[operator]
    return data


def _with_names() -> anndata.AnnData:
    data = _cellxgene()
    data.var_names = GENES
    return data


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: _without("donor_id"), "must have the obs columns donor_id, but has not; mend the file, or leave cell"),
        (lambda: _without("organism_ontology_term_id"), "must tell organism_ontology_term_id in obs or uns, but does"),
        (lambda: _cellxgene(is_primary_data=["yes", "no"]), "must have true or false in is_primary_data, but has "),
        (lambda: _cellxgene(sex_ontology_term_id="male"), "must have ontology ids in sex_ontology_term_id, several"),
        (_with_names, "must name genes by Ensembl ids in the index of var, but has 'CD3E'"),
        (
            _with_fractions,
            "must hold raw counts in raw.X, or in X where there is no raw, but has fractions or negatives",
        ),
    ],
)
def test_a_file_that_is_not_of_the_schema_is_refused(make: Any, message: str, tmp_path: Path, read: Read) -> None:
    make().write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(SourceError, match=message) as error:
        read("omics", tmp_path / "a.h5ad", cellxgene=True)
    assert error.value.code == "cellxgene"


@pytest.mark.parametrize("damage", ["cut", "text"])
def test_a_damaged_file_is_refused(h5ad: Path, read: Read, damage: str) -> None:
    content = h5ad.read_bytes()
    h5ad.write_bytes({"cut": content[:-500], "text": b"a,b\n"}[damage])
    with pytest.raises(SourceError, match=r"must be a cell matrix.* fetch it again"):
        read("omics", h5ad)


@pytest.mark.parametrize("seed", range(2))
def test_a_flipped_file_never_takes_us_with_it(h5ad: Path, seed: int) -> None:
    content, draw = bytearray(h5ad.read_bytes()), random.Random(seed)
    for _ in range(8):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    h5ad.write_bytes(content)
    try:
        list(read_cells(Request(path=h5ad), timeout_s=100))
    except SourceError as error:
        assert error.code in ("damaged", "wrong_columns", "duplicate_genes", "too_large")  # noqa: PT017 - either is right


def test_a_reader_that_dies_is_one_clear_error(tmp_path: Path) -> None:
    genes = [f"LONG-GENE-NAME-{number}" for number in range(8000)]  # more than a pipe holds
    _anndata(np.ones((5, 8000), dtype=np.float32), genes=genes).write_h5ad(tmp_path / "a.h5ad")
    cells = read_cells(Request(path=tmp_path / "a.h5ad"), timeout_s=100)
    opened = next(cells)
    assert isinstance(opened, Opened)
    assert opened.told == "5 cells x 8000 genes of X"
    (child,) = psutil.Process().children()
    child.kill()
    with pytest.raises(SourceError, match="but its reader died of SIGKILL; fetch it again, or give it more memory"):
        list(cells)
    assert psutil.Process().children() == []


def test_a_reader_that_wants_more_memory_than_it_may_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "genes.tsv").write_text("a\n")
    (tmp_path / "barcodes.tsv").write_text("a\n")
    size = 2_000_000_000
    (tmp_path / "matrix.mtx").write_text(f"%%MatrixMarket matrix coordinate integer general\n1 1 {size}\n1 1 1\n")
    with pytest.raises(SourceError, match=r"must be read within memory_gb = 2, but needs more; raise it or split the"):
        list(read_cells(Request(path=tmp_path / "matrix.mtx", memory_gb=2), timeout_s=100))


def test_a_reader_that_cannot_start_is_not_called_damage() -> None:
    told = "no_reader: must be read, but its reader ended with code 1; mend what the log says"
    assert str(cellmatrix._explain_end(1)) == told


def test_a_reader_that_hangs_is_one_clear_error() -> None:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    with receiver, sender, pytest.raises(SourceError, match=r"its reader was silent for .* s; raise timeout_s"):
        list(cellmatrix._receive(receiver, 0.01))

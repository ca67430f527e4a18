"""Cells beside the token shards: one stream of the mixture, written in tokens when it is read."""

import pickle
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from corpus.cells import parts as cellparts
from corpus.cells import plan as cellplan
from corpus.cells.corpus import STREAM, CellStoreConfig, build_cells, matrices
from corpus.cells.stream import CellStream
from corpus.encoding import Shaping, make_tokenizer, write_shards
from corpus.formats.cellmatrix import Request, read_cells
from corpus.gates.config import LicencePolicy
from corpus.shards import open_shards
from corpus.workers import Crew
from slurm.files import sha256_file

pytestmark = pytest.mark.filterwarnings("ignore:The 'future.infer_string' option")  # anndata asks pandas for it

COUNTS = np.random.default_rng(0).poisson(1.2, (40, 12)).astype(np.float32) + np.eye(40, 12, dtype=np.float32)
KNOWN = 10  # of the genes have a symbol


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads here: a process for each file would take a second."""

    def here(request: Request, *, timeout_s: float, apart: bool) -> Any:
        assert apart
        return read_cells(request, timeout_s=timeout_s, apart=False)

    for module in (cellplan, cellparts):
        monkeypatch.setattr(module, "read_cells", here)


def _config(path: Path, **given: Any) -> CellStoreConfig:
    source = {"name": "blood", "modality": "omics", "path": str(path), "license": "CC-BY-4.0"}
    return CellStoreConfig.model_validate({"sources": [source], "valid_fraction": 0.2, "length": 9, **given})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, write_records: Callable[..., None]) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("cells")
    genes = [f"G{number:02d}" for number in range(12)]
    obs = pd.DataFrame(index=[f"c{number}" for number in range(40)])
    data = anndata.AnnData(sparse.csr_matrix(COUNTS), obs=obs, var=pd.DataFrame(index=genes))
    data.write_h5ad(folder / "a.h5ad")
    for split in ("train", "valid"):
        write_records(folder / "prepare", "text.en", split, [("fever and cough", "p")])
    (folder / "genes.csv").write_text("".join(f"{gene}\n" for gene in genes[:KNOWN]))
    tokenizer = make_tokenizer(folder / "prepare", base=None, vocab_size=1024, genes=folder / "genes.csv")
    return folder, tokenizer


def _tokenize(made: tuple[Path, Any], folder: Path, config: CellStoreConfig) -> dict[str, CellStream]:
    crew = Crew(isolate=False)

    def cells() -> Any:
        return build_cells(config, folder, tokenizer=made[1], seed=1, crew=crew, root=made[0])

    write_shards(made[0] / "prepare", folder, tokenizer=made[1], shaping=Shaping(), more=cells, crew=crew)
    shards = open_shards(folder)
    assert set(shards.mixture) == {"text.en", STREAM}
    found: dict[str, Any] = {split: shards.stream(STREAM, split) for split in ("train", "valid")}
    return found


def _expected(row: int, *, encoding: str, room: int) -> str:
    values = {f"G{gene:02d}": int(COUNTS[row, gene]) for gene in range(KNOWN) if COUNTS[row, gene]}
    ranked = sorted(values, key=lambda gene: (-values[gene], gene))
    edges = np.quantile(list(values.values()), np.linspace(0, 1, 50))
    told = {
        gene: f"<|value:{np.digitize(value, edges)}|>" if encoding == "bins" else "" for gene, value in values.items()
    }
    body = "".join(f"<|gene:{gene}|>{told[gene]}" for gene in ranked[:room])
    return f"<|cell|>{body}<|/cell|><|eod|>"


@pytest.mark.parametrize(("encoding", "length", "room"), [("rank", 9, 6), ("bins", 16, 6), ("rank", 32, 29)])
def test_every_cell_is_a_document_of_one_length(
    made: tuple[Path, Any], tmp_path: Path, encoding: str, length: int, room: int
) -> None:
    found = _tokenize(made, tmp_path, _config(made[0] / "a.h5ad", encoding=encoding, length=length))
    assert sum(map(len, found.values())) == 40 * length
    seen = set()
    for split, stream in found.items():
        tokens = stream.tokens(0, len(stream))
        for cell, row in enumerate(tokens.reshape(-1, length)):
            located = stream.locate(cell * length)
            assert located.record is not None
            assert located.record.startswith("blood, row ")
            seen.add(number := int(located.record.removeprefix("blood, row ")))
            text = made[1].decode(row.tolist(), skip_special_tokens=False)
            assert text.replace("<|pad|>", "") == _expected(number, encoding=encoding, room=room)
        assert stream.tokens(3, length + 5).tolist() == tokens[3 : length + 5].tolist()
        assert stream.doc_offsets().tolist() == list(range(0, len(stream) + 1, length))
        again = pickle.loads(pickle.dumps(stream))  # noqa: S301 - just made
        assert again.tokens(0, 5).tolist() == tokens[:5].tolist(), split
    assert seen == set(range(40))


def test_padding_counts_nothing_and_is_a_document_of_its_own(made: tuple[Path, Any], tmp_path: Path) -> None:
    stream = _tokenize(made, tmp_path, _config(made[0] / "a.h5ad", length=32))["train"]
    tokens = stream.tokens(0, 64)
    padding = tokens == stream.writing.pad
    counted = stream.counted(0, tokens)
    assert counted is not None
    assert counted.tolist() == (~padding[1:] & ~padding[:-1]).tolist()
    documents = stream.ids(0, 64)[0]
    assert documents.tolist() == [2 * (place // 32) + int(padding[place]) for place in range(64)]
    manifest = open_shards(tmp_path).manifest["streams"][STREAM]["train"]
    whole = stream.tokens(0, len(stream))
    assert manifest["padding"] == int((whole == stream.writing.pad).sum())
    assert manifest["sources"] == {"blood": len(stream) - manifest["padding"]}
    counts = np.bincount(whole[whole != stream.writing.pad])
    share = counts[counts > 0] / counts.sum()
    assert stream.unigram_entropy() == pytest.approx(-(share * np.log(share)).sum())
    with pytest.raises(IndexError, match="must read within 0 to"):
        stream.tokens(0, len(stream) + 1)
    with pytest.raises(IndexError, match="must be a token of 0 to"):
        stream.locate(-1)


def test_the_lawyer_is_told_of_every_matrix(made: tuple[Path, Any], tmp_path: Path) -> None:
    config = _config(made[0] / "a.h5ad")
    _tokenize(made, tmp_path, config)
    (row,) = matrices(config, tmp_path, root=made[0])
    assert (row["name"], row["records"], row["rejects"]) == ("blood", 40, {})
    assert row["sha256"] == sha256_file(made[0] / "a.h5ad")
    assert row["terms"]["commercial"] is row["commercial"] is True
    assert config.files(made[0]) == [made[0] / "a.h5ad"]


def test_a_damaged_cell_is_refused_with_the_shards(made: tuple[Path, Any], tmp_path: Path) -> None:
    _tokenize(made, tmp_path, _config(made[0] / "a.h5ad"))
    path = next((tmp_path / "cells").rglob("values/c/0"))
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"must be as committed, but .*values/c/0 is missing or changed; run tokenize"):
        open_shards(tmp_path)


def test_cells_without_a_gene_that_has_a_symbol_are_refused(made: tuple[Path, Any], tmp_path: Path) -> None:
    bare = make_tokenizer(made[0] / "prepare", base=None, vocab_size=1024)
    given: dict[str, Any] = {"seed": 1, "crew": Crew(isolate=False), "root": made[0]}
    with pytest.raises(
        ValueError, match=r"tokenize.genes: must name genes where there is a cell_store, but none has a"
    ):
        build_cells(_config(made[0] / "a.h5ad"), tmp_path, tokenizer=bare, **given)
    (made[0] / "other.csv").write_text("OTHER\n")
    other = make_tokenizer(made[0] / "prepare", base=None, vocab_size=1024, genes=made[0] / "other.csv")
    with pytest.raises(ValueError, match=r"a cell store must keep a gene, but of G00, G01, G02... none is wanted; set"):
        build_cells(_config(made[0] / "a.h5ad"), tmp_path, tokenizer=other, **given)


def test_sources_that_may_not_be_used_are_told_while_planning(tmp_path: Path) -> None:
    source = {"name": "x", "modality": "omics", "path": str(tmp_path / "a.h5ad"), "license": "CC-BY-NC-4.0"}
    config = CellStoreConfig.model_validate({"sources": [source]})
    lines = list(config.problems(tmp_path, policy=LicencePolicy(), today=date(2026, 1, 1)))
    assert lines[0].startswith("sources.0.path: must be a file, but ")
    assert "commercial" in lines[1]
    with pytest.raises(ValueError, match=r"must be whole files, .* but x has max_records:; take it out"):
        CellStoreConfig.model_validate({"sources": [{**source, "max_records": 5}]})
    config = CellStoreConfig.model_validate({"sources": [source], "medians": "m.csv"})
    *_, told = config.problems(tmp_path, policy=LicencePolicy(), today=date(2026, 1, 1))
    assert told == f"medians: must be a table of genes, but {tmp_path / 'm.csv'} is not there; mend the path"
    assert tmp_path / "m.csv" in config.files(tmp_path)
    with pytest.raises(
        ValueError, match="must have names of their own, for tokens are counted by them, but one occurs"
    ):
        CellStoreConfig.model_validate({"sources": [source, source]})
    with pytest.raises(ValueError, match="must have the modality omics, but x has text; leave it out"):
        CellStoreConfig.model_validate({"sources": [{**source, "modality": "text", "path": "a.txt"}]})

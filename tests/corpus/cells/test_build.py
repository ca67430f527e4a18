"""Cell stores: every cell once, the same bytes for any workers, kept what was done, and refused what is damaged."""

import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from corpus.cells import parts as cellparts
from corpus.cells.build import _agree, _ready, build
from corpus.cells.plan import CellSource, StorePlan
from corpus.cells.rank import rank_tokens
from corpus.cells.store import CellSplit, CellStore, open_store
from corpus.claims import Nodes
from corpus.formats.cellmatrix import Request
from corpus.workers import Crew
from slurm.files import sha256_files

pytestmark = pytest.mark.filterwarnings("ignore:The 'future.infer_string' option")  # anndata asks pandas for it

ALONE = Crew(isolate=False)
GENES = {"a": [5, 3, 8, 1, 9], "b": [2, 3, 8, 7, 30]}


def _write(path: Path, name: str, cells: int) -> np.ndarray:
    draw = np.random.default_rng(cells)
    counts = draw.poisson(1.0, (cells, 5)).astype(np.float32)
    counts[:, 0] = np.arange(cells) + 1  # every cell is another
    obs = pd.DataFrame(
        {"type": draw.choice(["T", "B"], cells), "donor": [f"{name}{number % 7}" for number in range(cells)]},
        index=[f"{name}-{number}" for number in range(cells)],
    )
    var = pd.DataFrame(index=[f"ENSG{number:011d}.2" for number in GENES[name]])
    anndata.AnnData(sparse.csr_matrix(counts), obs=obs, var=var).write_h5ad(path)
    return counts


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[CellSource, ...]:
    folder = tmp_path_factory.mktemp("sources")
    found = []
    for name, cells in (("a", 70), ("b", 45)):
        _write(folder / f"{name}.h5ad", name, cells)
        found.append(CellSource(name=name, license="CC-BY-4.0", request=Request(path=folder / f"{name}.h5ad")))
    return tuple(found)


@pytest.fixture(scope="module")
def plan(sources: tuple[CellSource, ...]) -> StorePlan:
    return StorePlan(
        sources=sources, labels=("type",), group="donor", seed=3, valid_fraction=0.3, shard_cells=20, chunk_cells=40
    )


@pytest.fixture(scope="module")
def store(plan: StorePlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    build(plan, folder, crew=ALONE, apart=False)
    return folder


def _rows(split: CellSplit) -> list[tuple[int, int, dict[int, int]]]:
    positions = np.arange(len(split))
    source, row = split.origin(positions)
    cells = [dict(zip(genes.tolist(), values.tolist(), strict=True)) for genes, values in split.view(positions).each()]
    return list(zip(source.tolist(), row.tolist(), cells, strict=True))


def test_every_cell_is_there_once_with_its_values(store: Path, plan: StorePlan) -> None:
    found = open_store(store)
    assert found.genes == [f"ENSG{number:011d}" for number in sorted({*GENES["a"], *GENES["b"]})]
    rows = _rows(found.split("train")) + _rows(found.split("valid"))
    assert sorted((source, row) for source, row, _ in rows) == [(s, r) for s, n in ((0, 70), (1, 45)) for r in range(n)]
    for number, source in enumerate(plan.sources):
        data: Any = anndata.read_h5ad(source.request.path)
        ids = [found.genes.index(gene.partition(".")[0]) for gene in data.var_names]
        for where, row, cell in rows:
            if where == number:
                values = data.X[row].toarray()[0].astype(int).tolist()
                assert cell == {gene: value for gene, value in zip(ids, values, strict=True) if value}


def test_cells_are_shuffled_and_a_donor_is_in_one_split(store: Path, plan: StorePlan) -> None:
    found = open_store(store)
    donors = {}
    for name in ("train", "valid"):
        split = found.split(name)
        source, row = split.origin(np.arange(len(split)))
        donors[name] = {(where, place % 7) for where, place in zip(source.tolist(), row.tolist(), strict=True)}
        assert (np.diff(source * 100 + row) < 0).sum() > len(split) / 4
    assert not donors["train"] & donors["valid"]
    assert len(found.split("valid")) > 10
    assert [told["rows"] for told in found.manifest["sources"]] == [70, 45]
    assert found.manifest["sources"][0]["license"] == "CC-BY-4.0"


def test_labels_come_with_their_cells(store: Path, plan: StorePlan) -> None:
    split = open_store(store).split("train")
    positions = np.array([5, 0, len(split) - 1])
    assert split.labels == {"type": ["B", "T"]}
    source, row = split.origin(positions)
    known = [list(anndata.read_h5ad(each.request.path).obs["type"]) for each in plan.sources]
    expected = [known[where][place] for where, place in zip(source.tolist(), row.tolist(), strict=True)]
    assert [split.labels["type"][code] for code in split.label("type", positions).tolist()] == expected
    with pytest.raises(KeyError, match="a label must be one of type, but is other; change it"):
        split.label("other", positions)
    with pytest.raises(IndexError, match=r"a position must be from 0 to .*, but is -1"):
        split.take(np.array([0, -1]))
    split.fetch([(0, 8)])


def _files(folder: Path) -> dict[str, str]:
    return sha256_files(folder)


def test_a_killed_build_goes_on_where_it_was_and_other_workers_write_the_same_bytes(
    store: Path, plan: StorePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Any] = []

    def stopped(self: Any, unit: Any) -> None:
        if len(done) == 2:
            raise RuntimeError("killed")
        original(self, unit)
        done.append(unit)

    original: Callable[..., None] = cellparts.Gather.__call__
    monkeypatch.setattr(cellparts.Gather, "__call__", stopped)
    with pytest.raises(RuntimeError, match="killed"):
        build(plan, tmp_path, crew=ALONE, apart=False)
    with pytest.raises(ValueError, match=r"must hold a committed manifest.json, but has none; build it again"):
        open_store(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("entry.json")}
    monkeypatch.undo()
    build(plan, tmp_path, crew=Crew(workers=2))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(before) == 2
    assert _files(tmp_path) == _files(store)


def test_in_order_of_rank_nothing_is_sorted_any_more(plan: StorePlan, store: Path, tmp_path: Path) -> None:
    medians = {f"ENSG{number:011d}": 1.0 + number % 3 for number in (1, 2, 3, 5, 8)}
    build(
        StorePlan(**{**vars(plan), "order": "rank", "medians": tuple(medians.items())}),
        tmp_path,
        crew=ALONE,
        apart=False,
    )
    ranked, plain = open_store(tmp_path), open_store(store)
    assert ranked.genes == sorted(medians)
    by_gene = np.array([medians.get(gene, np.inf) for gene in plain.genes], dtype=np.float32)
    for name in ("train", "valid"):
        slow = _tokens(plain, name, medians=by_gene, left_out=set(plain.genes) - medians.keys())
        assert _tokens(ranked, name, medians=None, left_out=set()) == slow


def _tokens(store: CellStore, name: str, *, medians: Any, left_out: set[str]) -> dict[tuple[int, int], list[int]]:
    """Returns the numbers of each cell's genes by rank, by its origin."""
    split = store.split(name)
    positions = np.arange(len(split))
    numbers = np.array([0 if gene in left_out else int(gene[4:]) for gene in store.genes], dtype=np.uint32)
    found = rank_tokens(split.view(positions), length=8, tokens=numbers, pad=0, medians=medians)
    origins = zip(*(part.tolist() for part in split.origin(positions)), strict=True)
    return {origin: [number for number in row if number] for origin, row in zip(origins, found.tolist(), strict=True)}


def test_a_late_node_removes_nothing_and_nothing_is_removed_under_it(plan: StorePlan, tmp_path: Path) -> None:
    first, late = (Nodes(rank=rank, world_size=2, meeting=tmp_path / "met") for rank in (0, 1))
    folder, order = tmp_path / "store", list[str]()
    with first.together():
        assert not _ready(plan, folder, nodes=first)
        (folder / "parts" / "done").touch()
        assert not _ready(plan, folder, nodes=late)
        assert (folder / "parts" / "done").exists()
        commits = threading.Thread(target=lambda: _agree(first, lambda: order.append("committed")))
        commits.start()
        time.sleep(0.1)
        order.append("late")
        _agree(late, lambda: order.append("never"))
        commits.join()
    assert order == ["late", "committed"]


def test_another_plan_begins_anew(plan: StorePlan, store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "copy")
    build(StorePlan(**{**vars(plan), "seed": 4}), tmp_path / "copy", crew=ALONE, apart=False)
    assert open_store(tmp_path / "copy").manifest["seed"] == 4
    assert _files(tmp_path / "copy") != _files(store)


@pytest.mark.parametrize("seed", range(12))
def test_damage_is_never_given_out(store: Path, tmp_path: Path, seed: int) -> None:
    folder, draw = tmp_path / "copy", random.Random(seed)
    shutil.copytree(store, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = draw.choice(files)
    content = bytearray(path.read_bytes())
    kind = draw.choice(["flip", "cut", "gone", "more"])
    if kind == "flip":
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
    elif kind == "cut":
        path.write_bytes(content[: draw.randrange(len(content))])
    elif kind == "gone":
        path.unlink()
    else:
        (path.parent / "other").write_bytes(b"1")
    if kind != "more" or path.parent != folder:
        with pytest.raises(ValueError, match=r"must|cannot"):
            open_store(folder)
        with pytest.raises((ValueError, IndexError), match=r"must|cannot"):
            _read_all(folder)


def _read_all(folder: Path) -> None:
    store = open_store(folder, hashed=False)
    assert len(store.genes) == 8
    for name in ("train", "valid"):
        split = store.split(name)
        _rows(split)
        split.label("type", np.arange(len(split)))


@pytest.mark.parametrize(
    ("values", "counted"),
    [
        ([[1, 2], [0.5, 1], [3, 0]], {"fractional": 1}),
        ([[1, 2], [70_000, 1], [3, 0]], {"too_high": 1}),
        ([[1, 2], [0, 0], [3, 0]], {"empty": 1}),
        ([[1, 2], [-1, 1], [3, np.nan]], {"negative": 1, "not_finite": 1}),
    ],
)
def test_cells_that_are_no_counts_are_counted_and_left_out(
    values: list[list[float]], counted: dict[str, int], tmp_path: Path
) -> None:
    obs = pd.DataFrame(index=["x", "y", "z"])
    data = anndata.AnnData(np.array(values, dtype=np.float32), obs=obs, var=pd.DataFrame(index=["A", "B"]))
    data.write_h5ad(tmp_path / "a.h5ad")
    plan = StorePlan(sources=(CellSource(name="a", request=Request(path=tmp_path / "a.h5ad")),))
    manifest = build(plan, tmp_path / "store", crew=ALONE, apart=False)
    assert manifest["sources"][0]["rejects"] == counted
    kept = sum(entry["cells"] for entries in manifest["splits"].values() for entry in entries)
    assert kept == 3 - sum(counted.values())


def test_a_source_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.h5ad").write_bytes(b"none")
    plan = StorePlan(sources=(CellSource(name="a", request=Request(path=tmp_path / "a.h5ad")),))
    with pytest.raises(ValueError, match=r"a \(.*a.h5ad\): must be a cell matrix in HDF5, but does not begin like one"):
        build(plan, tmp_path / "store", crew=ALONE, apart=False)

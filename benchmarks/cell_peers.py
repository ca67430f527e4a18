"""One loader of cells, timed: run by cell_loader.py, by the peers' own Python for theirs.

    python benchmarks/cell_peers.py LOADER STORE BATCH SECONDS TOKENIZE

LOADER is medscale, annbatch, scdataset, scdataset-2 (with two workers) or h5ad; TOKENIZE is none, usual (as users of
rank values write it) or ours (corpus/cells/rank.py). Prints cells a second over SECONDS, behind a pass that warms up.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
LENGTH = 2048


def annbatch(path: Path, batch: int) -> Iterator[Any]:
    """As its README says: preshuffled zarr, the zarrs pipeline, chunks of 32 rows, 256 of them at once; CSR."""
    import anndata
    import zarr
    from annbatch import DatasetCollection, Loader

    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})

    def only_matrix(group: Any) -> Any:
        return anndata.AnnData(X=anndata.io.sparse_dataset(group["X"]))

    while True:
        loader = Loader(batch_size=batch, chunk_size=32, preload_nchunks=256, shuffle=True, preload_to_gpu=False)
        for found in loader.use_collection(DatasetCollection(path, mode="r"), load_adata=only_matrix):
            yield found["X"]


def scdataset(path: Path, batch: int, *, workers: int) -> Iterator[Any]:
    """Blocks of 16 and a fetch factor of 64 (its paper's range) over a backed h5ad, in CSR, which is its fastest."""
    import anndata
    from scdataset import BlockShuffling, scDataset
    from torch.utils.data import DataLoader

    data = anndata.read_h5ad(path, backed="r")
    while True:
        found: Any = scDataset(
            data, BlockShuffling(block_size=16), batch_size=batch, fetch_factor=64, fetch_callback=_rows
        )
        if workers:
            found = DataLoader(found, batch_size=None, num_workers=workers, prefetch_factor=65)
        yield from found


def _rows(data: Any, index: Any) -> Any:
    return data.X[index]


def h5ad(path: Path, batch: int) -> Iterator[Any]:
    """Random cells of a backed file, as a data set without a loader of its own does."""
    import anndata

    matrix, draw = anndata.read_h5ad(path, backed="r").X, np.random.default_rng(0)
    while True:
        yield matrix[np.sort(draw.choice(matrix.shape[0], batch, replace=False))]


def usual(rows: Any, tokens: Any) -> Any:
    """Rank values cell by cell, as Geneformer's tokenizer does."""
    found = np.zeros((len(rows.indptr) - 1, LENGTH), dtype=np.int64)
    for row in range(len(found)):
        part = slice(rows.indptr[row], rows.indptr[row + 1])
        order = np.argsort(-rows.data[part], kind="stable")
        ranked = tokens[rows.indices[part][order]][:LENGTH]
        found[row, : len(ranked)] = ranked
    return found


def ours(batch: int) -> Callable[[Any, Any], Any]:
    """Tokenizes a scipy matrix, or our own cells, with corpus/cells/rank.py."""
    from corpus.cells.rank import Cells, rank_tokens

    out = np.empty((batch, LENGTH), dtype=np.uint32)

    def tokenize(rows: Any, tokens: Any) -> Any:
        if hasattr(rows, "data"):
            rows = Cells(indptr=rows.indptr, genes=rows.indices, values=rows.data.astype(np.uint16))
        return rank_tokens(rows, length=LENGTH, tokens=tokens, pad=0, out=out[: len(rows)])

    return tokenize


def medscale(path: Path, batch: int, *, copied: bool) -> Iterator[Any]:
    from corpus.cells.sampler import Sampler
    from corpus.cells.store import open_store

    split = open_store(path, hashed=False).split("train")
    for positions in Sampler(cells=len(split), seed=0).batches(0, batch=batch):
        yield split.take(positions) if copied else split.view(positions)


def build(kind: str, source: Path, folder: Path) -> None:
    """Builds the store of a loader from an h5ad."""
    if kind == "annbatch":
        import zarr
        from annbatch import DatasetCollection

        zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
        DatasetCollection(folder).add_adatas([source], shuffle=True)
        return
    from corpus.cells.build import build as build_store
    from corpus.cells.plan import CellSource, StorePlan
    from corpus.formats.cellmatrix import Request
    from corpus.workers import Crew

    request = Request(path=source, same_names=True)
    order: Any = "rank" if kind == "medscale-ranked" else "gene"
    plan = StorePlan(sources=(CellSource(name="cells", request=request),), order=order, valid_fraction=0.001)
    build_store(plan, folder, crew=Crew(isolate=False))


def main() -> None:
    if sys.argv[1] == "build":
        build(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
        return
    loader, path, tokenize = sys.argv[1], Path(sys.argv[2]), sys.argv[5]
    batch, seconds = int(sys.argv[3]), float(sys.argv[4])
    batches = {
        "medscale": lambda: medscale(path, batch, copied=tokenize == "none"),
        "annbatch": lambda: annbatch(path, batch),
        "scdataset": lambda: scdataset(path, batch, workers=0),
        "scdataset-2": lambda: scdataset(path, batch, workers=2),
        "h5ad": lambda: h5ad(path, batch),
    }[loader]()
    work = {"none": lambda rows, _: rows, "usual": usual, "ours": ours(batch)}[tokenize]
    tokens = np.arange(1 << 16, dtype=np.uint32)
    warm = time.perf_counter() + seconds / 2
    while time.perf_counter() < warm:
        work(next(batches), tokens)
    cells, started, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds:
        work(next(batches), tokens)
        cells += batch
    wall = time.perf_counter() - started
    print(json.dumps({"cells_s": cells / wall, "cores": (time.process_time() - cpu) / wall}))


if __name__ == "__main__":
    main()

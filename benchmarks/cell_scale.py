"""A cell store of more cells than any atlas: built, opened and sampled: `python benchmarks/cell_scale.py FOLDER`.

What is synthesised: --files AnnData files of a million cells each, every cell with 1 to 15 of 20,000 genes (a real one
has a thousand or more) and the counts 2, 3, 4..., so that 50 million cells fit on a laptop: about 8 values a cell. What
is proved is what grows with the number of cells, not with the genes: building out of core, opening, sampling, memory,
resuming. Whatever exists in FOLDER already is used again. Prints the rows of docs/benchmarks/cell-loader.md.
"""

import argparse
import resource
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from corpus.cells.build import build
from corpus.cells.plan import CellSource, StorePlan
from corpus.cells.rank import rank_tokens
from corpus.cells.sampler import Sampler
from corpus.cells.store import open_store
from corpus.formats.cellmatrix import Request
from corpus.workers import Crew

BATCH, LENGTH, GENES = 1024, 16, 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=52)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", choices=["sample"], help="of a store that is there")
    given = parser.parse_args()
    if given.only:
        sample(given.folder / "store")
        return
    synthesise(given.folder, files=given.files)
    construct(given.folder, files=given.files, workers=given.workers)
    subprocess.run([sys.executable, __file__, str(given.folder), "--only", "sample"], check=True)


def synthesise(folder: Path, *, files: int, cells: int = 1_000_000) -> None:
    import anndata
    import pandas as pd
    from scipy import sparse

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, files + 1):
        path = folder / f"s{number}.h5ad"
        if path.is_file():
            continue
        draw = np.random.default_rng(number)
        indptr = np.concatenate([[0], np.cumsum(draw.integers(1, 16, cells))])
        genes = draw.integers(0, GENES, indptr[-1]).astype(np.int32)
        counts = (1 + draw.geometric(0.5, indptr[-1])).astype(np.float32)
        matrix = sparse.csr_matrix((counts, genes, indptr), shape=(cells, GENES))
        matrix.sum_duplicates()
        donors = pd.Categorical.from_codes(draw.integers(0, 50, cells), [f"{number}.{donor}" for donor in range(50)])
        obs = pd.DataFrame({"donor": donors}, index=[str(cell) for cell in range(cells)])
        var = pd.DataFrame(index=[f"ENSG{gene:011d}" for gene in range(GENES)])
        anndata.AnnData(matrix, obs=obs, var=var).write_h5ad(path)


def construct(folder: Path, *, files: int, workers: int) -> None:
    sources = tuple(
        CellSource(name=f"s{number}", request=Request(path=folder / f"s{number}.h5ad"))
        for number in range(1, files + 1)
    )
    plan = StorePlan(
        sources=sources, labels=("donor",), group="donor", seed=1, chunk_cells=1 << 18, shard_cells=1 << 18
    )
    started = time.perf_counter()
    build(plan, folder / "store", crew=Crew(workers=workers))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"| built, {workers} workers | {time.perf_counter() - started:.0f} s, at most {peak:.0f} MB a worker |")


def sample(folder: Path) -> None:
    before, started = _memory(), time.perf_counter()
    store = open_store(folder, hashed=False)
    split = store.split("train")
    split.take(np.array([0, len(split) - 1]))
    print(f"| opened (sizes, names, small files) | {time.perf_counter() - started:.2f} s |")
    values = sum(entry["values"] for entry in store.manifest["splits"]["train"])
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"| training cells, values, bytes on disk | {len(split):,}, {values:,}, {size / 1e9:.2f} GB |")
    sampler = Sampler(cells=len(split), seed=0, run=BATCH)
    tokens, out = np.arange(GENES, dtype=np.uint32), np.empty((BATCH, LENGTH), dtype=np.uint32)
    for batches in (200, 2000, 20_000):
        cells, memory = _rate(split, sampler, tokens, out, batches=batches)
        print(
            f"| tokenized, {batches * BATCH:,} samples | {cells:,.0f} cells/s, {memory - before:.0f} MB more memory |"
        )
    _quality(split, sampler, sources=len(store.manifest["sources"]))
    whole = np.concatenate(list(islice(sampler.batches(0, batch=BATCH), 40)))
    far = 7 * len(split) + 12_345
    started = time.perf_counter()
    later = next(sampler.batches(far, batch=BATCH))
    print(f"| to resume at sample {far:,} | {(time.perf_counter() - started) * 1e3:.1f} ms |")
    same = (sampler.positions(np.arange(far, far + BATCH)) == later).all()
    same &= (np.concatenate(list(islice(sampler.batches(9 * BATCH, batch=BATCH), 31))) == whole[9 * BATCH :]).all()
    print(f"| batches from there are those of an unbroken run | {bool(same)} |")


def _rate(split, sampler, tokens, out, *, batches: int) -> tuple[float, float]:  # noqa: ANN001 - see main
    started = time.perf_counter()
    for positions in islice(sampler.batches(0, batch=BATCH), batches):
        rank_tokens(split.view(positions), length=LENGTH, tokens=tokens, pad=0, out=out)
    return batches * BATCH / (time.perf_counter() - started), _memory()


def _quality(split, sampler, *, sources: int) -> None:  # noqa: ANN001 - see main
    """Entropy of the sources and of the donors in a batch of 64, beside what random cells would have."""
    found, random, draw = [], [], np.random.default_rng(0)
    for positions in islice(sampler.batches(0, batch=64), 200):
        found.append(_entropies(split, positions))
        random.append(_entropies(split, draw.integers(0, len(split), 64)))
    (source, donor), (source_random, donor_random) = np.mean(found, 0), np.mean(random, 0)
    print(f"| entropy of the source in a batch of 64, of {sources} | {source:.3f} bits; random {source_random:.3f} |")
    print(f"| entropy of the donor in a batch of 64, of {sources * 50} | {donor:.3f} bits; random {donor_random:.3f} |")


def _entropies(split, positions) -> tuple[float, float]:  # noqa: ANN001 - see main
    return tuple(_entropy(codes) for codes in (split.origin(positions)[0], split.label("donor", positions)))


def _entropy(codes: np.ndarray) -> float:
    share = np.unique(codes, return_counts=True)[1] / len(codes)
    return float(-(share * np.log2(share)).sum())


def _memory() -> float:
    """Memory of this process alone, in MB: what it mapped of files can be taken away at any time."""
    status = Path("/proc/self/status").read_text()
    return float(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))) / 1024


if __name__ == "__main__":
    main()

"""How fast cells are loaded beside the best loaders: `python benchmarks/cell_loader.py FOLDER --peers PYTHON`.

PYTHON is an interpreter that has annbatch[zarrs], scdataset, numba and torch (`uv venv peers; uv pip install --python
peers/bin/python "annbatch[zarrs]" scdataset numba torch`). The same cells are stored in each loader's own way, all lie
in the page cache, and each measurement is a process of its own; the loaders take turns, round after round, so that
whatever else the machine does meets all of them. Prints the tables of docs/benchmarks/cell-loader.md.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

WORKER = Path(__file__).with_name("cell_peers.py")
CELLS, GENES, EXPRESSED = 40_000, 20_000, 1460
ROWS = (  # how the loader is called in the table, loader, store, tokenization
    ("medscale", "medscale", "medscale", "none"),
    ("annbatch", "annbatch", "annbatch", "none"),
    ("scDataset", "scdataset", "h5ad", "none"),
    ("scDataset, 2 workers", "scdataset-2", "h5ad", "none"),
    ("backed h5ad, random", "h5ad", "h5ad", "none"),
    ("medscale", "medscale", "medscale", "ours"),
    ("medscale, store in order of rank", "medscale", "medscale-ranked", "ours"),
    ("annbatch", "annbatch", "annbatch", "usual"),
    ("annbatch", "annbatch", "annbatch", "ours"),
    ("scDataset", "scdataset", "h5ad", "usual"),
    ("scDataset, 2 workers", "scdataset-2", "h5ad", "ours"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="scratch; what is there already is used again")
    parser.add_argument("--peers", required=True, help="a Python that has the other loaders")
    parser.add_argument("--real", type=Path, help="an h5ad of counts, repeated to as many cells")
    parser.add_argument("--batch", type=int, nargs="*", default=[64, 1024])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    sets = {"synthetic": synthesise}
    if given.real:
        sets["real"] = lambda path: repeat(given.real, path)
    for name, make in sets.items():
        path = given.folder / f"{name}.h5ad"
        if not path.is_file():
            make(path)
        stores = {
            "h5ad": path,
            **{kind: store(kind, path, given) for kind in ("medscale", "medscale-ranked", "annbatch")},
        }
        for batch in given.batch:
            table(name, batch, measure(stores, batch, given))


def synthesise(path: Path) -> None:
    """Writes cells of about 1,460 of 20,000 genes, frequent genes more often and higher."""
    import anndata
    import pandas as pd
    from scipy import sparse

    draw = np.random.default_rng(0)
    share = draw.lognormal(0, 1.5, GENES)
    share /= share.sum()
    rows, values = [], []
    for size in np.clip(draw.normal(EXPRESSED, 200, CELLS), 200, 4000).astype(int):
        chance = 0.6 * np.log(share) + draw.gumbel(size=GENES)
        rows.append(np.sort(np.argpartition(-chance, size)[:size]))
        values.append(1 + draw.poisson(np.minimum(share[rows[-1]] * 3000, 200)))
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    counts = np.concatenate(values).astype(np.float32)
    matrix = sparse.csr_matrix((counts, np.concatenate(rows), indptr), shape=(CELLS, GENES))
    obs = pd.DataFrame(index=[str(cell) for cell in range(CELLS)])
    var = pd.DataFrame(index=[f"ENSG{gene:011d}" for gene in range(GENES)])
    anndata.AnnData(matrix, obs=obs, var=var).write_h5ad(path)


def repeat(source: Path, path: Path) -> None:
    """Writes real cells over and over."""
    import anndata
    import pandas as pd
    from scipy import sparse

    data = anndata.read_h5ad(source)
    matrix = sparse.csr_matrix(data.X)
    times = -(-CELLS // matrix.shape[0])
    whole = sparse.vstack([matrix] * times, format="csr").astype(np.float32)
    obs = pd.DataFrame(index=[str(cell) for cell in range(whole.shape[0])])
    anndata.AnnData(whole, obs=obs, var=pd.DataFrame(index=data.var_names)).write_h5ad(path)
    print(
        f"real: {matrix.shape[0]} cells of {source.name} {times} times, {matrix.nnz / matrix.shape[0]:.0f} genes a cell"
    )


def store(kind: str, source: Path, given: Any) -> Path:
    """Returns a loader's store, built where it is not there."""
    path = source.with_suffix(f".{kind}.zarr")
    if not path.exists():
        python = given.peers if kind == "annbatch" else sys.executable
        subprocess.run([python, str(WORKER), "build", kind, str(source), str(path)], check=True, capture_output=True)
    return path


def measure(stores: dict[str, Path], batch: int, given: Any) -> list[tuple[float, float]]:
    """Returns the median cells a second of each row, and the cores it took."""
    found: list[list[Any]] = [[] for _ in ROWS]
    for _ in range(given.rounds):
        for row, (_, loader, kind, tokenize) in enumerate(ROWS):
            python = sys.executable if loader == "medscale" else given.peers
            command = [python, str(WORKER), loader, str(stores[kind]), str(batch), str(given.seconds), tokenize]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            told = json.loads(done.stdout.splitlines()[-1])
            found[row].append((told["cells_s"], told["cores"]))
    return [(median(rate for rate, _ in row), median(cores for _, cores in row)) for row in found]


def table(name: str, batch: int, found: list[tuple[float, float]]) -> None:
    rates = list(zip(ROWS, found, strict=True))
    print(f"\n### {name}, batch {batch}\n")
    for title, kinds in (("raw (CSR in memory)", ["none"]), ("tokens by rank, 2,048 a cell", ["usual", "ours"])):
        chosen = [(row, rate) for row, rate in rates if row[3] in kinds]
        best = max(
            rate for row, (rate, _) in chosen if row[1] != "medscale" and (row[3] != "ours" or kinds == ["none"])
        )
        print(f"| {title} | cells/s | of the best peer | cores | cells/s of a core |\n|---|---|---|---|---|")
        for (label, _, _, tokenize), (rate, cores) in chosen:
            how = {"none": "", "usual": ", usual tokenization", "ours": ", our tokenization"}[tokenize]
            of_core = "-" if "workers" in label else f"{rate / cores:,.0f}"  # its workers' time is not seen
            print(f"| {label}{how} | {rate:,.0f} | {rate / best:.2f} | {cores:.2f} | {of_core} |")
        print(flush=True)


if __name__ == "__main__":
    main()

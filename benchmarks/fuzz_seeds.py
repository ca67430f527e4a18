"""Seeds of the fuzz run: real files made small, each with the modality and options that read it.

A seed keeps its format whole: the first lines of a table, a pruned tree of JSON or XML, some cells of a matrix, an
archive of shrunken members. Formats of which no real file is at hand are written here in their smallest form.
"""

import copy
import csv
import gzip
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpus.source import Source
from corpus.tables import suffix

LINES, BRANCHES, CHARS = 14, 2, 240


@dataclass(frozen=True, kw_only=True)
class Seed:
    """One small good file: how it is read, its name and bytes."""

    modality: str
    name: str
    data: bytes
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Modality and format, for the table."""
        return f"{self.modality} {''.join(Path(self.name).suffixes[-2:])}"


def of_sources(sources: list[Source], root: Path) -> Iterator[Seed]:
    """Yields a shrunken seed of every source's first file."""
    for source in sources:
        for path in source.files(root)[:1]:
            data = shrunken(path.name, path.read_bytes())
            if data is not None:
                yield Seed(modality=source.modality, name=path.name, data=data, options=dict(source.options))


def shrunken(name: str, data: bytes) -> bytes | None:
    """Returns a small file of the same format; None where there is no way to make one."""
    if name.lower().endswith(".gz"):
        inner = shrunken(name[:-3], gzip.decompress(data))
        return None if inner is None else gzip.compress(inner, mtime=0)
    shrink = _SHRINK.get(suffix(Path(name)))
    return None if shrink is None else shrink(data)


def _lines(data: bytes) -> bytes:
    return b"".join(data.splitlines(keepends=True)[:LINES])


def _jsonl(data: bytes) -> bytes:
    rows = [json.loads(line) for line in data.splitlines()[:3] if line.strip()]
    return b"".join(json.dumps(_pruned(row), ensure_ascii=False).encode() + b"\n" for row in rows)


def _json(data: bytes) -> bytes:
    try:
        return json.dumps(_pruned(json.loads(data)), ensure_ascii=False).encode()
    except ValueError:  # one object a line, under the name of JSON
        return _jsonl(data)


def _pruned(value: Any, depth: int = 0) -> Any:
    if isinstance(value, dict):
        kept = list(value.items())[: 40 if depth < 6 else 4]
        return {key: _pruned(item, depth + 1) for key, item in kept}
    if isinstance(value, list):
        return [_pruned(item, depth + 1) for item in value[:BRANCHES]]
    return value[:CHARS] if isinstance(value, str) else value


def _xml(data: bytes) -> bytes:
    from lxml import etree

    root = etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True))
    _prune_tree(root)
    return bytes(etree.tostring(root, encoding="utf-8", xml_declaration=True))


def _prune_tree(node: Any) -> None:
    seen: dict[Any, int] = {}
    for child in list(node):
        seen[child.tag] = seen.get(child.tag, 0) + 1
        if seen[child.tag] > BRANCHES:
            node.remove(child)
        else:
            child.text = child.text[:CHARS] if child.text else child.text
            _prune_tree(child)


def _entries(data: bytes) -> bytes:
    return b"$$$$".join(data.split(b"$$$$")[:3]) + b"$$$$\n"


def _fasta(data: bytes) -> bytes:
    return b">".join(data.split(b">")[:4])


def _parquet(data: bytes) -> bytes:
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(data)).slice(0, 12), out)
    return out.getvalue()


def _zip(data: bytes) -> bytes | None:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        names = [item.filename for item in old.infolist() if not item.is_dir() and not item.filename.startswith("__")]
        if any(name.endswith(("zarr.json", ".zgroup")) for name in names):
            return None  # a matrix: made anew by `matrices`
        for name in names[:60]:
            inner = shrunken(name, old.read(name))
            if inner is not None:
                new.writestr(name, inner)
    return out.getvalue()


_SHRINK: dict[str, Callable[[bytes], bytes | None]] = {
    **dict.fromkeys((".csv", ".tsv", ".txt", ".data", ".names", ".md", ".smi", ".ndjson"), _lines),
    **dict.fromkeys((".fasta", ".fa"), _fasta),
    ".sdf": _entries,
    ".jsonl": _jsonl,
    ".json": _json,
    ".xml": _xml,
    ".parquet": _parquet,
    ".pdb": lambda data: b"".join(data.splitlines(keepends=True)[:120]),
    ".zip": _zip,
}


def matrices(folder: Path) -> Iterator[Seed]:
    """Yields small cell matrices of every container: h5ad (sparse and dense), zipped zarr, 10x HDF5, zipped 10x MTX."""
    import anndata
    import numpy as np
    import pandas as pd
    from scipy import sparse

    values = np.random.default_rng(0).poisson(0.6, (8, 12)).astype(np.float32)
    genes = [f"ENSG{number:011d}" for number in range(12)]
    obs = pd.DataFrame({"cell_type": pd.Categorical(["T cell", "B cell"] * 4)}, index=[f"c{n}" for n in range(8)])
    for name, matrix in (("sparse", sparse.csr_matrix(values)), ("dense", values)):
        made = anndata.AnnData(matrix, obs=obs.copy(), var=pd.DataFrame(index=genes))
        made.write_h5ad(folder / f"{name}.h5ad")
        yield _matrix(folder / f"{name}.h5ad", {"properties": {"cell type": "cell_type"}})
    made.write_zarr(folder / "store.zarr")
    with zipfile.ZipFile(folder / "store.zarr.zip", "w") as archive:
        for file in sorted((folder / "store.zarr").rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder / "store.zarr"))
    yield _matrix(folder / "store.zarr.zip", {"properties": {"cell type": "cell_type"}})
    yield _tenx_h5(folder / "tenx.h5", sparse.csc_matrix(values.T), genes)
    yield _tenx_mtx(folder / "tenx.zip", sparse.coo_matrix(values.T), genes)


def _matrix(path: Path, options: dict[str, Any]) -> Seed:
    return Seed(modality="omics", name=path.name, data=path.read_bytes(), options=copy.deepcopy(options))


def _tenx_h5(path: Path, matrix: Any, genes: list[str]) -> Seed:
    import h5py

    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["data"], group["indices"] = matrix.data.astype("int32"), matrix.indices.astype("int64")
        group["indptr"], group["shape"] = matrix.indptr.astype("int64"), list(matrix.shape)
        group["barcodes"] = [f"AAAC{number}-1".encode() for number in range(matrix.shape[1])]
        features = group.create_group("features")
        features["id"] = features["name"] = [gene.encode() for gene in genes]
        features["feature_type"] = [b"Gene Expression"] * len(genes)
        features["genome"] = [b"GRCh38"] * len(genes)
    return _matrix(path, {})


def _tenx_mtx(path: Path, matrix: Any, genes: list[str]) -> Seed:
    rows = "".join(f"{row + 1} {column + 1} {int(value)}\n" for row, column, value in zip(*_parts(matrix), strict=True))
    head = f"%%MatrixMarket matrix coordinate integer general\n{matrix.shape[0]} {matrix.shape[1]} {matrix.nnz}\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("matrix.mtx", head + rows)
        archive.writestr("features.tsv", "".join(f"{gene}\t{gene}\tGene Expression\n" for gene in genes))
        archive.writestr("barcodes.tsv", "".join(f"AAAC{number}-1\n" for number in range(matrix.shape[1])))
    return _matrix(path, {})


def _parts(matrix: Any) -> tuple[Any, Any, Any]:
    return matrix.row, matrix.col, matrix.data


def korean() -> Iterator[Seed]:
    """Yields tables and prose in Korean, in each encoding that is read."""
    rows = [["title_ko", "ko", "title_en", "en"], ["심장", "심장은 혈액을 보낸다.", "Heart", "The heart pumps blood."]]
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    for encoding in ("utf-8", "utf-8-sig", "cp949", "utf-16"):
        yield Seed(modality="text", name="ko.csv", data=out.getvalue().encode(encoding))
        prose = f"{rows[1][1]}\n\n환자는 열이 난다.{os.linesep}"
        yield Seed(modality="text", name="ko.txt", data=prose.encode(encoding), options={"language": "ko"})

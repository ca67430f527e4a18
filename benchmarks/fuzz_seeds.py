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
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from corpus.formats.tables import suffix
from corpus.source import Source

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
            name, data = _packed(path, source.member)
            small = shrunken(name, data)
            if small is not None:
                options = source.read_options().model_dump(mode="json", exclude_unset=True)
                yield Seed(modality=source.modality, name=name, data=small, options=options)


def _packed(path: Path, member: str | None) -> tuple[str, bytes]:
    """Returns one file of a source: a folder as a zip, the first member of an archive that is meant."""
    if path.is_dir():
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for file in sorted(path.rglob("*")):
                archive.writestr(str(file.relative_to(path)), file.read_bytes())
        return f"{path.name}.zip", out.getvalue()
    if member is None:
        return path.name, path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        inner = next(name for name in archive.namelist() if fnmatch(name, member))
        return Path(inner).name, archive.read(inner)


def shrunken(name: str, data: bytes) -> bytes | None:
    """Returns a small file of the same format; None where there is no way to make one."""
    if name.lower().endswith(".gz"):
        inner = shrunken(name[:-3], gzip.decompress(data))
        return None if inner is None else gzip.compress(inner, mtime=0)
    shrink = _SHRINK.get(suffix(Path(name)))
    return None if shrink is None else shrink(data)


def _lines(data: bytes) -> bytes:
    return b"".join(data.splitlines(keepends=True)[:LINES])


def _pdb(data: bytes) -> bytes:
    wanted = (b"HEADER", b"TITLE", b"COMPND", b"SEQRES", b"DBREF")
    lines = data.splitlines(keepends=True)
    atoms = [line for line in lines if line.startswith(b"ATOM")]
    return b"".join([line for line in lines if line.startswith(wanted)] + atoms[:60]) + b"END\n"


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
    ".pdb": _pdb,
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
    return Seed(
        modality="omics", name=path.name, data=path.read_bytes(), options={**copy.deepcopy(options), "timeout_s": 10}
    )


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


def small() -> Iterator[Seed]:
    """Yields formats of which no real file is at hand, in their smallest form."""
    for modality, name, text, options in _SMALL:
        yield Seed(modality=modality, name=name, data=text.strip().encode() + b"\n", options=options)


_TMX = """<?xml version="1.0"?><tmx version="1.4"><header srclang="en"/><body>
<tu><tuv xml:lang="en"><seg>The heart pumps blood.</seg></tuv>
<tuv xml:lang="ko"><seg>심장은 혈액을 보낸다.</seg></tuv></tu>
<tu><tuv xml:lang="en"><seg>Fever</seg></tuv><tuv xml:lang="ko"><seg>열</seg></tuv></tu></body></tmx>"""
_PUBMED = """<?xml version="1.0"?>
<PubmedArticleSet><PubmedArticle><MedlineCitation><PMID>1</PMID><DateRevised><Year>2020
</Year><Month>01</Month><Day>02</Day></DateRevised><Article><Journal><JournalIssue><PubDate><Year>2019</Year></PubDate>
</JournalIssue><Title>J</Title></Journal><ArticleTitle>On fever</ArticleTitle><Abstract><AbstractText Label="AIM">To
know.</AbstractText><AbstractText>Fever falls.</AbstractText></Abstract><Language>eng</Language></Article>
<MeshHeadingList><MeshHeading><DescriptorName>Fever</DescriptorName></MeshHeading></MeshHeadingList></MedlineCitation></PubmedArticle>
</PubmedArticleSet>"""
_NDJSON = """
{"resourceType": "Patient", "id": "p1", "gender": "female", "birthDate": "1970-02-03"}
{"resourceType": "Condition", "id": "c1", "subject": {"reference": "Patient/p1"}, "onsetDateTime": "2001-05-06", \
"code": {"coding": [{"system": "http://snomed.info/sct", "code": "386661006", "display": "Fever"}]}}
{"resourceType": "Observation", "id": "o1", "status": "final", "subject": {"reference": "Patient/p1"}, \
"effectiveDateTime": "2001-05-06", "code": {"text": "Body temperature"}, \
"valueQuantity": {"value": 39.1, "unit": "Cel"}}
"""
_MOL = """
water
  made

  0  0  0     0  0            999 V3000
M  V30 BEGIN CTAB
M  V30 COUNTS 2 1 0 0 0
M  V30 BEGIN ATOM
M  V30 1 C 0 0 0 0
M  V30 2 O 1.2 0 0 0
M  V30 END ATOM
M  V30 BEGIN BOND
M  V30 1 1 1 2
M  V30 END BOND
M  V30 END CTAB
M  END
> <logS>
-0.77

$$$$
"""
_CIF = """
data_1ABC
loop_
_pdbx_poly_seq_scheme.asym_id
_pdbx_poly_seq_scheme.entity_id
_pdbx_poly_seq_scheme.seq_id
_pdbx_poly_seq_scheme.mon_id
_pdbx_poly_seq_scheme.pdb_strand_id
A 1 1 MET A
A 1 2 LYS A
A 1 3 THR A
#
"""
_DATASET = """
{"datasetJSONVersion": "1.1.0", "itemGroupOID": "IG.DM", "name": "DM", "label": "Demographics", "records": 1, "columns":
[{"itemOID": "IT.STUDYID", "name": "STUDYID", "label": "Study", "dataType": "string"},
{"itemOID": "IT.USUBJID", "name": "USUBJID", "label": "Subject", "dataType": "string"},
{"itemOID": "IT.AGE", "name": "AGE", "label": "Age", "dataType": "integer"}], "rows": [["S1", "S1-01", 63]]}
"""
_TOPICS = "<topics task='2021'><topic number='1'>A 45-year-old man with fever and cough for two weeks.</topic></topics>"
_GUIDE = "# 고혈압 진료지침\n\n## 1. 진단\n\n혈압을 두 번 잰다. (권고등급 A)\n\n## 2. 치료\n\n약을 쓴다.\n"
_ICD = "<ICD10CM.tabular><diag><name>A00</name><desc>Cholera</desc></diag></ICD10CM.tabular>"
_DMS = "mutant,mutated_sequence,DMS_score\nK2R,MRTAYIAKQR,0.5\nT3S,MKSAYIAKQR,-1.25\n"
_SMALL: list[tuple[str, str, str, dict[str, Any]]] = [
    ("text", "pairs.tmx", _TMX, {}),
    ("text", "icd.xml", _ICD, {}),
    ("literature", "set.xml", _PUBMED, {}),
    ("patient", "bulk.ndjson", _NDJSON, {}),
    ("molecule", "new.sdf", _MOL, {"tasks": "all"}),
    ("molecule", "names.smi", "CCO ethanol\n[Na+].[Cl-] salt\nC[C@H](N)C(=O)O alanine", {}),
    ("protein", "one.cif", _CIF, {}),
    ("protein", "dms.csv", _DMS, {}),
    ("protein", "gene.fna", ">g1 a gene\nATGGCCATTGTAATGGGCCGC\n", {"alphabet": "dna"}),
    ("trial", "dm.json", _DATASET, {}),
    ("trial", "topics.xml", _TOPICS, {}),
    ("guideline", "guide.md", _GUIDE, {"language": "ko"}),
]

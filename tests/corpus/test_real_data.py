"""Real data of many origins, read in the format it came in: what is there is found, what is bad is counted."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corpus.modality import SourceError

Read = Callable[..., Any]
SHARED = "../shared/data"
YES = {"0": "no", "1": "yes"}
CASES: dict[str, tuple[str, dict[str, Any], int, dict[str, int]]] = {
    # file: modality, options, records, rejects
    "molecules/tox21.csv": (
        "molecule",
        {"properties": {"p53": {"column": "SR-p53", "values": YES}}},
        7823,
        {"impossible": 8},
    ),
    "molecules/delaney.csv": ("molecule", {"properties": {"log solubility": "logp"}}, 1128, {}),
    "molecules/BBBP.csv": ("molecule", {"properties": {"barrier": {"column": "p_np", "values": YES}}}, 2039, {}),
    "molecules/chembl_approved_drugs.parquet": ("molecule", {"properties": {"drug": "pref_name"}}, 2628, {}),
    "molecules/solubility.train.sdf": ("molecule", {"properties": {"class": "SOL_classification"}}, 1025, {}),
    "proteins/P62593.fasta": (
        "protein",
        {"header_pattern": r"\|(?P<score>[-.\d]+)$", "properties": {"s": "score"}},
        5397,
        {},
    ),
    "proteins/DMS_substitutions.csv": ("protein", {"properties": {"organism": "source_organism"}}, 217, {}),
    "omics/pbmc_5k_protein_v3.h5ad": ("omics", {}, 200, {}),
    "omics/10x_pbmc68k_reduced.zarr.zip": ("omics", {}, 0, {"negative": 700}),  # it holds only the scaled matrix
    "clinical_trials/pharmaverseadam_adsl.csv": (
        "trial",
        {"study": "CDISC pilot", "group": "USUBJID", "fields": {"age": "AGE"}, "outcome": {"end": "EOSSTT"}},
        254,
        {"no_outcome": 52},
    ),
    "clinical_trials/ACTG175.csv": (
        "trial",
        {"study": "ACTG 175", "group": "pidnum", "fields": {"age": "age", "CD4": "cd40"}, "outcome": {"event": "cens"}},
        2139,
        {},
    ),
    "federated/heart_disease/processed.hungarian.data": (
        "trial",
        {"study": "H", "header": False, "missing": ["?"], "fields": {"age": 0, "vessels": 11}, "outcome": {"ill": 13}},
        294,
        {},
    ),
    "federated/heart_disease/heart-disease.names": ("text", {"whole": True}, 1, {}),
    "literature_qa/medquad_5_NIDDK_QA.jsonl": ("literature", {}, 1192, {}),
    "literature_qa/medmcqa_dev_part.jsonl": ("literature", {}, 3067, {}),
    "literature_qa/evidence_inference_dev_articles.jsonl": ("literature", {}, 60, {}),
    "literature_qa/evidence_inference_dev_annotations.jsonl": ("literature", {}, 226, {"not_valid": 31}),
    "literature_qa/rct_adalimumab.jsonl": ("literature", {}, 7, {}),
    "literature_qa/pubmedqa_pqal_dev.json": ("literature", {}, 500, {}),
    "literature_qa/ner_BC5CDR-IOB_test.tsv": ("literature", {}, 4797, {}),
}


@pytest.mark.parametrize("path", CASES)
def test_shared_data_is_read(path: str, read: Read, real: Callable[[str], Path]) -> None:
    name, options, records, rejects = CASES[path]
    found = read(name, real(f"{SHARED}/{path}"), **options)
    assert (len(found.records), dict(Counter(found.codes()))) == (records, rejects)


@pytest.mark.parametrize(
    ("path", "name", "message"),
    [
        ("proteins/avgfp.tsv", "protein", r"must have sequences, or mutations .*, but has only mutations \(variant\)"),
        ("drug_labels/humira.xml", "text", "must be an ICD-10-CM tabular list, but is <document>; use another format"),
        ("literature_qa/efetch_citation_22663011.xml", "text", "must be XML without a document type, but declares one"),
        ("drug_labels/sections.csv", "molecule", "must have a column molblock, smiles, canonicalsmiles or so"),
    ],
)
def test_what_a_modality_cannot_read_is_one_line(
    path: str, name: str, message: str, read: Read, real: Callable[[str], Path]
) -> None:
    with pytest.raises(SourceError, match=message):
        read(name, real(f"{SHARED}/{path}"))


def test_the_demo_cells_are_read_whole(read: Read, real: Callable[[str], Path]) -> None:
    path = real(".demo-data/scanpy/datasets/10x_pbmc68k_reduced.h5ad")
    found = read("omics", path, top_genes=48, properties={"cell type": "bulk_labels"})
    assert (len(found.records), found.rejects, found.notes[0].text) == (700, [], "700 cells x 765 genes of raw")
    assert {len(record.content["genes"]) for record in found.records} == {48}


def test_the_demo_classification_is_read_whole(read: Read, real: Callable[[str], Path]) -> None:
    found = read("text", real(".demo-data/simple_icd_10_cm/data/icd10c-tabular-April-1-2026.xml"))
    assert (len(found.records), found.rejects) == (1918, [])
    assert found.records[0].content["text"].startswith("A00 Cholera\nA00.0 Cholera due to Vibrio cholerae 01")

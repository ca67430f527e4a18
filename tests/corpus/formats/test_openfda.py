"""openFDA: labels, products, applications, recalls and safety reports, in every shape of file."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corpus.modality import SourceError

Read = Callable[..., Any]

LABEL = {
    "set_id": "AB-1",
    "id": "x",
    "version": "3",
    "effective_time": "20240102",
    "indications_and_usage": ["Pain.", "Fever."],
    "adverse_reactions_table": ["<table/>"],
    "some_new_field": ["Text."],
    "openfda": {"brand_name": ["Zolgin"], "unii": ["AAA"], "rxcui": ["1", "2"], "route": ["ORAL", "ORAL"]},
}
PRODUCT = {
    "product_ndc": "1-2",
    "brand_name": "Zolgin",
    "active_ingredients": [{"name": "ZOLGINOL", "strength": "5 mg/1"}],
    "packaging": [{"package_ndc": "1-2-3"}],
    "pharm_class": ["A [EPC]", "B [MoA]"],
}
APPLICATION = {
    "application_number": "NDA1",
    "sponsor_name": "ACME",
    "products": [{"brand_name": "Z", "active_ingredients": [{"name": "ZOLGINOL", "strength": "5MG"}], "route": "ORAL"}],
    "submissions": [{"submission_type": "ORIG", "submission_number": "1", "submission_status_date": "20200304"}],
}
RECALL = {"recall_number": "D-1", "reason_for_recall": "Mould.", "product_description": "Z", "report_date": "202001"}
REPORT = {
    "safetyreportid": "10-2",
    "receivedate": "20050127",
    "serious": "1",
    "seriousnessdeath": "1",
    "occurcountry": "KR",
    "primarysource": {"qualification": "1"},
    "patient": {
        "patientsex": "2",
        "patientonsetage": "62",
        "patientonsetageunit": "801",
        "drug": [
            {
                "medicinalproduct": "VIOXX",
                "drugcharacterization": "1",
                "drugadministrationroute": "048",
                "drugindication": "PAIN",
                "drugstartdate": "20000918",
                "drugenddate": "200105",
                "actiondrug": "1",
                "activesubstance": {"activesubstancename": "ROFECOXIB"},
            },
            {"drugadministrationroute": "048"},
        ],
        "reaction": [{"reactionmeddrapt": "NAUSEA", "reactionoutcome": "5"}],
    },
}


def _write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value, indent=1))
    return path


def test_a_download_with_results_of_every_kind(tmp_path: Path, read: Read) -> None:
    download = {
        "meta": {"results": {"total": 5}},
        "results": [LABEL, PRODUCT, APPLICATION, RECALL, REPORT, {"a": 1}, 5],
    }
    found = read("drug", _write(tmp_path / "a.json", download))
    label, product, application, recall, report = found.records
    assert label.content == {
        "facts": {
            "name": "Zolgin",
            "route": "ORAL",
            "UNII": "AAA",
            "RxCUI": "1; 2",
            "set id": "AB-1",
            "version": "3",
            "effective": "2024-01-02",
        },
        "sections": [["Indications & Usage [34067-9]", "Pain.\nFever."], ["Some new field", "Text."]],
    }
    assert (label.ids, label.language) == (("spl:ab-1", "unii:AAA", "rxcui:1", "rxcui:2"), "en")
    assert product.content["facts"]["active ingredients"] == "ZOLGINOL 5 mg/1"
    assert (product.ids, product.language) == (("ndc:1-2",), None)
    assert application.content["sections"] == [
        ["Products", "Z, ORAL, ZOLGINOL 5MG"],
        ["Submissions", "2020-03-04 ORIG 1"],
    ]
    assert recall.content["facts"] == {"kind": "recall", "recall": "D-1", "started": "2020-01"}
    assert report.content == {
        "facts": {
            "kind": "adverse event report",
            "report": "10-2",
            "received": "2005-01-27",
            "country": "KR",
            "reporter": "physician",
            "serious": "yes (death)",
            "patient": "female, 62 years",
        },
        "sections": [
            ["Drugs", "- VIOXX (ROFECOXIB): suspect, oral, for PAIN, 2000-09-18 to 2001-05, withdrawn"],
            ["Reactions", "- NAUSEA: fatal"],
        ],
    }
    assert (report.ids, report.group, report.date) == (("faers:10-2",), "faers:10", "2005-01-27")
    assert [(item.where, item.code) for item in found.rejects] == [
        ("item 5", "unknown_shape"),
        ("item 6", "unknown_shape"),
    ]
    assert "but has a" in found.rejects[0].reason
    assert "must be an object, but is int" in found.rejects[1].reason


@pytest.mark.parametrize("shape", ["lines", "one line", "list", "alone", "gzip", "empty results"])
def test_every_shape_of_file(tmp_path: Path, read: Read, shape: str) -> None:
    path = tmp_path / "a.json"
    lines = f"{json.dumps(PRODUCT)}\n\n{json.dumps(LABEL)}\n"
    texts = {
        "lines": lines,
        "one line": json.dumps({"results": [PRODUCT, LABEL]}),
        "list": json.dumps([PRODUCT, LABEL], indent=1),
        "alone": json.dumps(PRODUCT, indent=1),
        "gzip": "",
        "empty results": json.dumps({"results": []}, indent=1),
    }
    path.write_text(texts[shape])
    if shape == "gzip":
        path = tmp_path / "a.jsonl.gz"
        path.write_bytes(gzip.compress(lines.encode()))
    counts = {"alone": 1, "empty results": 0}
    assert len(read("drug", path).records) == counts.get(shape, 2)


def test_keys_of_old_recalls_have_dashes(tmp_path: Path, read: Read) -> None:
    old = {"reason-for-recall": "Mould.", "product-description": "Z", "recalling-firm": "ACME"}
    (record,) = read("drug", _write(tmp_path / "a.json", old)).records
    assert record.content == {
        "facts": {"kind": "recall", "firm": "ACME"},
        "sections": [["Product", "Z"], ["Reason", "Mould."]],
    }


def test_bad_lines_and_bad_files(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.jsonl"
    twice = '{"set_id": "a", "set_id": "b"}'
    surrogate = '{"set_id": "\\ud800", "effective_time": "2020", "purpose": ["x"]}'
    no_reaction = '{"patient": {"drug": [{"medicinalproduct": "x"}], "reaction": []}}'
    path.write_text("\n".join([json.dumps(LABEL), twice, "{", surrogate, no_reaction]))
    assert read("drug", path).codes() == ["bad_json", "bad_json", "not_unicode", "no_reaction"]
    path.write_text("no json")
    with pytest.raises(SourceError, match="must be JSON"):
        read("drug", path)
    path.write_text('{"results": [{"set_id": "a"},\n {"set_id": "b"}')
    with pytest.raises(SourceError, match="must be JSON"):
        read("drug", path)
    path.write_text('{"effective_time": "2020",\n "purpose": {"a": 1, "a": 2}}')
    assert read("drug", path).codes() == ["bad_json"]


def test_chosen_sections(tmp_path: Path, read: Read) -> None:
    (record,) = read("drug", _write(tmp_path / "a.json", LABEL), sections=["34067-9"]).records
    assert [title for title, _ in record.content["sections"]] == ["Indications & Usage [34067-9]"]


@pytest.mark.parametrize(("name", "records"), [("event.preannotation.json", 1), ("harmonized.small.json", 500)])
def test_the_shared_files(name: str, records: int, read: Read, real: Callable[[str], Path]) -> None:
    found = read("drug", real(f"../shared/data/drug_labels/{name}"))
    assert (len(found.records), found.rejects) == (records, [])

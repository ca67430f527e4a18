"""Guidelines: CPIC answers, FHIR plans, and texts with headings."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corpus.modality import SourceError

Read = Callable[..., Any]
RECOMMENDATION: dict[str, Any] = {
    "recommendationid": 8350912,
    "lookupkey": {"CYP2D6": "0.25", "CYP2C19": "Intermediate Metabolizer", "HLA-B": "*57:01 positive"},
    "drugname": "amitriptyline",
    "guidelinename": "CYP2D6, CYP2C19 and Tricyclic Antidepressants",
    "guidelineurl": "https://www.clinpgx.org/guideline/PA166251445",
    "implications": {"CYP2D6": "Reduced metabolism", "CYP2C19": "n/a"},
    "drugrecommendation": "Consider a 25% reduction.",
    "classification": "Optional",
    "phenotypes": {"CYP2D6": "Intermediate Metabolizer", "CYP2C19": "Intermediate Metabolizer"},
    "activityscore": {"CYP2D6": "0.25", "CYP2C19": "n/a"},
    "population": "general",
    "comments": "n/a",
}
PLAN: dict[str, Any] = {
    "resourceType": "PlanDefinition",
    "id": "opioid-1",
    "url": "http://example.org/PlanDefinition/opioid-1",
    "title": "Recommendation 1",
    "status": "draft",
    "date": "2025-08-06",
    "publisher": "CDC",
    "purpose": "To help.",
    "relatedArtifact": [
        {"type": "documentation", "display": "The guideline", "url": "https://cdc.gov/g"},
        {"type": "depends-on", "resource": "http://example.org/Library/x"},
    ],
    "action": [
        {
            "extension": [
                {
                    "url": "http://hl7.org/fhir/StructureDefinition/cqf-strengthOfRecommendation",
                    "valueCodeableConcept": {"coding": [{"code": "weak", "display": "Weak"}]},
                }
            ],
            "title": "Consider nonopioids",
            "description": "Maximize their use.",
            "condition": [
                {
                    "kind": "applicability",
                    "expression": {"description": "The patient is naive", "language": "text/cql", "expression": "X"},
                }
            ],
            "action": [{"description": "Order alternatives"}, {"title": "Snooze", "description": "3 months"}],
        }
    ],
}


def written(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def test_a_recommendation_keeps_genotype_advice_and_strength(tmp_path: Path, read: Read) -> None:
    record = read("guideline", written(tmp_path / "a.json", [RECOMMENDATION])).records[0]
    assert record.content == {
        "facts": {
            "drug": "amitriptyline",
            "guideline": "CYP2D6, CYP2C19 and Tricyclic Antidepressants",
            "CYP2D6": "Intermediate Metabolizer, activity score 0.25",
            "CYP2C19": "Intermediate Metabolizer",
            "HLA-B": "*57:01 positive",
            "population": "general",
        },
        "sections": [
            ["Implications", "CYP2D6: Reduced metabolism"],
            ["Recommendation", "Consider a 25% reduction."],
            ["Strength of recommendation", "Optional"],
        ],
    }
    assert record.offsets == (1, (tmp_path / "a.json").stat().st_size - 1)
    assert (record.ids, record.where) == (("cpic-recommendation:8350912", "clinpgx:PA166251445"), "item 0")


def test_other_answers_of_cpic_are_read(tmp_path: Path, read: Read) -> None:
    answers = [
        {"guideline_name": "A and B", "guideline_url": "x", "drugs": ["b"], "genes": [{"url": "x", "symbol": "A"}]},
        {"pairid": 1, "genesymbol": "A", "drugname": "b", "cpiclevel": "A", "pmids": ["1", "2"], "pgxtesting": None},
        {"genesymbol": "A", "name": "*4", "population_group": "East Asian", "subjectcount": 21, "freq_avg": 0.0036285},
        {"genesymbol": "A", "name": "*5", "population_group": "East Asian", "subjectcount": 21, "freq_avg": None},
        {"drugrecommendation": "n/a"},
        {"drugname": "b"},
        ["no object"],
    ]
    found = read("guideline", written(tmp_path / "a.json", answers))
    assert [record.content["facts"] for record in found.records] == [
        {"guideline": "A and B", "genes": "A", "drugs": "b", "url": "x"},
        {"gene": "A", "drug": "b", "CPIC level": "A", "citations": "pmid:1, pmid:2"},
        {"gene": "A", "allele": "*4", "population": "East Asian", "subjects": "21", "mean frequency": "0.003629"},
    ]
    assert [(item.where, item.code, item.reason) for item in found.rejects] == [
        ("item 3", "no_value", "must have a frequency, but all are missing"),
        ("item 4", "no_recommendation", "must have a drugrecommendation, but it is missing"),
        ("item 5", "no_guideline", "must be a CPIC answer, a FHIR resource or a text, but has the keys drugname"),
        ("item 6", "no_guideline", "must be a CPIC answer, a FHIR resource or a text, but list"),
    ]


def test_a_plan_keeps_actions_conditions_and_citations(tmp_path: Path, read: Read) -> None:
    record = read("guideline", written(tmp_path / "a.json", PLAN)).records[0]
    assert record.content == {
        "facts": {"title": "Recommendation 1", "kind": "PlanDefinition", "status": "draft", "publisher": "CDC"},
        "sections": [
            ["Purpose", "To help."],
            [
                "Action 1: Consider nonopioids",
                (
                    "Maximize their use.\nStrength of recommendation: Weak\n"
                    "Condition (applicability): The patient is naive\n  - Order alternatives\n  - Snooze: 3 months"
                ),
            ],
            ["Documentation", "The guideline https://cdc.gov/g"],
        ],
    }
    assert (record.date, record.language, record.ids) == ("2025-08-06", "en", (f"fhir:{PLAN['url']}",))


def test_a_bundle_gives_one_record_for_each_resource_of_knowledge(tmp_path: Path, read: Read) -> None:
    library = {
        "resourceType": "Library",
        "id": "l1",
        "status": "active",
        "title": "진료지침",
        "type": {"text": "logic-library"},
        "content": [{"contentType": "text/plain", "data": base64.b64encode("혈압을 잽니다.".encode()).decode()}],
    }
    asked = {
        "resourceType": "Questionnaire",
        "id": "q1",
        "status": "active",
        "title": "PHQ-2",
        "language": "en-US",
        "item": [
            {
                "linkId": "1",
                "text": "Little interest?",
                "type": "group",
                "item": [{"linkId": "1.1", "type": "boolean", "text": "Now?"}],
            }
        ],
    }
    broken = {**PLAN, "id": "broken", "action": "none"}
    patient = {"resourceType": "Patient", "id": "p"}
    entries = [{"resource": resource} for resource in (library, asked, broken, patient)]
    found = read(
        "guideline", written(tmp_path / "a.json", {"resourceType": "Bundle", "type": "collection", "entry": entries})
    )
    assert [(record.language, record.content["sections"]) for record in found.records] == [
        ("ko", [["Text", "혈압을 잽니다."]]),
        ("en", [["Questions", "1 Little interest?\n  1.1 Now?"]]),
    ]
    assert [(item.where, item.code) for item in found.rejects] == [("document, PlanDefinition/broken", "not_fhir")]
    assert [note.text for note in found.notes] == ["document: resources of Patient are no guidelines and left out"]


def test_lines_are_read_one_by_one(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.ndjson"
    deep: dict[str, Any] = {"title": "x"}
    for _ in range(20):
        deep = {"title": "x", "action": [deep]}
    row = {"id": "9", "title": "Asthma", "source": "cma", "clean_text": "# Aims\nTo help.\n\n# Advice\nRest."}
    lines = [json.dumps(PLAN), "{", json.dumps({"resourceType": "Patient"}), json.dumps({**PLAN, "action": [deep]})]
    path.write_text("\n".join([*lines, json.dumps(row), ""]))
    found = read("guideline", path)
    assert [record.content["facts"]["title"] for record in found.records] == ["Recommendation 1", "Asthma"]
    assert found.records[1].content["sections"] == [["Aims", "To help."], ["Advice", "Rest."]]
    assert [(item.where, item.code) for item in found.rejects] == [
        ("line 2", "bad_json"),
        ("line 3", "no_guideline"),
        ("line 4", "too_deep"),
    ]


def test_a_text_is_cut_in_sections(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.md"
    path.write_text(
        "---\ntitle: 고혈압 진료지침\ndate: 2022-05\n---\n"
        "# 1. 개요\n\n혈압을 잽니다 (권고등급 1A).\x0c## 2. 치료\n약을 씁니다.\n"
    )
    record = read("guideline", path).records[0]
    assert record.content == {
        "facts": {"title": "고혈압 진료지침"},
        "sections": [["1. 개요", "혈압을 잽니다 (권고등급 1A)."], ["2. 치료", "약을 씁니다."]],
    }
    assert (record.language, record.date) == ("ko", "2022-05")
    plain = tmp_path / "b.txt"
    plain.write_bytes("Asthma in adults\n\n1. Aims\n\nTo help.\n".encode("utf-8-sig"))
    given = read("guideline", plain, date="2020").records[0]
    assert given.content == {
        "facts": {"title": "Asthma in adults"},
        "sections": [["", "Asthma in adults"], ["1. Aims", "To help."]],
    }
    assert given.date == "2020"


def test_a_table_of_texts_is_read(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text("title,text,date\nAsthma,Rest.,2021-03-04\nOther,,\n")
    found = read("guideline", path)
    assert [(record.content["facts"]["title"], record.date) for record in found.records] == [("Asthma", "2021-03-04")]
    assert [(item.where, item.code, item.reason) for item in found.rejects] == [
        ("line 3", "empty", "must hold text, but is empty")
    ]


@pytest.mark.parametrize(
    "page", ["<!DOCTYPE html><html>", "<?xml version='1.0'?>\n<html lang='en'>", "<!-- x --> <HTML>"]
)
@pytest.mark.parametrize("name", ["a.txt", "a.json"])
def test_a_page_is_refused_with_one_line(page: str, name: str, tmp_path: Path, read: Read) -> None:
    path = tmp_path / name
    path.write_text(f"{page}<body>NICE</body></html>")
    with pytest.raises(SourceError, match="must be text, markdown or JSON, but is an HTML page; save its text"):
        read("guideline", path)


def test_damage_is_refused(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"drugrecommendation": "x"')
    with pytest.raises(SourceError, match="must "):
        read("guideline", path)
    bad = {
        "resourceType": "Library",
        "status": "active",
        "title": "x",
        "content": [{"contentType": "text/plain", "data": "!"}],
    }
    assert read("guideline", written(tmp_path / "b.json", bad)).codes() in (["bad_attachment"], ["not_fhir"])


@pytest.mark.parametrize(
    ("path", "records"),
    [
        ("guideline_cyp2d6_20260803.json", 7),
        ("recommendation_cyp2d6_20260803.json", 50),
        ("opioidcds-01.json", 1),
        ("opioidcds-02.json", 1),
        ("opioidcds-03.json", 1),
        ("opioidcds-06.json", 1),
        ("opioidcds-07.json", 1),
    ],
)
def test_real_guidelines_are_read_whole(path: str, records: int, read: Read, real: Callable[[str], Path]) -> None:
    found = read("guideline", real(f"../shared/data/guidelines/{path}"))
    assert (len(found.records), found.rejects) == (records, [])

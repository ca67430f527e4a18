"""Registered trials: one writer for the forms of all registries' files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corpus.formats.eligibility import split, unescaped
from corpus.formats.registry import words
from corpus.modality import SourceError

Read = Callable[..., Any]
STUDY = {
    "protocolSection": {
        "identificationModule": {"nctId": "NCT00000001", "briefTitle": "A trial", "nctIdAliases": ["NCT00000009"]},
        "statusModule": {
            "overallStatus": "NOT_YET_RECRUITING",
            "startDateStruct": {"date": "2020-05"},
            "lastUpdatePostDateStruct": {"date": "2021-02-03"},
        },
        "conditionsModule": {"conditions": ["Pain", "Fever"]},
        "designModule": {
            "studyType": "INTERVENTIONAL",
            "phases": ["PHASE1", "PHASE2"],
            "designInfo": {
                "allocation": "RANDOMIZED",
                "maskingInfo": {"masking": "DOUBLE", "whoMasked": ["PARTICIPANT"]},
            },
            "enrollmentInfo": {"count": 20, "type": "ESTIMATED"},
        },
        "armsInterventionsModule": {
            "armGroups": [{"label": "Drug", "type": "EXPERIMENTAL", "description": "daily\n dose"}],
            "interventions": [{"type": "DRUG", "name": "X", "otherNames": ["Y"], "description": "oral"}],
        },
        "outcomesModule": {"primaryOutcomes": [{"measure": "Pain", "timeFrame": "1 week"}]},
        "eligibilityModule": {
            "eligibilityCriteria": "Inclusion Criteria:\n\n* age \\>= 18\n\nExclusion Criteria:\n\n* none",
            "sex": "ALL",
            "minimumAge": "18 Years",
            "healthyVolunteers": False,
        },
        "contactsLocationsModule": {
            "overallOfficials": [{"name": "Ann Other"}],
            "locations": [{"country": "Korea", "contacts": [{"phone": "010-1234-5678"}]}, {"country": "Korea"}],
        },
    },
    "resultsSection": {
        "participantFlowModule": {
            "groups": [{"id": "FG000", "title": "Drug"}],
            "periods": [
                {
                    "title": "Overall",
                    "milestones": [{"type": "STARTED", "achievements": [{"groupId": "FG000", "numSubjects": "20"}]}],
                }
            ],
        },
        "outcomeMeasuresModule": {
            "outcomeMeasures": [
                {
                    "type": "PRIMARY",
                    "title": "Pain",
                    "unitOfMeasure": "mm",
                    "paramType": "MEAN",
                    "groups": [{"id": "OG000", "title": "Drug"}, {"id": "OG001", "title": "Sugar"}],
                    "classes": [
                        {
                            "categories": [
                                {
                                    "measurements": [
                                        {"groupId": "OG000", "value": "3", "spread": "1"},
                                        {"groupId": "OG001", "value": "5"},
                                    ]
                                }
                            ]
                        }
                    ],
                    "analyses": [{"groupIds": ["OG000", "OG001"], "pValue": "0.01", "statisticalMethod": "t-test"}],
                }
            ]
        },
        "adverseEventsModule": {
            "eventGroups": [{"id": "EG000", "title": "Drug", "seriousNumAffected": 1, "seriousNumAtRisk": 20}],
            "seriousEvents": [
                {"term": "Rash", "organSystem": "Skin", "stats": [{"groupId": "EG000", "numAffected": 1}]}
            ],
        },
    },
}
SECTIONS = [
    ["Arms", "- Drug (experimental): daily dose"],
    ["Interventions", "- X (drug), also Y: oral"],
    ["Primary outcomes", "- Pain [1 week]"],
    ["Inclusion criteria", "* age >= 18"],
    ["Exclusion criteria", "* none"],
    ["Results: participant flow", "Overall, started: Drug 20"],
    [
        "Results: primary outcome",
        "Pain\nValue (mean, mm): Drug 3 (1); Sugar 5\nAnalysis of Drug against Sugar: t-test, p 0.01",
    ],
    ["Results: adverse events", "Drug: serious events 1 of 20\nserious: Rash (Skin): Drug 1"],
]
FACTS = {
    "trial": "NCT00000001",
    "title": "A trial",
    "conditions": "Pain; Fever",
    "kind of study": "interventional",
    "phase": "phase 1; phase 2",
    "allocation": "randomized",
    "masking": "double (participant)",
    "enrollment": "20 (estimated)",
    "status": "not yet recruiting",
    "start": "2020-05",
    "sex": "all",
    "ages": "from 18 Years",
    "healthy volunteers": "no",
    "countries": "Korea",
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a.json", STUDY),
        ("a.json", [STUDY]),
        ("a.json", {"totalCount": 1, "studies": [STUDY], "nextPageToken": "x"}),
        ("a.jsonl", STUDY),
        ("a.jsonl", {"studies": [STUDY]}),
    ],
)
def test_a_study_is_found_in_any_holder(tmp_path: Path, read: Read, name: str, value: Any) -> None:
    path = tmp_path / name
    path.write_text(json.dumps(value))
    (record,) = read("trial", path).records
    assert record.content == {"facts": FACTS, "sections": SECTIONS}
    assert record.ids == ("nct:NCT00000001", "nct:NCT00000009")
    assert (record.date, record.language, record.group) == ("2021-02-03", "en", "nct:NCT00000001")


def test_the_old_forms_say_the_same(tmp_path: Path, read: Read) -> None:
    old = {
        "Study": {
            "ProtocolSection": {
                "IdentificationModule": {"NCTId": "NCT00000001", "BriefTitle": "A trial"},
                "StatusModule": {"StartDateStruct": {"StartDate": "May 2020"}},
                "ConditionsModule": {"ConditionList": {"Condition": ["Pain", "Fever"]}},
                "DesignModule": {
                    "DesignInfo": {"DesignMaskingInfo": {"DesignMasking": "Double"}},
                    "EnrollmentInfo": {"EnrollmentCount": "20"},
                },
                "ArmsInterventionsModule": {
                    "ArmGroupList": {"ArmGroup": [{"ArmGroupLabel": "Drug", "ArmGroupDescription": "daily"}]}
                },
                "OutcomesModule": {
                    "PrimaryOutcomeList": {
                        "PrimaryOutcome": [{"PrimaryOutcomeMeasure": "Pain", "PrimaryOutcomeTimeFrame": "1 week"}]
                    }
                },
                "EligibilityModule": {"Gender": "All", "EligibilityCriteria": "none"},
            }
        }
    }
    (tmp_path / "a.json").write_text(json.dumps({"FullStudiesResponse": {"FullStudies": [old]}}))
    written = """<clinical_study><id_info><nct_id>NCT00000001</nct_id></id_info><brief_title>A trial</brief_title>
        <condition>Pain</condition><condition>Fever</condition><start_date>May 2020</start_date>
        <enrollment>20</enrollment>
        <study_design_info><masking>Double</masking></study_design_info><arm_group><arm_group_label>Drug</arm_group_label>
        <description>daily</description></arm_group><primary_outcome><measure>Pain</measure>
        <time_frame>1 week</time_frame></primary_outcome><eligibility><gender>All</gender><criteria><textblock>
            none
        </textblock></criteria></eligibility></clinical_study>"""
    (tmp_path / "a.xml").write_text(written)
    records = [read("trial", tmp_path / name).records[0] for name in ("a.json", "a.xml")]
    assert records[0].content == records[1].content
    assert records[0].content["sections"] == [
        ["Arms", "- Drug: daily"],
        ["Primary outcomes", "- Pain [1 week]"],
        ["Eligibility", "none"],
    ]
    assert records[0].content["facts"]["masking"] == "Double"
    assert [record.date for record in records] == ["2020-05", "2020-05"]


def test_fields_of_the_old_search(tmp_path: Path, read: Read) -> None:
    item = {
        "NCTId": ["NCT00000001"],
        "BriefTitle": ["A trial"],
        "Condition": ["Pain"],
        "Gender": [],
        "Phase": ["Phase 2"],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"StudyFieldsResponse": {"StudyFields": [item]}}))
    (record,) = read("trial", path).records
    assert record.content["facts"] == {
        "trial": "NCT00000001",
        "title": "A trial",
        "conditions": "Pain",
        "phase": "Phase 2",
    }


def test_nci_keeps_criteria_and_leaves_people_out(tmp_path: Path, read: Read) -> None:
    trial = {
        "nct_id": "NCT00000002",
        "brief_title": "B",
        "phase": "I_II",
        "principal_investigator": "Ann Other",
        "central_contact": {"central_contact_phone": "1"},
        "diseases": [{"name": "Pain", "is_lead_disease": True}, {"name": "Ache"}],
        "eligibility": {
            "structured": {"min_age": "18 Years", "max_age": "999 Years", "sex": "ALL"},
            "unstructured": [
                {"inclusion_indicator": False, "display_order": 2, "description": "no\r\n pain"},
                {"inclusion_indicator": True, "display_order": 1, "description": "adult"},
            ],
        },
        "outcome_measures": [{"name": "Pain", "timeframe": "1 week", "type_code": "PRIMARY"}],
        "arms": [{"name": "Arm", "interventions": [{"name": "X", "synonyms": ["Y"]}, {"name": "X"}]}],
        "sites": [{"org_country": "Korea", "contact_name": "Ann Other", "contact_phone": "1"}],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"total": 9, "data": [trial]}))
    (record,) = read("trial", path).records
    assert record.content["facts"] == {
        "trial": "NCT00000002",
        "title": "B",
        "conditions": "Pain",
        "phase": "Phase I; Phase II",
        "sex": "all",
        "ages": "from 18 Years",
        "countries": "Korea",
    }
    assert record.content["sections"] == [
        ["Arms", "- Arm"],
        ["Interventions", "- X"],
        ["Primary outcomes", "- Pain [1 week]"],
        ["Inclusion criteria", "* adult"],
        ["Exclusion criteria", "* no pain"],
    ]


@pytest.mark.parametrize(
    "heading",
    [
        "Exclusion Criteria:",
        "* Key Exclusion Criteria",
        "EXCLUSION",
        "Exclusion criteria for Part B:",
        "제외기준:",
        "[제외 기준]",
        "Cohort A: Exclusion criteria",
        "**Exclusion Criteria**",
        "Patients - Exclusion criteria:",
    ],
)
def test_headings_cut_eligibility(heading: str) -> None:
    assert split(f"Inclusion Criteria:\n1. old\n{heading}\n1. ill") == [
        ("Inclusion criteria", "1. old"),
        ("Exclusion criteria", "1. ill"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "1. Exclusion of pregnancy",
        "Patients who meet all of the inclusion criteria of another study",
        "Eligible for surgery",
        "Inclusion and exclusion criteria:",
    ],
)
def test_criteria_about_criteria_are_no_headings(line: str) -> None:
    assert split(f"First\n{line}\nlast") == [("Eligibility", f"First\n{line}\nlast")]


def test_criteria_in_one_line_and_escapes() -> None:
    assert split("Inclusion Criteria: a. Exclusion Criteria: b.") == [
        ("Inclusion criteria", "a."),
        ("Exclusion criteria", "b."),
    ]
    assert unescaped(r"\[HGG\] \>= 2 a\b") == r"[HGG] >= 2 a\b"
    assert (words("EARLY_PHASE1"), words("NA"), words("Phase II"), words(None)) == (
        "early phase 1",
        "na",
        "Phase II",
        "",
    )


def test_what_is_no_study_is_rejected(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"protocolSection": {}}, {"protocolSection": {"identificationModule": []}}, STUDY]))
    got = read("trial", path)
    assert (len(got.records), got.codes()) == (1, ["no_study", "no_study"])
    path.write_text("{}")
    with pytest.raises(SourceError, match="must hold a registered trial, but holds none; use another format"):
        read("trial", path, format="registry")


def test_real_trials(read: Read, real: Callable[[str], Path]) -> None:
    folder = "../shared/data/clinical_trials"
    counts = {"get_nct02576665_20260811": 1, "search_nsclc_egfr_l858r_20260811": 2, "search_melanoma": 1}
    for name, count in counts.items():
        got = read("trial", real(f"{folder}/{name}.json"))
        assert (len(got.records), got.rejects) == (count, []), name
        assert all(record.ids[0].startswith("nct:NCT") for record in got.records)

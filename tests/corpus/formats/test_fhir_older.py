"""FHIR of before R4: DSTU2 and STU3 tell the same history, and what was not done is not told as done."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corpus.formats.fhir_older import renewed

ME = {"reference": "Patient/p1"}
VISIT = {"reference": "Encounter/e1"}
DSTU2: list[dict[str, Any]] = [
    {
        "resourceType": "Patient",
        "id": "p1",
        "name": [{"family": ["Roe"], "given": ["Jane"]}],
        "birthDate": "1990-05-05T00:00:00Z",
        "extension": [
            {
                "url": "http://hl7.org/fhir/StructureDefinition/us-core-race",
                "valueCodeableConcept": {"text": "race", "coding": [{"code": "2106-3", "display": "White"}]},
            }
        ],
    },
    {
        "resourceType": "Encounter",
        "id": "e1",
        "status": "finished",
        "class": "outpatient",
        "patient": ME,
        "period": {"start": "2011-12-13T10:00"},
    },
    {"resourceType": "Condition", "patient": ME, "encounter": VISIT, "code": {"text": "Sprain"}},
    {
        "resourceType": "MedicationOrder",
        "status": "active",
        "patient": ME,
        "dateWritten": "2011-12-13",
        "medicationCodeableConcept": {"text": "Ibuprofen"},
    },
    {
        "resourceType": "Immunization",
        "status": "completed",
        "patient": ME,
        "date": "2011-12-13T10:00:00",
        "wasNotGiven": True,
        "vaccineCode": {"text": "DTaP"},
    },
    {
        "resourceType": "Observation",
        "status": "final",
        "subject": ME,
        "effectiveDateTime": "2011-12-13T10:00:00",
        "code": {"text": "Remark"},
        "valueString": "Jane Roe is well",
    },
]


def test_dstu2_is_read_like_r4(tmp_path: Path, read: Callable[..., Any]) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"resourceType": "Bundle", "entry": [{"resource": item} for item in DSTU2]}))
    found = read("patient", path, notes=True)
    assert not found.rejects
    content = found.records[0].content
    assert content["facts"] == {"race": "White", "birth year": "1990"}
    titles = [title for title, _ in content["sections"]]
    told = "\n".join(body for _, body in content["sections"])
    assert titles == ["2011, age 21, day 0", "2011, age 21, day 0: encounter (outpatient)"]
    for line in ("condition: Sprain", "medication: Ibuprofen", "immunization: not done: DTaP"):
        assert line in told
    assert "Roe" not in told
    assert "Jane" not in told


def test_times_are_completed_and_what_was_not_taken_is_told() -> None:
    statement = {"resourceType": "MedicationStatement", "taken": "n", "effectivePeriod": {"start": "2011-12-13T10:00Z"}}
    assert renewed(statement)["status"] == "not-done"
    assert renewed(statement)["effectivePeriod"] == {"start": "2011-12-13T10:00:00Z"}
    newer = {
        "resourceType": "Condition",
        "subject": ME,
        "patient": "kept",
        "onsetDateTime": "2011-12-13T10:00:00.5+09:00",
    }
    assert renewed(newer) == newer

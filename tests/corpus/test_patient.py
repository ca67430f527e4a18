"""Patients: FHIR, OMOP and SMART histories in time order, and nothing that names a person."""

import json
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from corpus.modalities.patient import Options, render
from corpus.modality import SourceError

Read = Callable[..., Any]
SNOMED, LOINC = "http://snomed.info/sct", "http://loinc.org"
ME = {"reference": "Patient/p1"}
PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p1",
    "name": [{"family": "Kim", "given": ["Minji"]}],
    "identifier": [{"value": "900101-2345678"}],
    "telecom": [{"system": "phone", "value": "010-1234-5678"}],
    "gender": "female",
    "birthDate": "1990-05-05",
}
VISIT = {
    "resourceType": "Encounter",
    "id": "e1",
    "status": "finished",
    "class": {"code": "AMB"},
    "type": [{"text": "Check up"}],
    "subject": ME,
    "period": {"start": "2011-12-13T10:00:00+09:00"},
}


def condition(**fields: Any) -> dict[str, Any]:
    code = {"coding": [{"system": SNOMED, "code": "70704007", "display": "Sprain of wrist"}]}
    return {"resourceType": "Condition", "id": "c1", "subject": ME, "code": code, **fields}


def observation(**fields: Any) -> dict[str, Any]:
    code = {"coding": [{"system": LOINC, "code": "8302-2", "display": "Body height"}]}
    return {"resourceType": "Observation", "id": "o1", "status": "final", "subject": ME, "code": code, **fields}


def bundle(path: Path, *resources: dict[str, Any]) -> Path:
    entries = [{"resource": resource} for resource in resources]
    path.write_text(json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}))
    return path


def lines(path: Path, *resources: dict[str, Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, resources)))
    return path


def test_a_bundle_becomes_a_history_by_encounter(tmp_path: Path, read: Read) -> None:
    visit = {"encounter": {"reference": "Encounter/e1"}}
    value = {"value": 178.69452709041775, "unit": "cm"}
    path = bundle(
        tmp_path / "a.json",
        condition(onsetDateTime="2011-12-13T11:00:00+09:00", abatementDateTime="2012-01-03", **visit),
        observation(effectiveDateTime="2011-12-13T10:30:00+09:00", valueQuantity=value, **visit),
        PATIENT,
        VISIT,
    )
    found = read("patient", path)
    assert found.rejects == []
    assert [record.content for record in found.records] == [
        {
            "facts": {"sex": "female", "birth year": "1990"},
            "sections": [
                [
                    "2011, age 21, day 0: Check up (ambulatory)",
                    "observation: Body height [LOINC 8302-2] 178.7 cm\ncondition: Sprain of wrist [SNOMED 70704007]",
                ],
                ["2012, age 21, day 21", "end of condition: Sprain of wrist [SNOMED 70704007]"],
            ],
        }
    ]
    record = found.records[0]
    assert (record.where, record.date, record.language) == ("Patient/p1", "2012", "en")


def test_nothing_names_the_patient(tmp_path: Path, read: Read) -> None:
    report = {
        "resourceType": "DiagnosticReport",
        "id": "r1",
        "status": "final",
        "subject": {**ME, "display": "Kim Minji"},
        "code": {"text": "Chest X-ray"},
        "effectiveDateTime": "2012",
        "conclusion": "Minji Kim (900101-2345678) has clear lungs. Kimchi is fine.",
    }
    path = bundle(tmp_path / "a.json", PATIENT, report)
    written = render(read("patient", path).records[0].content)
    assert "report: Chest X-ray" in written
    assert "lungs" not in written
    kept = render(read("patient", path, notes=True).records[0].content)
    assert "report: Chest X-ray, ___ ___ (___) has clear lungs. Kimchi is fine." in kept
    for secret in ("Minji", "2345678", "1234-5678", "05-05"):
        assert secret not in written + kept


def test_identifiers_cannot_be_kept() -> None:
    with pytest.raises(ValidationError, match="Input should be 'drop'"):
        Options.model_validate({"identifiers": "keep"})


def test_exact_dates_are_told_in_a_note(tmp_path: Path, read: Read) -> None:
    found = read("patient", bundle(tmp_path / "a.json", PATIENT, VISIT), dates="exact")
    assert found.records[0].content["sections"][0][0] == "2011-12-13, age 21, day 0: Check up (ambulatory)"
    assert any("dates are exact, as the options ask" in note.text for note in found.notes)


def test_the_very_old_are_told_together(tmp_path: Path, read: Read) -> None:
    old = {**PATIENT, "birthDate": "1915-01-01"}
    path = bundle(tmp_path / "a.json", old, VISIT, condition(onsetDateTime="1980-01-01"))
    record = read("patient", path).records[0]
    assert [title for title, _ in record.content["sections"]] == [
        "1980, age 65, day 0",
        "age 90 or over: Check up (ambulatory)",
    ]
    assert (record.content["facts"], record.date) == ({"sex": "female"}, None)


@pytest.mark.parametrize(
    ("resource", "code", "reason"),
    [
        (condition(subject={"reference": "Patient/other"}), "unknown_patient", "must belong to a patient of this"),
        (condition(subject=None), "no_patient", "must name its patient in subject or patient, but names none"),
        (condition(onsetDateTime="2031-01-01"), "future_date", "must not lie in the future, but is dated 2031"),
        (condition(onsetDateTime="1980-01-01"), "before_birth", "must not lie before birth, but does"),
        (condition(code={"text": " "}), "no_code", "must say what it is about, but has neither a code nor a text"),
        (condition(onsetDateTime=5), "bad_date", "must be a date such as 2021-03-04, but is '5'"),
        (condition(onsetDateTime="2021-02-30"), "not_fhir", "onsetDateTime must be as FHIR says"),
        (condition(code="sprain"), "not_fhir", "code must be as FHIR says"),
        (observation(status="entered-in-error"), "withdrawn", "must hold, but its status is entered-in-error"),
        (observation(valueQuantity="much"), "not_fhir", "valueQuantity must be as FHIR says"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_id(
    resource: dict[str, Any], code: str, reason: str, tmp_path: Path, read: Read
) -> None:
    given = {name: value for name, value in resource.items() if value is not None}
    found = read("patient", bundle(tmp_path / "a.json", PATIENT, given), as_of="2026-01-01")
    assert [(item.where, item.code) for item in found.rejects] == [(f"{given['resourceType']}/{given['id']}", code)]
    assert found.rejects[0].reason.startswith(reason)
    assert found.rejects[0].excerpt.lower() == repr(given["resourceType"].lower())  # never what it holds
    assert len(found.records) == 1


def test_an_unknown_type_and_no_resource_are_refused(tmp_path: Path, read: Read) -> None:
    path = lines(tmp_path / "a.ndjson", PATIENT, {"id": "x"}, {"resourceType": "Observation", "subject": ME})
    path.write_text(path.read_text() + '\n{"resourceType": "Observation", "id": 1, "id": 2}\n[1]')
    found = read("patient", path)
    assert [(item.where, item.code) for item in found.rejects] == [
        ("a.ndjson, line 2", "not_fhir"),
        ("Observation of a.ndjson, line 3", "not_fhir"),
        ("a.ndjson, line 4", "bad_json"),
        ("a.ndjson, line 5", "not_fhir"),
    ]


def test_equal_ids_count_once(tmp_path: Path, read: Read) -> None:
    path = bundle(tmp_path / "a.json", PATIENT, condition(onsetDateTime="2011"), condition(onsetDateTime="2012"))
    found = read("patient", path)
    assert [(item.where, item.code) for item in found.rejects] == [("Condition/c1", "duplicate_id")]
    assert [title for title, _ in found.records[0].content["sections"]] == ["2011, age 21"]


def test_lines_of_a_bulk_export_are_grouped_by_patient(tmp_path: Path, read: Read) -> None:
    lines(tmp_path / "Patient.ndjson", PATIENT, {**PATIENT, "id": "p2", "gender": "male"})
    path = lines(
        tmp_path / "Condition.ndjson",
        condition(onsetDateTime="2011"),
        condition(id="c2", subject={"reference": "https://server/fhir/Patient/p2/_history/1"}),
        condition(id="c3", onsetDateTime="2012"),
    )
    folder = read("patient", tmp_path)
    assert [(record.where, len(record.content["sections"])) for record in folder.records] == [
        ("Patient/p1", 2),
        ("Patient/p2", 1),
    ]
    alone = read("patient", path)
    assert [record.content["facts"] for record in alone.records] == [{}, {}]
    assert [record.group for record in alone.records] == [record.group for record in folder.records]
    assert any(note.text.startswith("no Patient is there") for note in alone.notes)


def test_addresses_of_a_transaction_are_followed(tmp_path: Path, read: Read) -> None:
    reference = {"reference": "urn:uuid:1"}
    medicine = {"resourceType": "Medication", "code": {"text": "Ibuprofen 200 MG"}}
    order = {
        "resourceType": "MedicationRequest",
        "id": "m1",
        "status": "active",
        "intent": "order",
        "subject": reference,
        "medicationReference": {"reference": "urn:uuid:2"},
        "authoredOn": "2012-01-01",
    }
    entries = [
        {"fullUrl": "urn:uuid:1", "resource": PATIENT},
        {"fullUrl": "urn:uuid:3", "resource": order},
        {"fullUrl": "urn:uuid:2", "resource": medicine},
    ]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries}))
    assert read("patient", path).records[0].content["sections"] == [
        ["2012, age 21, day 0", "medication: Ibuprofen 200 MG"]
    ]


def test_other_releases_and_added_fields_are_read(tmp_path: Path, read: Read) -> None:
    newer = {**VISIT, "class": [{"coding": [{"code": "IMP"}]}], "actualPeriod": VISIT["period"], "status": "completed"}
    del newer["period"]
    own = condition(onsetDateTime="2012", hospitalField="x")
    found = read("patient", bundle(tmp_path / "a.json", PATIENT, newer, own))
    assert [title for title, _ in found.records[0].content["sections"]] == [
        "2011, age 21, day 0: Check up (inpatient)",
        "2012, age 22",
    ]
    assert any(note.text.startswith("1 resources are not in every field as R4") for note in found.notes)


def test_answers_to_questions_are_told(tmp_path: Path, read: Read) -> None:
    inner = {
        "linkId": "2",
        "text": "How often?",
        "answer": [{"valueInteger": 3}, {"valueCoding": {"display": "daily"}}],
    }
    asked = {
        "resourceType": "QuestionnaireResponse",
        "id": "q1",
        "status": "completed",
        "subject": ME,
        "authored": "2012-01-01",
        "item": [{"linkId": "1", "text": "Pain?", "answer": [{"valueBoolean": True, "item": [inner]}]}],
    }
    found = read("patient", bundle(tmp_path / "a.json", PATIENT, asked))
    assert found.records[0].content["sections"] == [
        ["2012, age 21, day 0", "questionnaire: Pain?: yes; How often?: 3, daily"]
    ]


def test_korean_histories_are_korean(tmp_path: Path, read: Read) -> None:
    path = bundle(tmp_path / "a.json", PATIENT, condition(code={"text": "본태성 고혈압"}, onsetDateTime="2012"))
    record = read("patient", path).records[0]
    assert (record.language, record.content["sections"][0][1]) == ("ko", "condition: 본태성 고혈압")


def test_a_giant_history_becomes_records_of_one_group(tmp_path: Path, read: Read) -> None:
    many = [observation(id=f"o{number}", effectiveDateTime="2012-01-01") for number in range(100)]
    found = read("patient", bundle(tmp_path / "a.json", PATIENT, *many), max_chars=1000)
    assert [record.content["facts"]["part"] for record in found.records] == [f"{n} of 4" for n in range(1, 5)]
    assert len({record.group for record in found.records}) == 1
    assert sum(text.count("observation") for record in found.records for _, text in record.content["sections"]) == 100
    assert found.records[1].content["sections"][0][0] == "2012, age 21, day 0 (continued)"


def test_death_and_a_patient_alone(tmp_path: Path, read: Read) -> None:
    path = lines(tmp_path / "a.json", {**PATIENT, "deceasedDateTime": "2020-02-01"})
    content = read("patient", path).records[0].content
    assert content["facts"]["deceased"] == "yes"
    assert content["sections"] == [["2020, age 29, day 0", "death: patient died"]]
    alone = read("patient", lines(tmp_path / "b.json", PATIENT)).records[0].content
    assert alone == {"facts": {"sex": "female", "birth year": "1990"}, "sections": []}


OMOP = {
    "person.csv": "person_id,gender_concept_id,year_of_birth,month_of_birth,day_of_birth,race_source_value\n"
    "7,8507,1950,2,3,asian\n8,8532,1990,,,\n8,8532,1990,,,\nx,8507,1950,,,\n",
    "VISIT_OCCURRENCE.csv": "visit_occurrence_id,person_id,visit_concept_id,visit_start_date,visit_end_date\n"
    "1,7,9202,2001-02-03,2001-02-03\n",
    "Condition_Occurrence.csv": "condition_occurrence_id,person_id,condition_concept_id,condition_start_date,"
    "condition_end_date,visit_occurrence_id,condition_source_value\n"
    "1,7,320128,2001-02-03,,1,I10\n2,7,0,2001-03-03,2001-04-03,,J20\n3,9,320128,2001-02-03,,,\n"
    "4,7,320128,someday,,,\n5,7,0,2001-02-03,,,\n",
    "MEASUREMENT.csv": "measurement_id,person_id,measurement_concept_id,measurement_date,value_as_number,"
    "unit_source_value,range_low,range_high,visit_occurrence_id\n"
    "1,7,3025315,2001-02-03,48.10,kg,40,90,1\n2,7,3025315,2001-02-03,much,kg,,,1\n1,7,3025315,2001-02-03,49,kg,,,1\n",
}
CONCEPT = (
    "concept_id\tconcept_name\tvocabulary_id\tconcept_code\n"
    '320128\t"Essential" hypertension\tSNOMED\t59621000\n3025315\tBody weight\tLOINC\t29463-7\n'
    "9202\tOutpatient Visit\tVisit\tOP\n"
)


def test_omop_tables_become_the_same_histories(tmp_path: Path, read: Read) -> None:
    for name, text in {**OMOP, "CONCEPT.csv": CONCEPT}.items():
        (tmp_path / name).write_text(text)
    found = read("patient", tmp_path)
    assert [record.where for record in found.records] == ["person 7", "person 8"]
    assert found.records[0].content == {
        "facts": {"sex": "male", "race": "asian", "birth year": "1950"},
        "sections": [
            [
                "2001, age 51, day 0: Outpatient Visit",
                (
                    'condition: "Essential" hypertension [SNOMED 59621000]\n'
                    "observation: Body weight [LOINC 29463-7] 48.1 kg (normal 40 to 90)"
                ),
            ],
            ["2001, age 51, day 28", "condition: J20"],
            ["2001, age 51, day 59", "end of condition: J20"],
        ],
    }
    assert Counter((item.where, item.code) for item in found.rejects) == Counter(
        [
            ("person person.csv, line 4", "duplicate_id"),
            ("person person.csv, line 5", "wrong_type"),
            ("condition_occurrence 4", "bad_date"),
            ("condition_occurrence 5", "no_code"),
            ("measurement 2", "wrong_type"),
            ("measurement 1", "duplicate_id"),
            ("condition_occurrence 3", "unknown_patient"),
        ]
    )


def test_omop_without_vocabulary_in_a_zip(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "cdm.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in OMOP.items():
            archive.writestr(f"cdm/{name}", text)
        archive.writestr("__MACOSX/._person.csv", b"\x00\x05")
    found = read("patient", path)
    assert any(note.text.startswith("no CONCEPT table is there") for note in found.notes)
    assert found.records[0].content["sections"][0] == [
        "2001, age 51, day 0: [OMOP 9202]",
        "condition: I10\nobservation: [OMOP 3025315] 48.1 kg (normal 40 to 90)",
    ]


def test_a_table_without_its_columns_is_one_error(tmp_path: Path, read: Read) -> None:
    (tmp_path / "PERSON.csv").write_text("person_id,sex\n1,M\n")
    with pytest.raises(SourceError, match=r"PERSON\.csv must have gender_concept_id, year_of_birth, as CDM 5.4 says"):
        read("patient", tmp_path)
    (tmp_path / "PERSON.csv").unlink()
    (tmp_path / "drug_exposure.csv").write_text("person_id\n1\n")
    with pytest.raises(SourceError, match="must have a PERSON table, but has none; put it beside the others"):
        read("patient", tmp_path, layout="omop")
    with pytest.raises(SourceError, match=r"must hold FHIR files, an OMOP PERSON table or SMART's patients\.txt"):
        read("patient", tmp_path)


def test_the_columns_are_those_of_the_common_data_model(real: Callable[[str], Path]) -> None:
    import csv

    from corpus.formats.omop import PERSON, TABLES

    with real("../shared/data/ehr_omop/OMOP_CDMv5.4_Field_Level.csv").open() as file:
        known = {(row["cdmTableName"].lower(), row["cdmFieldName"].lower()) for row in csv.DictReader(file)}
    taken = {("person", name) for name in PERSON}
    for name, table in TABLES.items():
        stems = [f"{table.when}_date", f"{table.stem}_concept_id", *([f"{table.over}_date"] if table.over else [])]
        taken |= {(name, column) for column in (*stems, *(extra[0] for extra in table.extras), table.id or "person_id")}
    assert sorted(taken - known) == []


def test_smart_tables_are_joined(tmp_path: Path, read: Read) -> None:
    (tmp_path / "patients.txt").write_text("PID\tdob\tgender\tlname\n1\t2000-01-01\tmale\tLee\n2\t\tfemale\tKim\n")
    (tmp_path / "problems.txt").write_text("ID\tPID\tSTART_DATE\tEND_DATE\tSNOMED\tNAME\n1\t1\t2006\t\t5\tCough\n")
    (tmp_path / "labs.txt").write_text(
        "ID\tPID\tDATE\tLOINC\tNAME\tVALUE\tLOW\tHIGH\tUNITS\n1\t1\t2007-01-02\t2-1\tHDL\t53.123456\t40\t199\tmg/dL\n"
        "2\t3\t2007-01-02\t2-1\tHDL\t53\t\t\t\n3\t\t2007-01-02\t2-1\tHDL\t53\t\t\t\n"
    )
    (tmp_path / "vitals.txt").write_text("ID\tPID\tTIMESTAMP\tHEART_RATE\tBMI\n1\t2\t2006-12-27T15:53:00\t54\t\n")
    found = read("patient", tmp_path / "patients.txt")
    assert [record.content["sections"] for record in found.records] == [
        [
            ["2006, age 6", "condition: Cough [SNOMED 5]"],
            ["2007, age 7, day 0", "observation: HDL [LOINC 2-1] 53.12 mg/dL (normal 40 to 199)"],
        ],
        [["2006, day 0", "observation: heart rate 54 /min"]],
    ]
    assert [(item.where, item.code) for item in found.rejects] == [
        ("labs 3", "no_patient"),
        ("labs 2", "unknown_patient"),
    ]
    (tmp_path / "labs.txt").write_text("ID\tX\n1\t1\n")
    with pytest.raises(SourceError, match=r"labs\.txt must have a column PID, but has id, x"):
        read("patient", tmp_path)


@pytest.mark.parametrize(
    ("path", "records", "persons"),
    [
        ("ehr_fhir/dev_Brett_Gottlieb_0d2177ba-f67b-4f29-addb-91040de55388.json", 1, 1),
        ("ehr_fhir/smart_patients", 67, 67),
        ("ehr_omop/Synthea27Nj_5.4.zip", 34, 28),
    ],
)
def test_real_patients_are_read_whole(
    path: str, records: int, persons: int, read: Read, real: Callable[[str], Path]
) -> None:
    found = read("patient", real(f"../shared/data/{path}"), as_of="2026-11-24")
    assert (len(found.records), len({record.group for record in found.records}), found.rejects) == (
        records,
        persons,
        [],
    )

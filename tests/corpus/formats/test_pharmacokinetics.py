"""Concentrations over time: SDTM, NONMEM and plain tables, one record a subject."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corpus.modality import SourceError

Read = Callable[..., Any]


def test_a_plain_table(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "Subject,Wt,Dose,Time,conc,assay\n1,79.6,4.02,0,0.74,a\n2,72,4,0,0,a\n1,79.6,4.02,1.5,2.84000001,a\n"
    )
    found = read("drug", path, about={"drug": "theophylline"}, facts={"assay": "assay"})
    assert [record.content for record in found.records] == [
        {
            "facts": {
                "kind": "drug concentrations over time",
                "drug": "theophylline",
                "dose": "4.02",
                "weight": "79.6",
                "assay": "a",
            },
            "sections": [["Concentration", "0: 0.74\n1.5: 2.84"]],
        },
        {
            "facts": {
                "kind": "drug concentrations over time",
                "drug": "theophylline",
                "dose": "4",
                "weight": "72",
                "assay": "a",
            },
            "sections": [["Concentration", "0: 0"]],
        },
    ]
    assert [(record.group, record.where) for record in found.records] == [
        ("subject 1", "line 2"),
        ("subject 2", "line 3"),
    ]


def test_an_sdtm_table(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "pc.csv"
    path.write_text(
        "STUDYID,USUBJID,PCTEST,PCSTRESN,PCSTRESC,PCSTRESU,PCSPEC,VISIT,PCTPTNUM\n"
        "S,a,DRUG,,<BLQ,ug/ml,PLASMA,DAY 1,-0.5\nS,a,DRUG,1.5,1.5,ug/ml,PLASMA,DAY 1,1\n"
        "S,a,DRUG,2,2,ug/ml,URINE,DAY 1,1\n"
        "S,a,DRUG,,,ug/ml,PLASMA,DAY 1,2\nS,a,DRUG,-1,-1,ug/ml,PLASMA,DAY 1,3\nS,a,DRUG,1,1,ug/ml,PLASMA,DAY 1,\n"
        "S,,DRUG,1,1,ug/ml,PLASMA,DAY 1,4\nS,a,DRUG,x,x,ug/ml,PLASMA,DAY 1,5\nS,a,DRUG,,<0.01,ug/ml,PLASMA,DAY 1,6\n"
    )
    found = read("drug", path)
    assert found.records[0].content["facts"] == {"kind": "drug concentrations over time", "study": "S"}
    assert found.records[0].content["sections"] == [
        ["DRUG in PLASMA (ug/ml), DAY 1", "-0.5: <BLQ\n1: 1.5\n6: <0.01"],
        ["DRUG in URINE (ug/ml), DAY 1", "1: 2"],
    ]
    assert [(item.where, item.code) for item in found.rejects] == [
        ("line 6", "negative"),
        ("line 7", "no_time"),
        ("line 8", "no_subject"),
        ("line 9", "not_a_number"),
    ]
    assert found.notes[0].text == "1 samples without a concentration are left out"


def test_doses_of_a_nonmem_table(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text("ID,TIME,AMT,DV,WT\n1,0,100,.,70\n1,1,.,5.5,70\n2,0,100,.,60\n")
    found = read("drug", path)
    assert [record.content["sections"] for record in found.records] == [
        [["Doses", "0: 100"], ["Concentration", "1: 5.5"]]
    ]
    assert [(item.where, item.code) for item in found.rejects] == [("line 4", "no_concentration")]


def test_treatments_of_a_subject_are_series_of_their_own(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Subject,Formulation,time,conc\n1,tablet,1,1.08\n1,tablet,2,1.99\n1,syrup,1,1.48\n2,syrup,1,2\n")
    found = read("drug", path)
    assert [record.content["sections"] for record in found.records] == [
        [["Concentration, tablet", "1: 1.08\n2: 1.99"], ["Concentration, syrup", "1: 1.48"]],
        [["Concentration", "1: 2"]],
    ]


def test_columns_are_named_or_found(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text("rat,t_min,level\n1,0,5\n")
    columns = {"subject": "rat", "time": "t_min", "concentration": "level"}
    assert len(read("drug", path, kind="pk", columns=columns).records) == 1
    with pytest.raises(SourceError, match="must have a column subject, but has rat, t_min, level; set columns:"):
        read("drug", path, kind="pk")
    with pytest.raises(SourceError, match=r"columns: must name subject, time, .* but has 'rodent'; change it"):
        read("drug", path, kind="pk", columns={"rodent": "rat"})


def test_a_subject_with_too_many_samples(tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpus.formats.pharmacokinetics._MOST_SAMPLES", 1)
    path = tmp_path / "a.csv"
    path.write_text("subject,time,conc\n1,0,5\n1,1,5\n")
    assert read("drug", path).rejects[0].reason == "must have at most 1 samples, but has 2"


@pytest.mark.parametrize(("name", "subjects"), [("medicaldata_theoph.csv", 12), ("pharmaversesdtm_pc.csv", 254)])
def test_the_shared_tables(name: str, subjects: int, read: Read, real: Callable[[str], Path]) -> None:
    found = read("drug", real(f"../shared/data/pkpd/{name}"))
    assert (len(found.records), found.rejects) == (subjects, [])

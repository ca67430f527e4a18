"""CDISC: subjects and their events from tables, SAS transport files and Dataset-JSON."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corpus.modality import SourceError

Read = Callable[..., Any]
EX: list[list[Any]] = [
    ["STUDYID", "DOMAIN", "USUBJID", "EXSEQ", "EXTRT", "EXDOSE", "EXDOSU", "EXSTDY", "EXENDY"],
    ["S1", "EX", "01-2", 2, "X", 54, "mg", 15, 20],
    ["S1", "EX", "01-1", 1, "X", 0, "mg", 1, 1],
    ["S1", "EX", "01-2", 1, "X", 81, "mg", 1, 14],
]
EVENTS = {
    "01-2": "day 1 to 14: X; dose 81 mg\nday 15 to 20: X; dose 54 mg",
    "01-1": "day 1: X; dose 0 mg",
}


def csv(rows: list[list[Any]]) -> str:
    return "".join(",".join(map(str, row)) + "\n" for row in rows)


def card(text: str) -> bytes:
    return text.encode().ljust(80)


def transport(name: str, rows: list[list[Any]], widths: list[int]) -> bytes:
    """A SAS transport file of version 5 with columns of text."""
    date = "24NOV26:10:00:00"
    head = [
        card("HEADER RECORD*******LIBRARY HEADER RECORD!!!!!!!000000000000000000000000000000"),
        card("SAS     SAS     SASLIB  9.4     LINUX".ljust(64) + date),
        card(date),
        card("HEADER RECORD*******MEMBER  HEADER RECORD!!!!!!!000000000000000001600000000140"),
        card("HEADER RECORD*******DSCRPTR HEADER RECORD!!!!!!!000000000000000000000000000000"),
        card(f"SAS     {name:8}SASDATA 9.4     LINUX".ljust(64) + date),
        card(date),
        card(f"HEADER RECORD*******NAMESTR HEADER RECORD!!!!!!!000000{len(widths):04}00000000000000000000"),
    ]
    fields, place = b"", 0
    for number, (column, width) in enumerate(zip(rows[0], widths, strict=True)):
        told = (column.encode().ljust(8), f"{column} label".encode().ljust(40), b" " * 8)
        fields += struct.pack(
            ">hhhh8s40s8shhh2s8shhl52s", 2, 0, width, number, *told, 0, 0, 0, b"", b" " * 8, 0, 0, place, b""
        )
        place += width
    fields += b" " * (-len(fields) % 80)
    body = b"".join(
        str(cell).encode().ljust(width) for row in rows[1:] for cell, width in zip(row, widths, strict=True)
    )
    observations = card("HEADER RECORD*******OBS     HEADER RECORD!!!!!!!000000000000000000000000000000")
    return b"".join(head) + fields + observations + body + b" " * (-len(body) % 80)


@pytest.mark.parametrize("form", ["csv", "xpt", "json", "json 1.0", "ndjson"])
def test_events_of_a_subject_are_in_the_order_of_time(tmp_path: Path, read: Read, form: str) -> None:
    path = tmp_path / f"x.{form.partition(' ')[0]}"
    columns = [{"name": name, "label": name} for name in EX[0]]
    if form == "csv":
        path.write_text(csv(EX))
    elif form == "xpt":
        path.write_bytes(transport("EX", EX, [4, 2, 6, 2, 2, 4, 4, 4, 4]))
    elif form == "json":
        path.write_text(json.dumps({"datasetJSONVersion": "1.1.0", "name": "EX", "columns": columns, "rows": EX[1:]}))
    elif form == "json 1.0":
        held = {"items": columns, "itemData": EX[1:], "name": "EX"}
        path.write_text(json.dumps({"clinicalData": {"itemGroupData": {"IG.EX": held}}}))
    else:
        path.write_text(
            "\n".join(json.dumps(line) for line in ({"datasetJSONVersion": "1.1.0", "columns": columns}, *EX[1:]))
        )
    got = read("trial", path)
    assert {record.group: record.content for record in got.records} == {
        subject: {"facts": {"study": "S1"}, "sections": [["Exposure (EX)", lines]]} for subject, lines in EVENTS.items()
    }
    assert [record.language for record in got.records] == [None, None]


def test_subjects_keep_what_is_theirs_and_lose_what_names_them(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "dm.csv"
    path.write_text(
        "STUDYID,DOMAIN,USUBJID,SUBJID,SITEID,BRTHDTC,RFSTDTC,AGE,AGEU,SEX,SEXN,ARMCD,ARM,ACTARM,BMI\n"
        "S1,DM,1-1,1,7,1950-01-01,2014-01-02,63,YEARS,F,2,P,Placebo,Placebo,25.0\n"
        "S1,DM,1-1,1,7,,,64,YEARS,F,2,P,Placebo,Drug,\nS1,DM,,2,7,,,64,YEARS,F,2,P,Placebo,Drug,\n"
    )
    got = read("trial", path)
    assert [record.content for record in got.records] == [
        {
            "facts": {"study": "S1", "age": "63 years", "sex": "F", "planned arm": "Placebo", "BMI": "25.0"},
            "sections": [],
        }
    ]
    assert (got.records[0].group, got.codes()) == ("1-1", ["duplicate_subject", "no_subject"])
    assert read("trial", path, study="Pilot").records[0].content["facts"]["study"] == "Pilot"


@pytest.mark.parametrize(
    ("name", "rows", "section"),
    [
        (
            "adtte.csv",
            "USUBJID,PARAMCD,PARAM,AVAL,CNSR,STARTDT,ADY\n1,OS,Survival,30.5,1,2014-01-01,31\n",
            ["Time to event (ADTTE)", "day 31: Survival 30.5; censored 1"],
        ),
        (
            "vs.csv",
            "USUBJID,DOMAIN,VSTESTCD,VSTEST,VSORRES,VSORRESU,VSDTC,VISIT\n1,VS,HR,Pulse,70,/min,2014-01-02,B\n1,VS,HR,Pulse,69,/min,2014-01-01,A\n",
            ["Vital signs (VS)", "Pulse 69 /min; visit A\nPulse 70 /min; visit B"],
        ),
        (
            "suppae.csv",
            "USUBJID,RDOMAIN,IDVARVAL,QNAM,QLABEL,QVAL\n1,AE,1,TRT,Emergent,Y\n",
            ["More on adverse events (SUPPAE)", "Emergent Y"],
        ),
        (
            "ti.csv",
            "STUDYID,DOMAIN,IETESTCD,IETEST,IECAT\nS1,TI,I1,Adult,INCLUSION\n",
            ["Trial criteria (TI)", "Adult; category INCLUSION"],
        ),
        ("xx.csv", "USUBJID,DOMAIN,XXTERM,XXSTDY\n1,XX,Fall,2\n", ["Events (XX)", "day 2: Fall"]),
        ("study_ae.csv", "USUBJID,AETERM,AESTDY\n1,Rash,\n", ["Adverse events (AE)", "Rash"]),
    ],
)
def test_domains_are_told_by_column_or_name(tmp_path: Path, read: Read, name: str, rows: str, section: Any) -> None:
    (tmp_path / name).write_text(rows)
    assert read("trial", tmp_path / name).records[0].content["sections"] == [section]


def test_what_has_no_domain_or_no_events_is_told(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "x.csv"
    path.write_text("USUBJID,WEIGHT\n1,70\n")
    with pytest.raises(SourceError, match="must have a column DOMAIN, or be named after one, but is 'x'; set domain:"):
        read("trial", path)
    assert read("trial", path, domain="VS").records[0].content["sections"] == [["Vital signs (VS)", "WEIGHT 70"]]
    path.write_text("USUBJID,RDOMAIN,IDVAR,RELID\n1,AE,AESEQ,9\n")
    assert read("trial", path, domain="RELREC").codes() == ["no_field"]


@pytest.mark.parametrize("rows", range(9))
def test_short_rows_of_a_transport_file_are_all_there(tmp_path: Path, read: Read, rows: int) -> None:
    """Pandas alone loses rows of less than 80 bytes whose last ones hold blanks."""
    path = tmp_path / "dm.xpt"
    names = ["DOMAIN", "USUBJID", "AGE", "RACE"]
    path.write_bytes(
        transport("DM", [names, *(["DM", number, 40 + number, ""] for number in range(rows))], [2, 8, 3, 30])
    )
    assert len(read("trial", path).records) == rows


def test_a_transport_file_in_windows_1252_is_not_taken_for_korean(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "ae.xpt"
    rows = [["DOMAIN", "USUBJID", "AETERM"], ["AE", "1", "Crohn__ disease"]]
    path.write_bytes(transport("AE", rows, [2, 8, 20]).replace(b"n__", b"n\x92s"))
    assert read("trial", path).codes() == ["encoding"]
    (record,) = read("trial", path, encoding="cp1252").records
    assert "Crohn’s disease" in record.content["sections"][0][1]


def test_damaged_files_are_one_error(tmp_path: Path, read: Read) -> None:
    good = transport("DM", [["DOMAIN", "USUBJID", "AGE"], ["DM", "1", "63"]], [2, 4, 4])
    path = tmp_path / "a.xpt"
    for damaged in (good[:300], b"HEADER" + good, good.replace(b"LIBRARY HEADER", b"LIBV8   HEADER")):
        path.write_bytes(damaged)
        with pytest.raises(SourceError, match="must be a whole SAS transport file of version 5, but"):
            read("trial", path)
    path.write_bytes(good + good)
    with pytest.raises(SourceError, match="must hold one table, but holds 2; write each to a file of its own"):
        read("trial", path)
    path.write_bytes(good.replace(b"63", b"\xff\xff"))
    assert read("trial", path).codes() == ["encoding"]
    bad = tmp_path / "a.json"
    bad.write_text(json.dumps({"datasetJSONVersion": "1.1.0", "columns": [{"name": "A"}, {"name": "A"}], "rows": []}))
    with pytest.raises(SourceError, match="must name its columns once each, but has"):
        read("trial", bad)
    columns = [{"name": "USUBJID"}, {"name": "DOMAIN"}, {"name": "AGE"}]
    bad.write_text(json.dumps({"columns": columns, "rows": [["1", "DM", 3], ["2", "DM"], None]}))
    got = read("trial", bad)
    assert (len(got.records), got.codes()) == (1, ["ragged_row", "ragged_row"])


def test_real_tables(read: Read, real: Callable[[str], Path]) -> None:
    folder = "../shared/data/clinical_trials"
    for name, count in {"pharmaversesdtm_dm": 306, "pharmaversesdtm_ex": 254, "pharmaverseadam_adsl": 306}.items():
        got = read("trial", real(f"{folder}/{name}.csv"))
        assert (len(got.records), got.rejects) == (count, []), name

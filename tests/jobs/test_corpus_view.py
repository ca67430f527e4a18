"""`python -m jobs corpus ...`: what a person and a lawyer see of a run's corpus, and where a token comes from."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from jobs import __main__ as cli
from jobs._corpus import corpus, files, sources
from jobs._corpus_trace import _told_of_cell
from slurm.files import digest, read_json, write_json

SOURCE: dict[str, Any] = {
    "name": "care",
    "modality": "text",
    "scale": "L1",
    "path": "data/[care].jsonl",
    "files": 2,
    "license": "CC-BY-4.0",
    "terms": {"commercial": True, "derivatives": True, "share_alike": False, "dua": None, "expires": "2099-01-01"},
    "sha256": digest("files"),
    "bytes": 2048,
    "seconds": 1.5,
    "records": 900,
    "duplicates": 10,
    "near_duplicates": 7,
    "contaminated": 2,
    "quarantined": 3,
    "filtered": 4,
    "rejects": {"bad_json": 5},
    "notes": ["stopped after [max_records]"],
}
PREPARE: dict[str, Any] = {
    "inputs": {},
    "details": {
        "sources": [SOURCE],
        "gates": {
            "personal": {"resident_number": 3},
            "quality": {"repeated_lines": 4},
            "contamination": {"kormedmcqa": {"items": 435, "checkable": 400, "found": 2, "records": 2}},
            "duplicates": [["care", "care", 10]],
        },
        "samples": {"text.ko": [{"id": "0" * 24, "source": "care", "text": "혈압을 [잽니다]"}]},
    },
}
ROW = {"train_tokens": 1000, "valid_tokens": 10, "chars_per_token": 3.914, "padding": 0.12, "mixture": 1.0}
TOKENIZE: dict[str, Any] = {
    "details": {
        "streams": {"text.ko": ROW, "text.en": {**ROW, "train_tokens": 3000}, "omics": ROW},
        "sources": {"care": {"tokens": 5030, "documents": 900, "share": 1.0}},
        "languages": {"en": 3000, "ko": 1000},
        "scales": {"L3": 1000, "L1": 4000},
        "phases": {"main": {"mixture": {"text.ko": 0.6, "text.en": 0.4}}, "annealing": {"text.ko": 1.0}},
    }
}
ID = "4f" * 12
RECORD: dict[str, Any] = {
    "id": ID,
    "modality": "text",
    "stream": "text.ko",
    "source": "care",
    "license": None,
    "group": "g",
    "language": "ko",
    "date": "2021-03",
    "location": {"file": "data/a.jsonl", "record": "line 12", "offsets": [4096, 5000]},
    "digest": digest("content"),
    "ids": ["pmid:22663011"],
    "content": {"text": "혈압을 잽니다. " * 300},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose stages prepare and tokenize are done."""
    root = tmp_path / "mine"
    write_json(root / "prepare" / "record.json", PREPARE)
    write_json(root / "tokenize" / "record.json", TOKENIZE)
    for number in (10, 9):
        write_json(
            root / "prepare" / "parts" / "care" / str(number) / "report.json",
            {"files": [[f"data/{number}.jsonl", digest(str(number)), None]]},
        )
    records = root / "prepare" / "records"
    records.mkdir()
    other = {**RECORD, "id": "0" * 24, "content": {"text": f"about {ID}"}}
    (records / "text.ko.train.jsonl").write_text(f"{json.dumps(other)}\n{json.dumps(RECORD)}\n")
    return root


def _corpus(run: Path, *arguments: str) -> int:
    action, *more = arguments
    return cli.main(["corpus", action, "mine", *more, "--results", str(run.parent)])


def test_the_corpus_is_shown(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _corpus(run, "show") == 0
    shown = capsys.readouterr().out
    for words in (
        "mine's corpus: 1 sources, 900 records, 5,000 training tokens",
        "2 KiB in 1.5 s",
        "CC-BY-4.0",
        "until",
        "2099-01-01",
        "100 %",
        "exact duplicate",
        "holds personal data",
        "resident number",
        "repeated lines",
        "kormedmcqa",
        "435",
        "records that an earlier source has too",
        "share in annealing",
        "3.91",
        "12 %",
        "care: stopped after [max_records]",
        "혈압을 [잽니다]",
    ):
        assert words in shown
    assert max(map(len, shown.splitlines())) <= 120


def test_scripts_get_one_document(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _corpus(run, "show", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sources"][0]["tokens"] == 5030
    assert told["modalities"] == {"text": {"ko": 1000, "en": 3000}, "omics": {"": 1000}}
    assert told["phases"]["annealing"] == {"text.ko": 1.0}
    assert told["crossings"] == [["care", "care", 10]]


def test_what_records_do_not_tell_is_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = {name: SOURCE[name] for name in ("name", "modality", "license", "records", "duplicates", "rejects", "notes")}
    write_json(run / "prepare" / "record.json", {"inputs": {}, "details": {"sources": [old]}})
    (run / "tokenize" / "record.json").unlink()
    assert _corpus(run, "show") == 0
    shown = capsys.readouterr().out
    assert "note: prepare's record does not tell what the gates found" in shown
    assert "note: prepare's record does not tell samples of the records" in shown
    assert "note: tokenize has no record: tokens are not known" in shown
    assert corpus({"details": {"sources": [old]}}, {"details": {"streams": {}}}).untold[-1] == (
        "tokenize's record does not tell sources, languages, scales, phases"
    )
    found = sources({"details": {"sources": [old]}})[0]
    assert (found.tokens, found.near_duplicates, found.commercial) == (None, None, False)


def test_a_lawyer_gets_every_file(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _corpus(run, "licences") == 0
    shown = capsys.readouterr().out
    assert "commercial use, derivatives, until 2099-01-01" in " ".join(shown.split())
    assert f"{digest('9')}  care  data/9.jsonl\n{digest('10')}  care  data/10.jsonl" in shown
    assert _corpus(run, "licences", "--csv") == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["source"], row["license"], row["commercial"], row["token_share"], row["file"]) for row in rows] == [
        ("care", "CC-BY-4.0", "True", "1.0", "data/9.jsonl"),
        ("care", "CC-BY-4.0", "True", "1.0", "data/10.jsonl"),
    ]


def test_a_lawyer_is_told_of_cells_that_are_no_records(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenize = read_json(run / "tokenize" / "record.json")
    cells = {**SOURCE, "name": "blood", "license": "CC-BY-SA-4.0", "path": "data/a.h5ad", "sha256": digest("h5ad")}
    tokenize["details"] |= {"cells": [cells, SOURCE]}
    write_json(run / "tokenize" / "record.json", tokenize)
    assert _corpus(run, "licences", "--csv") == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["source"], row["license"]) for row in rows if row["source"] != "care"] == [("blood", "CC-BY-SA-4.0")]
    assert sum(row["source"] == "care" for row in rows) == 2, "read twice, told once"
    assert list(_told_of_cell(run, "blood, row 3")) == [
        "  file: data/a.h5ad",
        f"  sha256 of the file: {digest('h5ad')}",
        "  licence: CC-BY-SA-4.0",
    ]


def test_without_parts_a_source_is_one_digest(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert files(run, "another") == {}
    for path in (run / "prepare" / "parts" / "care").glob("*/report.json"):
        path.unlink()
    assert _corpus(run, "licences") == 0
    assert f"{digest('files')}  care  data/[care].jsonl" in capsys.readouterr().out


def test_a_record_is_traced_to_its_bytes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _corpus(run, "trace", "text.ko", ID) == 0
    shown = capsys.readouterr().out
    for words in (
        f"record {ID}",
        "line 2 of ",
        "  source: care\n",
        "  file: data/a.jsonl\n",
        "  place in it: line 12\n",
        "  bytes: 4,096 to 5,000\n",
        "  licence: CC-BY-4.0\n",
        "  date: 2021-03\n",
        "  names: pmid:22663011\n",
        f"  sha256 of the content: {digest('content')}\n",
        "혈압을 잽니다.",
        "... (2,700 characters in all)",
    ):
        assert words in shown


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("trace", "text.ko", "0b9"), "0b9: must be a number or the 24 digits of a record's id; change it"),
        (("trace", "text.en", ID), f"{ID}: must be a record of text.en.train in "),
        (("trace", "text.en+ko", "0" * 23 + "1"), "must be a record of text.en+ko.train in "),
        (("trace", "text.ko", "1"), "must hold a committed manifest.json, but has none; run tokenize again"),
    ],
)
def test_what_is_not_there_is_one_line(
    arguments: tuple[str, ...], told: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _corpus(run, *arguments) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("action", ["show", "licences"])
def test_a_run_without_a_record_is_refused(action: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _corpus(tmp_path / "mine", action) == 2
    assert "mine/prepare/record.json: must be there, but is not; run the stage prepare" in capsys.readouterr().err

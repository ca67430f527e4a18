"""Trials: chosen columns as text, with an outcome."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from corpus.clean import clean_line
from corpus.modalities.trial import Options, parse, render
from corpus.modality import SourceError, UnusableError

Read = Callable[..., Any]
WANTED = {
    "study": "T1",
    "fields": {"age": "age", "arm": {"column": "arm", "values": {"0": "control", "1": "treated"}}},
    "outcome": {"death": "died"},
}


@given(st.dictionaries(st.sampled_from(["age", "arm at start", "나이"]), st.text(), min_size=1))
def test_every_participant_comes_back(values: dict[str, str]) -> None:
    try:
        fields = {name: clean_line(value) for name, value in values.items()}
    except UnusableError:
        return
    content = {"fields": fields, "outcome": fields}
    assert parse(render(content)) == content


def test_rows_become_participants(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id;age;arm;died\na;63.0;1;0\na;NA;;1\nb;50;2;0\nc;50;1;\nd;;;1\n")
    found = read("trial", path, group="id", **WANTED)
    assert [(record.content, record.group) for record in found.records] == [
        ({"fields": {"study": "T1", "age": "63", "arm": "treated"}, "outcome": {"death": "0"}}, "a"),
    ]
    assert [(item.where, item.code) for item in found.rejects] == [
        ("line 3", "no_field"),
        ("line 4", "unknown_value"),
        ("line 5", "no_outcome"),
        ("line 6", "no_field"),
    ]


def test_a_column_that_is_not_there_is_one_error(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,died\n1,0\n")
    with pytest.raises(SourceError, match="must have a column 'age', but has id, died; name one"):
        read("trial", path, **WANTED)


@pytest.mark.parametrize("name", ["", "a:b", " a", "a\nb", "<a"])
def test_a_field_has_a_name_that_can_be_read_back(name: str) -> None:
    with pytest.raises(ValidationError, match="String should match pattern"):
        Options.model_validate({**WANTED, "fields": {name: "age"}})


@pytest.mark.parametrize("lacking", ["study", "fields", "outcome"])
def test_participants_are_asked_for_whole(lacking: str) -> None:
    wanted = {key: value for key, value in WANTED.items() if key != lacking}
    with pytest.raises(ValidationError, match=f"must have study, fields and outcome .* but lacks {lacking}; add it"):
        Options.model_validate({"format": "participants", **wanted})


def test_other_words_for_missing(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.data"
    path.write_text("63,1,0\n?,?,1\n50,?,?\n")
    options = {"study": "Heart", "header": False, "fields": {"age": 0, "sex": 1}, "outcome": {"ill": 2}}
    got = read("trial", path, missing=["?"], **options)
    assert got.records[0].content == {"fields": {"study": "Heart", "age": "63", "sex": "1"}, "outcome": {"ill": "0"}}
    assert got.codes() == ["no_field", "no_outcome"]


def test_documents_come_back_beside_participants(tmp_path: Path, read: Read) -> None:
    content = {"facts": {"trial": "NCT00000001"}, "sections": [["Arms", "- A"]]}
    assert parse(render(content)) == content


@pytest.mark.parametrize(
    ("name", "written", "message"),
    [
        (
            "a.csv",
            "age,died\n1,0\n",
            r"must be registered trials, CDISC \(USUBJID\).* but has age, died; set study, fields",
        ),
        ("a.xml", "<article/>", "must be TREC's topics or clinical_study, but is <article>; use another modality"),
        ("a.xpt", "plain", "must be a whole SAS transport file of version 5, but"),
        ("a.json", "[", "must be JSON, but"),
    ],
)
def test_other_files_are_one_error(tmp_path: Path, read: Read, name: str, written: str, message: str) -> None:
    (tmp_path / name).write_text(written)
    with pytest.raises(SourceError, match=message):
        read("trial", tmp_path / name)


def test_the_demo_trial_is_read_whole(read: Read, real: Callable[[str], Path]) -> None:
    path = real(".demo-data/lifelines/datasets/gbsg2.csv")
    found = read("trial", path, study="GBSG-2", fields={"age": "age"}, outcome={"event": "cens"})
    assert (len(found.records), found.rejects) == (686, [])

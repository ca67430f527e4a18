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


def test_the_demo_trial_is_read_whole(read: Read, real: Callable[[str], Path]) -> None:
    path = real(".demo-data/lifelines/datasets/gbsg2.csv")
    found = read("trial", path, study="GBSG-2", fields={"age": "age"}, outcome={"event": "cens"})
    assert (len(found.records), found.rejects) == (686, [])

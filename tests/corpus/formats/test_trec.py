"""Patients who look for trials: notes of every year, judgements with and without a header, trials as documents."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Read = Callable[..., Any]


def test_topics_of_all_years(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.xml"
    path.write_text("""<topics task="2021 TREC Clinical Trials"><topic number="1">A 45-year-old
        man &lt; 80 kg.</topic><topic number="2" template="glaucoma"><field name="age">60</field><field name="IOP"/>
        </topic><topic number="3"/></topics>""")
    got = read("trial", path)
    assert [(record.content, record.ids, record.language) for record in got.records] == [
        (
            {"facts": {"kind": "patient note"}, "sections": [["Patient", "A 45-year-old man < 80 kg."]]},
            ("topic:1",),
            "en",
        ),
        (
            {"facts": {"kind": "patient note", "template": "glaucoma", "age": "60"}, "sections": []},
            ("topic:2",),
            "en",
        ),
    ]
    assert [(item.where, item.code) for item in got.rejects] == [("topic 3", "empty")]


def test_notes_and_trials_as_lines(tmp_path: Path, read: Read) -> None:
    trial = {
        "_id": "NCT00000001",
        "title": "T",
        "text": "all of it",
        "metadata": {"brief_summary": "S", "inclusion_criteria": "I", "drugs": "['x']", "diseases_list": ["Pain"]},
    }
    rows = [{"_id": "t-1", "text": "A man."}, {"_id": "t-2", "text": " "}, trial]
    path = tmp_path / "queries.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    got = read("trial", path)
    assert got.codes() == ["no_field"]
    assert [record.group for record in got.records] == ["topic:t-1", "nct:NCT00000001"]
    assert got.records[1].content == {
        "facts": {"trial": "NCT00000001", "title": "T", "interventions": "['x']", "conditions": "Pain"},
        "sections": [["Summary", "S"], ["Inclusion criteria", "I"]],
    }


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("test.tsv", "query-id\tcorpus-id\tscore\n1\tNCT00000001\t2\n1\tx\t2\n1\tNCT00000002\tgood\n1\tNCT00000002\n"),
        ("qrels.txt", "1 0 NCT00000001 2\n1 0 x 2\n1 0 NCT00000002 good\n1 0\n"),
    ],
)
def test_judgements_are_marked_as_evaluation_data(tmp_path: Path, read: Read, name: str, written: str) -> None:
    (tmp_path / name).write_text(written)
    got = read("trial", tmp_path / name)
    (record,) = got.records
    assert record.content["facts"] == {
        "kind": "relevance judgement",
        "topic": "1",
        "trial": "NCT00000001",
        "relevance": "2",
    }
    assert (record.group, record.ids, record.language) == ("topic:1", ("topic:1", "nct:NCT00000001"), None)
    assert got.codes() == ["no_study", "unknown_value", "ragged_row"]
    assert got.notes[0].text.startswith("relevance judgements are evaluation data")


def test_real_notes_and_judgements(read: Read, real: Callable[[str], Path]) -> None:
    folder = "../shared/data/clinical_trials/trialgpt_sigir"
    for name, count in {"queries.jsonl": 59, "test.tsv": 3835}.items():
        got = read("trial", real(f"{folder}/{name}"))
        assert (len(got.records), got.rejects) == (count, []), name

"""Questions: every way to write options and answers is read, and what names no answer is rejected."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corpus.modality import SourceError

Read = Callable[..., Any]
ABC = {"question": "Which?", "A": "one", "B": "two", "C": "three"}
OPTIONS = ["Options", "A. one\nB. two\nC. three"]


@pytest.fixture
def ask(tmp_path: Path, read: Read) -> Callable[..., Any]:
    def run(*rows: Any, name: str = "a.jsonl", **options: Any) -> Any:
        path = tmp_path / name
        text = "\n".join(json.dumps(row) for row in rows) if name.endswith("l") else json.dumps(rows[0])
        path.write_text(text, encoding="utf-8")
        return read("literature", path, **options)

    return run


@pytest.mark.parametrize(
    "row",
    [
        {**ABC, "answer": "B"},
        {**ABC, "answer": "(b)."},
        {**ABC, "answer": "Two"},
        {**ABC, "answer_idx": "B", "answer": "two"},
        {"question": "Which?", "opa": "one", "opb": "two", "opc": "three", "opd": "", "cop": "B"},
        {"question": "Which?", "options": {"A": "one", "B": "two", "C": "three"}, "answer": "B"},
        {
            "question": "Which?",
            "options": [{"key": "A", "value": "one"}, {"value": "two"}, {"value": "three"}],
            "answer": "B",
        },
        {"question": "Which?", "choices": {"text": ["one", "two", "three"], "label": ["1", "2", "3"]}, "answer": "B"},
        {"question": "Which?", "option1": "one", "option2": "two", "option3": "three", "correct_answer": "B"},
        {"Question": "Which?", "ending0": "one", "ending1": "two", "ending2": "three", "label": "B"},
    ],
)
def test_an_option_is_chosen(ask: Callable[..., Any], row: dict[str, Any]) -> None:
    (record,) = ask(row).records
    assert record.content["sections"] == [["Question", "Which?"], OPTIONS, ["Answer", "B. two"]]


@pytest.mark.parametrize(
    ("numbers", "answers"),
    [([0, 1, 2], "ABC"), ([1, 3], "AC"), ([3.0, 2.0], "CB"), (["2", "0"], "CA")],
)
def test_the_first_option_is_0_or_1(ask: Callable[..., Any], numbers: list[Any], answers: str) -> None:
    got = ask(*[{**ABC, "answer": number} for number in numbers])
    assert [record.content["sections"][-1][1][0] for record in got.records] == list(answers)


def test_where_no_answer_tells_the_number_of_the_first_option_must_be_given(ask: Callable[..., Any]) -> None:
    rows = [{**ABC, "answer": 1}, {**ABC, "answer": 2}]
    with pytest.raises(
        SourceError, match="must tell whether answers count from 0 or 1, but has only 1, 2; set first_a"
    ):
        ask(*rows)
    assert ask(*rows, first_answer=0).records[0].content["sections"][-1][1] == "B. two"


def test_what_cannot_be_asked_or_answered_is_rejected(ask: Callable[..., Any]) -> None:
    rows = [
        {**ABC, "answer": 0},
        {**ABC, "answer": -1},
        {**ABC, "answer": 9},
        {**ABC, "answer": "F"},
        {**ABC, "answer": None},
        {**ABC, "answer": 1, "question": " "},
        {"question": "Which?", "A": "one", "answer": 0},
    ]
    assert ask(*rows).codes() == ["no_answer", "no_answer", "no_answer", "no_answer", "no_question", "no_options"]


def test_korean_questions_are_korean(ask: Callable[..., Any]) -> None:
    row = {
        "question": "가장 적절한 치료는?",
        "A": "수술",
        "B": "관찰",
        "answer": 2,
        "cot": "안정적이다.",
        "subject": "의사",
    }
    (record,) = ask(row).records
    assert record.language == "ko"
    assert record.content == {
        "facts": {"subject": "의사"},
        "sections": [
            ["질문", "가장 적절한 치료는?"],
            ["보기", "A. 수술\nB. 관찰"],
            ["정답", "B. 관찰"],
            ["해설", "안정적이다."],
        ],
    }


@pytest.mark.parametrize(
    ("value", "ids"),
    [
        (
            {"123456": {"QUESTION": "Is it?", "CONTEXTS": ["We saw."], "LABELS": ["RESULTS"], "final_decision": "yes"}},
            ("pmid:123456",),
        ),
        (
            [
                {
                    "question": "Is it?",
                    "context": {"contexts": ["We saw."], "labels": ["RESULTS"]},
                    "final_decision": "yes",
                }
            ],
            (),
        ),
        (
            [
                {
                    "question": "Is it?",
                    "context": {"contexts": ["We saw."], "labels": ["RESULTS"]},
                    "final_decision": "yes",
                    "pubid": 123456,
                }
            ],
            ("pmid:123456",),
        ),
    ],
)
def test_pubmedqa(ask: Callable[..., Any], value: Any, ids: tuple[str, ...]) -> None:
    (record,) = ask(value, name="a.json").records
    assert record.content["sections"] == [["Question", "Is it?"], ["Results", "We saw."], ["Decision", "yes"]]
    assert record.ids == ids


def test_bioasq_and_medquad(ask: Callable[..., Any]) -> None:
    asked = {
        "body": "Is it?",
        "ideal_answer": ["It is."],
        "exact_answer": "yes",
        "snippets": [{"text": "Seen."}],
        "documents": ["http://www.ncbi.nlm.nih.gov/pubmed/123"],
    }
    (record,) = ask({"questions": [asked]}, name="a.json").records
    assert record.content["sections"] == [
        ["Question", "Is it?"],
        ["Context", "Seen."],
        ["Answer", "It is."],
        ["Decision", "yes"],
    ]
    assert (record.ids, record.where) == (("pmid:123",), "item 0 of questions")
    rows = [
        {"doc": "d1", "focus": "Flu", "qtype": "causes", "question": "Why?", "answer": answer} for answer in ("So.", "")
    ]
    got = ask(*rows)
    assert got.records[0].content["facts"] == {"focus": "Flu", "kind of question": "causes"}
    assert (got.records[0].group, got.codes()) == ("d1", ["no_answer"])


@pytest.mark.parametrize("options", [{}, {"header": False}])
def test_a_table_may_begin_with_a_question(tmp_path: Path, read: Read, options: dict[str, Any]) -> None:
    path = tmp_path / "anatomy_test.csv"
    path.write_text('"Which of these, then?",one,two,three,four,B\nAnd which one here?,1,2,3,4,D\n')
    found = read("literature", path, **options)
    assert [record.content["sections"][-1] for record in found.records] == [["Answer", "B. two"], ["Answer", "D. 4"]]


def test_a_line_of_names_is_no_question(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,answer,id of the page,A,B,C\nWhich?,y,1,x,y,z\n")
    assert [record.content["sections"][-1] for record in read("literature", path).records] == [["Answer", "B. y"]]

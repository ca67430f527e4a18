"""Literature: formats are told apart by what a file holds; any other table is read with fields."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from corpus import document
from corpus.formats.dates import is_korean, iso_date, language_code, written_date
from corpus.formats.papers import doi, joined, pmcid, pmid, record, tidy, trials
from corpus.modalities.literature import Options, parse, render
from corpus.modality import SourceError, UnusableError

Read = Callable[..., Any]


@given(st.dictionaries(st.text(), st.text()), st.lists(st.tuples(st.text(), st.text())))
def test_every_document_comes_back(facts: dict[str, str], sections: list[tuple[str, str]]) -> None:
    try:
        content = document.make(facts, sections)
    except UnusableError:
        return
    assert parse(render(content)) == content


def test_any_table_with_fields(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,q,short,long,year\n1,Why?,So.,Because.,2020\n2,,,,2020\n3,왜?,그래서.,,NA\n", encoding="utf-8")
    options = {"fields": {"Question": "q", "Answer": ["short", "long"]}, "facts": {"year": "year"}, "group": "id"}
    got = read("literature", path, **options)
    assert [(record.content, record.language, record.group) for record in got.records] == [
        ({"facts": {"year": "2020"}, "sections": [["Question", "Why?"], ["Answer", "So.\nBecause."]]}, "en", "1"),
        ({"facts": {}, "sections": [["Question", "왜?"], ["Answer", "그래서."]]}, "ko", "3"),
    ]
    assert [(item.where, item.code) for item in got.rejects] == [("line 3", "no_field")]
    with pytest.raises(SourceError, match="must have a column 'answer', but has id, q"):
        read("literature", path, fields={"A": "answer"})


def test_a_table_of_papers(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        {"pmid": 7, "Title": "A", "Abstract": ["One.", "Two."], "journal": "J", "year": 2001, "keywords": ["a", "b"]},
        {"pmid": 8, "Title": "Retracted: A", "Abstract": "One."},
        {"pmid": 9, "Title": "B", "Abstract": None},
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    got = read("literature", path)
    assert got.records[0].content == {
        "facts": {"title": "A", "journal": "J", "keywords": "a; b", "published": "2001"},
        "sections": [["Abstract", "One.\nTwo."]],
    }
    assert (got.records[0].ids, got.records[0].date, got.codes()) == (("pmid:7",), "2001", ["retracted", "empty"])


def test_a_forced_format_is_taken(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text("title,abstract,question,answer\nA,One.,Why?,So.\n")
    assert read("literature", path).records[0].content["sections"][0][0] == "Question"
    assert read("literature", path, format="papers").records[0].content["sections"] == [["Abstract", "One."]]
    with pytest.raises(ValidationError, match="must name the columns of format: fields, but fields: is empty; add it"):
        Options.model_validate({"format": "fields"})


@pytest.mark.parametrize(
    ("name", "written", "message"),
    [
        (
            "a.csv",
            "smiles,y\nCCO,1\n",
            r"must be articles, questions .* or IOB, but has smiles, y; set format: or fields:",
        ),
        ("a.json", '{"a": {"b": 1}}', "must be articles, questions with answers.* but has key, b"),
        ("a.xml", "<ICD10CM.tabular/>", "must be JATS .* but is <ICD10CM.tabular>; use another modality or convert it"),
        ("a.txt", "<html><p>x</p></html>", r"must be data or plain text, but is a web page \(HTML\)"),
        ("a.json", "{", "must be JSON, but"),
        ("a.csv", "", "must hold data, but is empty"),
    ],
)
def test_other_files_are_one_error(tmp_path: Path, read: Read, name: str, written: str, message: str) -> None:
    (tmp_path / name).write_text(written)
    with pytest.raises(SourceError, match=message):
        read("literature", tmp_path / name)


@pytest.mark.parametrize(
    ("parts", "date"),
    [
        (("2021", "3", "4"), "2021-03-04"),
        (("2021", "March", None), "2021-03"),
        (("2021", "13", "4"), "2021"),
        (("2021", "2", "30"), "2021-02"),
        (("21", "2", "3"), None),
        ((None, "2", "3"), None),
        (("²", "", ""), None),
    ],
)
def test_dates_of_parts(parts: tuple[Any, Any, Any], date: str | None) -> None:
    assert iso_date(parts[0], parts[1], day=parts[2]) == date


@pytest.mark.parametrize(
    ("written", "date"),
    [
        ("2021-03-04T10:00:00Z", "2021-03-04"),
        ("2021/3/4", "2021-03-04"),
        ("2021", "2021"),
        ("March 4, 2021", "2021-03-04"),
        ("Mar 2021", "2021-03"),
        ("soon", None),
        (None, None),
    ],
)
def test_dates_as_written(written: object, date: str | None) -> None:
    assert written_date(written) == date


def test_languages_and_names() -> None:
    assert [language_code(name) for name in ("en-US", "ko_KR", "kor", "Korean", "und", "")] == [
        "en",
        "ko",
        "ko",
        "ko",
        None,
        None,
    ]
    assert (is_korean("환자 A"), is_korean("123"), is_korean("the 환자 word is rare")) == (True, False, False)
    assert [*pmid("007"), *pmid("x"), *pmid(0), *pmcid("PMC7.1"), *pmcid("7"), *pmcid("")] == [
        "pmid:7",
        "pmcid:PMC7",
        "pmcid:PMC7",
    ]
    assert [*doi("https://doi.org/10.1000/AbC."), *doi("doi:10.1/x"), *doi("none")] == ["doi:10.1000/abc"]
    assert [*trials("NCT01234567, NCT01234567 and NCT1")] == ["nct:NCT01234567"]
    assert joined([" a  b", "a b", None, {"c": 1}, 2]) == "a b; 2"
    assert tidy("a \r\n\r\n\n  b\t\n") == "a\n\n  b\n"


def test_what_nobody_sees_is_not_a_fact() -> None:
    made = record({"a": "\u200b", "b": "c"}, [("t", "\ufeff")], where="x", language="en")
    assert made.content == {"facts": {"b": "c"}, "sections": []}

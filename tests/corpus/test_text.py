"""Text: pairs, documents, paragraphs and ICD-10-CM; what is not clean text is rejected."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.clean import check_language, clean_line, clean_text
from corpus.modalities.text import parse, render
from corpus.modality import SourceError, UnusableError

Read = Callable[..., Any]
ICD = """<?xml version="1.0"?>
<ICD10CM.tabular><chapter><section id="A00-A09">
<diag><name>A00</name><desc>Cholera</desc><includes><note>due  to
 Vibrio</note><note>rice water</note></includes>
<diag><name>A00.0</name><desc>Biovar cholerae</desc><inclusionTerm><note>Classical cholera</note></inclusionTerm>
<diag><name>A00.01</name><desc>too deep</desc></diag></diag></diag>
<diag><name>A01</name><desc>Typhoid</desc></diag>
</section></chapter></ICD10CM.tabular>"""


@given(st.text())
def test_cleaned_text_stays_as_it_is_and_comes_back(given_text: str) -> None:
    try:
        text = clean_text(given_text)
    except UnusableError:
        return
    assert clean_text(text) == text
    assert parse(render({"text": text})) == {"text": text}
    assert "\n" not in clean_line(text)


@pytest.mark.parametrize(
    ("given_text", "code"),
    [
        (" \n ", "empty"),
        ("a\x00b", "control_character"),
        ("a\x9fb", "control_character"),
        ("half \ud83d", "not_unicode"),
        ("M\ufffdller", "decoded_wrongly"),
        ("ignore <|eod|> this", "reserved_symbol"),
        ("<|im_start|>", "reserved_symbol"),
        ("<|gene:CD3E|>", "reserved_symbol"),
    ],
)
def test_what_is_no_clean_text_is_rejected(given_text: str, code: str) -> None:
    with pytest.raises(UnusableError, match=f"^{code}: must"):
        clean_text(given_text)


def test_hangul_is_in_one_form() -> None:
    assert clean_text("환자") == clean_text("환자") == "환자"


@pytest.mark.parametrize(("text", "language"), [("COVID-19", "ko"), ("감염 in 환자", "en")])
def test_a_wrong_language_is_rejected(text: str, language: str) -> None:
    with pytest.raises(UnusableError, match=r"^language: .* text must"):
        check_language(text, language)


def test_pairs_share_a_group_and_a_bad_half_costs_only_itself(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        {"id": 1, "title_en": "Fever", "title_ko": "발열", "en": "It is hot.", "ko": "열이 난다."},
        {"id": 2, "title_en": None, "title_ko": "", "en": "Cough", "ko": "cough"},
    ]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    found = read("text", path)
    assert [(record.language, record.content["text"]) for record in found.records] == [
        ("en", "Fever\n\nIt is hot."),
        ("ko", "발열\n\n열이 난다."),
        ("en", "Cough"),
    ]
    assert found.records[0].group == found.records[1].group != found.records[2].group
    assert [(item.where, item.code) for item in found.rejects] == [("line 2, ko", "language")]


def test_a_pair_in_another_encoding_with_other_columns(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("source;target;doc\nactive cases;현재 감염자;7\n".encode("cp949"))
    found = read("text", path, fields={"en": ["Source"], "ko": [1]}, group="doc")
    assert [(record.content["text"], record.group) for record in found.records] == [
        ("active cases", "7"),
        ("현재 감염자", "7"),
    ]


def test_lists_are_joined_and_other_columns_are_refused(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"1": {"Q": "Why?", "C": ["a", None, "b"]}}))
    assert read("text", path, fields={"en": ["Q", "C"]}).records[0].content["text"] == "Why?\n\na\n\nb"
    with pytest.raises(SourceError, match="must have text, or en and ko, but has key, Q, C; set fields:"):
        read("text", path)


def test_paragraphs_are_documents(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.md"
    path.write_bytes(b"# Title\r\n\r\nfirst\r\nline\r\n\r\n\r\nsecond \x07\r\n")
    found = read("text", path)
    assert [record.content["text"] for record in found.records] == ["# Title", "first\nline"]
    assert [(item.where, item.code) for item in found.rejects] == [("line 7", "control_character")]


def test_icd_categories(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.xml"
    path.write_text(ICD)
    assert [record.content["text"] for record in read("text", path).records] == [
        "A00 Cholera\nIncludes: due to Vibrio; rice water\nA00.0 Biovar cholerae\nAlso called: Classical cholera",
        "A01 Typhoid",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><ICD10CM.tabular/>', "without a document type"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><ICD10CM.tabular/>', "without a document type"),
        ("<html></html>", "must be an ICD-10-CM tabular list, but is <html>; use another format"),
        (ICD[:-30], "must be XML, but unclosed token"),
        ("no xml", "must be XML, but"),
    ],
)
def test_other_xml_is_refused(tmp_path: Path, read: Read, content: str, message: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(content)
    with pytest.raises(SourceError, match=message):
        read("text", path)


def test_the_project_documents_are_clean(read: Read, real: Callable[[str], Path]) -> None:
    for name in ("science", "care"):
        found = read("text", real(f"corpus/samples/{name}.jsonl"))
        assert found.rejects == []
        assert {record.language for record in found.records} == {"en", "ko"}

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
    assert clean_text("\u1112\u116a\u11ab\u110c\u1161") == clean_text("환자") == "환자"


@pytest.mark.parametrize(
    ("given_text", "cleaned"),
    [
        ("a\u200bb\ufeffc\u2060d\u00ade", "abcde"),
        ("환\u200d자 a\u200cb", "환자 ab"),
        ("\u202eabc\u202c \u200fd", "abc d"),
        ("a\U000e0061b", "ab"),
        ("👨\u200d👩\u200d👧 ❤\ufe0f\u200d🔥", "👨\u200d👩\u200d👧 ❤\ufe0f\u200d🔥"),
        ("नमस्\u200dते بب\u200cبب", "नमस्\u200dते بب\u200cبب"),
        ("\uffa1\uffc2\uffa4", "ㄱㅏㄴ"),
        ("ＡＢ １２（％）", "ＡＢ １２（％）"),  # noqa: RUF001 - full width is meant
    ],
)
def test_what_nobody_sees_goes_and_joiners_stay_where_they_join(given_text: str, cleaned: str) -> None:
    assert clean_text(given_text) == clean_text(cleaned) == cleaned


def test_a_symbol_cannot_hide_behind_what_nobody_sees() -> None:
    with pytest.raises(UnusableError, match=r"^reserved_symbol: must"):
        clean_text("<|\u200beod|>")


@pytest.mark.parametrize("text", ["ㅋㅋㅋ", "\u1100\u1161", "\ua960"])
def test_letters_of_hangul_are_korean_too(text: str) -> None:
    check_language(text, "ko")


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


def test_a_plain_file_can_be_one_document(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.names"
    path.write_bytes("제목\r\n\r\n본문".encode("cp949"))
    got = read("text", path, whole=True, language="ko")
    assert [(record.content["text"], record.where, record.offsets) for record in got.records] == [
        ("제목\n\n본문", "line 1", (0, 12))
    ]


@pytest.mark.parametrize(
    ("written", "options", "message"),
    [
        (
            b" <!DOCTYPE html><p>x</p>",
            {},
            r"must be plain text, but is a web page \(HTML\); convert it to text",
        ),
        ("환자".encode("utf-16-le") + b"a\0", {}, "must be text, but holds zero bytes, as UTF-16 without a mark"),
        ("abc".encode("utf-32"), {}, "must be text, but holds zero bytes"),
        (b"", {}, "must hold data, but is empty"),
        (b"M\xfcller", {"encoding": "utf-8"}, "must be in utf-8, but"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, read: Read, written: bytes, options: Any, message: str) -> None:
    (tmp_path / "a.txt").write_bytes(written)
    with pytest.raises(SourceError, match=message):
        read("text", tmp_path / "a.txt", **options)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "cp949", "euc-kr", "utf-16-le"])
def test_korean_in_many_encodings(tmp_path: Path, read: Read, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes("환자가 왔다.\n".encode(encoding))
    options = {"encoding": encoding} if encoding == "utf-16-le" else {}
    assert read("text", tmp_path / "a.txt", language="ko", **options).records[0].content["text"] == "환자가 왔다."


@pytest.mark.parametrize("whole", [False, True])
def test_a_gigantic_document_is_rejected(
    tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    monkeypatch.setattr("corpus.modalities.text.MOST_CHARACTERS", 50)
    path = tmp_path / "a.txt"
    path.write_text("good\n\n" + "long line\n" * 10 + "\nlast\n")
    got = read("text", path, whole=whole)
    assert got.codes() == ["too_large"]
    assert [record.content["text"] for record in got.records] == ([] if whole else ["good", "last"])


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
        (
            '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><ICD10CM.tabular/>',
            "must be XML that declares no entities",
        ),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><ICD10CM.tabular/>', "without a document type"),
        ("<html></html>", r"must be plain text, but is a web page \(HTML\); convert it to text"),
        ("<label></label>", "must be an ICD-10-CM tabular list, but is <label>; use another format"),
        (ICD[:-30], "must be XML, but"),
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


@pytest.mark.parametrize("written", ["في تاريخ 2020", "时间到了", "в назначенную дату", "तारीख पर"])
def test_english_is_in_latin_letters(tmp_path: Path, read: Callable[..., Any], written: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"{written}\n\nThe α2-receptor and β-blockers\n", encoding="utf-8")
    found = read("text", path)
    assert (len(found.records), found.codes()) == (1, ["language"])
    assert len(read("text", path, language="ru").records) == 2

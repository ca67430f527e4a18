"""Translations: memories, messages of programs, tables that name their languages, sentences put together again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corpus.modality import SourceError

Read = Callable[..., Any]
TMX = """<?xml version="1.0"?><!DOCTYPE tmx SYSTEM "tmx14.dtd"><tmx version="1.4"><body>
    <tu><tuv xml:lang="en-US"><seg>A <bpt>&lt;b&gt;</bpt>fever<ept>&lt;/b&gt;</ept> <hi>rises</hi>.</seg></tuv>
    <tuv lang="KO"><seg>열이 난다.</seg></tuv><tuv xml:lang="en"><seg>Again</seg></tuv></tu>
    <tu><tuv xml:lang="en"><seg>COVID</seg></tuv><tuv xml:lang="ko"><seg>COVID</seg></tuv></tu>
    <tu><tuv><seg>x</seg></tuv></tu></body></tmx>"""


def texts(got: Any) -> list[tuple[str, str]]:
    return [(record.language, record.content["text"]) for record in got.records]


@pytest.mark.parametrize("name", ["a.tmx", "a.xml"])
def test_a_translation_memory(tmp_path: Path, read: Read, name: str) -> None:
    (tmp_path / name).write_text(TMX, encoding="utf-8")
    got = read("text", tmp_path / name)
    assert texts(got) == [("en", "A fever rises."), ("ko", "열이 난다."), ("en", "COVID")]
    assert got.records[0].pair == got.records[1].pair is not None
    assert [(item.where, item.code) for item in got.rejects] == [("unit 2, ko", "language"), ("unit 3", "empty")]


def test_a_memory_with_entities_is_refused(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.tmx"
    path.write_text(TMX.replace('SYSTEM "tmx14.dtd"', '[<!ENTITY a "b">]'))
    with pytest.raises(SourceError, match="must be XML that declares no entities, but declares 'a'"):
        read("text", path)


@pytest.mark.parametrize(
    ("value", "options", "found"),
    [
        (
            {"Age group": "연령대", "Add": "더하다"},
            {},
            [("en", "Age group"), ("ko", "연령대"), ("en", "Add"), ("ko", "더하다")],
        ),
        (
            {"page": {"My help": "내 도움말", "deep": {"All right": "좋아요"}}},
            {},
            [("en", "My help"), ("ko", "내 도움말"), ("en", "All right"), ("ko", "좋아요")],
        ),
        ({"menu.title": "제목", "menu.save": "저장"}, {}, [("ko", "제목"), ("ko", "저장")]),
        ({"menu.title": "Title"}, {}, [("en", "Title")]),
        ({"menu.title": "제목"}, {"fields": {"en": ["key"], "ko": ["value"]}}, [("en", "menu.title"), ("ko", "제목")]),
    ],
)
def test_messages_of_a_program(tmp_path: Path, read: Read, value: Any, options: Any, found: Any) -> None:
    (tmp_path / "a.json").write_text(json.dumps(value), encoding="utf-8")
    assert texts(read("text", tmp_path / "a.json", **options)) == found


def test_what_is_no_message_is_rejected(tmp_path: Path, read: Read) -> None:
    rows = {f"Word {number}": f"낱말 {number}" for number in range(201)}
    (tmp_path / "a.json").write_text(json.dumps({**rows, "late": [1]}), encoding="utf-8")
    got = read("text", tmp_path / "a.json")
    assert (len(got.records), got.codes()) == (402, ["not_text"])


def test_rows_that_name_their_languages(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "stringID,sourceLang,targetLang,sourceString,targetString\n"
        "1,en,ko,fever,발열\n2,ko_KR,en-US,기침,cough\n3,en,en,a,b\n4,,ko,a,나\n",
        encoding="utf-8",
    )
    got = read("text", path)
    assert texts(got) == [("en", "fever"), ("ko", "발열"), ("ko", "기침"), ("en", "cough")]
    assert [(item.where, item.code) for item in got.rejects] == [("line 4", "language"), ("line 5", "language")]


def test_columns_named_after_languages(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text("한국어,영어\n발열,fever\n", encoding="utf-8")
    assert texts(read("text", path)) == [("en", "fever"), ("ko", "발열")]


def test_sentences_are_put_together_again(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.jsonl"
    rows = [("d1", "One.", "하나."), ("d1", "Two.", "둘."), ("d2", "Three.", "셋.")]
    path.write_text("\n".join(json.dumps({"doc": doc, "en": en, "ko": ko}) for doc, en, ko in rows))
    got = read("text", path, assemble="doc")
    assert [(record.language, record.content["text"], record.group, record.where) for record in got.records] == [
        ("en", "One.\nTwo.", "d1", "line 1"),
        ("ko", "하나.\n둘.", "d1", "line 1"),
        ("en", "Three.", "d2", "line 3"),
        ("ko", "셋.", "d2", "line 3"),
    ]
    assert got.records[0].offsets == (0, got.records[2].offsets[0])
    path.write_text(path.read_text() + "\n" + json.dumps({"doc": "d1", "en": "Late.", "ko": "늦다."}))
    with pytest.raises(SourceError, match="line 4: rows of one doc must stand together, but 'd1' comes again; sort"):
        read("text", path, assemble="doc")


@pytest.mark.parametrize(
    ("file", "options", "records", "rejects"),
    [
        ("ntrex_en_ko_dev.jsonl", {"assemble": "doc"}, 124, []),
        ("tico19_google_en_ko.csv", {}, 672, ["language"] * 2),
        ("covid19_scenarios_ko.json", {}, 446, ["language"] * 4),
    ],
)
def test_real_translations(
    read: Read, real: Callable[[str], Path], *, file: str, options: Any, records: int, rejects: list[str]
) -> None:
    got = read("text", real(f"../shared/data/ko_en/{file}"), **options)
    assert (len(got.records), got.codes()) == (records, rejects)


def test_a_row_that_names_no_document_is_rejected(read: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"doc": "a", "en": "One."}\n{"en": "Two."}\n{"doc": "<|eod|>", "en": "Three."}\n')
    found = read("text", path, assemble="doc", fields={"en": ["en"]})
    assert [record.content["text"] for record in found.records] == ["One."]
    assert found.codes() == ["no_document", "reserved_symbol"]

"""IOB: words are joined as people write them, spans become facts, bad lines cost their sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corpus.formats.iob import is_iob

Read = Callable[..., Any]


@pytest.fixture
def found(tmp_path: Path, read: Read) -> Callable[..., Any]:
    def run(written: str, name: str = "a.tsv", **options: Any) -> Any:
        (tmp_path / name).write_text(written, encoding="utf-8")
        return read("literature", tmp_path / name, **options)

    return run


def lines(words: str, tags: str) -> str:
    return "".join(f"{word}\t{tag}\n" for word, tag in zip(words.split(), tags.split(), strict=True))


@pytest.mark.parametrize(
    ("words", "tags", "text", "facts"),
    [
        ("Low dose ( 2 . 5 mg / kg ) .", "O O O O O O O O O O O", "Low dose (2.5 mg/kg).", {}),
        ("IL - 2 , 5 %", "B-Gene I-Gene I-Gene O O O", "IL-2, 5%", {"Gene": "IL-2"}),
        ("a b c", "B-X B-X I-X", "a b c", {"X": "a; b c"}),
        ("a b c", "I-X I-Y O", "a b c", {"X": "a", "Y": "b"}),
        ("a b c d", "S-X B-X I-X E-X", "a b c d", {"X": "a; b c d"}),
        ("a b c", "U-X B-X L-X", "a b c", {"X": "a; b c"}),
        ("당뇨병 환자", "B O", "당뇨병 환자", {"entity": "당뇨병"}),
    ],
)
def test_a_sentence(found: Callable[..., Any], words: str, tags: str, text: str, facts: dict[str, str]) -> None:
    (record,) = found(lines(words, tags)).records
    assert record.content == {"facts": facts, "sections": [["", text]]}


def test_sentences_documents_and_columns_between(found: Callable[..., Any]) -> None:
    written = "-DOCSTART- -X- O\n\na NN B-X\n\nb NN O\n\n-DOCSTART- -X- O\nc NN O\n"
    got = found(written, "a.conll")
    assert [(record.where, record.group) for record in got.records] == [
        ("line 3", "a:1"),
        ("line 5", "a:1"),
        ("line 8", "a:2"),
    ]
    assert got.records[0].offsets == (18, 27)


def test_bad_lines_cost_their_sentence(found: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    good = lines("a b", "O B-X")
    got = found(f"{good}\nword\n\na\tQ\n\n{good}", format="iob")
    assert (len(got.records), got.codes()) == (2, ["ragged_row", "unknown_tag"])
    monkeypatch.setattr("corpus.formats.iob._MOST_WORDS", 3)
    assert found(lines("a b c d", "O O O O")).codes() == ["too_large"]


def test_ordinary_tables_are_no_iob() -> None:
    assert not is_iob(["question\tanswer\n", "Why\tO\n"])
    assert not is_iob(["a\tB\n", "b\tI\n"])
    assert not is_iob([])


def test_a_real_file(read: Read, real: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "test.tsv"
    start = real("../shared/data/literature_qa/ner_BC5CDR-IOB_test.tsv").read_text().split("\n\n")[:300]
    path.write_text("\n\n".join(start))
    got = read("literature", path)
    assert (len(got.records), got.rejects) == (300, [])
    assert got.records[0].content["facts"] == {
        "Chemical": "dobutamine",
        "Disease": "Torsade de pointes; ventricular tachycardia; dilated cardiomyopathy; congestive heart failure",
    }

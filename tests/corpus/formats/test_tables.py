"""Tables of every format, encoding and kind of damage."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.formats.tables import Row, TableOptions, find_encoding, group_of, rows, suffix, with_columns
from corpus.modality import Reject, SourceError

HANGUL = "이름,값\n똠방각하,햏\n"  # syllables that EUC-KR lacks and CP949 has


def _read(path: Path, **options: object) -> list[Row | Reject]:
    return list(rows(path, TableOptions.model_validate(options)))


def _cells(path: Path, **options: object) -> list[dict[str, object]]:
    return [row.cells for row in _read(path, **options) if isinstance(row, Row)]


def _codes(path: Path, **options: object) -> list[str]:
    return [item.code for item in _read(path, **options) if isinstance(item, Reject)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "x,y\n1,2\n"),
        ("semicolon.csv", "x;y\n1;2\n"),
        ("bar.txt", "x|y\n1|2\n"),
        ("a.tsv", "x\ty\n1\t2\n"),
        ("blank_lines.csv", "\n\nx,y\n\n1,2\n\n"),
        ("quoted.csv", '"x","y"\r\n"1","2"\r\n'),
        ("spaces.csv", "x , y\n 1, 2 \n"),
    ],
)
def test_delimiters_are_found(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode())
    assert _cells(path) == [{"x": "1", "y": "2"}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949", "utf-16"])
def test_encodings_are_found(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(HANGUL.encode(encoding))
    assert _cells(path) == [{"이름": "똠방각하", "값": "햏"}]


def test_latin_1_is_refused_and_never_guessed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("name\nMüller-Lüdenscheidt é\n".encode("latin-1"))
    with pytest.raises(SourceError, match="must be in utf-8-sig or cp949, but is in neither; give its encoding"):
        find_encoding(path)
    assert _cells(path, encoding="latin-1") == [{"name": "Müller-Lüdenscheidt é"}]


def test_a_wrong_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(HANGUL.encode("cp949"))
    with pytest.raises(SourceError, match=r"must be in utf-8, but .* give the right encoding"):
        _read(path, encoding="utf-8")


def test_gzip_is_known_by_its_bytes(tmp_path: Path) -> None:
    for name in ("a.csv.gz", "misnamed.csv"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(b"x,y\n1,2\n"))
        assert _cells(path) == [{"x": "1", "y": "2"}]
    assert suffix(Path("A.CSV.gz")) == ".csv"


def test_damaged_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"x,y\n" + b"1,2\n" * 10_000)[:-20])
    with pytest.raises(SourceError, match=r"must be a whole gzip file, but .* fetch it again"):
        _read(path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    for name in ("a.csv", "a.jsonl", "a.json"):
        path = tmp_path / name
        path.touch()
        with pytest.raises(SourceError, match="must hold data, but is empty; fetch it again"):
            _read(path)


def test_a_table_without_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("5200,1,UniProt,AMP\nGLWSK, 1\n")
    assert _cells(path, skip_lines=1, header=False) == [{"0": "GLWSK", "1": "1"}]


def test_ragged_rows_are_rejected_by_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,y\n1,2\n3\n4,5,6\n7,8\n")
    found = [item for item in _read(path) if isinstance(item, Reject)]
    assert [(item.where, item.code) for item in found] == [("line 3", "ragged_row"), ("line 4", "ragged_row")]
    assert found[0].reason == "must have 2 cells, but has 1"


def test_places_count_what_stands_before_the_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a comment\n\n\nx,y\n\n1\n")
    assert [item.where for item in _read(path, skip_lines=1)] == ["line 6"]


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,x\n1,2\n")
    with pytest.raises(SourceError, match="must name each column once, but has 'x' twice; rename one"):
        _read(path)


def test_quotes_that_never_close_are_refused_or_read_as_letters(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('word\ttag\n"\tO\nCD4\tB\n')
    with pytest.raises(SourceError, match=r"line 3: must be a table, but .* mend it or set quotes: false"):
        _read(path)
    assert _cells(path, quotes=False) == [{"word": '"', "tag": "O"}, {"word": "CD4", "tag": "B"}]


def test_json_lines_reject_only_the_bad_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    deep = "[" * 100_000
    path.write_text(f'{{"x": 1}}\n{{"x": NaN}}\n\n{{"x"\n[1]\n{{"x": 1, "x": 2}}\n{{"x": {deep}\n')
    assert _cells(path) == [{"x": 1}, {"x": None}]
    assert _codes(path) == ["bad_json"] * 4


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([{"x": 1}], [{"key": 0, "x": 1}]),
        ({"a": {"x": 1}}, [{"key": "a", "x": 1}]),
        ({"a": "b"}, [{"key": "a", "value": "b"}]),
        ("text", []),
    ],
)
def test_json_files_hold_rows(tmp_path: Path, value: object, expected: list[dict[str, object]]) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value))
    assert _cells(path) == expected


def test_damaged_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": ')
    with pytest.raises(SourceError, match="must be JSON, but Expecting value"):
        _read(path)


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": [1.0, None], "y": ["a", "b"]}), path)
    assert _cells(path) == [{"x": 1.0, "y": "a"}, {"x": None, "y": "b"}]
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SourceError, match=r"must be parquet, but .* fetch it again"):
        _read(path)


def test_columns_are_those_of_the_first_rows_together(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": 1}\n{"y": 2}\n')
    found = [item[1] for item in with_columns(rows(path, TableOptions()), sorted) if not isinstance(item, Reject)]
    assert found == [["x", "y"], ["x", "y"]]


def test_groups_are_in_one_unicode_form() -> None:
    composed, apart = "환자", "환자"
    assert group_of({"g": composed}, "g", default="-") == group_of({"g": apart}, "g", default="-")
    assert group_of({"g": None}, "g", default="-") == "-"


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_rows_say_which_bytes_they_are(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    content = {
        "a.csv": 'x,y\r\n\r\n가,"1\n2"\r\nbad\r\nb,c\n',
        "a.jsonl": '{"x": "가"}\n\nbad\n{"x": "b"}\n',
        "a.json": '[{"x": "가"}, {"x": 1, "x": 2}, {"x": "b"}]',
    }[name]
    path.write_bytes(content.encode())
    found = [row.offsets for row in _read(path) if isinstance(row, Row)]
    raw = path.read_bytes()
    shown = [raw[slice(*offsets)].decode().strip() for offsets in found if offsets]
    assert (
        shown
        == {
            "a.csv": ['가,"1\n2"', "b,c"],
            "a.jsonl": ['{"x": "가"}', '{"x": "b"}'],
            "a.json": ['{"x": "가"}', '{"x": "b"}'],
        }[name]
    )


def test_a_giant_line_is_rejected_and_the_rest_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpus.formats.lines.LONGEST", 20)
    for name, content in (
        ("a.csv", f"x\n1\n{'2' * 50}\n3\n"),
        ("a.jsonl", '{"x": "1"}\n"' + "2" * 50 + '"\n{"x": "3"}'),
    ):
        path = tmp_path / name
        path.write_text(content)
        assert [cells["x"] for cells in _cells(path)] == ["1", "3"]
        assert _codes(path) == ["too_large"]


def test_names_are_compared_in_one_form(tmp_path: Path) -> None:
    composed, decomposed = "\uac00", "\u1100\u1161"
    path = tmp_path / "a.csv"
    path.write_text(f"{composed},{decomposed}\n1,2\n")
    with pytest.raises(SourceError, match="must name each column once"):
        _read(path)
    path.write_text(f"{decomposed}\n1\n")
    assert _cells(path) == [{composed: "1"}]
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(twice, tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="must name each column once, but has 'a' twice; rename one"):
        _read(tmp_path / "a.parquet")


def test_an_encoding_that_is_none_of_text_is_refused() -> None:
    with pytest.raises(ValueError, match="must be an encoding that Python knows, but is 'base64'; change it"):
        TableOptions(encoding="base64")


def test_what_stands_for_nothing_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "a.data"
    path.write_text("63.0,?,-9\n?,1,2\n")
    assert _cells(path, header=False, missing=["?", "-9"]) == [
        {"0": "63.0", "1": "", "2": ""},
        {"0": "", "1": "1", "2": "2"},
    ]

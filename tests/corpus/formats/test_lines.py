"""Lines: their places in the file in every encoding, and what is too much to be read."""

import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.formats import lines as module
from corpus.formats.lines import LONGEST, find_encoding, lines, open_bytes, placed_lines
from corpus.modality import SourceError


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949", "utf-16", "utf-16-le", "iso2022_kr", "latin-1"])
def test_every_line_is_where_it_says(tmp_path: Path, encoding: str, ending: str) -> None:
    words = ["first", "é" if encoding == "latin-1" else "둘째 줄", "", "last"]
    for end in ("", ending):
        path, text = tmp_path / "a.txt", ending.join(words) + end
        path.write_bytes(text.encode(encoding))
        given_one = encoding if encoding in ("utf-16-le", "iso2022_kr", "latin-1") else None
        found = list(placed_lines(path, encoding=given_one))
        assert "".join(line.text or "" for line in found) == text
        assert [line.number for line in found] == list(range(1, len(found) + 1))
        raw = path.read_bytes()
        if encoding.startswith(("utf-16", "iso")):
            assert {line.offsets for line in found} == {None}
        else:
            assert [raw[line.start : line.stop].decode(encoding.removesuffix("-sig")) for line in found] == [
                line.text for line in found
            ]


@given(st.binary(max_size=60), st.integers(1, 7))
def test_lines_end_as_python_says_wherever_a_block_ends(content: bytes, block: int) -> None:
    file = io.BytesIO(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        found = list(module._raw_lines(file, 0))
    assert [raw for _, _, raw in found] == content.splitlines(keepends=True)
    assert all(content[start:stop] == raw for start, stop, raw in found)


def test_a_giant_line_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 10)
    monkeypatch.setattr(module, "_BLOCK", 4)
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n" + b"x" * 25 + b"\nthree")
    found = [(line.number, line.text, line.offsets) for line in placed_lines(path)]
    assert found == [(1, "one\n", (0, 4)), (2, None, (4, 30)), (3, "three", (30, 35))]
    wide = [(line.number, line.text) for line in placed_lines(path, encoding="utf-7")]
    assert wide == [(1, "one\n"), (2, None), (3, "three")]
    with pytest.raises(SourceError, match="line 2: must have at most 10 bytes, but has more; cut it"):
        list(lines(path))


def test_an_encoding_is_found_where_it_first_matters(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"plain\n" * 1000 + "똠방각하\n".encode("cp949"))
    assert list(lines(path))[-1] == "똠방각하\n"
    assert find_encoding(path) == "cp949"
    path.write_bytes(b"plain\n" * 1000 + "é".encode("latin-1"))
    with pytest.raises(SourceError, match="must be in utf-8-sig or cp949, but is in neither; give its encoding"):
        list(lines(path))


def test_windows_1252_is_not_taken_for_korean(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("Alzheimer’s and Crohn’s disease\n".encode("cp1252"))
    with pytest.raises(SourceError, match="must be in utf-8-sig or cp949, but is in neither; give its encoding"):
        list(lines(path))
    assert list(lines(path, encoding="cp1252")) == ["Alzheimer’s and Crohn’s disease\n"]
    path.write_bytes("알츠하이머병 환자의 뇌를 똠\n".encode("cp949"))
    assert list(lines(path)) == ["알츠하이머병 환자의 뇌를 똠\n"]


def test_a_gzip_bomb_is_refused_and_a_good_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(bytes(20 << 20)))
    told = "must unpack to at most 200 bytes for each of its own, but does to more; do not trust it"
    with pytest.raises(SourceError, match=told), open_bytes(path) as file:
        file.read()
    path.write_bytes(gzip.compress(b"".join(b"%d,%d\n" % (number, number % 7) for number in range(100_000))))
    assert sum(1 for _ in lines(path)) == 100_000
    assert LONGEST > 20_000_000

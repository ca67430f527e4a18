"""SD files: entries, properties of several lines, what is missing or too long."""

from pathlib import Path

import pytest

from corpus.formats import sdfile
from corpus.formats.lines import placed_lines
from corpus.formats.sdfile import Entry, entries

BLOCK = "ethanol\n  x\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n    0.0 0.0 0.0 C   0  0\nM  END\n"


def _entries(tmp_path: Path, text: str) -> list[Entry]:
    path = tmp_path / "a.sdf"
    path.write_bytes(text.encode())
    return list(entries(placed_lines(path)))


def test_properties_and_the_title(tmp_path: Path) -> None:
    text = f"{BLOCK}>  <A>  (1)\none\ntwo\n\n> 25 <B>\n\n> <C>\n한글\n\n$$$$\n{BLOCK}$$$$\n"
    first, second = _entries(tmp_path, text)
    assert first.properties == {"A": "one two", "B": "", "C": "한글", "title": "ethanol"}
    assert second.properties == {"title": "ethanol"}
    raw = text.encode()
    assert [raw[slice(*(entry.offsets or (0, 0)))][:7] for entry in (first, second)] == [b"ethanol", b"ethanol"]


def test_carriage_returns_and_a_missing_end(tmp_path: Path) -> None:
    text = f"{BLOCK}> <A>\none\n\n$$$$\n{BLOCK}> <A>\ntwo".replace("\n", "\r\n")
    assert [entry.properties["A"] for entry in _entries(tmp_path, text)] == ["one", "two"]


def test_a_property_twice_and_a_giant_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdfile, "_MAX_LINES", 12)
    twice, giant, good = _entries(
        tmp_path, f"{BLOCK}> <A>\n1\n\n> <A>\n2\n$$$$\n{BLOCK}{'x\n' * 20}$$$$\n{BLOCK}$$$$\n"
    )
    assert twice.error
    assert twice.error.reason == "must have each property once, but has 'A' twice"
    assert giant.error
    assert giant.error.code == "too_large"
    assert good.error is None

"""JSON files: read item by item, as strictly as when they are read whole."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.formats import jsonfile
from corpus.formats.jsonfile import Item, items, loads
from corpus.modality import Reject, SourceError, UnusableError

VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
)


def _items(folder: Path, content: str | bytes, **settings: Any) -> list[Item]:
    path = folder / "a.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(items(path, **settings))


@given(st.lists(VALUES, max_size=5) | st.dictionaries(st.sampled_from(["x", "가", "é"]), VALUES), st.integers(1, 40))
def test_items_and_their_places_are_those_of_the_whole(value: Any, block: int) -> None:
    import tempfile

    raw = json.dumps(value, ensure_ascii=False, indent=block % 3 or None).encode()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonfile, "_BLOCK", block)
        found = _items(Path(folder), raw)
    assert [item.value for item in found] == list(value.values() if isinstance(value, dict) else value)
    assert all(item.offsets and json.loads(raw[slice(*item.offsets)]) == item.value for item in found)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('[1, {"a": 1, "a": 2}, 3]', "must have each key once, but has one twice"),
        ('[1, {"\u1100\u1161": 1, "\uac00": 2}, 3]', "must have each key once, but has one twice"),
        (f"[1, {'[' * 200}{']' * 200}, 3]", "must be nested at most 100 levels deep, but is deeper"),
        (f"[1, {'7' * 5000}, 3]", "must be JSON, but Exceeds the limit"),
    ],
)
def test_a_bad_item_costs_itself(tmp_path: Path, content: str, reason: str) -> None:
    first, bad, last = (item.value for item in _items(tmp_path, content))
    assert (first, last) == (1, 3)
    assert isinstance(bad, Reject)
    assert (bad.where, bad.code) == ("item 1", "bad_json")
    assert bad.reason.startswith(reason)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1, "a": 2}', "must have each key once, but has one twice"),
        ("[1, 2", "must be JSON, but must have , or ] at the end"),
        ("[1 2]", "must be JSON, but must have , or ] at '2]'"),
        ("[1, tru]", "must be JSON, but Expecting value at 'tru]'"),
        ("[1] 2", "must be JSON, but it goes on after its end with '2'"),
        ("{1: 2}", "must be JSON, but has a key that is no text: 1"),
        ("[" * 100_000, "must be nested at most 100 levels deep, but is deeper"),
        (b'["\xff"]', "must be in utf-8-sig or cp949, but is in neither; give its encoding"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(SourceError, match=re.escape(message)):
        _items(tmp_path, content)


def test_objects_a_line_are_a_list_of_them_and_a_bad_line_costs_itself(tmp_path: Path) -> None:
    raw = b'\xef\xbb\xbf{"a": 1}\n\n{"a": 2, "a": 3}\n{"a": 4}\n'
    first, bad, last = _items(tmp_path, raw, within=("a",))
    assert [(item.key, item.value, item.where) for item in (first, last)] == [
        (0, {"a": 1}, "line 1"),
        (2, {"a": 4}, "line 4"),
    ]
    assert isinstance(bad.value, Reject)
    assert (bad.value.where, bad.value.code) == ("line 3", "bad_json")
    assert all(item.offsets and json.loads(raw[slice(*item.offsets)]) == item.value for item in (first, last))


def test_one_object_over_several_lines_is_no_list(tmp_path: Path) -> None:
    assert [item.key for item in _items(tmp_path, '{"a":\n{"b": 1},\n"c": {}}')] == ["a", "c"]
    assert [item.key for item in _items(tmp_path, '{"a": 1, "b": 2}\n\n')] == ["a", "b"]
    with pytest.raises(SourceError, match="it goes on after its end with '1'"):
        _items(tmp_path, '{"a": 1}\n1')


def test_an_item_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonfile, "LARGEST", 1000)
    told = "must have items of at most 1,000 characters, but one is larger or never ends"
    with pytest.raises(SourceError, match=told):
        _items(tmp_path, '["' + "x" * 3_000_000)


def test_a_wrong_encoding_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"must be in ascii, but .*; give the right encoding"):
        _items(tmp_path, '["가"]', encoding="ascii")
    assert [item.value for item in _items(tmp_path, '["가"]'.encode("utf-16"))] == ["가"]


def test_text_is_read_as_strictly() -> None:
    assert loads('{"a": NaN, "b": [Infinity]}') == {"a": None, "b": [None]}
    for text in ('{"a": 1, "a": 2}', "[" * 101 + "]" * 101, "[" * 100_000, "7" * 5000, "{", ""):
        with pytest.raises(UnusableError, match=r"must be (JSON, but|nested at most 100)|must have each key once"):
            loads(text)

"""Translations: memories (TMX), messages of programs ({english: korean}), tables that name their languages."""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from corpus.annotations import bare
from corpus.clean import clean_line, is_missing
from corpus.formats import xmlfile
from corpus.formats.dates import is_korean, language_code
from corpus.formats.jsonfile import items
from corpus.formats.tables import Row
from corpus.formats.xmlfile import children, name, refuse_entity
from corpus.modality import Reject, SourceError, UnusableError, reject

_CODES = ("bpt", "ept", "ph", "it", "ut")  # of formatting; what they hold is no text
_SAMPLE = 200
_ROW_NAMES = ("text", "en", "ko", "title")
_PAIRED = {"source": ("sourcestring", "sourcetext"), "target": ("targetstring", "targettext", "translation")}
_NAMES = {
    "en": ("en", "english", "eng", "영어", "영문"),
    "ko": ("ko", "korean", "kor", "한국어", "한글", "국문"),
}


def units(path: Path) -> Iterator[tuple[str, dict[str, str]] | Reject]:
    """Yields ("unit 3", {language: text}) of a translation memory; of a language that comes twice the first text.

    Raises:
        SourceError: the file is damaged or unsafe (corpus/formats/xmlfile.py).
    """
    for number, unit in enumerate(xmlfile.elements(path, ("tu",)), start=1):
        where = f"unit {number}"
        try:
            texts = dict[str, str]()
            for variant in children(unit, "tuv"):
                code = language_code(xmlfile.language(variant))
                written = "".join(_segment(part) for part in children(variant, "seg")).strip()
                if code and written:
                    texts.setdefault(code, written)
            if not texts:
                raise UnusableError("empty", "must have a segment in a language it names, but has none")  # noqa: TRY301
            yield where, texts
        except UnusableError as error:
            yield reject(error, where=where, excerpt="")


def messages(path: Path, *, encoding: str | None = None) -> Iterator[Row | Reject] | None:
    """Returns the rows (columns key and value) of a program's messages, objects within objects; None of other JSON."""
    first = list(islice(items(path, encoding=encoding), _SAMPLE))
    if not first or not all(isinstance(item.key, str) and _is_messages(item.value) for item in first):
        return None
    columns = {bare(key) for item in first if isinstance(item.value, dict) for key in item.value}
    return None if columns & set(_ROW_NAMES) else _message_rows(path, encoding)


def message_fields(rows: Iterable[Row | Reject], language: str) -> dict[str, list[str | int]]:
    """Returns which languages the columns key and value are in: keys are English where they are words, not names."""
    sample = [row.cells for row in islice((row for row in rows if isinstance(row, Row)), _SAMPLE)]
    values = " ".join(str(cells["value"]) for cells in sample)
    code = "ko" if is_korean(values, share=0.2) else language
    worded = sum(" " in str(cells["key"]).strip() for cells in sample) >= 0.2 * len(sample)
    return {"en": ["key"], code: ["value"]} if worded and code != "en" else {code: ["value"]}


def usual_languages(columns: list[str]) -> dict[str, list[str | int]]:
    """Returns the columns that are named after English and Korean, where there are both, with their titles."""
    by_name = {bare(column): column for column in columns}
    found: dict[str, list[str | int]] = {}
    for code, names in _NAMES.items():
        text = next((by_name[name] for name in names if name in by_name), None)
        if text is not None:
            title = by_name.get(f"title{code}")
            found[code] = [title, text] if title else [text]
    return found if len(found) == len(_NAMES) else {}


def named_pair(columns: list[str]) -> tuple[str, str, str, str] | None:
    """Returns the columns of source, its language, target and its language; None where a table has no such four."""
    by_name = {bare(column): column for column in columns}
    texts = [next((by_name[name] for name in names if name in by_name), None) for names in _PAIRED.values()]
    codes = [by_name.get(f"{side}lang") or by_name.get(f"{side}language") for side in _PAIRED]
    if None in (*texts, *codes):
        return None
    return str(texts[0]), str(codes[0]), str(texts[1]), str(codes[1])


def pair_fields(cells: Mapping[str, Any], pair: tuple[str, str, str, str]) -> dict[str, list[str]]:
    """Returns {language: [column]} of one row that names its languages.

    Raises:
        UnusableError: it names none, or one for both sides.
    """
    source, source_language, target, target_language = pair
    codes = [language_code(str(cells.get(name) or "")) for name in (source_language, target_language)]
    if None in codes or codes[0] == codes[1]:
        found = f"{cells.get(source_language)!r:.30} and {cells.get(target_language)!r:.30}"
        raise UnusableError("language", f"must name two languages, but names {found}")
    return {str(codes[0]): [source], str(codes[1]): [target]}


def assembled(rows: Iterable[Row | Reject], *, column: str) -> Iterator[Row | Reject]:
    """Puts rows of one value of a column together: one row, each cell a list, so that a document is whole again.

    Raises:
        SourceError: rows of one value do not stand together.
    """
    held: Row | None = None
    seen = set[str]()
    for row in rows:
        if isinstance(row, Reject):
            yield row
            continue
        try:
            value = _name(row, column)
        except UnusableError as error:
            yield reject(error, where=row.where, excerpt=row.cells)
            continue
        if held is not None and held.cells[column] == value:
            held = _longer(held, row, column)
            continue
        if held is not None:
            yield held
        if value in seen:
            told = f"{row.where}: rows of one {column} must stand together, but {value!r:.40} comes again"
            raise SourceError("not_together", f"{told}; sort the table")
        seen.add(value)
        cells = {name: value if name == column else [cell] for name, cell in row.cells.items()}
        held = Row(where=row.where, cells=cells, offsets=row.offsets)
    if held is not None:
        yield held


def _name(row: Row, column: str) -> str:
    """Returns what a row's document is called."""
    if is_missing(row.cells.get(column)):
        raise UnusableError("no_document", f"must name its document in {column}, but does not")
    return clean_line(str(row.cells[column]))


def _longer(held: Row, row: Row, column: str) -> Row:
    for other, cell in row.cells.items():
        if other != column:
            held.cells.setdefault(other, []).append(cell)
    offsets = (held.offsets[0], row.offsets[1]) if held.offsets and row.offsets else None
    return Row(where=held.where, cells=held.cells, offsets=offsets)


def _segment(element: Any) -> str:
    parts = [element.text or ""]
    for part in element:
        if isinstance(part.tag, str):
            parts.append("" if name(part) in _CODES else _segment(part))
        else:
            refuse_entity(part)
        parts.append(part.tail or "")
    return "".join(parts)


def _is_messages(value: Any) -> bool:
    """Says whether a value is a text, or an object of such values all the way down."""
    if isinstance(value, dict):
        return all(_is_messages(item) for item in value.values())
    return isinstance(value, str)


def _message_rows(path: Path, encoding: str | None) -> Iterator[Row | Reject]:
    for item in items(path, encoding=encoding):
        if isinstance(item.value, Reject):
            yield item.value
            continue
        for trail, value in _leaves(item.value, (str(item.key),)):
            where = f"item {'.'.join(trail)}"
            if isinstance(value, str):
                yield Row(where=where, cells={"key": trail[-1], "value": value}, offsets=item.offsets)
            else:
                error = UnusableError("not_text", f"must be a text, but is {type(value).__name__}")
                yield reject(error, where=where, excerpt=value)


def _leaves(value: Any, trail: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not isinstance(value, dict):
        yield trail, value
        return
    for key, item in value.items():
        yield from _leaves(item, (*trail, re.sub(r"\s+", " ", key)))

"""Text: documents in tables, JSON, .txt and .md files and ICD-10-CM, in any language; translations in pairs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from corpus import annotations, icd, tables
from corpus.clean import check_language, clean_text, is_missing
from corpus.modality import Item, Record, Reject, SourceError, UnusableError, reject
from corpus.symbols import inside, tags
from corpus.tables import Row, TableOptions
from slurm.files import digest

_PROSE = (".txt", ".md")
SUFFIXES = (*_PROSE, *(name for name in tables.SUFFIXES if name != ".txt"), ".xml")
SCALE = "L1"
SYMBOLS = tags("text")

Language = Annotated[str, Field(pattern="^[a-z]{2}$")]


class Options(TableOptions):
    """How to read text.

    Attributes:
        language: of files that hold one language.
        fields: columns that make a document, by language: `{en: [title_en, en], ko: [title_ko, ko]}`. When not
            given: en and ko with their titles where a table has both, else title and text in `language`.
    """

    language: Language = "en"
    fields: dict[Language, list[str | int]] = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    fields: dict[str, list[str]]
    group: str | None


def read(path: Path, options: Options, /) -> Iterator[Item]:
    """Yields one record per document and language; translations of one document share a group."""
    kind = tables.suffix(path)
    if kind in _PROSE:
        yield from _documents(_paragraphs(path, options), options.language)
    elif kind == ".xml":
        found = ((f"category {code}", text) for code, text in icd.categories(path))
        yield from _documents(found, options.language)
    else:
        yield from _read_table(path, options)


def render(content: Mapping[str, Any], /) -> str:
    """Writes <|text|>, the document and <|/text|>."""
    opening, closing = tags("text")
    return f"{opening}{content['text']}{closing}"


def parse(rendered: str, /) -> dict[str, Any]:
    """Reads back what `render` wrote."""
    return {"text": inside(rendered, "text")[0]}


def _documents(found: Iterator[tuple[str, str]], language: str) -> Iterator[Item]:
    for where, text in found:
        try:
            cleaned = _cleaned(text, language)
            yield Record(content={"text": cleaned}, group=digest(cleaned), language=language)
        except UnusableError as error:
            yield reject(error, where=where, excerpt=text)


def _cleaned(given: str, language: str) -> str:
    text = clean_text(given)
    check_language(text, language)
    return text


def _paragraphs(path: Path, options: Options) -> Iterator[tuple[str, str]]:
    start, paragraph = 1, list[str]()
    for number, line in enumerate(tables.lines(path, encoding=options.encoding), start=1):
        if line.strip():
            start = start if paragraph else number
            paragraph.append(line)
        elif paragraph:
            yield f"line {start}", "".join(paragraph)
            paragraph = []
    if paragraph:
        yield f"line {start}", "".join(paragraph)


def _read_table(path: Path, options: Options) -> Iterator[Item]:
    for item in tables.with_columns(tables.rows(path, options), lambda found: _choose(found, options)):
        if isinstance(item, Reject):
            yield item
        else:
            yield from _read_row(*item)


def _read_row(row: Row, chosen: _Chosen) -> Iterator[Item]:
    """Reads each language by itself: a bad Korean field does not cost the English one."""
    texts: dict[str, str] = {}
    for language, columns in chosen.fields.items():
        given = _joined(row, columns)
        try:
            texts[language] = _cleaned(given, language)
        except UnusableError as error:
            yield reject(error, where=f"{row.where}, {language}", excerpt=given)
    together = digest(texts)
    group = tables.group_of(row.cells, chosen.group, default=together)
    for language, text in texts.items():
        pair = together if len(texts) > 1 else None
        yield Record(content={"text": text}, group=group, language=language, pair=pair)


def _joined(row: Row, columns: list[str]) -> str:
    parts = [row.cells.get(column) for column in columns]
    flat = [item for part in parts for item in (part if isinstance(part, list) else [part])]
    return "\n\n".join(str(item).strip() for item in flat if not is_missing(item))


def _choose(found: list[str], options: Options) -> _Chosen:
    fields = options.fields or _usual(found, options.language)
    return _Chosen(
        fields={key: [annotations.find_column(name, found) for name in names] for key, names in fields.items()},
        group=None if options.group is None else annotations.find_column(options.group, found),
    )


def _usual(found: list[str], language: str) -> dict[str, list[str | int]]:
    if "en" in found and "ko" in found:
        return {key: [name for name in (f"title_{key}", key) if name in found] for key in ("en", "ko")}
    if "text" in found:
        return {language: [name for name in ("title", "text") if name in found]}
    raise SourceError("wrong_columns", f"must have text, or en and ko, but has {', '.join(found)[:300]}; set fields:")

"""Text: documents in tables, JSON, plain files and ICD-10-CM, in any language; translations in pairs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from corpus import annotations
from corpus.clean import check_language, clean_text, is_missing
from corpus.formats import icd, tables, translations, xmlfile
from corpus.formats.lines import Line
from corpus.formats.tables import Row, TableOptions
from corpus.modality import Item, Record, Reject, SourceError, UnusableError, reject
from corpus.symbols import inside, tags
from slurm.files import digest

_PROSE = (".txt", ".text", ".md", ".rst", ".names")
SUFFIXES = (*_PROSE, *(name for name in tables.SUFFIXES if name != ".txt"), ".xml", ".tmx")
SCALE = "L1"
SYMBOLS = tags("text")
MOST_CHARACTERS = 20_000_000  # of one document

Language = Annotated[str, Field(pattern="^[a-z]{2}$")]


class Options(TableOptions):
    """How to read text.

    Attributes:
        language: of files that hold one language.
        fields: columns that make a document, by language: `{en: [title_en, en], ko: [title_ko, ko]}`. When not
            given: columns named after English and Korean, or those of TICO-19, or keys and values of a program's
            messages, else title and text in `language`.
        assemble: a column; its rows of one value are one document, in their order.
        whole: a plain file is one document, and not one per paragraph.
    """

    language: Language = "en"
    fields: dict[Language, list[str | int]] = Field(default_factory=dict)
    assemble: str | int | None = None
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    fields: dict[str, list[str]]
    group: str | None
    pair: tuple[str, str, str, str] | None = None
    between: str = "\n\n"


@dataclass(frozen=True, kw_only=True)
class _Document:
    where: str
    text: str
    offsets: tuple[int, int] | None = None


def read(path: Path, options: Options, /) -> Iterator[Item]:
    """Yields one record per document and language; translations of one document share a group."""
    kind = tables.suffix(path)
    if kind != ".parquet":
        _refuse_what_is_no_text(path, options)
    if kind in _PROSE:
        yield from _documents(_paragraphs(path, options), options.language)
    elif kind in (".xml", ".tmx"):
        yield from _read_xml(path, options)
    else:
        yield from _read_table(path, options)


def render(content: Mapping[str, Any], /) -> str:
    """Writes <|text|>, the document and <|/text|>."""
    opening, closing = tags("text")
    return f"{opening}{content['text']}{closing}"


def parse(rendered: str, /) -> dict[str, Any]:
    """Reads back what `render` wrote."""
    return {"text": inside(rendered, "text")[0]}


def _refuse_what_is_no_text(path: Path, options: Options) -> None:
    with tables.open_bytes(path) as file:
        start = file.read(4096)
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html")):
        raise SourceError("html", "must be plain text, but is a web page (HTML); convert it to text")
    wide = start.startswith((b"\xff\xfe", b"\xfe\xff")) and not start.startswith(b"\xff\xfe\0\0")
    if b"\0" in start and not wide and options.encoding is None:
        told = "must be text, but holds zero bytes, as UTF-16 without a mark and UTF-32 do"
        raise SourceError("encoding", f"{told}; set encoding: utf-16-le or what it is")


def _read_xml(path: Path, options: Options) -> Iterator[Item]:
    if xmlfile.root(path) == "tmx":
        for item in translations.units(path):
            if isinstance(item, Reject):
                yield item
            else:
                yield from _translated(Row(where=item[0], cells={}), item[1], group=None)
        return
    found = (_Document(where=f"category {code}", text=text) for code, text in icd.categories(path))
    yield from _documents(found, options.language)


def _documents(found: Iterator[_Document], language: str) -> Iterator[Item]:
    for document in found:
        try:
            cleaned = _cleaned(document.text, language)
            yield Record(
                content={"text": cleaned},
                group=digest(cleaned),
                language=language,
                where=document.where,
                offsets=document.offsets,
            )
        except UnusableError as error:
            yield reject(error, where=document.where, excerpt=document.text[:200])


def _cleaned(given: str, language: str) -> str:
    if len(given) > MOST_CHARACTERS:
        told = f"must have at most {MOST_CHARACTERS:,} characters, but has more; cut it in documents"
        raise UnusableError("too_large", told)
    text = clean_text(given)
    check_language(text, language)
    return text


def _paragraphs(path: Path, options: Options) -> Iterator[_Document]:
    """Paragraphs, or the whole; of one beyond what may be, its first and last line are held."""
    held, size = list[Line](), 0
    for line in tables.placed_lines(path, encoding=options.encoding):
        is_empty = line.text is not None and not line.text.strip()
        if is_empty and not options.whole:
            if held:
                yield _document(held, size)
            held, size = [], 0
            continue
        size += MOST_CHARACTERS + 1 if line.text is None else len(line.text)
        if held or not is_empty:
            held[1 if size > MOST_CHARACTERS else len(held) :] = [line]
    if held:
        yield _document(held, size)


def _document(held: list[Line], size: int) -> _Document:
    first, last = held[0].offsets, held[-1].offsets
    text = "".join(line.text or "" for line in held) if size <= MOST_CHARACTERS else " " * (MOST_CHARACTERS + 1)
    offsets = None if first is None or last is None else (first[0], last[1])
    return _Document(where=f"line {held[0].number}", text=text, offsets=offsets)


def _read_table(path: Path, options: Options) -> Iterator[Item]:
    rows, chosen = _rows(path, options)
    for item in tables.with_columns(rows, lambda found: chosen or _choose(found, options)):
        if isinstance(item, Reject):
            yield item
        else:
            yield from _read_row(*item)


def _rows(path: Path, options: Options) -> tuple[Iterator[Row | Reject], _Chosen | None]:
    """Returns the rows of a table, and of a program's messages also which columns make the documents."""
    asked = {str(name) for names in options.fields.values() for name in names}
    if tables.suffix(path) == ".json" and asked <= {"key", "value"}:
        found = translations.messages(path, encoding=options.encoding)
        if found is not None:
            again = translations.messages(path, encoding=options.encoding) or iter(())
            fields = options.fields or translations.message_fields(again, options.language)
            return found, _Chosen(
                fields={key: [str(name) for name in names] for key, names in fields.items()}, group=None
            )
    if options.assemble is None:
        return tables.rows(path, options), None
    columns = next((list(row.cells) for row in tables.rows(path, options) if isinstance(row, Row)), [])
    column = annotations.find_column(options.assemble, columns) if columns else ""
    return translations.assembled(tables.rows(path, options), column=column), None


def _read_row(row: Row, chosen: _Chosen) -> Iterator[Item]:
    """Reads each language by itself: a bad Korean field does not cost the English one."""
    try:
        fields = translations.pair_fields(row.cells, chosen.pair) if chosen.pair else chosen.fields
    except UnusableError as error:
        yield reject(error, where=row.where, excerpt=row.cells)
        return
    texts = {language: _joined(row, columns, chosen.between) for language, columns in fields.items()}
    yield from _translated(row, texts, group=chosen.group)


def _translated(row: Row, given: Mapping[str, str], *, group: str | None) -> Iterator[Item]:
    texts: dict[str, str] = {}
    for language, text in given.items():
        try:
            texts[language] = _cleaned(text, language)
        except UnusableError as error:
            yield reject(error, where=f"{row.where}, {language}", excerpt=text[:200])
    together = digest(texts)
    for language, text in texts.items():
        yield Record(
            content={"text": text},
            group=tables.group_of(row.cells, group, default=together),
            language=language,
            pair=together if len(texts) > 1 else None,
            where=row.where,
            offsets=row.offsets,
        )


def _joined(row: Row, columns: list[str], between: str) -> str:
    parts = [row.cells.get(column) for column in columns]
    flat = [item for part in parts for item in (part if isinstance(part, list) else [part])]
    return between.join(str(item).strip() for item in flat if not is_missing(item))


def _choose(found: list[str], options: Options) -> _Chosen:
    pair = None if options.fields else translations.named_pair(found)
    fields = {} if pair else options.fields or _usual(found, options.language)
    group = options.assemble if options.group is None else options.group
    return _Chosen(
        fields={key: [annotations.find_column(name, found) for name in names] for key, names in fields.items()},
        group=None if group is None else annotations.find_column(group, found),
        pair=pair,
        between="\n\n" if options.assemble is None else "\n",
    )


def _usual(found: list[str], language: str) -> dict[str, list[str | int]]:
    both = translations.usual_languages(found)
    if both:
        return both
    if "text" in found:
        return {language: [name for name in ("title", "text") if name in found]}
    raise SourceError("wrong_columns", f"must have text, or en and ko, but has {', '.join(found)[:300]}; set fields:")

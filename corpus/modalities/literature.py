"""Literature: articles (JATS, PubMed, BioC), questions with answers, findings of trials, sentences with entities."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from corpus import annotations, document
from corpus.annotations import Column, Columns, Name, bare
from corpus.clean import is_missing
from corpus.formats import bioc, evidence, iob, jats, medquad, papers, pubmed, questions, tables, xmlfile
from corpus.formats.dates import is_korean, written_date
from corpus.formats.jsonfile import items
from corpus.formats.jsonvalues import as_dict, as_list, each, text
from corpus.formats.tables import Row, TableOptions
from corpus.modality import Item, Record, Reject, SourceError, UnusableError
from corpus.symbols import tags

_XML = (".xml", ".nxml", ".bioc")
_LINES = (".iob", ".iob2", ".conll", ".bio", ".pubtator")
SUFFIXES = (*tables.SUFFIXES, *_XML, *_LINES)
SCALE = "L6"
SYMBOLS = (*tags("literature"), *document.SYMBOLS)
_TABLES = ("pubmedqa", "choices", "answers", "articles", "relations", "papers", "fields")
_HOLDERS = ("questions", "data", "examples", "items")  # an object whose one list of rows is called so

Language = Annotated[str, Field(pattern="^[a-z]{2}$")]
Format = Literal[
    "jats",
    "pubmed",
    "bioc",
    "pubtator",
    "iob",
    "pubmedqa",
    "choices",
    "answers",
    "articles",
    "relations",
    "papers",
    "fields",
]


class Options(TableOptions):
    """How to read literature.

    Attributes:
        format: found by what the file holds when not given.
        language: of what does not say it and is not visibly Korean.
        languages: those to keep of abstracts and translations in many.
        retracted: whether retracted and withdrawn articles are kept.
        first_answer: the number of the first option, where answers are numbers; found when not given.
        fields: columns of any other table that are sections: `{Question: q, Answer: [short, long]}`.
        facts: columns that are facts: `{year: YEAR}`.
    """

    format: Format | None = None
    language: Language = "en"
    languages: tuple[Language, ...] = ("en", "ko")
    retracted: bool = False
    first_answer: Literal[0, 1] | None = None
    fields: dict[Name, str | int | list[str | int]] = Field(default_factory=dict)
    facts: Columns = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fields_are_there(self) -> "Options":
        if self.format == "fields" and not self.fields:
            raise ValueError("must name the columns of format: fields, but fields: is empty; add it")
        return self


def read(path: Path, options: Options, /) -> Iterator[Item]:
    """Yields articles, questions, findings or sentences, by what the file holds.

    Raises:
        SourceError: the file is damaged or unsafe, or in none of the formats above.
    """
    if options.format is None and not options.fields and _is_headless(path, options):
        options = options.model_copy(update={"header": False})
    found = options.format or ("fields" if options.fields else _detect(path, options))
    settings = jats.Settings(language=options.language, retracted=options.retracted, languages=options.languages)
    if found == "jats":
        yield from jats.articles(path, settings)
    elif found == "pubmed":
        yield from pubmed.citations(path, settings)
    elif found in ("bioc", "pubtator"):
        yield from bioc.documents(_bioc(path, options, found), settings)
    elif found == "iob":
        yield from iob.sentences(path, language=options.language, encoding=options.encoding)
    else:
        yield from _table(path, options, found)


def render(content: Mapping[str, Any], /) -> str:
    """Writes <|literature|>, the facts, the sections and <|/literature|>."""
    return document.write("literature", content)


def parse(rendered: str, /) -> dict[str, Any]:
    """Reads back what `render` wrote."""
    return document.read("literature", rendered)


def _detect(path: Path, options: Options) -> str:
    """Returns the format of a file, told by its first element, line or columns."""
    kind = tables.suffix(path)
    if kind == ".parquet":
        return _detect_table(path, options)
    if kind in (".json", ".jsonl"):
        return "bioc" if _is_bioc(path, options) else _detect_table(path, options)
    if kind in _XML or _starts_like_xml(path):
        return _detect_xml(path)
    first = _first_line(path, options)
    if bioc.is_pubtator(first):
        return "pubtator"
    is_iob = iob.is_iob(list(islice(tables.lines(path, encoding=options.encoding), 50)))
    return "iob" if is_iob else _detect_table(path, options)


def _detect_xml(path: Path) -> str:
    root = xmlfile.root(path)
    known = {"jats": jats.ROOTS, "pubmed": pubmed.ROOTS, "bioc": ("collection", "document"), "answers": medquad.ROOTS}
    found = next((name for name, roots in known.items() if root in roots), None)
    if found is None:
        told = "must be JATS (article), PubMed (PubmedArticleSet), BioC (collection) or MedQuAD (Document)"
        raise SourceError("unknown_xml", f"{told}, but is <{root}>; use another modality or convert it")
    return found


def _detect_table(path: Path, options: Options) -> str:
    columns = next((list(item.cells) for item in _rows(path, options) if isinstance(item, Row)), [])
    found = {bare(column) for column in columns}
    kind = evidence.shape(found) or questions.shape(columns) or ("papers" if {"title", "abstract"} <= found else None)
    if columns and kind is None:
        told = "must be articles, questions with answers, findings (intervention, comparator, outcome) or IOB"
        raise SourceError("wrong_columns", f"{told}, but has {', '.join(columns)[:300]}; set format: or fields:")
    return kind or "papers"


def _is_headless(path: Path, options: Options) -> bool:
    is_csv = tables.suffix(path) == ".csv" and options.header and not options.skip_lines
    return is_csv and questions.is_headless(_first_line(path, options))


def _starts_like_xml(path: Path) -> bool:
    with tables.open_bytes(path) as file:
        return file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")


def _first_line(path: Path, options: Options) -> str:
    return next((line for line in tables.lines(path, encoding=options.encoding) if line.strip("\ufeff \t\r\n")), "")


def _is_bioc(path: Path, options: Options) -> bool:
    if tables.suffix(path) == ".jsonl":
        lines = each(path, encoding=options.encoding)
        return bioc.is_bioc(next((item[1] for item in lines if isinstance(item, tuple)), None))
    return any(
        item.key == "passages" or bioc.is_bioc(item.value) or (item.key == "PubTator3" and isinstance(item.value, list))
        for item in islice(items(path, encoding=options.encoding), 16)
    )


def _bioc(path: Path, options: Options, found: str) -> Iterator[tuple[str, Any] | Reject]:
    if found == "pubtator":
        return bioc.pubtator_documents(path, encoding=options.encoding)
    kind = tables.suffix(path)
    if kind in _XML:
        _detect_xml(path)
        return bioc.xml_documents(path)
    return (each if kind == ".jsonl" else bioc.json_documents)(path, encoding=options.encoding)


def _rows(path: Path, options: Options) -> Iterator[Row | Reject]:
    """Rows of a table, also of those that stand in one list of a JSON object: {"questions": [...]}."""
    if tables.suffix(path) == ".json":
        held = next(
            (item for item in islice(items(path, encoding=options.encoding), 8) if _holds_rows(item.key, item.value)),
            None,
        )
        if held is not None:
            for number, cells in enumerate(held.value):
                yield Row(where=f"item {number} of {held.key}", cells=as_dict(cells))
            return
    if tables.suffix(path) in _XML:
        yield from medquad.rows(path)
        return
    bare_rows = not options.header and not options.fields
    for item in tables.rows(path, options):
        yield questions.named(item) if bare_rows and isinstance(item, Row) else item


def _holds_rows(key: str | int, value: Any) -> bool:
    return key in _HOLDERS and isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    fields: dict[str, list[str]]
    facts: dict[str, Column]
    group: str | None


def _table(path: Path, options: Options, found: str) -> Iterator[Item]:
    first: int | None = options.first_answer
    if found == "choices" and first is None:
        first = questions.first_answer(row.cells for row in _rows(path, options) if isinstance(row, Row))
    asking = questions.Asking(language=options.language, first_answer=first)

    def ask(row: Row, _: _Chosen) -> Iterator[Record]:
        yield questions.record(row, kind=found, asking=asking)

    makers: dict[str, Callable[[Row, _Chosen], Iterator[Record]]] = {
        "articles": lambda row, _: evidence.article(row, language=options.language),
        "relations": lambda row, _: evidence.relation(row, language=options.language),
        "papers": lambda row, _: _paper(row, options),
        "fields": lambda row, chosen: _generic(row, chosen, options.language),
    }
    yield from tables.records(
        _rows(path, options), choose=lambda columns: _choose(columns, options), make=makers.get(found, ask)
    )


def _choose(columns: list[str], options: Options) -> _Chosen:
    return _Chosen(
        fields={
            title: [annotations.find_column(name, columns) for name in as_list(wanted)]
            for title, wanted in options.fields.items()
        },
        facts=annotations.find_columns(options.facts, columns),
        group=None if options.group is None else annotations.find_column(options.group, columns),
    )


def _generic(row: Row, chosen: _Chosen, language: str) -> Iterator[Record]:
    sections = [(title, _joined(row, columns)) for title, columns in chosen.fields.items()]
    if not any(body for _, body in sections):
        raise UnusableError("no_field", "must have one of the fields, but all are missing")
    facts = annotations.take(row.cells, chosen.facts)
    spoken = "ko" if is_korean(" ".join(body for _, body in sections)) else language
    group = tables.group_of(row.cells, chosen.group, default="") or None
    yield papers.record(facts, sections, where=row.where, offsets=row.offsets, language=spoken, group=group)


def _joined(row: Row, columns: list[str]) -> str:
    values = [item for column in columns for item in as_list(row.cells.get(column))]
    return "\n".join(text(value).strip() for value in values if not is_missing(value))


def _paper(row: Row, options: Options) -> Iterator[Record]:
    """A table of papers: title and abstract, with whatever else is called as usual."""
    cells = {bare(name): value for name, value in row.cells.items()}
    title, abstract = text(cells.get("title")), "\n".join(text(part) for part in as_list(cells.get("abstract")))
    papers.refuse_withdrawn(title, said=False, keep=options.retracted)
    if not abstract.strip() or is_missing(abstract):
        raise UnusableError("empty", "must have an abstract, but has none")
    date = written_date(
        next((cells[name] for name in ("date", "year", "pubdate", "published") if cells.get(name)), None)
    )
    facts = {name: papers.joined(cells.get(name)) for name in ("journal", "keywords")}
    yield papers.record(
        {"title": title, **facts, "published": date},
        [("Abstract", abstract)],
        where=row.where,
        offsets=row.offsets,
        language="ko" if is_korean(abstract) else options.language,
        ids=(*papers.pmid(cells.get("pmid")), *papers.pmcid(cells.get("pmcid")), *papers.doi(cells.get("doi"))),
        date=date,
    )

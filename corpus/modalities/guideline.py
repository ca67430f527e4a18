"""Guidelines: CPIC recommendations, FHIR PlanDefinitions and their like, and text or markdown with headings."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from corpus import document
from corpus.clean import clean_line, is_missing
from corpus.formats import cpic, fhir, headings, jsonfile, knowledge, lines, tables
from corpus.formats.dates import is_korean, language_code, written_date
from corpus.formats.tables import TableOptions
from corpus.modality import Item, Note, Record, Reject, SourceError, UnusableError, reject
from corpus.symbols import tags
from slurm.files import digest

_PROSE = (".txt", ".md", ".markdown")
_LINES = (".ndjson",)
SUFFIXES = (*_PROSE, *_LINES, *(name for name in tables.SUFFIXES if name != ".txt"))
SCALE = "L6"
SYMBOLS = (*tags("guideline"), *document.SYMBOLS)
_MOST = 20_000_000  # characters of one document
_HTML = re.compile(r"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_FRONT = re.compile(r"---\n(.*?)\n(---|\.\.\.)\n", re.DOTALL)
_BODY = ("clean_text", "text", "content", "body", "markdown")
_FACTS = ("title", "source", "publisher", "organization", "url", "overview", "version")


class Options(TableOptions):
    """How to read guidelines.

    Attributes:
        language: of texts that do not say theirs; Korean is found by its letters.
        title: of a text whose first heading is not its title.
        date: of a text that does not say its own: "2021", "2021-03" or "2021-03-04".
    """

    language: Annotated[str, Field(pattern="^[a-z]{2}$")] = "en"
    title: str | None = None
    date: Annotated[str, Field(pattern=r"^\d{4}(-\d{2}(-\d{2})?)?$")] | None = None


@dataclass(frozen=True, kw_only=True)
class _Found:
    """One JSON value and its place."""

    value: Any
    where: str
    offsets: tuple[int, int] | None


def read(path: Path, options: Options, /) -> Iterator[Item]:
    """Yields one record a recommendation, plan or document."""
    kind = tables.suffix(path)
    if kind in _PROSE:
        yield from _prose(path, options)
    elif kind in (".json", ".jsonl", *_LINES):
        yield from _json(path, options, by_line=kind != ".json")
    else:
        for item in tables.rows(path, options):
            yield from (
                [item] if isinstance(item, Reject) else _records(item.cells, item.where, options, offsets=item.offsets)
            )


def render(content: Mapping[str, Any], /) -> str:
    """Writes <|guideline|>, facts, titled sections and <|/guideline|>."""
    return document.write("guideline", content)


def parse(rendered: str, /) -> dict[str, Any]:
    """Reads back what `render` wrote."""
    return document.read("guideline", rendered)


def _prose(path: Path, options: Options) -> Iterator[Item]:
    written = "".join(tables.lines(path, encoding=options.encoding))
    _refuse_page(written)
    try:
        yield _text_record({"text": written}, options, where="document")
    except UnusableError as error:
        yield reject(error, where="document", excerpt=written[:200])


def _refuse_page(written: str) -> None:
    if _HTML.match(written[:5000]):
        raise SourceError(
            "html", "must be text, markdown or JSON, but is an HTML page; save its text, if its licence allows it"
        )


def _json(path: Path, options: Options, *, by_line: bool) -> Iterator[Item]:
    for found in _lines(path, options) if by_line else _values(path, options):
        if isinstance(found, Reject):
            yield found
        else:
            yield from _records(found.value, found.where, options, offsets=found.offsets)


def _lines(path: Path, options: Options) -> Iterator[_Found | Reject]:
    for line in lines.placed_lines(path, encoding=options.encoding):
        if line.text is not None and not line.text.strip():
            continue
        try:
            if line.text is None:
                raise UnusableError("too_large", "must have shorter lines, but has one that is too long; cut it")  # noqa: TRY301
            yield _Found(value=jsonfile.loads(line.text), where=f"line {line.number}", offsets=line.offsets)
        except UnusableError as error:
            yield reject(error, where=f"line {line.number}", excerpt=line.text or "")


def _values(path: Path, options: Options) -> Iterator[_Found | Reject]:
    """Yields each element of a list, or the one object of a file."""
    _refuse_page("".join(islice(tables.lines(path, encoding=options.encoding), 20))[:5000])
    keyed: dict[str, Any] = {}
    for item in jsonfile.items(path, encoding=options.encoding):
        if isinstance(item.value, Reject):
            yield item.value
        elif isinstance(item.key, str):
            keyed[item.key] = item.value
        else:
            yield _Found(value=item.value, where=item.where, offsets=item.offsets)
    if keyed:
        yield _Found(value=keyed, where="document", offsets=None)


def _records(answer: Any, where: str, options: Options, *, offsets: tuple[int, int] | None) -> Iterator[Item]:
    """Yields the records of one JSON value or row; a bundle holds several."""
    try:
        if isinstance(answer, dict) and "resourceType" in answer:
            for item in _resources(answer, where, options):
                yield replace(item, offsets=offsets) if isinstance(item, Record) else item
        else:
            yield replace(_answer(answer, where, options), offsets=offsets)
    except UnusableError as error:
        yield reject(error, where=where, excerpt=answer)


def _answer(answer: Any, where: str, options: Options) -> Record:
    found = cpic.document(answer) if isinstance(answer, dict) else None
    if found is not None:
        return _record(found.facts, found.sections, options, group=found.guideline, where=where, ids=found.ids)
    if isinstance(answer, dict) and any(isinstance(answer.get(name), str) for name in _BODY):
        return _text_record(answer, options, where=where)
    keys = (
        f"has the keys {fhir.shown(', '.join(map(str, answer)))}" if isinstance(answer, dict) else type(answer).__name__
    )
    raise UnusableError("no_guideline", f"must be a CPIC answer, a FHIR resource or a text, but {keys}")


def _resources(answer: dict[str, Any], where: str, options: Options) -> Iterator[Item]:
    found = [resource for resource, _ in fhir.resources(answer)]
    other = sorted({fhir.shown(item["resourceType"]) for item in found if item["resourceType"] not in knowledge.TYPES})
    if other and len(found) == 1:
        known = ", ".join(sorted(knowledge.TYPES))
        raise UnusableError("no_guideline", f"must be a resource of {known}, but is {other[0]}")
    if other:
        yield Note(f"{where}: resources of {', '.join(other)[:200]} are no guidelines and left out")
    for resource in found:
        if resource["resourceType"] not in knowledge.TYPES:
            continue
        place = where if len(found) == 1 else f"{where}, {resource['resourceType']}/{fhir.shown(resource.get('id'))}"
        try:
            yield _resource(resource, place, options)
        except UnusableError as error:
            yield reject(error, where=place, excerpt=resource)


def _resource(resource: dict[str, Any], where: str, options: Options) -> Record:
    url = fhir.text(resource.get("url"))
    facts = knowledge.facts(resource)
    return _record(
        facts,
        knowledge.sections(resource),
        options,
        group=url or facts["title"],
        where=where,
        ids=(f"fhir:{clean_line(url)}",) if url else (),
        language=fhir.text(resource.get("language")),
        date=fhir.text(resource.get("date")),
    )


def _text_record(given: Mapping[str, Any], options: Options, *, where: str) -> Record:
    body = next((given[name] for name in _BODY if isinstance(given.get(name), str) and given[name].strip()), "")
    if not body:
        raise UnusableError("empty", "must hold text, but is empty")
    body = body.replace("\r\n", "\n").replace("\r", "\n").replace("\x0c", "\n\n").replace("\x0b", "\n")
    said = {str(name).lower(): str(value) for name, value in given.items() if not is_missing(value)}
    front = _FRONT.match(body)
    if front:
        pairs = (line.partition(":") for line in front[1].split("\n") if not line.startswith((" ", "-", "#")))
        said |= {name.strip().lower(): value.strip().strip("\"'") for name, _, value in pairs if value.strip()}
        body = body[front.end() :]
    found = headings.sections(body)
    title = options.title or said.get("title") or _title(found)
    facts = {"title": title, **{name: said[name] for name in _FACTS if name != "title" and name in said}}
    own = said.get("id") or said.get("url")
    return _record(
        facts,
        found,
        options,
        group=own or title or body[:1000],
        where=where,
        language=said.get("language") or said.get("lang") or "",
        date=said.get("date") or said.get("published") or options.date or "",
    )


def _title(found: list[tuple[str, str]]) -> str:
    """Returns the first heading, or the first line of a text that begins without one, if it is short."""
    first = found[0] if found else ("", "")
    line = first[0] or first[1].strip().partition("\n")[0]
    return line if len(line) <= 200 else ""


def _record(
    facts: Mapping[str, str],
    sections: Iterable[tuple[str, str]],
    options: Options,
    *,
    group: str,
    where: str,
    ids: tuple[str, ...] = (),
    language: str = "",
    date: str = "",
) -> Record:
    content = document.make(facts, sections)
    size = sum(len(text) for _, text in content["sections"])
    if size > _MOST:
        raise UnusableError("too_large", f"must hold at most {_MOST:,} characters, but holds {size:,}")
    told = " ".join(text for _, text in content["sections"]) or " ".join(content["facts"].values())
    spoken = language_code(clean_line(language)) if language.strip() else None
    return Record(
        content=content,
        group=digest(["guideline", ascii(group)]),
        language=spoken or ("ko" if is_korean(told) else options.language),
        where=where,
        ids=ids,
        date=written_date(date),
    )

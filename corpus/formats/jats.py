"""JATS: full articles (PubMed Central, publishers), alone, in sets or in OAI answers, as records in their languages."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpus.formats import papers, xmlfile
from corpus.formats.articlelicence import licence_of
from corpus.formats.dates import is_korean, iso_date, language_code, written_date
from corpus.formats.jatstext import FLOATS, float_sections, line, sections
from corpus.formats.xmlfile import attribute, child, children, name, within
from corpus.modality import Item, Note, Record, Reject, UnusableError

ROOTS = ("article", "pmc-articleset", "articles", "article-set", "articleset", "OAI-PMH", "GetRecord", "ListRecords")
_ID_KINDS = {
    "pmid": papers.pmid,
    "pmcid": papers.pmcid,
    "pmc": papers.pmcid,
    "pmcaid": papers.pmcid,
    "doi": papers.doi,
}
_DATES = ("epub", "electronic", "pub", "ppub", "print", "collection", "epub-ppub", "preprint", "pmc-release")
_BACK = ("app-group", "app", "sec", "glossary")
_NOT_OUTER = ("sub-article", "response", "back", "floats-group")


@dataclass(kw_only=True)
class _Count:
    articles: int = 0
    references: int = 0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a person decides about articles: their language where they do not say it; whether retracted ones stay."""

    language: str
    retracted: bool
    languages: tuple[str, ...]


@dataclass(kw_only=True)
class _Front:
    """What all languages of one article share."""

    where: str
    ids: tuple[str, ...]
    date: str | None
    license: str | None
    facts: dict[str, str] = field(default_factory=dict)


def articles(path: Path, settings: Settings) -> Iterator[Item]:
    """Yields the articles of a file, and those of their abstracts and versions that are in another language.

    Raises:
        SourceError: the file is damaged or unsafe (corpus/formats/xmlfile.py).
    """
    count = _Count()
    found = ((_place(number, element), element) for number, element in enumerate(_elements(path), start=1))

    def make(element: Any, where: str) -> Iterator[Item]:
        if name(element) == "Reply":
            yield _not_available(element, where)
            return
        count.articles += 1
        count.references += len(within(element, "ref"))
        yield from _article(element, where, settings)

    yield from papers.records(found, make, excerpt=lambda element: line(child(element, "front", "article-meta")))
    yield Note(f"{count.articles} articles; {count.references} references left out")


def _elements(path: Path) -> Iterator[Any]:
    return xmlfile.elements(path, ("article", "Reply"))


def _place(number: int, element: Any) -> str:
    known = next(iter(_ids(_meta(element))), None)
    return f"article {number} ({known})" if known else f"article {number}"


def _not_available(element: Any, where: str) -> Reject:
    reason = f"must be an article, but the archive answered {attribute(element, 'error')!r}; ask for it again"
    return Reject(where=where, code="not_available", reason=reason, excerpt=attribute(element, "Id"))


def _article(element: Any, where: str, settings: Settings) -> Iterator[Record]:
    meta = _meta(element)
    if meta is None:
        raise UnusableError("no_front", "must have front matter (article-meta), but has none")
    title = line(child(meta, "title-group", "article-title"))
    papers.refuse_withdrawn(title, said=_is_retracted(element, meta), keep=settings.retracted)
    front = _Front(
        where=where,
        ids=tuple(_ids(meta)),
        date=_date(meta),
        license=licence_of(meta),
        facts={
            "journal": line(next(iter(within(element, "journal-title")), None)),
            "type": attribute(element, "article-type").replace("-", " "),
            "subjects": papers.joined([line(part) for part in within(meta, "subject")]),
            "keywords": papers.joined([line(part) for part in within(meta, "kwd")]),
        },
    )
    texts = list(_main(element, meta))
    language = _language(element, texts, settings.language)
    others = list(_other_languages(element, meta, language, settings))
    pair = next(iter(front.ids), where) if others else None
    yield _record(front, title, texts, language=language, pair=pair)
    for code, other_title, other_texts in others:
        yield _record(front, other_title, other_texts, language=code, pair=pair)


def _record(front: _Front, title: str, texts: list[tuple[str, str]], *, language: str, pair: str | None) -> Record:
    if not texts:
        raise UnusableError("empty", "must have an abstract or a body, but has neither")
    return papers.record(
        {"title": title, **front.facts, "published": front.date},
        texts,
        where=front.where,
        language=language,
        ids=front.ids,
        date=front.date,
        license=front.license,
        pair=pair,
    )


def _main(element: Any, meta: Any) -> Iterator[tuple[str, str]]:
    for abstract in children(meta, "abstract"):
        yield from _abstract(abstract)
    body = child(element, "body")
    if body is not None:
        yield from sections(body)
    for part in children(element, "floats-group"):
        for found in within(part, *FLOATS):
            yield from float_sections(found)
    for part in (part for back in children(element, "back") for part in children(back, *_BACK)):
        yield from sections(part, path=_titled(part))


def _abstract(abstract: Any) -> Iterator[tuple[str, str]]:
    kind = attribute(abstract, "abstract-type")
    if kind in ("graphical", "toc", "teaser"):
        return
    title = line(child(abstract, "title"))
    shown = title if title and title.casefold() not in ("abstract", "초록") else "Abstract"
    yield from sections(abstract, path=(shown,))


def _titled(part: Any) -> tuple[str, ...]:
    title = line(child(part, "title")) or line(child(part, "label"))
    return (title,) if title else ()


def _other_languages(
    element: Any, meta: Any, language: str, settings: Settings
) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Yields (language, title, sections) of translated abstracts, and of translations of the whole article."""
    titles = {
        language_code(xmlfile.language(group)) or "": line(child(group, "trans-title"))
        for group in children(child(meta, "title-group"), "trans-title-group")
    }
    for abstract in children(meta, "trans-abstract"):
        texts = list(_abstract(abstract))
        code = language_code(xmlfile.language(abstract)) or _guess(texts, "")
        if code in settings.languages and code != language and texts:
            yield code, titles.get(code, ""), texts
    for part in children(element, "sub-article"):
        code = language_code(xmlfile.language(part)) or ""
        if attribute(part, "article-type") == "translation" and code in settings.languages and code != language:
            inner = child(part, "front-stub")
            inner = child(part, "front", "article-meta") if inner is None else inner
            title = line(child(inner, "title-group", "article-title"))
            yield code, title, list(_main(part, inner if inner is not None else part))


def _language(element: Any, texts: list[tuple[str, str]], default: str) -> str:
    return language_code(xmlfile.language(element)) or _guess(texts, default)


def _guess(texts: list[tuple[str, str]], default: str) -> str:
    return "ko" if is_korean(" ".join(text for _, text in texts)) else default


def _meta(element: Any) -> Any:
    return child(element, "front", "article-meta")


def _ids(meta: Any) -> Iterator[str]:
    if meta is None:
        return
    for part in children(meta, "article-id"):
        reader = _ID_KINDS.get(attribute(part, "pub-id-type"))
        if reader:
            yield from reader(xmlfile.plain(part))


def _date(meta: Any) -> str | None:
    found = {
        attribute(part, "date-type") or attribute(part, "pub-type"): _one_date(part)
        for part in children(meta, "pub-date")
    }
    named = (found.get(kind) for kind in _DATES)
    return next((date for date in (*named, *found.values()) if date), None)


def _one_date(element: Any) -> str | None:
    parts = {name(part): xmlfile.plain(part) for part in children(element)}
    by_parts = iso_date(parts.get("year"), parts.get("month"), day=parts.get("day"))
    return by_parts or written_date(attribute(element, "iso-8601-date"))


def _is_retracted(element: Any, meta: Any) -> bool:
    links = {attribute(part, "related-article-type") for part in children(meta, "related-article")}
    return attribute(element, "article-type") in ("retracted-article", "withdrawn-article") or bool(
        links & {"retraction-forward", "retraction", "retracted-by"}
    )

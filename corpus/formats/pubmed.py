"""PubMed and MEDLINE: citations with their abstracts, in English and in the other languages a journal gave."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corpus.formats import papers, xmlfile
from corpus.formats.dates import iso_date, language_code, written_date
from corpus.formats.jats import Settings
from corpus.formats.jatstext import flow, line
from corpus.formats.xmlfile import attribute, child, children, name, plain, within
from corpus.modality import Item, Note, Record, UnusableError

ROOTS = ("PubmedArticleSet", "PubmedArticle", "MedlineCitationSet", "MedlineCitation", "PubmedBookArticleSet")
_ITEMS = ("PubmedArticle", "PubmedBookArticle", "MedlineCitation")
_NOT_TYPES = "Research Support"  # says who paid, not what it is


def citations(path: Path, settings: Settings) -> Iterator[Item]:
    """Yields one record per citation and language; a citation without an abstract is a title and its headings.

    Raises:
        SourceError: the file is damaged or unsafe (corpus/formats/xmlfile.py).
    """
    left = Counter[str]()
    found = ((_place(number, item), item) for number, item in enumerate(xmlfile.elements(path, _ITEMS), start=1))
    yield from papers.records(
        found, lambda item, where: _citation(item, where, settings, left), excerpt=lambda item: plain(item)[:200]
    )
    if left:
        told = ", ".join(f"{number} in {code}" for code, number in sorted(left.items()))
        yield Note(f"abstracts left out: {told}; languages: allows {', '.join(settings.languages)}")


def _place(number: int, item: Any) -> str:
    known = next(iter(within(item, "PMID")), None)
    return f"citation {number} (pmid:{plain(known)})" if known is not None else f"citation {number}"


def _citation(item: Any, where: str, settings: Settings, left: Counter[str]) -> Iterator[Record]:
    cited = item if name(item) == "MedlineCitation" else child(item, "MedlineCitation")
    book = child(item, "BookDocument")
    article = child(cited, "Article") if book is None else book
    if article is None:
        raise UnusableError("no_article", "must have an Article or a BookDocument, but has neither")
    title = _title(child(article, "ArticleTitle"))
    papers.refuse_withdrawn(title, said=_is_retracted(cited, article), keep=settings.retracted)
    facts, ids = _facts(cited, article), tuple(_ids(item, article))
    others = list(_others(cited, article, settings, left))
    pair = next(iter(ids), where) if others else None
    shared: dict[str, Any] = {"where": where, "ids": ids, "date": _date(article, cited), "pair": pair}
    texts = list(_abstract(child(article, "Abstract")))
    yield papers.record({"title": title, **facts}, texts, language="en", **shared)
    for code, other_title, other_texts in others:
        yield papers.record({"title": other_title, **facts}, other_texts, language=code, **shared)


def _title(element: Any) -> str:
    """A title in brackets was translated into English by PubMed."""
    title = line(element)
    return title.removeprefix("[").removesuffix(".").removesuffix("]") if title.startswith("[") else title


def _facts(cited: Any, article: Any) -> dict[str, str]:
    headings = [_heading(part) for part in children(child(cited, "MeshHeadingList"), "MeshHeading")]
    kinds = [plain(part) for part in within(article, "PublicationType")]
    return {
        "journal": plain(child(article, "Journal", "Title")) or plain(child(article, "Book", "BookTitle")),
        "type": papers.joined([kind for kind in kinds if not kind.startswith(_NOT_TYPES)]),
        "topics": papers.joined(headings),
        "substances": papers.joined([plain(part) for part in within(cited, "NameOfSubstance")]),
        "keywords": papers.joined([plain(part) for part in within(cited, "Keyword") or within(article, "Keyword")]),
        "published": _date(article, cited) or "",
    }


def _heading(part: Any) -> str:
    subject = plain(child(part, "DescriptorName"))
    aspects = [plain(aspect) for aspect in children(part, "QualifierName")]
    return f"{subject} ({', '.join(aspects)})" if aspects else subject


def _abstract(element: Any) -> Iterator[tuple[str, str]]:
    if element is None:
        return
    for part in children(element, "AbstractText"):
        label = attribute(part, "Label") or attribute(part, "NlmCategory")
        text = flow(part)
        if text:
            yield ("Abstract" if label in ("", "UNLABELLED", "UNASSIGNED") else f"Abstract: {label.capitalize()}"), text


def _others(
    cited: Any, article: Any, settings: Settings, left: Counter[str]
) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Yields (language, title, sections) of OtherAbstract; the title in the journal's own language goes with it."""
    written = {language_code(plain(part)) for part in children(article, "Language")}
    vernacular = line(child(article, "VernacularTitle"))
    for part in children(cited, "OtherAbstract"):
        code = language_code(attribute(part, "Language") or "eng")
        texts = list(_abstract(part))
        if not texts or code == "en":
            continue
        if code in settings.languages:
            yield str(code), vernacular if code in written else "", texts
        else:
            left[code or attribute(part, "Language")] += 1


def _ids(item: Any, article: Any) -> Iterator[str]:
    first = next(iter(within(item, "PMID")), None)
    yield from papers.pmid(plain(first))
    for part in children(article, "ELocationID"):
        if attribute(part, "EIdType") == "doi" and attribute(part, "ValidYN") != "N":
            yield from papers.doi(plain(part))
    for data in ("PubmedData", "PubmedBookData"):
        for part in children(child(item, data, "ArticleIdList"), "ArticleId"):
            kind = attribute(part, "IdType")
            reader = {"pubmed": papers.pmid, "pmc": papers.pmcid, "doi": papers.doi}.get(kind)
            if reader:
                yield from reader(plain(part))
    yield from (found for part in within(article, "AccessionNumber") for found in papers.trials(plain(part)))


def _date(article: Any, cited: Any) -> str | None:
    for element in (
        child(article, "Journal", "JournalIssue", "PubDate"),
        child(article, "ArticleDate"),
        child(article, "Book", "PubDate"),
        child(article, "ContributionDate"),
        child(cited, "DateCompleted"),
    ):
        date = _one_date(element)
        if date:
            return date
    return None


def _one_date(element: Any) -> str | None:
    if element is None:
        return None
    parts = {name(part): plain(part) for part in children(element)}
    date = iso_date(parts.get("Year"), parts.get("Month"), day=parts.get("Day"))
    return date or written_date(parts.get("MedlineDate", "")[:4])


def _is_retracted(cited: Any, article: Any) -> bool:
    kinds = {plain(part) for part in within(article, "PublicationType")}
    links = {attribute(part, "RefType") for part in within(cited, "CommentsCorrections")}
    return bool({"Retracted Publication"} & kinds or {"RetractionIn"} & links)

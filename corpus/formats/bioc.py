"""BioC: passages with annotated entities, as JSON (PubTator, BioC-PMC) or XML, and PubTator's own lines."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corpus.formats import papers, tables, xmlfile
from corpus.formats.articlelicence import stated
from corpus.formats.dates import is_korean, written_date
from corpus.formats.jats import Settings
from corpus.formats.jsonfile import items
from corpus.formats.jsonvalues import as_dict, as_list, dicts, load, text
from corpus.formats.xmlfile import attribute, children, plain
from corpus.modality import Item, Note, Record, Reject, UnusableError

_REFERENCES = ("ref", "ref-list", "reference")
_IDENTIFIERS = ("rsid", "hgvs", "identifier", "NCBI GENE", "MESH", "NCBI Gene", "ncbi_gene")
_TITLED = re.compile(r".*title.*")
_PUBTATOR = re.compile(r"(\d+)\|([ta])\|(.*)")


def is_bioc(value: Any) -> bool:
    """Says whether a JSON value is a BioC document or holds some."""
    return any(True for _ in _documents(value))


def documents(found: Iterator[tuple[str, Any] | Reject], settings: Settings) -> Iterator[Item]:
    """Yields one record per BioC document of ("line 3", value)s; its entities are facts, one per kind."""
    left = [0]
    for item in found:
        if isinstance(item, Reject):
            yield item
            continue
        where, value = item
        raw = ((_place(where, each, number), each) for number, each in enumerate(_documents(value), start=1))
        yield from papers.records(raw, lambda each, place: _document(each, place, settings, left), excerpt=str)
    if left[0]:
        yield Note(f"{left[0]} references left out")


def json_documents(path: Path, *, encoding: str | None = None) -> Iterator[tuple[str, Any] | Reject]:
    """Yields what may be BioC documents, or hold some, of a JSON file: the whole, or its items one by one.

    Raises:
        SourceError: the file is damaged (corpus/formats/jsonfile.py).
    """
    if any(item.key == "passages" for item in items(path, encoding=encoding)):
        yield "whole file", load(path, encoding=encoding)
        return
    for item in items(path, encoding=encoding):
        yield item.value if isinstance(item.value, Reject) else (item.where, item.value)


def xml_documents(path: Path) -> Iterator[tuple[str, Any]]:
    """Yields the documents of BioC XML in the form that BioC JSON has.

    Raises:
        SourceError: the file is damaged or unsafe (corpus/formats/xmlfile.py).
    """
    for element in xmlfile.elements(path, ("document",)):
        yield "collection", _node(element)


def pubtator_documents(path: Path, *, encoding: str | None = None) -> Iterator[tuple[str, Any]]:
    """Yields the documents of PubTator's lines (`pmid|t|title`, `pmid|a|abstract`, then tabs) in the form of BioC."""
    current: dict[str, Any] = {}
    for number, line in enumerate(tables.lines(path, encoding=encoding), start=1):
        found, cells = _PUBTATOR.match(line.strip()), line.strip().split("\t")
        if found and found[2] == "t":
            if current:
                yield current["place"], current
            current = {"place": f"line {number}", "id": found[1], "passages": []}
        if found and current:
            passage = {"infons": {"type": {"t": "title", "a": "abstract"}[found[2]]}, "text": found[3]}
            current["passages"].append(passage)
        elif len(cells) >= 5 and current and cells[1].isdigit():
            identifier = cells[5] if len(cells) > 5 else ""
            infons = {"type": cells[4], "identifier": identifier}
            current["passages"][0].setdefault("annotations", []).append({"text": cells[3], "infons": infons})
    if current:
        yield current["place"], current


def is_pubtator(line: str) -> bool:
    """Says whether a line begins a document of PubTator's lines."""
    return bool(_PUBTATOR.match(line.strip()))


def _documents(value: Any, *, levels: int = 3) -> Iterator[dict[str, Any]]:
    for item in as_list(value) if levels else ():
        if not isinstance(item, dict):
            continue
        if isinstance(item.get("passages"), list):
            yield item
        else:
            for key in ("PubTator3", "documents"):
                yield from _documents(item.get(key), levels=levels - 1)


def _place(where: str, item: dict[str, Any], number: int) -> str:
    return f"{where}, document {number} ({text(item.get('id') or item.get('_id')) or 'no id'})"


def _document(item: dict[str, Any], where: str, settings: Settings, left: list[int]) -> Iterator[Record]:
    passages = dicts(item["passages"])
    infons = {key: value for passage in reversed(passages) for key, value in as_dict(passage.get("infons")).items()}
    first = as_dict(passages[0].get("infons")) if passages else {}
    title, sections, references = _sections(passages)
    left[0] += references
    papers.refuse_withdrawn(title, said=False, keep=settings.retracted)
    if not title and not sections:
        raise UnusableError("empty", "must have a passage with text, but has none")
    date = written_date(item.get("date")) or written_date(first.get("year"))
    everything = " ".join([title, *(body for _, body in sections)])
    yield papers.record(
        {"title": title, "journal": text(item.get("journal")), "published": date, **_entities(item, passages)},
        sections,
        where=where,
        language="ko" if is_korean(everything) else settings.language,
        ids=_ids(item, infons),
        date=date,
        license=stated(text(infons.get("license"))),
    )


def _ids(item: dict[str, Any], infons: dict[str, Any]) -> Iterator[str]:
    for name in ("pmid", "id", "_id"):
        given = text(item.get(name)).partition("|")[0]
        yield from papers.pmcid(given) if given.upper().startswith("PMC") else papers.pmid(given)
    yield from papers.pmid(infons.get("article-id_pmid"))
    yield from papers.pmcid(item.get("pmcid"))
    yield from papers.pmcid(infons.get("article-id_pmc"))
    yield from papers.doi(infons.get("article-id_doi") or item.get("doi"))


def _sections(passages: list[dict[str, Any]]) -> tuple[str, list[tuple[str, str]], int]:
    """Returns the title, (title, text)s in order, and the number of references left out."""
    title, heading, references = "", "", 0
    bodies: list[tuple[str, list[str]]] = []
    for passage in passages:
        infons = as_dict(passage.get("infons"))
        kind, part = text(infons.get("type")).casefold(), text(infons.get("section_type")).casefold()
        body = text(passage.get("text")) or " ".join(text(each.get("text")) for each in dicts(passage.get("sentences")))
        if kind in _REFERENCES or part == "ref":
            references += bool(body)
        elif kind in ("title", "front") and not title:
            title = body
        elif _TITLED.fullmatch(kind):
            heading = body
        elif body:
            named = "Abstract" if "abstract" in (kind, part) else heading or part.capitalize()
            if not bodies or bodies[-1][0] != named:
                bodies.append((named, []))
            bodies[-1][1].append(body)
    return title, [(named, "\n".join(texts)) for named, texts in bodies], references


def _entities(item: dict[str, Any], passages: list[dict[str, Any]]) -> dict[str, str]:
    """Returns {"gene": "BRAF (673); MEK (5609)"}: every entity once, as the text first writes it."""
    found: dict[str, dict[str, str]] = {}
    for passage in (*passages, item):
        for annotation in dicts(passage.get("annotations")):
            infons = as_dict(annotation.get("infons"))
            kind = text(infons.get("type")).casefold().replace(":", " ") or "entity"
            identifier = text(next((infons[name] for name in _IDENTIFIERS if infons.get(name)), ""))
            written = " ".join(text(annotation.get("text")).split())
            key = identifier.strip("-") or written.casefold()
            if written:
                shown = f"{written} ({identifier})" if identifier.strip("-") else written
                found.setdefault(kind, {}).setdefault(key, shown)
    return {kind: "; ".join(entities.values()) for kind, entities in sorted(found.items())}


def _node(element: Any) -> dict[str, Any]:
    return {
        "id": next((plain(part) for part in children(element, "id")), ""),
        "infons": {attribute(part, "key"): plain(part) for part in children(element, "infon")},
        "text": next((plain(part) for part in children(element, "text")), ""),
        "sentences": [_node(part) for part in children(element, "sentence")],
        "annotations": [_node(part) for part in children(element, "annotation")],
        "passages": [_node(part) for part in children(element, "passage")],
    }

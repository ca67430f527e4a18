"""Evidence Inference: trial articles as plain text with headings, and what they found of which treatments."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from corpus.annotations import bare
from corpus.formats import papers
from corpus.formats.articlelicence import stated
from corpus.formats.jsonvalues import dicts, text
from corpus.formats.tables import Row
from corpus.modality import Record, UnusableError

_HEADING = re.compile(
    r"(?:^|(?<=\d)|(?<=\n))[^\S\n]*(TITLE|ABSTRACT|BODY)(?:\.([^\n]{1,300}?))?:[^\S\n]*(?=\n|$)|^[^\S\n]*TITLE:",
    re.MULTILINE,
)
_LABELS = {
    "significantly increase": "significantly increased",
    "significantly decrease": "significantly decreased",
    "no significant difference": "no significant difference",
    "significantly increased": "significantly increased",
    "significantly decreased": "significantly decreased",
}
_BY_CODE = {"1": "significantly increased", "-1": "significantly decreased", "0": "no significant difference"}


def shape(columns: set[str]) -> str | None:
    """Returns "articles" or "relations" where a table (its columns, as `annotations.bare`) is of this kind."""
    if {"intervention", "comparator", "outcome"} <= columns:
        return "relations"
    return "articles" if "text" in columns and columns & {"pmcid", "pmid"} else None


def article(row: Row, *, language: str) -> Iterator[Record]:
    """Yields a row's article with its own licence, then what its prompts ask about it.

    Raises:
        UnusableError: there is no text.
    """
    cells = {bare(name): value for name, value in row.cells.items()}
    title, sections = cut(text(cells.get("text")))
    ids = tuple(_ids(cells))
    common: dict[str, Any] = {
        "ids": ids,
        "offsets": row.offsets,
        "language": language,
        "license": stated(text(cells.get("license") or cells.get("licence"))),
    }
    yield papers.record(
        {"title": title or text(cells.get("title"))}, sections, where=row.where, group=_group(ids), **common
    )
    for number, prompt in enumerate(dicts(cells.get("prompts")), start=1):
        where = f"{row.where}, prompt {number}"
        yield papers.record(_relation(prompt), (), where=where, group=_group(ids), **common)


def relation(row: Row, *, language: str) -> Iterator[Record]:
    """Yields a row's intervention, comparator, outcome and finding, with the words that it rests on.

    Raises:
        UnusableError: the annotators marked it as wrong, or a part is missing.
    """
    cells = {bare(name): value for name, value in row.cells.items()}
    for name in ("validlabel", "validreasoning"):
        if text(cells.get(name)).strip().casefold() in ("false", "0") or cells.get(name) is False:
            told = "must be confirmed by a second reader, but was marked as wrong"
            raise UnusableError("not_valid", f"{told} (valid {name.removeprefix('valid')})")
    ids = tuple(_ids(cells))
    evidence = text(cells.get("annotations") or cells.get("evidence"))
    facts = {**_relation(row.cells), "finding": _finding(cells)}
    sections = [("Evidence", evidence)]
    yield papers.record(
        facts, sections, where=row.where, offsets=row.offsets, language=language, ids=ids, group=_group(ids)
    )


def cut(written: str) -> tuple[str, list[tuple[str, str]]]:
    """Cuts "TITLE: ... ABSTRACT.METHODS: ... BODY.RESULTS: ..." in its title and its (heading, text)s."""
    found = list(_HEADING.finditer(written))
    if not found:
        return "", [("", written)]
    title, sections = "", []
    if before := written[: found[0].start()].strip():
        sections.append(("", before))
    for number, heading in enumerate(found):
        end = found[number + 1].start() if number + 1 < len(found) else len(written)
        body, kind, part = written[heading.end() : end].strip(), heading[1], heading[2]
        if (kind or "TITLE") == "TITLE" and not part:
            title, _, body = body.partition("\n\n")
            kind = "Text"
        body, _, untitled = body.partition("\n\n\n") if kind == "ABSTRACT" else (body, "", "")
        name = (part or kind).strip().capitalize()
        sections.append((f"Abstract: {name}" if kind == "ABSTRACT" and part else name, body.strip()))
        sections.append(("Text", untitled.strip()))
    return " ".join(title.split()), [(name, body) for name, body in sections if body]


def _relation(given: Mapping[str, Any]) -> dict[str, str]:
    cells = {bare(name): value for name, value in given.items()}
    parts = {name: text(cells.get(name)).strip() for name in ("intervention", "comparator", "outcome")}
    missing = [name for name, value in parts.items() if not value]
    if missing:
        raise UnusableError("no_field", f"must have intervention, comparator and outcome, but lacks {missing[0]}")
    return parts


def _finding(cells: Mapping[str, Any]) -> str:
    label = text(cells.get("label")).strip().casefold()
    code = text(cells.get("labelcode")).strip().removesuffix(".0")
    if not label and not code:
        return ""
    known = _LABELS.get(label) or (None if label else _BY_CODE.get(code))
    if known is None:
        allowed = ", ".join(dict.fromkeys(_LABELS.values()))
        raise UnusableError("unknown_value", f"the label must be one of {allowed}, but is {label or code!r}")
    return known


def _ids(cells: Mapping[str, Any]) -> Iterator[str]:
    yield from papers.pmcid(cells.get("pmcid"))
    yield from papers.pmid(cells.get("pmid"))


def _group(ids: tuple[str, ...]) -> str | None:
    return next(iter(ids), None)

"""Finding trials for patients (TREC Clinical Trials, SIGIR, TrialGPT): patient notes, judgements and trials."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corpus.annotations import bare
from corpus.formats import papers, tables, xmlfile
from corpus.formats.dates import is_korean
from corpus.formats.jsonvalues import as_dict, text
from corpus.formats.lines import placed_lines
from corpus.formats.tables import Row, TableOptions
from corpus.formats.xmlfile import attribute, children, name, plain
from corpus.modality import Item, Note, Record, UnusableError, reject

ROOTS = ("topics", "topic")
_JUDGED = re.compile(r"\S+\s+\S+\s+NCT\d{8}\s+-?\d+\s*")
_HEADED = ("queryid", "corpusid", "score")
_ABOUT = {"phase": "phase", "drugs": "interventions", "diseaseslist": "conditions", "enrollment": "enrollment"}
_PARTS = {
    "briefsummary": "Summary",
    "detaileddescription": "Description",
    "inclusioncriteria": "Inclusion criteria",
    "exclusioncriteria": "Exclusion criteria",
}


def topics(path: Path) -> Iterator[Item]:
    """Yields the patients of TREC's <topics>: notes (2021, 2022), or fields and values (2023).

    Raises:
        SourceError: the file is damaged or unsafe (corpus/formats/xmlfile.py).
    """
    found = ((f"topic {_number(topic)}", topic) for topic in xmlfile.elements(path, ("topic",)))
    yield from papers.records(found, _topic, excerpt=lambda topic: plain(topic)[:120])


def is_topic(value: Any) -> bool:
    """Says whether a JSON value is a patient note, or a trial as TrialGPT keeps it: {"_id": ..., "text": ...}."""
    return {"_id", "text"} <= set(as_dict(value))


def note(row: Row) -> Record:
    """Returns a row with _id and text as a record: a trial where its name is one, else a patient note.

    Raises:
        UnusableError: a part is missing.
    """
    number, written = text(row.cells.get("_id")).strip(), text(row.cells.get("text"))
    about = {bare(key): value for key, value in as_dict(row.cells.get("metadata")).items()}
    trials = tuple(papers.trials(number))
    if not number or (not written.strip() and not about):
        raise UnusableError("no_field", "must have _id and text, but lacks one")
    title = text(row.cells.get("title")) or text(about.get("brieftitle"))
    if not trials:
        return _patient(number, written, {"title": title}, where=row.where, offsets=row.offsets)
    sections = [(title_, text(about.get(key))) for key, title_ in _PARTS.items()]
    facts = {"trial": number, "title": title, **{name_: _listed(about.get(key)) for key, name_ in _ABOUT.items()}}
    told = sections if any(body for _, body in sections) else [("", written)]
    return papers.record(facts, told, where=row.where, offsets=row.offsets, language="en", ids=trials)


def is_judged(path: Path, columns: list[str], *, encoding: str | None) -> bool:
    """Says whether a table holds judgements: with TrialGPT's columns, or TREC's four without names."""
    if [bare(column) for column in columns] == list(_HEADED):
        return True
    first = next((line for line in tables.lines(path, encoding=encoding) if line.strip()), "")
    return bool(_JUDGED.fullmatch(first.strip("\ufeff\r\n")))


def judgements(path: Path, options: TableOptions) -> Iterator[Item]:
    """Yields one record per judgement (patient, trial, grade); they are evaluation data, and a note says so.

    Raises:
        SourceError: the file cannot be decoded.
    """
    yield Note("relevance judgements are evaluation data: give them a source of their own, out of training mixtures")
    for line in placed_lines(path, encoding=options.encoding):
        cells = (line.text or "").strip("\ufeff\r\n").split()
        if not cells or [bare(cell) for cell in cells] == list(_HEADED):
            continue
        where = f"line {line.number}"
        try:
            yield _judgement(cells, where, line.offsets)
        except UnusableError as error:
            yield reject(error, where=where, excerpt=cells[:8])


def _judgement(cells: list[str], where: str, offsets: tuple[int, int] | None) -> Record:
    if len(cells) == 4:
        cells = [cells[0], cells[2], cells[3]]
    if len(cells) != 3:
        raise UnusableError("ragged_row", f"must have a topic, a trial and a grade, but has {len(cells)} cells")
    topic, trial, grade = cells
    if not re.fullmatch(r"NCT\d{8}", trial):
        raise UnusableError("no_study", f"must name a trial NCT and 8 digits, but is {trial!r:.40}")
    if not re.fullmatch(r"-?\d{1,2}", grade):
        raise UnusableError("unknown_value", f"a grade must be a whole number, but is {grade!r:.40}")
    facts = {"kind": "relevance judgement", "topic": topic, "trial": trial, "relevance": grade}
    ids = (f"topic:{topic}", *papers.trials(trial))
    return papers.record(facts, (), where=where, offsets=offsets, language=None, ids=ids, group=f"topic:{topic}")


def _topic(topic: Any, where: str) -> Iterator[Record]:
    fields = [part for part in children(topic) if name(part) == "field"]
    if fields:
        facts = {attribute(part, "name").replace(":", " "): plain(part) for part in fields}
        yield _patient(_number(topic), "", {"template": attribute(topic, "template"), **facts}, where=where)
    else:
        parts = [plain(part) for part in children(topic)] or [plain(topic)]
        yield _patient(_number(topic), "\n".join(parts), {}, where=where)


def _number(topic: Any) -> str:
    return attribute(topic, "number") or "without a number"


def _patient(
    number: str, written: str, facts: dict[str, str], *, where: str, offsets: tuple[int, int] | None = None
) -> Record:
    language = "ko" if is_korean(written or " ".join(facts.values())) else "en"
    sections = [("Patient", written)]
    if not written.strip() and not any(facts.values()):
        raise UnusableError("empty", "must describe a patient, but is empty")
    ids = (f"topic:{number}",)
    return papers.record(
        {"kind": "patient note", **facts}, sections, where=where, offsets=offsets, language=language, ids=ids
    )


def _listed(value: Any) -> str:
    return papers.joined(value if isinstance(value, list) else text(value))

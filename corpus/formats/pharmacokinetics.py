"""Drug concentrations over time: tables of samples (SDTM PC, NONMEM or plain ones) as one record a subject."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from corpus import annotations, document
from corpus.annotations import Column, find_column
from corpus.clean import clean_line, is_missing
from corpus.entities import first_column
from corpus.formats.figures import figure, is_blank, number
from corpus.formats.spool import Spool
from corpus.formats.tables import Row
from corpus.modality import Item, Note, Record, Reject, SourceError, UnusableError, reject

USUAL: dict[str, tuple[str, ...]] = {
    "subject": (
        "usubjid",
        "subject",
        "subjid",
        "subjectid",
        "id",
        "patient",
        "patientid",
        "animal",
        "animalid",
        "subj",
    ),
    "time": (
        *("pctptnum", "time", "timeh", "timehr", "time(h)", "time(hr)", "hours", "hour", "tad", "nfrlt", "afrlt"),
        *("ntfd", "aftertime"),
    ),
    "concentration": (
        "pcstresn",
        "conc",
        "concentration",
        "dv",
        "cp",
        "cobs",
        "plasmaconc",
        "aval",
        "plasmaconcentration",
    ),
    "text": ("pcstresc",),
    "unit": ("pcstresu", "concu", "concunit", "concentrationunit", "dvu", "unit", "units"),
    "analyte": ("pctest", "analyte", "drug", "compound", "param", "pctestcd", "paramcd", "test", "dvid", "dvname"),
    "specimen": ("pcspec", "specimen", "matrix", "fluid"),
    "visit": ("visit", "period", "occasion", "occ", "avisit"),
    "amount": ("amt",),
    "mdv": ("mdv",),
    "dose": ("dose", "dosemg", "doseamt", "exdose", "dosing"),
    "study": ("studyid", "study"),
    "weight": ("weight", "wt", "bodyweight", "bw"),
    "age": ("age",),
    "sex": ("sex", "gender"),
    "route": ("route", "exroute"),
    "treatment": ("treatment", "trt", "trta", "arm", "formulation"),
}
_NEEDED = ("subject", "time", "concentration")
_FACTS = ("study", "treatment", "dose", "route", "weight", "age", "sex")
_BELOW = re.compile(r"<\s*(BLQ|BQL|LLOQ|LOQ|LOD|[\d.]+(e-?\d+)?)|BLQ|BQL|BLLOQ|LLOQ|BLOQ|BDL", re.IGNORECASE)
_MOST_SAMPLES = 100_000  # of one subject


def has_samples(found: list[str]) -> bool:
    """Says whether a table with these columns holds concentrations over time."""
    return all(first_column(found, USUAL[role]) is not None for role in _NEEDED)


def choose(found: list[str], columns: Mapping[str, str | int]) -> dict[str, str]:
    """Returns {role: column}: those that `columns` names, and the usual ones.

    Raises:
        SourceError: a column is not there, a role is unknown, or subject, time or concentration is missing.
    """
    unknown = sorted(set(columns) - set(USUAL))
    if unknown:
        raise SourceError("wrong_columns", f"columns: must name {', '.join(USUAL)}, but has {unknown[0]!r}; change it")
    named = {role: find_column(column, found) for role, column in columns.items()}
    usual = {role: name for role, names in USUAL.items() if (name := first_column(found, names)) is not None}
    chosen = {**usual, **named}
    missing = [role for role in _NEEDED if role not in chosen]
    if missing:
        told = f"must have a column {missing[0]}, but has {', '.join(found)[:300]}; set columns:"
        raise SourceError("wrong_columns", told)
    return chosen


@dataclass(kw_only=True)
class _Counts:
    """What was left out, for the note at the end."""

    nothing: int = 0


def read(
    rows: Iterable[Row | Reject],
    columns: Mapping[str, str],
    *,
    digits: int,
    facts: Mapping[str, Column],
    about: Mapping[str, str],
) -> Iterator[Item]:
    """Yields one record a subject: its samples by analyte, specimen and visit, as `time: concentration` lines."""
    counts = _Counts()
    with Spool() as spool:
        for row in rows:
            if isinstance(row, Reject):
                yield row
                continue
            try:
                cells = {role: row.cells.get(column) for role, column in columns.items()}
                more = annotations.take(row.cells, facts)
                _take(spool, row.where, cells, digits=digits, counts=counts, facts=more)
            except UnusableError as error:
                yield reject(error, where=row.where, excerpt=row.cells)
        for subject, samples in spool.owners():
            try:
                yield _record(subject, samples, about=about)
            except UnusableError as error:
                yield reject(error, where=samples[0][0], excerpt=subject)
    if counts.nothing:
        yield Note(f"{counts.nothing} samples without a concentration are left out")


def _take(
    spool: Spool,
    where: str,
    cells: Mapping[str, Any],
    *,
    digits: int,
    counts: _Counts,
    facts: Mapping[str, str],
) -> None:
    """Puts one sample, or one dose of a NONMEM table, where its subject's are."""
    subject = cells.get("subject")
    if is_missing(subject):
        raise UnusableError("no_subject", "must name a subject, but does not")
    if is_blank(cells.get("time")):
        raise UnusableError("no_time", "must have a time, but has none")
    time = figure("time", cells["time"], digits=digits)
    amount = cells.get("amount")
    usual = {role: clean_line(str(cells[role])) for role in _FACTS if not is_blank(cells.get(role))}
    known = {**usual, **facts}
    if not is_blank(amount) and (number(amount) or 0) > 0:
        spool.add(clean_line(str(subject)), [where, "Doses", time, figure("amount", amount, digits=digits), known])
        return
    absent = not is_blank(cells.get("mdv")) and number(cells["mdv"]) == 1
    value = "" if absent else _concentration(cells, digits=digits)
    if value:
        spool.add(clean_line(str(subject)), [where, _title(cells), time, value, known])
    else:
        counts.nothing += 1


def _concentration(cells: Mapping[str, Any], *, digits: int) -> str:
    """Returns a concentration, <BLQ for one below what can be measured, or nothing."""
    for role in ("text", "concentration"):
        written = "" if is_missing(cells.get(role)) else str(cells[role]).strip()
        if _BELOW.fullmatch(written):
            return "<BLQ" if not re.search(r"\d", written) else re.sub(r"\s", "", written)
    if is_blank(cells.get("concentration")):
        return ""
    found = figure("concentration", cells["concentration"], digits=digits)
    if found.startswith("-") and float(found) < 0:
        raise UnusableError("negative", f"a concentration must be 0 or more, but is {found}")
    return found


def _title(cells: Mapping[str, Any]) -> str:
    """Writes `XANOMELINE in PLASMA (ug/ml), BASELINE`, as far as it is known."""
    said = {role: "" if is_missing(cells.get(role)) else clean_line(str(cells[role])) for role in USUAL}
    title = said["analyte"] or "Concentration"
    title += f" in {said['specimen']}" if said["specimen"] else ""
    title += f" ({said['unit']})" if said["unit"] else ""
    return title + (f", {said['visit']}" if said["visit"] else "")


def _record(subject: str, samples: list[list[Any]], *, about: Mapping[str, str]) -> Record:
    """Returns one subject's samples; who it is stays out of the text, and keeps the samples in one split."""
    if len(samples) > _MOST_SAMPLES:
        raise UnusableError("too_large", f"must have at most {_MOST_SAMPLES} samples, but has {len(samples)}")
    facts: dict[str, dict[str, None]] = {}
    sections: dict[str, list[str]] = {}
    crossed = len({known.get("treatment") for *_, known in samples}) > 1
    for _, plain, time, value, known in samples:
        title = f"{plain}, {known['treatment']}" if crossed and "treatment" in known else plain
        sections.setdefault(title, []).append(f"{time}: {value}")
        for role, fact in known.items():
            facts.setdefault(role, {})[fact] = None
    if set(sections) <= {"Doses"}:
        raise UnusableError("no_concentration", "must have a concentration, but has doses only")
    ordered = dict.fromkeys([role for role in _FACTS if role in facts] + list(facts))
    written = {role: "; ".join(facts[role]) for role in ordered}
    content = document.make(
        {"kind": "drug concentrations over time", **about, **written},
        [(title, "\n".join(lines)) for title, lines in sections.items()],
    )
    return Record(content=content, group=f"subject {subject}", where=samples[0][0])

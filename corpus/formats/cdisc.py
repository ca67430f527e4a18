"""CDISC: tables of SDTM and ADaM as one record per subject, with its facts or its events in the order of time."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from corpus.clean import clean_line, is_missing
from corpus.formats import papers
from corpus.formats.cdisc_words import DETAILS, DOMAINS, FACTS
from corpus.formats.spool import Spool
from corpus.formats.tables import Row
from corpus.modality import Item, Record, Reject, SourceError, UnusableError, reject

_PREFIXES = {"TI": "IE", "TE": "", "TV": ""}  # of their variables, where these are not called after the domain
_ONE_ROW = ("DM", "ADSL")
_TOPICS = ("TERM", "TRT", "TEST", "PARAM", "PARM", "TOPIC", "QLABEL", "ELEMENT", "OBJ", "TESTCD", "PARAMCD")
_RESULTS = (("STRESC", "STRESU"), ("ORRES", "ORRESU"), ("AVALC", ""), ("AVAL", "AVALU"), ("VAL", ""), ("QVAL", ""))
_DAYS = ("STDY", "ASTDY", "DY", "ADY", "VISITDY")
_LAST_DAYS = ("ENDY", "AENDY")
_IDENTIFIERS = re.compile(
    r"(?:U?SUBJID|SITEID|SITEGR\d|INVID|INVNAM|DOMAIN|RDOMAIN|ROWNAMES|UNNAMED \d+|KEY|SRCDOM|\w*SEQ|\w*SPID|\w*REFID"
    r"|IDVAR|IDVARVAL|RELID|RELTYPE|\w*GRPID|\w*LNKID|\w*DTC|\w*DT|\w*DTM|\w*TM|\w*DTF|\w*TMF)"
)
_SUBJECT_FACTS = ("AGE", "SEX", "RACE", "ARM", "ACTARM", "TRT01A")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One table of a trial.

    Attributes:
        rows: its rows.
        name: of the file or of the table within, such as "ae" or "pharmaversesdtm_ex".
        labels: what the file calls its columns; empty where it does not say.
        study: what the trial is called, in place of STUDYID.
        domain: of the table, where it is not to be found.
    """

    rows: Iterator[Row | Reject]
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    study: str | None = None
    domain: str | None = None


def is_cdisc(columns: list[str]) -> bool:
    """Says whether a table's columns are those of SDTM or ADaM."""
    found = {column.upper() for column in columns}
    return "USUBJID" in found or {"STUDYID", "DOMAIN"} <= found


def subjects(dataset: Dataset) -> Iterator[Item]:
    """Yields one record per subject (per study in tables without subjects); its group is the subject.

    Raises:
        SourceError: the table has neither USUBJID nor STUDYID, or its domain cannot be told.
    """
    rows = iter(dataset.rows)
    rejected, first = list[Reject](), None
    for item in rows:
        if isinstance(item, Row):
            first = item
            break
        rejected.append(item)
    yield from rejected
    if first is None:
        return
    cells = _upper(first.cells)
    owner = next((name for name in ("USUBJID", "SUBJID", "STUDYID") if name in cells), None)
    if owner is None:
        told = f"must have USUBJID or STUDYID, but has {', '.join(cells)[:300]}; set study, fields and outcome"
        raise SourceError("wrong_columns", told)
    domain = dataset.domain or _domain(cells, dataset.name)
    yield from (_people if domain in _ONE_ROW else _events)(chain([first], rows), dataset, owner, domain)


def _domain(cells: Mapping[str, Any], name: str) -> str:
    """Returns the domain that the rows name, else the name of the table, else what the columns begin with."""
    for column, prefix, needed in (("DOMAIN", "", "DOMAIN"), ("RDOMAIN", "SUPP", "QNAM")):
        if needed in cells and not is_missing(cells.get(column)):
            return f"{prefix}{str(cells[column]).strip().upper()}"
    words = [word.upper() for word in re.split(r"[^A-Za-z0-9]+", name)]
    named = next((word for word in reversed(words) if word in DOMAINS or re.fullmatch(r"AD[A-Z]{2,6}", word)), None)
    starts = (column[:2] for column in cells if re.fullmatch(r"[A-Z]{2}(?:SEQ|TESTCD|TRT|TERM)", column))
    found = named or next(starts, None) or ("ADSL" if "TRT01P" in cells else "BDS" if "PARAMCD" in cells else None)
    if found is None:
        raise SourceError(
            "no_domain", f"must have a column DOMAIN, or be named after one, but is {name!r}; set domain:"
        )
    return found


def _people(rows: Iterator[Row | Reject], dataset: Dataset, owner: str, _: str) -> Iterator[Item]:
    seen = set[str]()
    for row in rows:
        if isinstance(row, Reject):
            yield row
            continue
        try:
            cells = _upper(row.cells)
            subject = _owner(cells, owner)
            if subject in seen:
                raise UnusableError("duplicate_subject", "must have one row per subject, but has another of this one")  # noqa: TRY301
            seen.add(subject)
            yield _record(_facts(cells, dataset), (), subject=subject, where=row.where, offsets=row.offsets)
        except UnusableError as error:
            yield reject(error, where=row.where, excerpt=row.cells)


def _facts(cells: Mapping[str, Any], dataset: Dataset) -> dict[str, str]:
    """Returns a subject's facts, without identifiers, dates, and codes that stand beside their words."""
    kept = [
        name for name in cells if not _IDENTIFIERS.fullmatch(name) and not (name[-1] in "NC" and name[:-1] in cells)
    ]
    ordered = [name for name in FACTS if name in kept] + [name for name in kept if name not in FACTS]
    facts: dict[str, str] = {}
    for name in ordered:
        value = _text(cells[name])
        if (name.endswith("U") and name[:-1] in cells) or not value or name.endswith("CD"):
            continue
        unit = _text(cells.get(f"{name}U")).lower()
        label = FACTS.get(name) or dataset.labels.get(name) or name
        facts[label.replace(":", " ")] = f"{value} {unit}".strip()
    if facts.get("actual arm") == facts.get("planned arm"):
        facts.pop("actual arm", None)
    if facts.get("actual treatment") == facts.get("planned treatment"):
        facts.pop("actual treatment", None)
    return {"study": dataset.study or facts.get("study", ""), **{k: v for k, v in facts.items() if k != "study"}}


def _events(rows: Iterator[Row | Reject], dataset: Dataset, owner: str, domain: str) -> Iterator[Item]:
    with Spool() as spool:
        for row in rows:
            if isinstance(row, Reject):
                yield row
                continue
            try:
                cells = _upper(row.cells)
                subject = _owner(cells, owner)
                line = clean_line(_line(cells, domain))
                spool.add(subject, [*_when(cells, domain), line, row.where, _about(cells, dataset)])
            except UnusableError as error:
                yield reject(error, where=row.where, excerpt=row.cells)
        title = _title(domain)
        for subject, events in spool.owners():
            ordered = sorted(events, key=lambda event: (event[0], event[1], event[2]))
            lines, (*_, where, about) = [event[3] for event in ordered], events[0]
            try:
                yield _record(about, [(title, "\n".join(lines))], subject=subject, where=f"{where}, {len(lines)} rows")
            except UnusableError as error:
                yield reject(error, where=where, excerpt=lines[0])


def _title(domain: str) -> str:
    about = DOMAINS.get(domain.removeprefix("SUPP"), "Events")
    return f"More on {about.lower()} ({domain})" if domain.startswith("SUPP") else f"{about} ({domain})"


def _record(facts: Mapping[str, str], sections: Any, *, subject: str, where: str, offsets: Any = None) -> Record:
    if not sections and set(facts) <= {"study"}:
        raise UnusableError("no_field", "must have a field, but all are missing")
    return papers.record(facts, sections, where=where, offsets=offsets, language=None, group=subject)


def _owner(cells: Mapping[str, Any], owner: str) -> str:
    subject = _text(cells.get(owner))
    if not subject:
        raise UnusableError("no_subject", f"must have {owner}, but it is missing")
    return clean_line(subject)


def _about(cells: Mapping[str, Any], dataset: Dataset) -> dict[str, str]:
    facts = {FACTS[name]: _text(cells.get(name)) for name in _SUBJECT_FACTS if name in cells}
    return {"study": dataset.study or _text(cells.get("STUDYID")), **facts}


def _when(cells: Mapping[str, Any], domain: str) -> tuple[float, str, float]:
    """Returns what orders events: the day, the date as written, the number in sequence; unknown days come last."""
    day = _number(_get(cells, domain, *_DAYS))
    date = _get(cells, domain, "STDTC", "DTC", "ASTDT", "ADT")
    sequence = _number(_get(cells, domain, "SEQ", "ASEQ", "VISITNUM", "AVISITN", "IDVARVAL"))
    return (1e9 if day is None else day), date, (1e9 if sequence is None else sequence)


def _line(cells: Mapping[str, Any], domain: str) -> str:
    """Returns one event: "day 1 to 15: XANOMELINE; dose 54 mg; form PATCH"."""
    topic = _get(cells, domain, *_TOPICS)
    result, dose = _result(cells, domain), _get(cells, domain, "DOSE")
    unit = _get(cells, domain, "DOSU")
    parts = [f"{topic} {result}".strip() if result != topic else topic, f"dose {dose} {unit}".strip() if dose else ""]
    for name, label in DETAILS.items():
        value = _get(cells, domain, name)
        if value and value.casefold() != topic.casefold():
            parts.append(f"{label} {value}")
    told = "; ".join(dict.fromkeys(part for part in parts if part)) or _everything(cells)
    if not told:
        raise UnusableError("no_field", "must have something besides identifiers and dates, but all is missing")
    return f"{_days(cells, domain)}{told}"


def _result(cells: Mapping[str, Any], domain: str) -> str:
    for name, unit in _RESULTS:
        value = _get(cells, domain, name)
        if value:
            return f"{value} {_get(cells, domain, unit) if unit else ''}".strip()
    return ""


def _days(cells: Mapping[str, Any], domain: str) -> str:
    first, last = _get(cells, domain, *_DAYS), _get(cells, domain, *_LAST_DAYS)
    if not first:
        return f"to day {last}: " if last else ""
    return f"day {first} to {last}: " if last and last != first else f"day {first}: "


def _everything(cells: Mapping[str, Any]) -> str:
    named = {
        name: _text(value) for name, value in cells.items() if not _IDENTIFIERS.fullmatch(name) and name != "STUDYID"
    }
    return "; ".join(f"{name} {value}" for name, value in named.items() if value)


def _get(cells: Mapping[str, Any], domain: str, *names: str) -> str:
    """Returns the first of these variables that holds something, with the domain's two letters or without."""
    prefix = _PREFIXES.get(domain) or domain.removeprefix("AD")[:2]
    for name in names:
        for column in (f"{prefix}{name}", name):
            value = _text(cells.get(column))
            if value:
                return value
    return ""


def _upper(cells: Mapping[str, Any]) -> dict[str, Any]:
    return {name.strip().upper(): value for name, value in cells.items()}


def _text(value: Any) -> str:
    if is_missing(value) or isinstance(value, dict | list):
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return " ".join(str(value).split())


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"-?\d{1,12}(?:\.\d{1,12})?", text) else None

"""OMOP CDM 5.3 and 5.4: tables of persons, visits and clinical events, joined with the names of their concepts."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus.clean import is_missing
from corpus.formats import tables
from corpus.formats.fhir import number
from corpus.formats.spool import Spool
from corpus.formats.tables import Row
from corpus.formats.timeline import ENCOUNTER, PATIENT, Event, PatientOptions, Scene, day, free, items, last_day, named
from corpus.modality import Item, Note, Reject, SourceError, UnusableError, reject

_SEX = {"8507": "male", "8532": "female"}  # concepts of the standard vocabulary, known even without CONCEPT
_NONE = ("", "0")
_WHOLE = re.compile(r"[+-]?\d{1,19}(\.0*)?")


@dataclass(frozen=True, kw_only=True)
class Table:
    """What is taken from a table of clinical events. Names of columns are those of the common data model.

    Attributes:
        label: what its events are called.
        stem: of its columns: stem_concept_id, stem_source_value, stem_source_concept_id.
        when: the column of the date, without _date and _datetime at its end.
        id: the primary key.
        over: the column of the end, where that is an event too.
        extras: columns written behind, each with the words before and behind its value.
    """

    label: str
    stem: str
    when: str
    id: str
    over: str = ""
    extras: tuple[tuple[str, str, str], ...] = ()


TABLES = {
    "visit_occurrence": Table(label=ENCOUNTER, stem="visit", when="visit_start", id="visit_occurrence_id"),
    "condition_occurrence": Table(
        label="condition",
        stem="condition",
        when="condition_start",
        id="condition_occurrence_id",
        over="condition_end",
        extras=(("stop_reason", "stopped: ", ""),),
    ),
    "drug_exposure": Table(
        label="medication",
        stem="drug",
        when="drug_exposure_start",
        id="drug_exposure_id",
        extras=(("quantity", "quantity ", ""), ("days_supply", "", " days"), ("refills", "", " refills")),
    ),
    "procedure_occurrence": Table(label="procedure", stem="procedure", when="procedure", id="procedure_occurrence_id"),
    "measurement": Table(label="observation", stem="measurement", when="measurement", id="measurement_id"),
    "observation": Table(label="observation", stem="observation", when="observation", id="observation_id"),
    "device_exposure": Table(label="device", stem="device", when="device_exposure_start", id="device_exposure_id"),
    "specimen": Table(label="specimen", stem="specimen", when="specimen", id="specimen_id"),
    "death": Table(label="death", stem="cause", when="death", id=""),
    "note": Table(label="note", stem="note_type", when="note", id="note_id"),
}
PERSON = ("person_id", "gender_concept_id", "year_of_birth")
NAMES = frozenset({*TABLES, "person", "concept"})
_FREE = frozenset({"note", "death"})  # tables whose concept may be missing


def table_name(path: Path) -> str:
    """Returns the table a file holds: 'PERSON.csv.gz' -> 'person'."""
    return path.name.split(".", maxsplit=1)[0].lower()


def read(paths: Sequence[Path], options: PatientOptions) -> Iterator[Item]:
    """Yields the records of every person, in the order of the PERSON table.

    Raises:
        SourceError: PERSON is not there, or a table lacks a column.
    """
    found = {name: path for path in reversed(paths) if (name := table_name(path)) in NAMES}
    if "person" not in found:
        raise SourceError("no_person", "must have a PERSON table, but has none; put it beside the others")
    reader = _Reader(options)
    with Spool() as spool:
        yield from reader.persons(found["person"], spool)
        for name in TABLES:
            if name in found and (name != "note" or options.notes):
                yield from reader.table(name, found[name], spool=spool)
        yield from reader.concepts(found.get("concept"))
        scene = Scene(options=options, names=reader.name, strict=True, last=last_day(options))
        for person, rows in spool.owners():
            yield from items(f"person {person}", [Event(*row) for row in rows], scene=scene)


class _Reader:
    """Puts what tables tell in a spool, by person, and remembers which concepts need a name."""

    def __init__(self, options: PatientOptions) -> None:
        self._options = options
        self._wanted: set[str] = set()
        self._names: dict[str, tuple[str, str]] = {}

    def persons(self, path: Path, spool: Spool) -> Iterator[Reject]:
        """Takes the persons; yields what cannot be used."""
        seen: set[str] = set()
        for item in self._rows(path, PERSON):
            if isinstance(item, Reject):
                yield item
                continue
            try:
                person = _integer(item.cells, "person_id")
                if person in seen:
                    raise UnusableError("duplicate_id", "must have a person_id of its own, but another has it too")  # noqa: TRY301
                seen.add(person)
                spool.add(person, self._person(item.cells, person))
            except UnusableError as error:
                yield reject(error, where=f"person {item.where}", excerpt="person")

    def table(self, name: str, path: Path, *, spool: Spool) -> Iterator[Reject]:
        """Takes a table of events; yields what cannot be used."""
        table = TABLES[name]
        needed = ("person_id", *((f"{table.stem}_concept_id",) if name not in _FREE else ()))
        for item in self._rows(path, needed):
            if isinstance(item, Reject):
                yield item
                continue
            key = f"{name} {item.cells.get(table.id) or item.where}"
            try:
                person = _integer(item.cells, "person_id")
                for event in list(self._events(table, item.cells, key)):
                    spool.add(person, event)
            except UnusableError as error:
                yield reject(error, where=key, excerpt=name)

    def concepts(self, path: Path | None) -> Iterator[Item]:
        """Takes the names of the concepts that occurred, from CONCEPT, which can be far larger than they are."""
        if path is None:
            yield Note("no CONCEPT table is there: concepts are written as the source's own values and numbers")
            return
        for item in self._rows(path, ("concept_id", "concept_name")):
            if isinstance(item, Row) and (key := str(item.cells["concept_id"])) in self._wanted:
                name, system = _text(item.cells, "concept_name"), _text(item.cells, "vocabulary_id")
                code = _text(item.cells, "concept_code")
                self._names[key] = (name, f" [{system} {code}]" if system and code else "")

    def name(self, key: str) -> str:
        """Returns the name of the first concept that has one, else the source's own value, else the number."""
        bare, source, *concepts = key.split("|")
        found = next((self._names[concept] for concept in concepts if concept in self._names), None)
        if found:
            return found[0] if bare else "".join(found)
        return source or next((f"[OMOP {concept}]" for concept in concepts), "")

    def _rows(self, path: Path, needed: Sequence[str]) -> Iterator[Row | Reject]:
        """Yields rows with lower-case columns; Athena's vocabularies have tabs and no quotes."""
        start = next(iter(tables.lines(path, encoding=self._options.encoding)), "") if _is_text(path) else ""
        tabbed = start.count("\t") > start.count(",")
        options = self._options.model_copy(update={"quotes": not tabbed, "delimiter": "\t" if tabbed else None})
        checked, lower = False, True
        for item in tables.rows(path, options):
            where = f"{path.name}, {item.where}"
            if isinstance(item, Reject):  # its excerpt would hold the row, and a row may name a person
                yield Reject(where=where, code=item.code, reason=item.reason, excerpt=table_name(path))
                continue
            lower = lower and all(map(str.islower, item.cells)) if not checked else lower
            cells = item.cells if lower else {name.lower(): value for name, value in item.cells.items()}
            if not checked:
                _require(cells, needed, path)
                checked = True
            yield Row(where=where, cells=cells)

    def _person(self, cells: Mapping[str, Any], person: str) -> Event:
        year = _integer(cells, "year_of_birth")
        born = "-".join([year, *(value.zfill(2) for value in _days(cells))])
        sex = _SEX.get(_text(cells, "gender_concept_id")) or self._concept(cells, "gender", bare=True)
        facts = {
            "sex": sex,
            "race": self._concept(cells, "race", bare=True),
            "ethnicity": self._concept(cells, "ethnicity", bare=True),
        }
        told = json.dumps({"facts": {name: value for name, value in facts.items() if value}})
        return Event(PATIENT, day(born), "", told, f"person {person}")

    def _events(self, table: Table, cells: Mapping[str, Any], key: str) -> Iterator[Event]:
        visit = _text(cells, "visit_occurrence_id")
        when = _when(cells, table.when)
        told = self._concept(cells, table.stem)
        if table.label == ENCOUNTER:
            yield Event(ENCOUNTER, when, visit, self._concept(cells, table.stem, bare=True) or "visit", key)
            return
        if table.label == "note":
            words = [part for part in (_text(cells, "note_title"), _text(cells, "note_text")) if part]
            told = free("\n".join(words))
        if not when:
            raise UnusableError("bad_date", f"must have {table.when}_date, but it is missing")
        if table.label == "death":
            told = f"patient died{f', cause: {told}' if told else ''}"
        if not told:
            raise UnusableError("no_code", f"must have {table.stem}_concept_id or its source value, but has neither")
        extras = [
            f"{before}{value}{behind}"
            for name, before, behind in table.extras
            if (value := _text(cells, name)) not in _NONE
        ]
        words = [told, *extras, free(_text(cells, "sig")[:100]) if "sig" in cells else ""]
        value = self._value(cells)
        written = ", ".join(word for word in words if word)
        yield Event(table.label, when, visit, f"{written} {value}".strip(), key)
        over = _when(cells, table.over) if table.over else ""
        if over and over[:10] != when[:10]:
            yield Event(f"end of {table.label}", over, "", told, key)

    def _value(self, cells: Mapping[str, Any]) -> str:
        amount = _amount(cells, "value_as_number")
        if not amount and not is_missing(cells.get("value_as_number")):
            raise UnusableError(
                "wrong_type", f"value_as_number must be a number, but is {cells['value_as_number']!r:.40}"
            )
        if amount:
            unit = _text(cells, "unit_source_value") or self._concept(cells, "unit", bare=True)
            sign = {"4171754": "<=", "4171755": ">=", "4171756": "<", "4172704": ">"}
            marks = sign.get(_text(cells, "operator_concept_id"), "")
            low, high = _amount(cells, "range_low"), _amount(cells, "range_high")
            normal = f"(normal {low or '...'} to {high or '...'})" if low or high else ""
            return " ".join(part for part in (marks, amount, unit, normal) if part)
        return self._concept(cells, "value_as", bare=True, source="value_source_value") or free(
            _text(cells, "value_as_string")[:100]
        )

    def _concept(self, cells: Mapping[str, Any], stem: str, *, bare: bool = False, source: str = "") -> str:
        """Returns what stands for a concept's name until CONCEPT was read; nothing where no concept is given."""
        concepts = [_text(cells, f"{stem}_concept_id"), _text(cells, f"{stem}_source_concept_id")]
        given = _text(cells, source or f"{stem}_source_value").replace("|", " ").replace("\x00", " ")
        known = [_whole(concept, stem) for concept in concepts if concept not in _NONE]
        if not known and not given:
            return ""
        self._wanted.update(known)
        return named("|".join(["bare" if bare else "", given, *known]))


def _is_text(path: Path) -> bool:
    return tables.suffix(path) != ".parquet"


def _require(cells: Mapping[str, Any], needed: Sequence[str], path: Path) -> None:
    missing = [name for name in needed if name not in cells]
    if missing:
        found = ", ".join(cells)[:200]
        raise SourceError(
            "wrong_columns", f"{path.name} must have {', '.join(missing)}, as CDM 5.4 says, but has {found}"
        )


def _text(cells: Mapping[str, Any], name: str) -> str:
    value = cells.get(name)
    if not value or is_missing(value):
        return "0" if value == 0 else ""
    if isinstance(value, str):
        return value
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _whole(value: str, name: str) -> str:
    if not _WHOLE.fullmatch(value):
        raise UnusableError("wrong_type", f"{name}_concept_id must be a whole number, but is {value[:40]!r}")
    return value.partition(".")[0]


def _integer(cells: Mapping[str, Any], name: str) -> str:
    value = _text(cells, name)
    if not _WHOLE.fullmatch(value):
        raise UnusableError("wrong_type", f"{name} must be a whole number, but is {value[:40]!r}")
    return value.partition(".")[0]


def _days(cells: Mapping[str, Any]) -> list[str]:
    month, of_month = _text(cells, "month_of_birth"), _text(cells, "day_of_birth")
    return [month, *([of_month] if of_month else [])] if month else []


def _when(cells: Mapping[str, Any], name: str) -> str:
    found = _text(cells, f"{name}_datetime") or _text(cells, f"{name}_date")
    return day(found) if found else ""


def _amount(cells: Mapping[str, Any], name: str) -> str:
    value = _text(cells, name)
    try:
        return number(int(value) if value.lstrip("+-").isdigit() else float(value)) if value else ""
    except ValueError:
        return ""

"""Timelines: what happened to one patient, in time order, as documents that say neither who it was nor on which day."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from corpus import document
from corpus.clean import clean_line
from corpus.formats.dates import is_korean
from corpus.formats.tables import TableOptions
from corpus.modality import Item, Record, UnusableError, reject
from slurm.files import digest

PATIENT, ENCOUNTER = "patient", "encounter"
_DATE = re.compile(r"(\d{4})(?:[-/.]?(\d{2})(?:[-/.]?(\d{2})(?:[T ](\d{2}):?(\d{2})(?::?(\d{2}))?\S*)?)?)?")
_NAME = re.compile("\x00([^\x00]*)\x00")  # stands for a name that is known only when all is read
_FREE = re.compile("\x01([^\x01]*)\x01")  # around what a person wrote, where the patient's name can stand
_OLDEST = 90  # ages from here on are told together, as the US rules of de-identification ask
_ORDER = ("allergy", "condition", "observation", "report", "procedure", "medication", "immunization")


class PatientOptions(TableOptions):
    """How to read patients.

    Attributes:
        layout: fhir, omop or smart; found by the files' names when not given.
        identifiers: names, addresses, numbers and days of birth are always dropped; there is no other choice.
        dates: year, with days counted from a patient's first; or exact, which a note then says.
        notes: whether reports' conclusions and clinical notes are kept. They are free text: names can stand in them.
        max_chars: a longer history becomes several records, which always share a split.
        as_of: what is dated later is refused; today, when not given.
        language: of names and texts; Korean is found by its letters.
    """

    layout: Literal["fhir", "omop", "smart"] | None = None
    identifiers: Literal["drop"] = "drop"
    dates: Literal["year", "exact"] = "year"
    notes: bool = False
    max_chars: Annotated[int, Field(ge=1000)] = 100_000
    as_of: date | None = None
    language: Annotated[str, Field(pattern="^[a-z]{2}$")] = "en"


class Event(NamedTuple):
    """Something that happened: its kind, when (ISO 8601, empty if unknown), in which encounter, what, and its id."""

    kind: str
    when: str
    encounter: str
    text: str
    id: str


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What all patients of a source share: the options, the last possible day, names by key, and who is known.

    Attributes:
        names: returns the name that stands behind a key in an event's text.
        strict: whether a patient must be among the source's patients.
    """

    options: PatientOptions
    names: Callable[[str], str]
    strict: bool
    last: str = ""


@dataclass(kw_only=True)
class _Section:
    when: str
    title: str = ""
    lines: list[tuple[str, int, str]] = field(default_factory=list)


def named(key: str) -> str:
    """Returns what stands in an event's text for a name that is known only when all is read."""
    return f"\x00{key}\x00"


def free(text: str) -> str:
    """Returns a text that a person wrote, marked so that what names the patient is taken out of it."""
    return "\x01" + text.replace("\x01", "") + "\x01" if text.strip() else ""


def day(value: str) -> str:
    """Returns a date as ISO 8601, as exact as it is given and without time zone.

    Raises:
        UnusableError: it is no date.
    """
    found = _DATE.fullmatch(value.strip())
    if found is None:
        raise UnusableError("bad_date", f"must be a date such as 2021-03-04, but is {value[:40]!r}")
    year, month, of_month, *clock = found.groups()
    try:
        date(int(year), int(month or 1), int(of_month or 1))
        time(hour=int(clock[0] or 0), minute=int(clock[1] or 0))
    except ValueError as error:
        raise UnusableError("bad_date", f"must be a day of the calendar, but is {value[:40]!r}") from error
    parts = [part for part in found.groups() if part]
    return "-".join(parts[:3]) + ("T" + ":".join(parts[3:]) if parts[3:] else "")


def last_day(options: PatientOptions) -> str:
    """Returns the last day on which something can have happened: a day after `as_of`, for all time zones."""
    return ((options.as_of or datetime.now(UTC).date()) + timedelta(days=1)).isoformat()


def items(person: str, events: Sequence[Event], *, scene: Scene) -> Iterator[Item]:
    """Yields the records of one patient, and a reject for each event that cannot be used."""
    known = [event for event in events if event.kind == PATIENT]
    if not known and scene.strict:
        told = UnusableError("unknown_patient", "must belong to a patient of this source, but its patient is not there")
        yield from (reject(told, where=event.id, excerpt=event.kind) for event in events)
        return
    facts: dict[str, Any] = json.loads(known[0].text) if known else {}
    birth = known[0].when if known else ""
    usable: list[Event] = []
    seen: set[tuple[str, str]] = set()
    for event in events:
        try:
            usable += _usable(event, seen, birth=birth, scene=scene, hidden=facts.get("hidden", ()))
        except UnusableError as error:
            yield reject(error, where=event.id, excerpt=event.kind)
    who = {name: _with_names(value, scene) for name, value in facts.get("facts", {}).items()}
    yield from _records(person, _sections(usable), facts=who, birth=birth, scene=scene)


def _usable(
    event: Event, seen: set[tuple[str, str]], *, birth: str, scene: Scene, hidden: Sequence[str]
) -> Iterator[Event]:
    if (event.id, event.kind) in seen:
        raise UnusableError("duplicate_id", "must have an id of its own, but another has it too")
    seen.add((event.id, event.kind))
    if event.kind == PATIENT:
        return
    if event.when[:10] > scene.last:
        raise UnusableError("future_date", f"must not lie in the future, but is dated {event.when[:4]}")
    if birth and event.when and _day_after(event.when[:10])[: len(birth)] < birth[: len(event.when)]:
        raise UnusableError("before_birth", "must not lie before birth, but does")
    written = _FREE.sub(lambda found: _without(found.group(1), hidden), event.text)
    written = _with_names(written, scene)
    text = clean_line(written) if written.strip() or event.kind != ENCOUNTER else ""
    yield event._replace(text=text)


def _without(text: str, hidden: Sequence[str]) -> str:
    for secret in hidden:
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?![A-Za-z0-9])", "___", text, flags=re.IGNORECASE)
    return text


def _with_names(text: str, scene: Scene) -> str:
    return _NAME.sub(lambda found: scene.names(found.group(1)), text)


def _day_after(when: str) -> str:
    """Returns the next day: a record of one time zone may be dated a day before the birth in another."""
    return (date.fromisoformat(when) + timedelta(days=1)).isoformat() if len(when) == 10 else when


def _sections(events: Sequence[Event]) -> list[_Section]:
    """Groups events by encounter; those of none, or of an unknown one, by day."""
    sections = {
        event.encounter: _Section(when=event.when, title=event.text) for event in events if event.kind == ENCOUNTER
    }
    for number, event in enumerate(events):
        if event.kind == ENCOUNTER:
            continue
        home = event.encounter if event.encounter in sections else f"\x00{event.when[:10]}"
        section = sections.setdefault(home, _Section(when=event.when))
        section.when = section.when or event.when
        section.lines.append((event.when, number, f"{event.kind}: {event.text}"))
        if event.when and event.encounter not in sections:
            section.when = min(section.when, event.when)
    for section in sections.values():
        section.lines.sort(key=lambda line: (line[0], _order(line[2]), line[1]))
    return sorted(sections.values(), key=lambda section: (section.when, not section.title))


def _order(line: str) -> int:
    kind = line.partition(":")[0]
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER)


def _records(
    person: str, sections: list[_Section], *, facts: dict[str, str], birth: str, scene: Scene
) -> Iterator[Item]:
    dated = [section.when for section in sections if section.when]
    old = bool(dated) and _age(birth, dated[-1]).endswith("over")
    told = {"birth year": birth[:4]} if birth and not old else {}  # of the very old it would tell too much
    zero = next((when[:10] for when in dated if len(when) >= 10), "")
    written = [
        (_title(section, birth, zero=zero, exact=scene.options.dates == "exact"), line_texts)
        for section in sections
        if (line_texts := [line for _, _, line in section.lines]) or section.title
    ]
    parts = list(_parts(written, scene.options.max_chars))
    for number, part in enumerate(parts, start=1):
        place = {"part": f"{number} of {len(parts)}"} if len(parts) > 1 else {}
        try:
            content = document.make({**facts, **told, **place}, part)
        except UnusableError as error:
            yield reject(error, where=person, excerpt="patient")
            continue
        yield Record(
            content=content,
            group=digest(person),
            language="ko" if is_korean(_told(content)) else scene.options.language,
            where=person if len(parts) == 1 else f"{person}, part {number}",
            date=dated[-1][:4] if dated and not old else None,
        )


def _parts(sections: list[tuple[str, list[str]]], most: int) -> Iterator[list[tuple[str, str]]]:
    """Cuts a history between its sections; a section that is too long alone, between its lines."""
    part: list[tuple[str, str]] = []
    size = 0
    for title, lines in sections:
        for number, text in enumerate(_cut(lines, most)):
            shown = title if not number else f"{title} (continued)"
            if part and size + len(text) + len(shown) > most:
                yield part
                part, size = [], 0
            part.append((shown, text or "nothing was recorded"))
            size += len(text) + len(shown)
    yield part  # a patient without history is one record too


def _cut(lines: list[str], most: int) -> Iterator[str]:
    taken: list[str] = []
    size = 0
    for line in lines:
        if taken and size + len(line) > most:
            yield "\n".join(taken)
            taken, size = [], 0
        taken.append(line)
        size += len(line) + 1
    yield "\n".join(taken)


def _title(section: _Section, birth: str, *, zero: str, exact: bool) -> str:
    when, age = section.when, _age(birth, section.when)
    if age.endswith("over") and not exact:  # neither year nor day, from which the age could be computed
        return age + (f": {section.title}" if section.title else "")
    days = (date.fromisoformat(when[:10]) - date.fromisoformat(zero)).days if len(when) >= 10 and zero else None
    known = [
        (when[:10] if exact else when[:4]) or "undated",
        age,
        "" if days is None else f"day {days}",
    ]
    return ", ".join(part for part in known if part) + (f": {section.title}" if section.title else "")


def _age(birth: str, when: str) -> str:
    """Returns the age as 'age 17', for small children in months, for the very old as '90 or over'."""
    if not birth or not when:
        return ""
    whole = len(birth) >= 10 and len(when) >= 10
    months = (int(when[:4]) - int(birth[:4])) * 12
    if whole:
        months += int(when[5:7]) - int(birth[5:7]) - (when[8:10] < birth[8:10])
    if months >= _OLDEST * 12:
        return f"age {_OLDEST} or over"
    return f"age {max(months, 0)} months" if whole and months < 24 else f"age {max(months, 0) // 12}"


def _told(content: dict[str, Any]) -> str:
    return " ".join(text for _, text in content["sections"])

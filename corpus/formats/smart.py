"""Tables of the SMART sample patients: one tab-separated file for each kind of event, joined by PID."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from corpus.annotations import bare
from corpus.formats import tables
from corpus.formats.fhir import number
from corpus.formats.spool import Spool
from corpus.formats.tables import Row
from corpus.formats.timeline import PATIENT, Event, PatientOptions, Scene, day, free, items, last_day
from corpus.modality import Item, Reject, SourceError, UnusableError, reject

Cells = Mapping[str, str]
_CVX = re.compile(r"cvx0*(\d+)$", re.IGNORECASE)
_VITALS = {  # column: what it is called and its unit
    "heartrate": ("heart rate", "/min"),
    "respiratoryrate": ("respiratory rate", "/min"),
    "temperature": ("temperature", "Cel"),
    "weight": ("weight", "kg"),
    "height": ("height", "cm"),
    "bmi": ("BMI", "kg/m2"),
    "systolic": ("systolic blood pressure", "mm[Hg]"),
    "diastolic": ("diastolic blood pressure", "mm[Hg]"),
    "oxygensaturation": ("oxygen saturation", "%"),
    "headcircumference": ("head circumference", "cm"),
}


def read(paths: Sequence[Path], options: PatientOptions) -> Iterator[Item]:
    """Yields the records of every patient, in the order of patients.txt.

    Raises:
        SourceError: patients.txt is not there, or a table has no column PID.
    """
    found = {path.name.split(".", maxsplit=1)[0].lower(): path for path in reversed(paths)}
    if "patients" not in found:
        raise SourceError("no_person", "must have a table patients, but has none; put it beside the others")
    with Spool() as spool:
        for name, (label, write) in {"patients": (PATIENT, _patient), **TABLES}.items():
            if name not in found:
                continue
            for item in _rows(found[name], options):
                if isinstance(item, Reject):
                    yield item
                    continue
                key = f"{name} {item.cells.get('id') or item.where}"
                try:
                    event = write(item.cells)
                    owner = item.cells["pid"]
                    kept = event._replace(kind=label, id=f"patient {owner}" if label == PATIENT else key)
                    _put(spool, owner, kept, over=item.cells.get("enddate", ""))
                except UnusableError as error:
                    yield reject(error, where=key, excerpt=name)
        scene = Scene(options=options, names=str, strict=True, last=last_day(options))
        for person, rows in spool.owners():
            yield from items(f"patient {person}", [Event(*row) for row in rows], scene=scene)


def _put(spool: Spool, owner: str, event: Event, *, over: str) -> None:
    if not owner:
        raise UnusableError("no_patient", "must have a PID, but it is missing")
    spool.add(owner, event)
    if event.kind == "condition" and over and day(over) != event.when:
        spool.add(owner, event._replace(kind="end of condition", when=day(over)))


def _rows(path: Path, options: PatientOptions) -> Iterator[Row | Reject]:
    for item in tables.rows(path, options.model_copy(update={"group": None})):
        where = f"{path.name}, {item.where}"
        if isinstance(item, Reject):  # its excerpt would hold the row, which may name a person
            yield Reject(where=where, code=item.code, reason=item.reason, excerpt=path.name)
            continue
        cells = {bare(name): tables.text_of(item.cells, name).strip() for name in item.cells}
        if "pid" not in cells:
            raise SourceError("wrong_columns", f"{path.name} must have a column PID, but has {', '.join(cells)[:200]}")
        yield Row(where=where, cells=cells)


def _patient(cells: Cells) -> Event:
    born = cells.get("dob") or cells.get("yob") or ""
    facts = {"sex": cells.get("gender", "").lower(), "race": cells.get("race", "")}
    if cells.get("gestage"):
        facts["gestational age"] = f"{cells['gestage']} weeks"
    hidden = [cells.get(name, "") for name in ("fname", "lname", "street", "email", "home", "cell", "pid")]
    kept = {name: value for name, value in facts.items() if value}
    told = json.dumps({"facts": kept, "hidden": [word for word in hidden if len(word) > 1]})
    return Event("", day(born) if born else "", "", told, "")


def _event(cells: Cells, *words: str, when: Sequence[str] = ("startdate", "date", "timestamp")) -> Event:
    told = ", ".join(word for word in words if word)
    if not told:
        raise UnusableError("no_code", "must say what it is about, but has neither a name nor a code")
    given = next((cells[name] for name in when if cells.get(name)), "")
    return Event("", day(given) if given else "", "", told, "")


def _named(cells: Cells, name: str, *, code: str, system: str) -> str:
    shown = f"[{system} {cells[code]}]" if cells.get(code) else ""
    return " ".join(part for part in (cells.get(name, ""), shown) if part)


def _problem(cells: Cells) -> Event:
    return _event(cells, _named(cells, "name", code="snomed", system="SNOMED"))


def _medicine(cells: Cells) -> Event:
    told = _named(cells, "name", code="rxnorm" if cells.get("rxnorm") else "rxn", system="RxNorm")
    supply = [f"quantity {cells['q']}" if cells.get("q") else "", f"{cells['days']} days" if cells.get("days") else ""]
    return _event(cells, told, free(cells.get("sig", "")), *supply) if told else _event(cells)


def _lab(cells: Cells) -> Event:
    told = _named(cells, "name", code="loinc", system="LOINC")
    low, high = cells.get("low", ""), cells.get("high", "")
    ends = [end for end in (low, high) if end]
    normal = f"(normal {low or '...'} to {high or '...'})" if ends and all(map(_is_number, ends)) else ""
    value = _amount(cells.get("value", ""))
    parts = (told, value, cells.get("units", "") if value else "", normal)
    return _event(cells, " ".join(part for part in parts if part) if told else "")


def _vital(cells: Cells) -> Event:
    found = ((name, unit, _amount(cells.get(column, ""))) for column, (name, unit) in _VITALS.items())
    return _event(cells, *(f"{name} {value} {unit}" for name, unit, value in found if value))


def _allergy(cells: Cells) -> Event:
    system = {"RXNORM": "RxNorm", "NDFRT": "NDF-RT"}.get(cells.get("system", ""), cells.get("system", ""))
    told = _named(cells, "allergen", code="code", system=system)
    reaction = _named(cells, "reaction", code="snomed", system="SNOMED")
    return _event(cells, told, f"reaction: {reaction}" if reaction else "", cells.get("severity", ""))


def _immunization(cells: Cells) -> Event:
    code = _CVX.search(cells.get("cvx", ""))
    told = " ".join(part for part in (cells.get("cvxtitle", ""), f"[CVX {code[1]}]" if code else "") if part)
    undone = "notAdministered" in cells.get("administrationstatus", "")
    return _event(cells, f"not done: {told}" if undone and told else told)


def _smoking(cells: Cells) -> Event:
    code = cells.get("smokingstatuscode", "")
    return _event(cells, f"smoking status [SNOMED {code}]" if code else "")


def _family(cells: Cells) -> Event:
    told = _named(cells, "problemtitle", code="problemcode", system="SNOMED")
    return _event(cells, f"{cells.get('relativetitle') or 'relative'}: {told or 'nothing known'}", when=())


def _is_number(value: str) -> bool:
    return re.fullmatch(r"[+-]?\d+(\.\d+)?", value) is not None


def _amount(value: str) -> str:
    return number(float(value)) if _is_number(value) and "." in value else value


TABLES: dict[str, tuple[str, Callable[[Any], Event]]] = {
    "problems": ("condition", _problem),
    "procedures": ("procedure", _problem),
    "meds": ("medication", _medicine),
    "refills": ("medication dispensed", _medicine),
    "labs": ("observation", _lab),
    "vitals": ("observation", _vital),
    "allergies": ("allergy", _allergy),
    "immunizations": ("immunization", _immunization),
    "socialhistory": ("observation", _smoking),
    "familyhistory": ("family history", _family),
}

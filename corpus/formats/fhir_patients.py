"""Patients of FHIR files: bundles, lists, single resources, and bulk exports of one resource a line."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from corpus.formats import fhir, fhir_events, jsonfile, jsonvalues, lines, tables
from corpus.formats.fhir_older import renewed
from corpus.formats.spool import Spool
from corpus.formats.timeline import Event, PatientOptions, Scene, items, last_day
from corpus.modality import Item, Note, Reject, UnusableError, reject

ENDINGS = (".json", ".ndjson", ".jsonl")


def read(paths: Sequence[Path], options: PatientOptions) -> Iterator[Item]:
    """Yields the records of every patient in some files, in the order in which the files first name them.

    Raises:
        SourceError: a file is no JSON.
    """
    reader = _Reader(options)
    with Spool() as spool:
        for path in paths:
            for found in _values(path, options):
                yield from [found] if isinstance(found, Reject) else reader.take(found[1], found[0], spool=spool)
        scene = Scene(options=options, names=reader.medicine, strict=reader.patients > 0, last=last_day(options))
        yield from reader.notes()
        for person, rows in spool.owners():
            yield from items(person, [Event(*row) for row in rows], scene=scene)


class _Reader:
    """Puts what resources tell in a spool, by patient, and counts what it leaves out."""

    def __init__(self, options: PatientOptions) -> None:
        self._options = options
        self._medicines: dict[str, str] = {}
        self._addresses: dict[str, str] = {}
        self._left: set[str] = set()
        self._foreign = 0
        self.patients = 0

    def take(self, value: Any, place: str, *, spool: Spool) -> Iterator[Reject]:
        """Takes every resource of a JSON value; yields what cannot be used."""
        try:
            found = list(fhir.resources(value))
        except UnusableError as error:
            yield reject(error, where=place, excerpt="no resource")
            return
        for number, (resource, url) in enumerate(found, start=1):
            kind, own = fhir.shown(resource["resourceType"]), fhir.shown(resource.get("id"))
            part = f" {number}" if len(found) > 1 else ""
            name = f"{kind}/{own}" if own else fhir.shown(url) or f"{kind}{part} of {place}"
            try:
                self._take(renewed(resource), name, url=url, spool=spool)
            except UnusableError as error:
                yield reject(error, where=name, excerpt=kind)  # never its content: it may name a patient

    def _take(self, resource: dict[str, Any], name: str, *, url: str, spool: Spool) -> None:
        kind = str(resource["resourceType"])
        if kind == "Medication":
            self._medicines |= dict.fromkeys((name, fhir.key(url)), fhir_events.medication(resource))
            return
        if kind != "Patient" and kind not in fhir_events.TYPES:
            self._left.add(kind)
            return
        owner = fhir.key(url) or name if kind == "Patient" else self._owner(resource)
        self._foreign += not fhir.check(resource, fields=fhir_events.FIELDS)
        if kind == "Patient":
            self.patients += 1
            told = fhir_events.patient(resource, id=name)
            self._addresses[name] = owner
        else:
            address = fhir.key(url) if kind == "Encounter" and url else name
            told = fhir_events.events(resource, id=name, notes=self._options.notes)
            told = (event._replace(encounter=address) if event.kind == "encounter" else event for event in told)
        for event in list(told):
            spool.add(owner, event)

    def _owner(self, resource: dict[str, Any]) -> str:
        named = fhir.key(fhir.first(resource, "subject", "patient"), kind="Patient")
        if not named:
            raise UnusableError("no_patient", "must name its patient in subject or patient, but names none")
        return self._addresses.get(named, named)

    def medicine(self, key: str) -> str:
        """Returns the name of a Medication that others refer to."""
        return self._medicines.get(key) or "unnamed medication"

    def notes(self) -> Iterator[Note]:
        """Yields what was decided without asking."""
        if self._left:
            yield Note(f"left out, because they tell no history: {', '.join(sorted(self._left)[:20])}")
        if self._foreign:
            yield Note(f"{self._foreign} resources are not in every field as R4, R5 or STU3 say, and are used")
        if not self.patients:
            yield Note("no Patient is there: records are grouped by the patients that are referred to")
        if not self._options.notes:
            yield Note("reports' conclusions and documents are left out; notes: true keeps them")
        if self._options.dates == "exact":
            yield Note("dates are exact, as the options ask: they can help to find out who a patient is")


def _values(path: Path, options: PatientOptions) -> Iterator[tuple[str, Any] | Reject]:
    """Yields each JSON value of a file with its place; rejects show nothing of it, because it may name a patient."""
    whole = tables.suffix(path) == ".json" and not _is_lines(path, options)
    for found in _entries(path, options) if whole else jsonvalues.each(path, encoding=options.encoding):
        if isinstance(found, Reject):
            yield replace(found, where=f"{path.name}, {found.where}", excerpt="item")
        else:
            yield f"{path.name}, {found[0]}", found[1]


def _entries(path: Path, options: PatientOptions) -> Iterator[tuple[str, Any] | Reject]:
    """Yields each entry of a bundle, each element of a list, or the one resource of a file."""
    head: dict[str, Any] = {}
    for item in jsonfile.items(path, encoding=options.encoding, within=("entry",)):
        if isinstance(item.value, Reject):
            yield item.value
        elif isinstance(item.key, str):
            head[item.key] = item.value
        else:
            yield item.where, _entry(item.value)
    if head and head.get("resourceType") != "Bundle":
        yield "document", head


def _entry(value: Any) -> Any:
    """Returns a bundle's entry as a bundle of it alone, so that its address stays; a resource of a list as it is."""
    is_entry = isinstance(value, dict) and "resourceType" not in value
    return {"resourceType": "Bundle", "entry": [value]} if is_entry else value


def _is_lines(path: Path, options: PatientOptions) -> bool:
    """Says whether a .json file holds a resource a line, as some bulk exports do; one resource alone is that too."""
    found = (line.text or "" for line in lines.placed_lines(path, encoding=options.encoding))
    start = next((line for line in found if line.strip()), "")
    try:
        value = jsonfile.loads(start) if start else None
    except UnusableError:
        return False
    return isinstance(value, dict) and "resourceType" in value and value["resourceType"] != "Bundle"

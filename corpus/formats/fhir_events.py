"""What the resources of a patient tell: each as events of a timeline, without anything that names the patient."""

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from corpus.clean import clean_text
from corpus.formats.fhir import concept, first, key, name, number, quantity, text
from corpus.formats.jsonvalues import dicts
from corpus.formats.timeline import ENCOUNTER, PATIENT, Event, day, free, named
from corpus.modality import UnusableError

_DEEPEST = 12  # questions within questions
_SHORT = 100  # characters of a value; what is longer was written by a person
_CLASSES = {"AMB": "ambulatory", "EMER": "emergency", "IMP": "inpatient", "HH": "home", "VR": "virtual"}
_MARRIED = {"M": "married", "S": "never married", "D": "divorced", "W": "widowed", "UNK": ""}
_NEVER = ("entered-in-error", "refuted", "cancelled", "nullified")
_WHEN = {  # where each type says when, the most exact first
    "AllergyIntolerance": ("onsetDateTime", "recordedDate", "assertedDate", "onsetPeriod"),
    "CarePlan": ("period", "created"),
    "Condition": ("onsetDateTime", "onsetPeriod", "recordedDate", "assertedDate"),
    "DiagnosticReport": ("effectiveDateTime", "effectivePeriod", "issued"),
    "DocumentReference": ("date", "created", "indexed"),
    "Encounter": ("period", "actualPeriod"),
    "FamilyMemberHistory": ("date",),
    "ImagingStudy": ("started",),
    "Immunization": ("occurrenceDateTime", "date", "recorded"),
    "MedicationAdministration": ("effectiveDateTime", "effectivePeriod", "occurenceDateTime", "occurencePeriod"),
    "MedicationDispense": ("whenHandedOver", "whenPrepared", "recorded"),
    "MedicationRequest": ("authoredOn",),
    "MedicationStatement": ("effectiveDateTime", "effectivePeriod", "dateAsserted"),
    "Observation": ("effectiveDateTime", "effectivePeriod", "effectiveInstant", "issued"),
    "QuestionnaireResponse": ("authored",),
    "Procedure": ("performedDateTime", "performedPeriod", "occurrenceDateTime", "occurrencePeriod"),
    "ServiceRequest": ("authoredOn", "occurrenceDateTime"),
}
TYPES = frozenset(_WHEN)
FIELDS = frozenset(  # what is taken: a fault elsewhere in a resource does not cost it
    {name for names in _WHEN.values() for name in names}
    | {"id", "subject", "patient", "encounter", "context", "code", "vaccineCode", "medicationCodeableConcept", "status"}
    | {"medicationReference", "medication", "valueQuantity", "valueCodeableConcept", "valueString", "component", "type"}
    | {"birthDate", "gender", "deceasedBoolean", "deceasedDateTime", "abatementDateTime", "dosageInstruction", "class"}
)


def patient(resource: Mapping[str, Any], *, id: str) -> Iterator[Event]:  # noqa: A002 - FHIR's word
    """Yields who the patient is, without what names one, and their death."""
    died = _when(resource.get("deceasedDateTime"))
    facts = {
        "sex": text(resource.get("gender")),
        "race": _us_core(resource, "us-core-race"),
        "ethnicity": _us_core(resource, "us-core-ethnicity"),
        "marital status": _MARRIED.get(married := name(resource.get("maritalStatus")), married),
        "language": next((name(item.get("language")) for item in dicts(resource.get("communication"))), ""),
        "deceased": "yes" if died or resource.get("deceasedBoolean") is True else "",
    }
    kept = {fact: value for fact, value in facts.items() if value}
    told = json.dumps({"facts": kept, "hidden": sorted(_hidden(resource), key=len, reverse=True)})
    yield Event(PATIENT, _when(resource.get("birthDate")), "", told, id)
    if died:
        yield Event("death", died, "", "patient died", id)


def events(resource: Mapping[str, Any], *, id: str, notes: bool) -> Iterator[Event]:  # noqa: A002 - likewise
    """Yields what a resource tells, the most important event first.

    Raises:
        UnusableError: it was withdrawn, is dated wrongly, or says nothing.
    """
    kind = str(resource["resourceType"])
    status = {text(resource.get("status")), name(resource.get("verificationStatus")).lower()}
    withdrawn = sorted(status & set(_NEVER))
    if withdrawn:
        raise UnusableError("withdrawn", f"must hold, but its status is {withdrawn[0]}")
    when = _when(first(resource, *_WHEN[kind]))
    home = key(first(resource, "encounter", "context"), kind="Encounter")
    if kind == "Encounter":
        yield Event(ENCOUNTER, when, id, _encounter(resource), id)
        return
    if kind == "DocumentReference":
        yield Event("note", when, home, _document(resource, notes=notes), id)
        return
    label, write = _WRITERS[kind]
    told = write(resource)
    if not told:
        raise UnusableError("no_code", "must say what it is about, but has neither a code nor a text")
    undone = text(resource.get("status")) in ("not-done", "not-taken") or resource.get("doNotPerform") is True
    words = [f"not done: {told}" if undone else told]
    if notes and kind == "DiagnosticReport":
        words.append(free(text(resource.get("conclusion"))))
    yield Event(label, when, home, ", ".join(word for word in words if word), id)
    over = _when(first(resource, "abatementDateTime", "abatementPeriod")) if kind == "Condition" else ""
    if over:
        yield Event("end of condition", over, "", concept(resource.get("code")), id)


def medication(resource: Mapping[str, Any]) -> str:
    """Returns the name of a Medication resource."""
    return concept(resource.get("code"))


def _when(value: Any) -> str:
    given = first(value, "start", "end") if isinstance(value, dict) else value
    if given is not None and not isinstance(given, str):
        raise UnusableError("bad_date", f"must be a date such as 2021-03-04, but is {str(given)[:40]!r}")
    return day(given) if given and given.strip() else ""


def _encounter(resource: Mapping[str, Any]) -> str:
    kinds = dicts(resource.get("type"))
    group = resource.get("class")
    of = _CLASSES.get(code := name(group), code)
    reasons = [name(item) for item in dicts(first(resource, "reasonCode", "reason"))]
    title = name(kinds[0]) if kinds else "encounter"
    told = f"{title} ({of})" if of else title
    return f"{told} for {', '.join(reason for reason in reasons if reason)}" if any(reasons) else told


def _observation(resource: Mapping[str, Any]) -> str:
    told = concept(resource.get("code"))
    parts = [f"{name(part.get('code'))} {_value(part)}".strip() for part in dicts(resource.get("component"))]
    value = _value(resource) or "; ".join(part for part in parts if part)
    marks = ", ".join(name(item) for item in dicts(resource.get("interpretation")))
    return f"{told} {value}{f' ({marks})' if marks else ''}".strip() if told else ""


def _value(given: Mapping[str, Any]) -> str:
    written = text(given.get("valueString"))
    found = (
        quantity(given.get("valueQuantity"))
        or name(given.get("valueCodeableConcept"))
        or (free(written) if len(written) <= _SHORT else "")
        or number(given.get("valueInteger"))
        or number(given.get("valueDecimal"))
        or _range(given.get("valueRange"), " to ")
        or _range(given.get("valueRatio"), " : ")
        or text(given.get("valueDateTime"))[:4]
    )
    yes = given.get("valueBoolean")
    return found or ("yes" if yes is True else "no" if yes is False else "")


def _range(value: Any, between: str) -> str:
    ends = [quantity(first(value, *pair)) for pair in (("low", "numerator"), ("high", "denominator"))] if value else []
    return between.join(end for end in ends if end)


def _medication(resource: Mapping[str, Any]) -> str:
    given = first(resource, "medicationCodeableConcept", "medication")
    reference = resource.get("medicationReference") or (given.get("reference") if isinstance(given, dict) else None)
    contained = {f"#{text(item.get('id'))}": item for item in dicts(resource.get("contained"))}
    target = key(reference, kind="Medication")
    told = medication(contained[target]) if target in contained else named(target) if target else concept(given)
    doses = [_dose(item) for item in dicts(first(resource, "dosageInstruction", "dosage"))]
    return ", ".join(part for part in (told, *doses) if part) if told else ""


def _dose(dose: Mapping[str, Any]) -> str:
    rates = [quantity(first(item, "doseQuantity")) for item in dicts(dose.get("doseAndRate"))]
    amounts = [*rates, quantity(first(dose, "doseQuantity", "dose"))]
    repeat = dose["timing"].get("repeat") if isinstance(dose.get("timing"), dict) else None
    often = dict(repeat) if isinstance(repeat, dict) else {}
    times, per = number(often.get("frequency")), number(often.get("period"))
    rhythm = f"{times} every {per} {text(often.get('periodUnit'))}" if times and per else ""
    asked = "as needed" if dose.get("asNeededBoolean") is True else ""
    words = text(dose.get("text"))
    return ", ".join(part for part in (free(words[:_SHORT]), *amounts, rhythm, name(dose.get("route")), asked) if part)


def _allergy(resource: Mapping[str, Any]) -> str:
    told = concept(resource.get("code")) or next((concept(item) for item in dicts(resource.get("substance"))), "")
    signs = [name(sign) for item in dicts(resource.get("reaction")) for sign in dicts(item.get("manifestation"))]
    risk = text(resource.get("criticality"))
    words = (told, f"reaction: {', '.join(signs)}" if signs else "", f"criticality {risk}" if risk else "")
    return ", ".join(word for word in words if word) if told else ""


def _care_plan(resource: Mapping[str, Any]) -> str:
    told = ", ".join(concept(item) for item in dicts(resource.get("category"))) or free(text(resource.get("title")))
    details = [item["detail"] for item in dicts(resource.get("activity")) if isinstance(item.get("detail"), dict)]
    doing = [name(detail.get("code")) for detail in details]
    return f"{told}: {', '.join(item for item in doing if item)}" if told and any(doing) else told


def _questionnaire(resource: Mapping[str, Any]) -> str:
    return "; ".join(_answers(resource.get("item"), depth=0))


def _answers(items: Any, *, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise UnusableError("too_deep", f"must have questions at most {_DEEPEST} deep, but goes on")
    for item in dicts(items):
        given = dicts(item.get("answer"))
        said = [_value(answer) or name(answer.get("valueCoding")) for answer in given]
        asked = text(item.get("text")) or text(item.get("linkId"))
        if any(said):
            yield f"{asked}: {', '.join(word for word in said if word)}"
        for inner in (item, *given):
            yield from _answers(inner.get("item"), depth=depth + 1)


def _family(resource: Mapping[str, Any]) -> str:
    found = [concept(item.get("code")) for item in dicts(resource.get("condition"))]
    return f"{name(resource.get('relationship'))}: {', '.join(found)}" if any(found) else ""


def _imaging(resource: Mapping[str, Any]) -> str:
    series = dicts(resource.get("series"))
    kinds = dict.fromkeys(name(first(item, "modality")) for item in [*series, *dicts(resource.get("modality"))])
    parts = dict.fromkeys(name(item.get("bodySite")) for item in series)
    return ", ".join(word for word in (*kinds, *parts, concept(resource.get("procedureCode"))) if word)


def _document(resource: Mapping[str, Any], *, notes: bool) -> str:
    told = concept(resource.get("type")) or "document"
    held = [item.get("attachment", {}) for item in dicts(resource.get("content"))] if notes else []
    return "\n".join([told, *(free(found) for item in held if (found := _attached(item)))])


def _attached(attachment: Any) -> str:
    if not isinstance(attachment, dict) or not text(attachment.get("contentType")).startswith("text/plain"):
        return ""
    try:
        return clean_text(base64.b64decode(text(attachment.get("data")), validate=True).decode())
    except (binascii.Error, UnicodeDecodeError, UnusableError):
        return ""


def _code(resource: Mapping[str, Any]) -> str:
    return concept(first(resource, "code", "vaccineCode"))


_WRITERS: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "AllergyIntolerance": ("allergy", _allergy),
    "CarePlan": ("care plan", _care_plan),
    "Condition": ("condition", _code),
    "DiagnosticReport": ("report", _code),
    "FamilyMemberHistory": ("family history", _family),
    "ImagingStudy": ("imaging", _imaging),
    "Immunization": ("immunization", _code),
    "MedicationAdministration": ("medication given", _medication),
    "MedicationDispense": ("medication dispensed", _medication),
    "MedicationRequest": ("medication", _medication),
    "MedicationStatement": ("medication taken", _medication),
    "Observation": ("observation", _observation),
    "Procedure": ("procedure", _code),
    "QuestionnaireResponse": ("questionnaire", _questionnaire),
    "ServiceRequest": ("order", _code),
}


def _us_core(resource: Mapping[str, Any], which: str) -> str:
    for extension in dicts(resource.get("extension")):
        if text(extension.get("url")).endswith(which):
            parts = dicts(extension.get("extension"))
            said = [text(part.get("valueString")) or name(part.get("valueCoding")) for part in reversed(parts)]
            whole = extension.get("valueCodeableConcept")  # DSTU2's, whose text may only say "race"
            said += [name(coding) for coding in dicts(whole.get("coding") if isinstance(whole, dict) else None)]
            return next((word for word in said if word), "")
    return ""


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _hidden(resource: Mapping[str, Any]) -> set[str]:
    """Returns what names the patient: words of names, addresses and numbers, to be taken out of free text."""
    found = {text(item.get("value")) for which in ("identifier", "telecom") for item in dicts(resource.get(which))}
    for item in dicts(resource.get("name")):
        families, given = (_listed(item.get(which)) for which in ("family", "given"))  # DSTU2 lists both
        words = [*families, item.get("text"), *given]
        found |= {part for word in words for part in (text(word), *text(word).split())}
    for item in dicts(resource.get("address")):
        found |= {text(line) for line in _listed(item.get("line"))}
    return {word for word in found if len(word) >= (3 if word.isascii() else 2)}

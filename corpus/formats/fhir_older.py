"""FHIR of before R4 in R4's words: renamed types and fields, what was not done, times without seconds or a zone."""

import re
from collections.abc import Mapping
from typing import Any

_TYPES = {"MedicationOrder": "MedicationRequest"}  # DSTU2's names
_NAMES = {  # by type: an older name of a field, and its later one
    "Condition": {"patient": "subject", "dateRecorded": "recordedDate"},
    "Encounter": {"patient": "subject"},
    "MedicationRequest": {"patient": "subject", "dateWritten": "authoredOn"},
    "MedicationStatement": {"patient": "subject"},
    "MedicationAdministration": {
        "patient": "subject",
        "effectiveTimeDateTime": "effectiveDateTime",
        "effectiveTimePeriod": "effectivePeriod",
    },
}
_UNDONE = ("wasNotGiven", "notGiven", "wasNotTaken", "notPerformed", "notDone")  # DSTU2's and STU3's
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(:\d\d(?:\.\d+)?)?(Z|[+-]\d\d:\d\d)?", re.ASCII)


def renewed(resource: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a resource of DSTU2 or STU3 in the words of R4, as far as a history needs them; others as they are."""
    new = dict(resource)
    new["resourceType"] = kind = _TYPES.get(str(new["resourceType"]), new["resourceType"])
    for old, late in _NAMES.get(kind, {}).items():
        if old in new and late not in new:
            new[late] = new.pop(old)
    if kind == "Encounter" and isinstance(new.get("class"), str):
        new["class"] = {"code": new["class"]}
    if any(new.get(name) is True for name in _UNDONE) or new.get("taken") == "n":
        new["status"] = "not-done"
    if isinstance(born := new.get("birthDate"), str) and _TIME.fullmatch(born):
        new["birthDate"] = born.partition("T")[0]
    return {name: _timed(value) for name, value in new.items()}


def _timed(value: Any) -> Any:
    """Completes a time, or the two of a period, so that it is FHIR's: what lacks is taken as zero and as UTC."""
    if isinstance(value, dict) and value.keys() & {"start", "end"}:
        return {name: _timed(part) for name, part in value.items()}
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None or (found[3] and found[4]):
        return value
    return f"{found[1]}T{found[2]}{found[3] or ':00'}{found[4] or 'Z'}"

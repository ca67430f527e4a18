"""FHIR resources: found in bundles and lists, checked with fhir.resources, and their parts as people write them."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from corpus.formats.jsonvalues import dicts
from corpus.modality import UnusableError

_RELEASES = ("fhir.resources.R4B", "fhir.resources", "fhir.resources.STU3")  # R4 first, then R5 and STU3
_DEPTH = 8  # of bundles in bundles
_SYSTEMS = {  # the end of a code system's address or OID: what people call it
    "snomed.info/sct": "SNOMED",
    "loinc.org": "LOINC",
    "umls/rxnorm": "RxNorm",
    "sid/icd-10-cm": "ICD-10-CM",
    "sid/icd-10": "ICD-10",
    "sid/icd-9-cm": "ICD-9-CM",
    "sid/cvx": "CVX",
    "sid/ndc": "NDC",
    "www.whocc.no/atc": "ATC",
    "2.16.840.1.113883.6.96": "SNOMED",
    "2.16.840.1.113883.6.1": "LOINC",
    "2.16.840.1.113883.6.88": "RxNorm",
    "2.16.840.1.113883.6.90": "ICD-10-CM",
    "2.16.840.1.113883.6.3": "ICD-10",
    "2.16.840.1.113883.6.103": "ICD-9-CM",
    "2.16.840.1.113883.6.69": "NDC",
    "2.16.840.1.113883.12.292": "CVX",
}


def resources(value: Any, *, depth: int = 0) -> Iterator[tuple[dict[str, Any], str]]:
    """Yields every resource of a JSON value, bundles and lists opened, and the address a bundle gives it.

    Raises:
        UnusableError: something in it is no resource.
    """
    if isinstance(value, list):
        for item in value:
            yield from resources(item, depth=depth + 1)
    elif not isinstance(value, dict) or not isinstance(value.get("resourceType"), str) or depth > _DEPTH:
        found = f"has the keys {shown(', '.join(value))}" if isinstance(value, dict) else f"is {type(value).__name__}"
        raise UnusableError("not_fhir", f"must be a FHIR resource with a resourceType, but {found}")
    elif value["resourceType"] == "Bundle":
        for entry in dicts(value.get("entry")):
            if "resource" in entry:
                for resource, url in resources(entry["resource"], depth=depth + 1):
                    yield resource, url or text(entry.get("fullUrl"))
    else:
        yield value, ""


def check(resource: Mapping[str, Any], *, fields: frozenset[str]) -> bool:
    """Checks a resource against R4, R5 and STU3; says whether one of them accepts it as it is.

    What none accepts is still used when the fault lies outside `fields`, those a reader takes: hospitals add theirs.

    Raises:
        UnusableError: it is of no known type, or a field that is taken is wrong.
    """
    from pydantic import ValidationError

    first: ValidationError | None = None
    for release in _RELEASES:
        model = _model(release, str(resource["resourceType"]))
        try:
            if model is not None:
                model.model_validate(resource)
                return True
        except ValidationError as error:
            first = first or error
        except Exception as error:  # the library lets through whatever its checks stumble on
            raise UnusableError("not_fhir", f"must be FHIR, but {type(error).__name__}: {shown(str(error))}") from error
    if first is None:
        raise UnusableError("unknown_type", f"must be a type of FHIR, but is {shown(resource['resourceType'])!r}")
    _refuse(first, fields)
    return False


def _model(release: str, kind: str) -> Any:
    import importlib

    if not kind.isalpha():
        return None
    try:
        return importlib.import_module(release).get_fhir_model_class(kind)
    except (KeyError, LookupError, ImportError, AttributeError):
        return None


def _refuse(error: Any, fields: frozenset[str]) -> None:
    try:
        found = error.errors(include_url=False, include_input=False, include_context=False)
    except UnicodeEncodeError as broken:
        raise UnusableError("not_unicode", "must hold whole characters, but holds half a surrogate pair") from broken
    for item in found:
        place = ".".join(str(part) for part in item["loc"])
        if item["type"] != "extra_forbidden" and str((item["loc"] or ("",))[0]) in fields:
            raise UnusableError("not_fhir", f"{place[:80]} must be as FHIR says, but: {item['msg'][:160]}")


def text(value: Any) -> str:
    """Returns a text, and nothing for anything else."""
    return value.strip() if isinstance(value, str) else ""


def shown(value: Any) -> str:
    """Returns an id for people: short, and with nothing that cannot be written."""
    return text(value)[:64].encode("utf-8", "backslashreplace").decode()


def first(resource: Mapping[str, Any], *names: str) -> Any:
    """Returns the first of some fields that holds something."""
    return next((resource[name] for name in names if resource.get(name) not in (None, "", [], {})), None)


def key(reference: Any, *, kind: str = "") -> str:
    """Returns type and id of a reference, without server and version: 'Patient/12', or 'urn:uuid:...' as it is."""
    given = text(reference.get("reference")) if isinstance(reference, dict) else text(reference)
    given = given.encode("utf-8", "backslashreplace").decode()
    if not given or given.startswith(("urn:", "#")) or "?" in given:
        return given
    parts = given.partition("/_history")[0].split("/")
    return "/".join(parts[-2:]) if len(parts) > 1 else f"{kind}/{given}" if kind else given


def concept(value: Any) -> str:
    """Returns the name of a concept, and the code behind it: 'Sprain of wrist [SNOMED 70704007]'."""
    name, system, code = _parts(value)
    shown = f"[{system} {code}]" if system else f"[{code}]" if code and not name else ""
    return " ".join(part for part in (name, shown) if part)


def name(value: Any) -> str:
    """Returns the name of a concept without its code; the code where it has no name."""
    told, _, code = _parts(value)
    return told or code


def _parts(value: Any) -> tuple[str, str, str]:
    """Returns a concept's name, and system and code of its best coding: one of a system people know."""
    given = value[0] if isinstance(value, list) and value else value
    if not isinstance(given, dict):
        return text(given), "", ""
    given = given["concept"] if isinstance(given.get("concept"), dict) else given  # R5: a concept or a reference
    codings = dicts(given.get("coding")) if "coding" in given else [given]
    known = [coding for coding in codings if text(coding.get("code"))]
    best = next((coding for coding in known if _system(coding)), known[0] if known else {})
    shown = text(given.get("text")) or next((text(item.get("display")) for item in codings if item.get("display")), "")
    return shown, _system(best), text(best.get("code"))


def quantity(value: Any) -> str:
    """Returns an amount: '178.7 cm', '< 5 mg/dL'; nothing when it holds no number."""
    if not isinstance(value, dict):
        return ""
    amount = number(value.get("value"))
    unit = text(value.get("unit")) or text(value.get("code"))
    return " ".join(part for part in (text(value.get("comparator")), amount, unit) if part) if amount else ""


def number(value: Any) -> str:
    """Returns a number as people write it: whole ones exactly, others with at least four digits that count."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return ""
    if isinstance(value, int):
        return str(value) if abs(value) < 10**18 else ""
    if not math.isfinite(value):
        return ""
    if value.is_integer() and abs(value) < 10**15:
        return str(int(value))
    digits = max(0, 3 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") if digits <= 12 else f"{value:.4g}"


def _system(coding: Mapping[str, Any]) -> str:
    address = text(coding.get("system")).lower().rstrip("/")
    return next((known for end, known in _SYSTEMS.items() if address.endswith((f"/{end}", f":{end}"))), "")

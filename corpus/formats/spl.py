"""Structured product labels (HL7 SPL): what a drug is, and what its label says, section by section."""

from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from corpus.formats import papers, xmlfile
from corpus.formats.dates import iso_date, language_code
from corpus.formats.labelsections import LISTING, NAMES, UNCLASSIFIED
from corpus.formats.spltext import narrative, one_line
from corpus.formats.xmlfile import child, children, name
from corpus.modality import Item, SourceError, UnusableError, reject

_SPACE = "urn:hl7-org:v3"
_NDC = "2.16.840.1.113883.6.69"
_UNII = "2.16.840.1.113883.4.9"
_PRODUCTS = ("manufacturedProduct", "manufacturedMedicine", "partProduct", "partMedicine")
_INGREDIENTS = ("ingredient", "activeIngredient", "inactiveIngredient")
_SUBSTANCES = ("ingredientSubstance", "activeIngredientSubstance", "inactiveIngredientSubstance")
_DEEPEST = 20


def read(path: Path, *, sections: Container[str] | None, language: str) -> Iterator[Item]:
    """Yields one record a label; `sections` are the LOINC codes to keep, None for all.

    Raises:
        SourceError: the file is no label, or damaged.
    """
    found = xmlfile.root(path)
    number = 0
    for number, document in enumerate(xmlfile.elements(path, ("document",)), start=1):
        where = f"document {number}"
        try:
            yield _record(document, where, sections=sections, language=language)
        except UnusableError as error:
            yield reject(error, where=where, excerpt=_attribute(document, "root", "setId"))
    if not number:
        raise SourceError("wrong_format", f"must be a drug label (HL7 SPL), but is <{found}>; use another modality")


def _record(document: Any, where: str, *, sections: Container[str] | None, language: str) -> Item:
    if _SPACE not in (document.tag.partition("}")[0][1:], document.nsmap.get(None)):
        raise UnusableError("wrong_format", f"must be in the namespace {_SPACE}, but is {document.tag[:60]}")
    effective = _attribute(document, "value", "effectiveTime")
    identity = _attribute(document, "root", "setId").casefold()
    body = child(document, "component", "structuredBody")
    if body is None and not identity:
        raise UnusableError("no_label", "must be a label with a set id or a body, but is a document with neither")
    products = [element for element in document.iter() if name(element) in _PRODUCTS and children(element, "name")]
    active, inactive, codes = _ingredients(document)
    indexed, classes = _indexed(document)
    ndcs, packages = _codes(products), _codes(_all(document, "containerPackagedProduct", "containerPackagedMedicine"))
    facts = {
        "name": _joined(_name(product) for product in products),
        "generic name": _joined(one_line(child(part, "name")) for part in _all(document, "genericMedicine")),
        "label": _attribute(document, "displayName", "code"),
        "labeler": one_line(child(document, "author", "assignedEntity", "representedOrganization", "name")),
        "active ingredients": _joined(active),
        "inactive ingredients": _joined(inactive),
        "substance": _joined(f"{called} (UNII {unii})" if unii else called for called, unii in indexed),
        "class": _joined(classes),
        "form": _joined(_attribute(product, "displayName", "formCode") for product in products),
        "route": _joined(part.get("displayName", "") for part in _all(document, "routeCode")),
        "NDC": _joined(ndcs),
        "packages": _joined(packages),
        "approval": _joined(_attribute(part, "extension", "id") for part in _all(document, "approval")),
        "schedule": _joined(_attribute(part, "displayName", "code") for part in _all(document, "policy")),
        "set id": identity,
        "version": _attribute(document, "value", "versionNumber"),
        "effective": iso_date(effective[:4], effective[4:6], day=effective[6:8]) or "",
    }
    title = one_line(child(document, "title"))
    written = [("Title", title)] if title else []
    for section in _sections(body) if body is not None else ():
        written += _written(section, parent="", sections=sections, depth=1)
    ids = [f"spl:{identity}" if identity else "", *(f"ndc:{code}" for code in ndcs), *(f"unii:{c}" for c in codes)]
    ids += [f"unii:{unii}" for _, unii in indexed if unii]
    spoken = language_code(_attribute(document, "code", "languageCode")) or language
    return papers.record(
        facts,
        written,
        where=where,
        language=spoken,
        ids=[identity for identity in ids if identity],
        date=facts["effective"] or None,
    )


def _written(section: Any, *, parent: str, sections: Container[str] | None, depth: int) -> Iterator[tuple[str, str]]:
    """Yields a section, its highlights and the sections within it, each with its title."""
    if depth > _DEEPEST:
        raise UnusableError("too_deep", f"must have sections at most {_DEEPEST} levels deep, but has deeper ones")
    code = _attribute(section, "code", "code")
    own = _title(code, _attribute(section, "displayName", "code"), one_line(child(section, "title")))
    title = f"{parent} > {own}" if parent and own else parent or own
    wanted = sections is None or code in sections
    if wanted and code not in LISTING:
        yield title, narrative(child(section, "text"))
        for excerpt in children(section, "excerpt"):
            yield f"Highlights: {title}", narrative(child(excerpt, "highlight", "text"))
    inner = None if wanted else sections  # a wanted section is kept with all that is in it
    for below in _sections(section):
        yield from _written(below, parent=own or parent, sections=inner, depth=depth + 1)


def _title(code: str, display: str, title: str) -> str:
    if code == UNCLASSIFIED or not code:
        return title
    known = NAMES.get(code) or display.removesuffix(" SECTION").capitalize()
    return f"{known} [{code}]" if title.casefold() in ("", known.casefold()) else f"{known} [{code}] {title}"


def _sections(element: Any) -> list[Any]:
    return [section for part in children(element, "component") for section in children(part, "section")]


def _ingredients(document: Any) -> tuple[list[str], list[str], list[str]]:
    """Returns active ingredients with code and strength, inactive ones, and the codes of the active ones."""
    active, inactive, codes = list[str](), list[str](), list[str]()
    for part in _all(document, *_INGREDIENTS):
        substance = next(iter(children(part, *_SUBSTANCES)), None)
        if substance is None:
            continue
        unii = _unii(child(substance, "code"))
        called = one_line(child(substance, "name"))
        named = f"{called} (UNII {unii})" if unii else called
        if name(part) == "activeIngredient" or part.get("classCode", "").startswith("ACTI"):
            strength = _strength(child(part, "quantity"))
            active.append(f"{named} {strength}".strip())
            codes += [unii] if unii else []
        else:
            inactive.append(named)
    return active, inactive, list(dict.fromkeys(codes))


def _indexed(document: Any) -> tuple[list[tuple[str, str]], list[str]]:
    """Returns the substances that an indexing file is about, each with its UNII, and their pharmacologic classes."""
    substances = [part for part in _all(document, "identifiedSubstance") if children(part, "name")]
    named = [(one_line(child(part, "name")), _unii(child(part, "code"))) for part in substances]
    kinds = [kind for part in substances for kind in _all(part, "generalizedMaterialKind")]
    return list(dict.fromkeys(named)), [_attribute(kind, "displayName", "code") for kind in kinds]


def _unii(code: Any) -> str:
    return code.get("code", "") if code is not None and code.get("codeSystem") == _UNII else ""


def _strength(quantity: Any) -> str:
    """Writes 6.25 mg in 5 mL."""
    amounts = []
    for part in (child(quantity, "numerator"), child(quantity, "denominator")):
        unit = "" if part is None or part.get("unit") == "1" else part.get("unit", "")
        amounts.append("" if part is None else f"{part.get('value', '')} {unit}".strip())
    above, below = amounts
    return f"{above} in {below}" if above and below not in ("", "1") else above


def _name(product: Any) -> str:
    named = child(product, "name")
    return "" if named is None else " ".join(" ".join(named.itertext()).split())  # a suffix follows without a blank


def _codes(elements: list[Any]) -> list[str]:
    codes = (code for element in elements for code in children(element, "code"))
    return list(
        dict.fromkeys(code.get("code") for code in codes if code.get("codeSystem") == _NDC and code.get("code"))
    )


def _all(document: Any, *names: str) -> list[Any]:
    return [element for element in document.iter() if name(element) in names]


def _attribute(element: Any, wanted: str, *path: str) -> str:
    found = child(element, *path)
    return "" if found is None else str(found.get(wanted) or "").strip()


def _joined(values: Any) -> str:
    return "; ".join(dict.fromkeys(value for value in values if value))

"""openFDA's JSON: labels, NDC products, applications, recalls and safety reports; whole downloads or single objects."""

from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from corpus.formats import jsonfile, papers, safetyreport
from corpus.formats.labelsections import NAMES
from corpus.formats.lines import placed_lines
from corpus.formats.safetyreport import e2b_date, text
from corpus.modality import Item, Record, Reject, UnusableError, reject

_LIST = "results"
_NOT_SECTIONS = frozenset({"id", "set_id", "version", "effective_time", "openfda", "spl_product_data_elements"})
_MOST_FACTS = 40
_CODES = {name.casefold().replace(" & ", "_and_").replace(" ", "_"): code for code, name in NAMES.items()}

Found = tuple[Any, str, tuple[int, int] | None]


def read(path: Path, *, encoding: str | None, sections: Container[str] | None, language: str) -> Iterator[Item]:
    """Yields one record an object: of a download's `results`, of a list, of JSON lines, or the only one.

    Raises:
        SourceError: the file is no JSON.
    """
    for value, where, offsets in _objects(path, encoding):
        if isinstance(value, Reject):
            yield value
            continue
        try:
            record = _record(value, where, sections=sections, language=language)
            yield Record(**{**vars(record), "offsets": offsets})
        except UnusableError as error:
            yield reject(error, where=where, excerpt=value)


def _objects(path: Path, encoding: str | None) -> Iterator[Found]:
    """Yields every object with its place; JSON lines are known by a first line that is an object by itself."""
    if _is_lines(path, encoding):
        for line in placed_lines(path, encoding=encoding):
            if line.text is None or line.text.strip():
                yield from _line(line.text, f"line {line.number}", line.offsets)
        return
    alone: dict[str, Any] = {}
    found = False
    for item in jsonfile.items(path, encoding=encoding, within=(_LIST,)):
        if isinstance(item.key, str):
            alone[item.key] = item.value
        else:
            found = True
            yield item.value, item.where, item.offsets
    if alone and not found and _LIST not in alone:
        spoilt = next((value for value in alone.values() if isinstance(value, Reject)), None)
        yield spoilt or alone, "item 0", None


def _is_lines(path: Path, encoding: str | None) -> bool:
    first = next(
        (line.text for line in placed_lines(path, encoding=encoding) if line.text is None or line.text.strip()), None
    )
    try:
        return first is not None and isinstance(jsonfile.loads(first), dict)
    except UnusableError:
        return False


def _line(written: str | None, where: str, offsets: tuple[int, int] | None) -> Iterator[Found]:
    try:
        if written is None:
            raise UnusableError("too_large", "must be a line of some MB, but is longer")  # noqa: TRY301
        value = jsonfile.loads(written)
    except UnusableError as error:
        yield reject(error, where=where, excerpt=(written or "")[:120]), where, offsets
        return
    inner = value.get(_LIST) if isinstance(value, dict) else None
    if isinstance(inner, list):
        yield from ((item, f"{where}, item {number}", offsets) for number, item in enumerate(inner))
    else:
        yield value, where, offsets


def _record(value: Any, where: str, *, sections: Container[str] | None, language: str) -> Record:
    if not isinstance(value, dict):
        raise UnusableError("unknown_shape", f"must be an object, but is {type(value).__name__}")
    if safetyreport.is_report(value):
        return safetyreport.record(value, where)
    value = {key.replace("-", "_"): item for key, item in value.items()}  # the recalls of before 2013
    if value.keys() & {"effective_time", "set_id"}:
        return _label(value, where, sections=sections, language=language)
    for keys, make in _SHAPES:
        if value.keys() & keys:
            return make(value, where)
    told = "must be a label, an NDC product, an application, a recall or a safety report"
    raise UnusableError("unknown_shape", f"{told}, but has {', '.join(list(value)[:10])[:200] or 'nothing'}")


def _label(value: Mapping[str, Any], where: str, *, sections: Container[str] | None, language: str) -> Record:
    known = value.get("openfda")
    harmonized: dict[str, Any] = known if isinstance(known, dict) else {}
    identity, effective = text(value.get("set_id")), e2b_date(value.get("effective_time"))
    facts = {
        **_facts(harmonized, _LABEL),
        "set id": identity,
        "version": text(value.get("version")),
        "effective": effective,
    }
    written = []
    for key, content in value.items():
        code = _CODES.get(key, "")
        if key in _NOT_SECTIONS or key.endswith("_table") or not (sections is None or code in sections):
            continue
        title = f"{NAMES[code]} [{code}]" if code else key.replace("_", " ").capitalize()
        written.append((title, "\n".join(line for line in _texts(content) if line)))
    ids = [f"spl:{identity.casefold()}"] if identity else []
    codes = [f"{kind}:{code}" for kind in ("unii", "rxcui") for code in _texts(harmonized.get(kind))]
    return papers.record(facts, written, where=where, language=language, ids=[*ids, *codes], date=effective or None)


def _product(value: Mapping[str, Any], where: str) -> Record:
    facts = _facts(value, _PRODUCT)
    ingredients = [
        " ".join(filter(None, [text(part.get("name")), _bracketed(part.get("unii")), text(part.get("strength"))]))
        for part in _objects_of(value, "active_ingredients", "unii_indexing")
    ]
    facts["active ingredients"] = "; ".join(dict.fromkeys(filter(None, ingredients)))
    packages = [text(part.get("package_ndc")) for part in _objects_of(value, "packaging")] or _texts(
        value.get("package_ndc")
    )
    facts["packages"] = "; ".join(filter(None, packages))
    clinical = dict.fromkeys(text(part.get("rxstring")) for part in _objects_of(value, "rxnorm"))
    identity = text(value.get("spl_set_id") or value.get("spl_id")).casefold()
    ids = [f"spl:{identity}" if identity else "", *(f"ndc:{code}" for code in _texts(value.get("product_ndc")))]
    ids += [f"unii:{text(part.get('unii'))}" for part in _objects_of(value, "unii_indexing") if text(part.get("unii"))]
    section = [("Clinical drugs (RxNorm)", "\n".join(name for name in clinical if name))]
    return papers.record(facts, section, where=where, language=None, ids=[name for name in ids if name])


def _application(value: Mapping[str, Any], where: str) -> Record:
    facts = _facts(value, {"application": "application_number", "sponsor": "sponsor_name"})
    products = [
        ", ".join(
            filter(
                None,
                [
                    text(part.get("brand_name")),
                    text(part.get("dosage_form")),
                    text(part.get("route")),
                    text(part.get("marketing_status")),
                    "; ".join(
                        " ".join(filter(None, [text(one.get("name")), text(one.get("strength"))]))
                        for one in _objects_of(part, "active_ingredients")
                    ),
                ],
            )
        )
        for part in _objects_of(value, "products")
    ]
    history = [
        " ".join(
            filter(
                None,
                [
                    e2b_date(part.get("submission_status_date")),
                    text(part.get("submission_type")),
                    text(part.get("submission_number")),
                    text(part.get("submission_class_code_description")),
                    text(part.get("submission_status")),
                ],
            )
        )
        for part in _objects_of(value, "submissions")
    ]
    sections = [("Products", "\n".join(filter(None, products))), ("Submissions", "\n".join(filter(None, history)))]
    number = facts.get("application", "")
    return papers.record(facts, sections, where=where, language=None, ids=[f"application:{number}"] if number else [])


def _recall(value: Mapping[str, Any], where: str) -> Record:
    date = e2b_date(value.get("recall_initiation_date") or value.get("report_date"))
    facts = {"kind": "recall", **_facts(value, _RECALL), "started": date}
    sections = [
        ("Product", text(value.get("product_description"))),
        ("Reason", text(value.get("reason_for_recall"))),
        ("Distribution", text(value.get("distribution_pattern"))),
    ]
    number = facts.get("recall", "")
    ids = [f"recall:{number}"] if number else []
    return papers.record(facts, sections, where=where, language="en", ids=ids, date=date or None)


def _facts(value: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    found = {name: "; ".join(dict.fromkeys(_texts(value.get(key))[:_MOST_FACTS])) for name, key in names.items()}
    return {name: written for name, written in found.items() if written}


def _texts(value: Any) -> list[str]:
    """Returns the texts of a list, or the only one."""
    return [written for item in (value if isinstance(value, list) else [value]) if (written := text(item))]


def _objects_of(value: Mapping[str, Any], *keys: str) -> list[dict[str, Any]]:
    return [item for key in keys for item in safetyreport.objects(value.get(key))]


def _bracketed(code: Any) -> str:
    return f"(UNII {text(code)})" if text(code) else ""


_LABEL = {
    "name": "brand_name",
    "generic name": "generic_name",
    "labeler": "manufacturer_name",
    "label": "product_type",
    "active ingredients": "substance_name",
    "route": "route",
    "NDC": "product_ndc",
    "approval": "application_number",
    "class": "pharm_class_epc",
    "mechanism": "pharm_class_moa",
    "UNII": "unii",
    "RxCUI": "rxcui",
}
_PRODUCT = {
    "name": "brand_name",
    "brand": "brand_name_base",
    "generic name": "generic_name",
    "labeler": "labeler_name",
    "manufacturer": "manufacturer_name",
    "label": "product_type",
    "form": "dosage_form",
    "route": "route",
    "class": "pharm_class",
    "schedule": "dea_schedule",
    "category": "marketing_category",
    "approval": "application_number",
    "NDC": "product_ndc",
    "version": "spl_version",
}
_RECALL = {
    "recall": "recall_number",
    "class": "classification",
    "status": "status",
    "firm": "recalling_firm",
    "country": "country",
    "voluntary": "voluntary_mandated",
}
_SHAPES: tuple[tuple[frozenset[str], Callable[[Mapping[str, Any], str], Record]], ...] = (
    (frozenset({"product_ndc"}), _product),
    (frozenset({"products", "submissions"}), _application),
    (frozenset({"recall_number", "reason_for_recall"}), _recall),
)

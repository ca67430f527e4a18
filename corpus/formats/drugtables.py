"""Tables of drugs: ATC codes with the groups above them, NDC products, and facts from chosen columns."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from corpus import annotations, document
from corpus.annotations import Column
from corpus.clean import clean_line, is_missing
from corpus.entities import first_column, names_of, task_names
from corpus.formats import tables
from corpus.formats.tables import Row
from corpus.modality import Record, SourceError, UnusableError
from slurm.files import digest

_CODE = ("atccode", "atc", "code", "atcid")
_ROLES = {
    "code": _CODE,
    "name": ("atcname", "atclevelname", "name", "levelname", "description", "title", "label"),
    "level": ("level", "atclevel"),
    "ddd": ("ddd",),
    "unit": ("uom", "dddunit", "unit", "unittype"),
    "administration": ("admcode", "adm", "admr", "administrationroute"),
}
_ATC = re.compile(r"[A-Z](?:\d\d(?:[A-Z](?:[A-Z](?:\d\d)?)?)?)?")
_LENGTHS = {1: 1, 3: 2, 4: 3, 5: 4, 7: 5}
_LEVELS = ("", "anatomical group", "therapeutic group", "pharmacological group", "chemical group", "substance")
_MOST_CODES = 200_000
_NDC = {
    "name": ("proprietaryname", "brandname"),
    "generic name": ("nonproprietaryname", "genericname"),
    "label": ("producttypename", "producttype"),
    "labeler": ("labelername",),
    "active ingredients": ("substancename",),
    "strength": ("activenumeratorstrength",),
    "unit": ("activeingredunit",),
    "form": ("dosageformname", "dosageform"),
    "route": ("routename", "route"),
    "class": ("pharmclasses", "pharmclass"),
    "schedule": ("deaschedule",),
    "category": ("marketingcategoryname", "marketingcategory"),
    "approval": ("applicationnumber",),
    "NDC": ("productndc",),
    "package": ("packagedescription",),
}
_IDS = {
    "ndc": ("productndc", "ndc", "ndccode", "ndc11"),
    "atc": ("atccode", "atc"),
    "unii": ("unii",),
    "rxcui": ("rxcui", "rxnorm"),
    "chembl": ("chemblid", "moleculechemblid"),
}


def has_atc(cells: Mapping[str, Any]) -> bool:
    """Says whether a first row is one of a table of ATC codes and their names."""
    code = first_column(list(cells), _CODE)
    named = first_column(list(cells), _ROLES["name"]) is not None
    return named and code is not None and _ATC.fullmatch(str(cells[code]).strip()) is not None


def has_codes(found: list[str]) -> bool:
    """Says whether a table names drugs by a code that the world knows."""
    return first_column(found, [name for usual in _IDS.values() for name in usual]) is not None


def atc_columns(found: list[str], columns: Mapping[str, str | int]) -> dict[str, str]:
    """Returns {role: column} of code, name, level, ddd, unit and administration.

    Raises:
        SourceError: there is no code or no name.
    """
    usual = {role: first_column(found, names) for role, names in _ROLES.items()}
    named = {role: annotations.find_column(column, found) for role, column in columns.items()}
    chosen = {**{role: name for role, name in usual.items() if name is not None}, **named}
    missing = [role for role in ("code", "name") if role not in chosen]
    if missing:
        told = f"must have a column {missing[0]}, but has {', '.join(found)[:300]}; set columns:"
        raise SourceError("wrong_columns", told)
    return chosen


def atc_names(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> dict[str, str]:
    """Returns {code: name} of a table, for the groups above a code.

    Raises:
        SourceError: it has far more codes than there are.
    """
    found: dict[str, str] = {}
    for cells in rows:
        code, named = (tables.text_of(cells, columns[role]).strip() for role in ("code", "name"))
        if _ATC.fullmatch(code) and named:
            found.setdefault(code, named)
        if len(found) > _MOST_CODES:
            raise SourceError("too_large", f"must have at most {_MOST_CODES} ATC codes, but has more")
    return found


def atc_record(row: Row, columns: Mapping[str, str], *, names: Mapping[str, str]) -> Record:
    """Returns a code of the ATC as a record, with the names of the groups above it.

    Raises:
        UnusableError: it is no code, has another level than its table says, or has no name.
    """
    cells = {role: tables.text_of(row.cells, column).strip() for role, column in columns.items()}
    code, named = cells["code"], cells["name"]
    if not _ATC.fullmatch(code):
        raise UnusableError("atc_code", f"must be an ATC code such as A10BA02, but is {code[:40]!r}")
    level = _LENGTHS[len(code)]
    if not is_missing(cells.get("level")) and cells["level"].removesuffix(".0") != str(level):
        raise UnusableError("atc_level", f"{code} must be of level {level}, but is of {cells['level'][:20]!r}")
    if is_missing(named):
        raise UnusableError("no_name", f"{code} must have a name, but has none")
    above = {_LEVELS[depth]: names.get(code[:length]) for length, depth in _LENGTHS.items() if depth < level}
    dose = " ".join(cells[role] for role in ("ddd", "unit", "administration") if not is_missing(cells.get(role)))
    facts = {"ATC": code, "name": named, "level": f"{level}, {_LEVELS[level]}", **above}
    known = {**facts, "defined daily dose": dose if not is_missing(cells.get("ddd")) else None}
    return Record(content=document.make(known, []), group=f"atc:{code[:5]}", ids=(f"atc:{code}",))


def fact_columns(found: list[str], wanted: Mapping[str, Column]) -> dict[str, Column]:
    """Returns what to write: the facts wanted, or those of an NDC table, or all columns under their own names."""
    if wanted:
        return dict(wanted)
    known = {name: first_column(found, usual) for name, usual in _NDC.items()}
    if known["NDC"] is not None:
        return {name: Column(column=column) for name, column in known.items() if column is not None}
    return {name: Column(column=column) for name, column in task_names(found, taken=()).items()}


def fact_record(row: Row, columns: Mapping[str, Column], *, group: str | None, about: Mapping[str, str]) -> Record:
    """Returns a row's facts as a record.

    Raises:
        UnusableError: all are missing, or one cannot be written.
    """
    found = annotations.take(row.cells, columns)
    if not found:
        raise UnusableError("empty", "must hold a fact, but all are missing")
    content = document.make({**about, **found}, [])
    usual = {kind: first_column(list(row.cells), names) for kind, names in _IDS.items()}
    ids = names_of(row.cells, {kind: column for kind, column in usual.items() if column is not None})
    default = next(iter(ids), None) or digest(content)
    return Record(content=content, group=tables.group_of(row.cells, group, default=default), ids=ids)


def cells_of(rows: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    """Yields the cells of rows, without rejects."""
    return (row.cells for row in rows if isinstance(row, Row))


def cleaned(facts: Mapping[str, Any]) -> dict[str, str]:
    """Returns facts that are there, each on one line."""
    return {name: clean_line(str(value)) for name, value in facts.items() if not is_missing(value)}

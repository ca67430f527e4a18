"""Entities: molecules and proteins in tables; which column holds them, which ones annotate, label and group them."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from corpus import annotations
from corpus.annotations import Column, Columns, bare, find_column, find_columns
from corpus.clean import clean_line, is_missing
from corpus.formats.figures import figure, figure_columns, is_blank
from corpus.formats.tables import TableOptions
from corpus.modality import SourceError, UnusableError

_NOT_A_NAME = re.compile(r"[\s_:<>|]+")


class EntityOptions(TableOptions):
    """How to read entities from a table.

    Attributes:
        column: where they are, by name or position; found among the usual names when not given.
        properties: annotations to write behind each of them: `{name: column}` or `{name: {column: ..., values: ...}}`.
        tasks: columns of labels, numbers or true and false, each written under its own name; `all` takes every
            further column that holds nothing else. A missing label is left out.
        digits: how many significant digits of a label with a fraction are written.
        ids: columns of names that the world knows: `{chembl: column}`; the usual ones are found.
    """

    column: str | int | None = None
    properties: Columns = Field(default_factory=dict)
    tasks: Literal["all"] | list[str | int] | None = None
    digits: Annotated[int, Field(ge=1, le=17)] = 6
    ids: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*$")], str | int] = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The columns of one source, as it writes them."""

    column: str
    properties: dict[str, Column]
    group: str | None
    tasks: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    digits: int = 6


def choose(
    found: list[str],
    options: EntityOptions,
    *,
    usual: Sequence[str],
    usual_ids: Mapping[str, Sequence[str]],
    rows: Callable[[], Iterable[Mapping[str, Any]]],
) -> Chosen:
    """Finds the columns that the options name, or the usual ones; `rows` reads the table again, for `tasks: all`.

    Raises:
        SourceError: a column is not there.
    """
    column = usual_column(found, usual) if options.column is None else find_column(options.column, found)
    properties = find_columns(options.properties, found)
    ids = {**_usual_ids(found, usual_ids), **{key: find_column(name, found) for key, name in options.ids.items()}}
    group = None if options.group is None else find_column(options.group, found)
    used = {column, group or "", *ids.values(), *(str(spec.column) for spec in properties.values())}
    if options.tasks == "all":
        tasks = figure_columns(rows(), besides=used)
    else:
        tasks = [find_column(name, found) for name in options.tasks or ()]
    return Chosen(
        column=column,
        properties=properties,
        group=group,
        tasks=task_names(tasks, taken=properties),
        ids=ids,
        digits=options.digits,
    )


def usual_column(found: list[str], usual: Sequence[str]) -> str:
    """Returns the first usual column that is there.

    Raises:
        SourceError: none is.
    """
    name = first_column(found, usual)
    if name is None:
        told = f"must have a column {', '.join(usual[:3])} or so, but has {', '.join(found)[:300]}; set column:"
        raise SourceError("wrong_columns", told)
    return name


def first_column(found: Sequence[str], usual: Iterable[str]) -> str | None:
    """Returns the first usual column that is there, or None; case, blanks, - and _ do not matter."""
    by_name = {bare(name): name for name in reversed(found)}
    return next((by_name[name] for name in usual if name in by_name), None)


def task_names(columns: Iterable[str], *, taken: Iterable[str]) -> dict[str, str]:
    """Returns {name that can be written: column}; a name that is taken gets a number."""
    named = dict.fromkeys(taken, "")
    for column in columns:
        name = column_title(_NOT_A_NAME.sub(" ", column).strip() or "label")
        number = 1
        while (name if number == 1 else f"{name} {number}") in named:
            number += 1
        named[name if number == 1 else f"{name} {number}"] = column
    return {name: column for name, column in named.items() if column}


def column_title(column: str) -> str:
    """Returns a column's name on one line, as it can stand in a record.

    Raises:
        SourceError: it cannot be written.
    """
    try:
        return clean_line(column)
    except UnusableError as error:
        told = f"must have columns whose names can be written, but {column[:40]!r} {error.reason}; rename it"
        raise SourceError("wrong_columns", told) from error


def labels(cells: Mapping[str, Any], chosen: Chosen) -> dict[str, str]:
    """Returns the annotations of a row: its properties, then its tasks; missing ones are left out.

    Raises:
        UnusableError: a value is not among those named, is no number, or cannot be written.
    """
    known = {name: cells.get(column) for name, column in chosen.tasks.items()}
    tasks = {name: figure(name, value, digits=chosen.digits) for name, value in known.items() if not is_blank(value)}
    return {**annotations.take(cells, chosen.properties), **tasks}


def names_of(cells: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[str, ...]:
    """Returns what the world calls a row's entity, such as chembl:CHEMBL25.

    Raises:
        UnusableError: a name cannot be written.
    """
    found = {kind: cells.get(column) for kind, column in columns.items()}
    named = {kind: _name(value) for kind, value in found.items() if not is_missing(value)}
    return tuple(f"{kind}:{name}" for kind, name in named.items() if kind != "cid" or name.isdecimal())


def _name(value: object) -> str:
    return clean_line(str(int(value) if isinstance(value, float) and value.is_integer() else value))


def _usual_ids(found: list[str], usual: Mapping[str, Sequence[str]]) -> dict[str, str]:
    chosen = {kind: first_column(found, names) for kind, names in usual.items()}
    return {kind: column for kind, column in chosen.items() if column is not None}

"""Entities: molecules and proteins in tables; which column holds them, which ones annotate and group them."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from corpus.annotations import Column, Columns, bare, find_column, find_columns
from corpus.modality import SourceError
from corpus.tables import TableOptions


class EntityOptions(TableOptions):
    """How to read entities from a table.

    Attributes:
        column: where they are, by name or position; found among the usual names when not given.
        properties: annotations to write behind each of them: `{name: column}` or `{name: {column: ..., values: ...}}`.
    """

    column: str | int | None = None
    properties: Columns = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The columns of one source, as it writes them."""

    column: str
    properties: dict[str, Column]
    group: str | None


def choose(found: list[str], options: EntityOptions, *, usual: Sequence[str]) -> Chosen:
    """Finds the columns that the options name, or the first usual one.

    Raises:
        SourceError: a column is not there.
    """
    return Chosen(
        column=_usual(found, usual) if options.column is None else find_column(options.column, found),
        properties=find_columns(options.properties, found),
        group=None if options.group is None else find_column(options.group, found),
    )


def _usual(found: list[str], usual: Sequence[str]) -> str:
    by_name = {bare(name): name for name in reversed(found)}
    name = next((name for name in usual if name in by_name), None)
    if name is None:
        told = f"must have a column {', '.join(usual[:3])} or so, but has {', '.join(found)[:300]}; set column:"
        raise SourceError("wrong_columns", told)
    return by_name[name]

"""Trials: participants of clinical trials, one a row, written as short `name: value` text with an outcome."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from corpus import annotations, tables
from corpus.annotations import Column, Columns
from corpus.modality import Item, Record, UnusableError
from corpus.symbols import inside, tags
from corpus.tables import Row, TableOptions
from slurm.files import digest

SUFFIXES = tables.SUFFIXES
SCALE = "L5"
SYMBOLS = tags("trial")


class Options(TableOptions):
    """How to read a trial.

    Attributes:
        study: what the trial is called; the first line of every record.
        fields: what was known of a participant at the start: `{name: column}`, in the order to write.
        outcome: what happened, written behind the record.
    """

    study: str = Field(min_length=1)
    fields: Columns = Field(min_length=1)
    outcome: Columns = Field(min_length=1)


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    study: str
    fields: dict[str, Column]
    outcome: dict[str, Column]
    group: str | None


def read(path: Path, options: Options, /) -> Iterator[Item]:
    """Yields one record a participant; a row without any field or outcome is refused."""
    rows = tables.rows(path, options)
    yield from tables.records(rows, choose=lambda found: _choose(found, options), make=_record)


def render(content: Mapping[str, Any], /) -> str:
    """Writes <|trial|>, the fields, <|/trial|> and the outcome."""
    opening, closing = tags("trial")
    return f"{opening}{annotations.write(content['fields'])}{closing}{annotations.write(content['outcome'])}"


def parse(rendered: str, /) -> dict[str, Any]:
    """Reads back what `render` wrote."""
    body, rest = inside(rendered, "trial")
    return {"fields": annotations.read(body), "outcome": annotations.read(rest)}


def _choose(found: list[str], options: Options) -> _Chosen:
    return _Chosen(
        study=options.study,
        fields=annotations.find_columns(options.fields, found),
        outcome=annotations.find_columns(options.outcome, found),
        group=None if options.group is None else annotations.find_column(options.group, found),
    )


def _record(row: Row, chosen: _Chosen) -> Iterator[Record]:
    fields = annotations.take(row.cells, chosen.fields)
    outcome = annotations.take(row.cells, chosen.outcome)
    if not fields:
        raise UnusableError("no_field", "must have a field, but all are missing")
    if not outcome:
        raise UnusableError("no_outcome", "must have an outcome, but it is missing")
    content = {"fields": {"study": chosen.study, **fields}, "outcome": outcome}
    yield Record(content=content, group=tables.group_of(row.cells, chosen.group, default=digest(content)))

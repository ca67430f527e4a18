"""Annotations: what is known about a record, taken from columns and written behind it as `name: value` lines."""

import re
import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from corpus.clean import clean_line, is_missing
from corpus.modality import SourceError, UnusableError

_WHOLE = re.compile(r"(-?\d+)\.0+")


class Column(BaseModel):
    """A column and what its values are called: `{column: SOL_class, values: {"(A) low": low}}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str | int
    values: dict[str, str] = {}


Name = Annotated[str, Field(pattern=r"^[^\s:<>|]([^\n:<>|]*[^\s:<>|])?$")]
Columns = dict[Name, str | int | Column]


def bare(name: str) -> str:
    """Returns a column's name in NFC, without case, blanks, - and _."""
    return re.sub(r"[\s_-]", "", unicodedata.normalize("NFC", name)).casefold()


def find_column(wanted: str | int, columns: list[str]) -> str:
    """Returns the column meant by a name or a position (from 0); case, blanks, - and _ do not matter.

    Raises:
        SourceError: there is none.
    """
    if isinstance(wanted, int):
        if wanted < len(columns):
            return columns[wanted]
    elif wanted in columns:
        return wanted
    same = [column for column in columns if bare(column) == bare(str(wanted))]
    if len(same) == 1:
        return same[0]
    raise SourceError("wrong_columns", f"must have a column {wanted!r}, but has {', '.join(columns)[:300]}; name one")


def find_columns(wanted: Columns, columns: list[str]) -> dict[str, Column]:
    """Returns {annotation name: Column} with every column as the source writes it.

    Raises:
        SourceError: a column is not there.
    """
    specs = as_columns(wanted).items()
    return {name: Column(column=find_column(spec.column, columns), values=spec.values) for name, spec in specs}


def as_columns(wanted: Columns) -> dict[str, Column]:
    """Returns {annotation name: Column}, whether written short or in full."""
    return {name: spec if isinstance(spec, Column) else Column(column=spec) for name, spec in wanted.items()}


def take(cells: Mapping[str, Any], columns: Mapping[str, Column]) -> dict[str, str]:
    """Returns {annotation name: value on one line}; missing values are left out.

    Raises:
        UnusableError: a value is not among those named, or cannot be written.
    """
    taken = {name: (cells.get(str(spec.column)), spec.values) for name, spec in columns.items()}
    return {name: _value(name, value, values) for name, (value, values) in taken.items() if not is_missing(value)}


def write(annotations: Mapping[str, str]) -> str:
    """Writes annotations: ' solubility: low' and one more line for each further one."""
    lines = "\n".join(f"{name}: {value}" for name, value in annotations.items())
    return f" {lines}" if lines else ""


def read(written: str) -> dict[str, str]:
    """Reads back what `write` wrote."""
    pairs = (line.partition(": ") for line in written.removeprefix(" ").split("\n") if line)
    return {name: value for name, _, value in pairs}


def _value(name: str, value: object, values: Mapping[str, str]) -> str:
    line = clean_line(str(value))
    whole = _WHOLE.fullmatch(line)  # a whole number that a table with gaps has turned into a fraction
    line = whole.group(1) if whole else line
    if values and line not in values:
        raise UnusableError("unknown_value", f"{name} must be one of {', '.join(values)}, but is {line!r}")
    return values.get(line, line)

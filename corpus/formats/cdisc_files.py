"""The files that CDISC tables travel in: SAS transport (XPT, version 5) and Dataset-JSON (1.0, 1.1 and NDJSON)."""

import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corpus.formats.cdisc import Dataset
from corpus.formats.jsonvalues import as_dict, as_list, dicts, each, load, text
from corpus.formats.lines import is_korean
from corpus.formats.tables import Row, open_bytes
from corpus.modality import Reject, SourceError, UnusableError, reject

_MEMBER = b"HEADER RECORD*******MEMBER  HEADER RECORD!!!!!!!"
_CARD = 80  # bytes, to which a file is padded with blanks
_ROWS = 2000  # read at once
_DAMAGE = (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, struct.error, EOFError)


def transport(path: Path, *, encoding: str | None, study: str | None, domain: str | None) -> Dataset:
    """Returns the (first) table of a SAS transport file; pandas reads it, in pure Python.

    Raises:
        SourceError: the file is damaged, or of a kind that pandas cannot read (CPORT, version 8).
    """
    found = _transport_rows(path, encoding)
    head = next(found)
    if not isinstance(head, _Head):
        raise TypeError("the head must come first")
    rows: Iterator[Any] = found
    return Dataset(rows=rows, name=head.name, labels=head.labels, study=study, domain=domain)


class _Head:
    """What a file says about its table before the rows."""

    def __init__(self, name: str, labels: dict[str, str]) -> None:
        self.name, self.labels = name, labels


def _transport_rows(path: Path, encoding: str | None) -> Iterator[_Head | Row | Reject]:
    _require_one_table(path)
    with open_bytes(path) as file:
        try:
            reader = _reader(file)
            fields = [
                (_decoded(field["name"], encoding), _decoded(field["label"], encoding)) for field in reader.fields
            ]
            name = text(reader.member_info.get("set_name")).strip()
            yield _Head(name, {column.upper(): label for column, label in fields if label})
            number = 0
            for frame in reader:
                for cells in frame.to_dict(orient="records"):
                    number += 1
                    yield _row(number, cells, encoding)
        except SourceError:
            raise
        except _DAMAGE as error:
            told = f"must be a whole SAS transport file of version 5, but {str(error)[:200]}"
            raise SourceError("damaged", f"{told}; fetch it again or convert it to CSV") from error


def _reader(file: Any) -> Any:
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "may be corrupted" is told of good files that were cut at their last row
        reader = pd.read_sas(file, format="xport", chunksize=_ROWS, encoding=None)
    # pandas 3.1 takes every 8 blanks of the last 80 bytes for padding, also those within a row, and so loses rows
    # of less than 80 bytes; only whole rows of blanks are padding.
    reader.nobs = _count(file, reader.record_start, reader.record_length)
    return reader


def _count(file: Any, start: int, width: int) -> int:
    size = file.seek(0, 2) - start
    rows = size // width
    file.seek(start + max(0, size - 2 * _CARD))
    tail = file.read()
    end = rows * width - max(0, size - 2 * _CARD)  # of the last row, within the tail
    padded = 0
    while padded < rows and (padded + 1) * width <= _CARD and not tail[max(0, end - width) : end].strip(b" "):
        padded, end = padded + 1, end - width
    file.seek(start)
    return int(rows - padded)


def _require_one_table(path: Path) -> None:
    """Refuses a file of many tables: pandas would read the heads of the others as rows of the first."""
    tables, rest = 0, b""
    with open_bytes(path) as file:
        while block := file.read(1 << 20):
            tables += (rest + block).count(_MEMBER)
            rest = block[-len(_MEMBER) + 1 :]
    _require_one(tables)


def _require_one(tables: int) -> None:
    if tables > 1:
        raise SourceError("many_tables", f"must hold one table, but holds {tables}; write each to a file of its own")


def _row(number: int, cells: dict[Any, Any], encoding: str | None) -> Row | Reject:
    where = f"row {number}"
    try:
        return Row(where=where, cells={str(name): _cell(value, encoding) for name, value in cells.items()})
    except UnusableError as error:
        return reject(error, where=where, excerpt=list(cells.values())[:8])


def _cell(value: Any, encoding: str | None) -> Any:
    return _decoded(value, encoding) if isinstance(value, bytes) else None if value != value else value  # noqa: PLR0124 - NaN


def _decoded(value: bytes, encoding: str | None) -> str:
    for name in (encoding,) if encoding else ("utf-8", "cp949"):
        try:
            decoded = value.decode(name).strip(" \0")
        except UnicodeDecodeError:
            continue
        if encoding or name == "utf-8" or is_korean(value):
            return decoded
    raise UnusableError("encoding", f"must be in {encoding or 'utf-8 or cp949'}, but is {value[:20]!r}; set encoding:")


def is_dataset_json(value: Any) -> bool:
    """Says whether a JSON value, or the first line of an NDJSON file, begins a Dataset-JSON table."""
    found = as_dict(value)
    return bool({"datasetJSONVersion", "datasetJSONCreationDateTime"} & set(found)) or _is_tabular(found)


def _is_tabular(found: dict[str, Any]) -> bool:
    return ("columns" in found and "rows" in found) or bool({"clinicalData", "referenceData"} & set(found))


def dataset_json(path: Path, *, encoding: str | None, study: str | None, domain: str | None) -> Dataset:
    """Returns the (first) table of a Dataset-JSON file, one value or NDJSON.

    Raises:
        SourceError: the file is damaged, or has no columns.
    """
    if path.name.lower().removesuffix(".gz").endswith(".ndjson"):
        lines = each(path, encoding=encoding)
        head = next((item[1] for item in lines if not isinstance(item, Reject)), None)
        found, rows = as_dict(head), lines
    else:
        found = as_dict(load(path, encoding=encoding))
        held = as_dict(found.get("clinicalData") or found.get("referenceData"))
        if held:  # version 1.0
            groups = as_dict(held.get("itemGroupData"))
            _require_one(len(groups))
            found = as_dict(next(iter(groups.values()), {}))
        given = as_list(found.get("rows") or found.get("itemData"))
        rows = iter([(f"row {number}", row) for number, row in enumerate(given, start=1)])
    columns = dicts(found.get("columns") or found.get("items"))
    names = [text(column.get("name")) for column in columns]
    if not names or "" in names or len(set(names)) < len(names):
        raise SourceError("wrong_columns", f"must name its columns once each, but has {names[:20]}; fetch it again")
    labels = {name.upper(): text(column.get("label")) for name, column in zip(names, columns, strict=True)}
    found_rows = (_listed(item, names) for item in rows)
    name = text(found.get("name")) or path.stem
    return Dataset(rows=found_rows, name=name, labels=labels, study=study, domain=domain)


def _listed(item: tuple[str, Any] | Reject, names: list[str]) -> Row | Reject:
    if isinstance(item, Reject):
        return item
    where, row = item
    if not isinstance(row, list) or len(row) != len(names):
        found = f"{len(row)} values" if isinstance(row, list) else type(row).__name__
        error = UnusableError("ragged_row", f"must be a list of {len(names)} values, but is {found}")
        return reject(error, where=where, excerpt=row)
    return Row(where=where, cells=dict(zip(names, row, strict=True)))

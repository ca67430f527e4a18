"""Tables of any kind as rows: csv, tsv, txt, jsonl, json and parquet, plain or gzipped, in UTF-8 or CP949."""

import codecs
import csv
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from corpus.clean import clean_line, is_missing
from corpus.formats.jsonfile import items, loads
from corpus.formats.lines import LONGEST, Line, find_encoding, lines, open_bytes, placed_lines
from corpus.modality import Options, Record, Reject, SourceError, UnusableError, reject

__all__ = [
    "SUFFIXES",
    "Row",
    "TableOptions",
    "find_encoding",
    "group_of",
    "lines",
    "loads",
    "open_bytes",
    "placed_lines",
    "records",
    "rows",
    "suffix",
    "text_of",
    "with_columns",
]

SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".data", ".jsonl", ".json", ".parquet")
_FIRST_ROWS = 64  # of JSON lines, where a row may leave columns out
csv.field_size_limit(LONGEST)  # a long protein or article is one cell; the default stops at 128 KiB


class TableOptions(Options):
    """How to read a table. Nothing needs to be said about an ordinary one.

    Attributes:
        delimiter: what separates cells; found in the first line when not given.
        encoding: of the bytes; UTF-8, UTF-16 with a mark or CP949 is found when not given.
        header: whether the first line names the columns; without it they are called 0, 1, 2...
        quotes: whether a cell may stand in double quotes.
        skip_lines: lines to leave out before the header.
        missing: what stands in a cell of csv and its like that holds nothing, beside NA, NULL and so on: ["?", "-9"].
        group: a column; rows of one value stay in the same split.
    """

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    encoding: str | None = None
    header: bool = True
    quotes: bool = True
    skip_lines: Annotated[int, Field(ge=0)] = 0
    missing: tuple[str, ...] = ()
    group: str | int | None = None

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        try:
            "".encode(codecs.lookup(value or "utf-8").name)
        except LookupError as error:
            raise ValueError(f"must be an encoding that Python knows, but is {value!r}; change it") from error
        return value


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: where it stands, its cells by column, and its bytes in the file where those are known."""

    where: str
    cells: dict[str, Any]
    offsets: tuple[int, int] | None = None


def suffix(path: Path) -> str:
    """Returns the ending that says what a file is, without .gz: 'a.CSV.gz' -> '.csv'."""
    bare = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return bare.suffix.lower()


def rows(path: Path, options: TableOptions) -> Iterator[Row | Reject]:
    """Yields the rows of a table of any kind.

    Raises:
        SourceError: the whole file cannot be read.
    """
    kind = suffix(path)
    if kind == ".parquet":
        yield from _parquet_rows(path)
    elif kind == ".jsonl":
        yield from _jsonl_rows(path, options)
    elif kind == ".json":
        yield from _json_rows(path, options)
    else:
        yield from _csv_rows(path, options)


def with_columns[Chosen](
    items: Iterator[Row | Reject], choose: Callable[[list[str]], Chosen]
) -> Iterator[tuple[Row, Chosen] | Reject]:
    """Pairs each row with the columns that `choose` finds among all those of the first rows.

    Raises:
        SourceError: `choose` does not find its columns.
    """
    first = list(islice(items, _FIRST_ROWS))
    columns = dict.fromkeys(name for item in first if isinstance(item, Row) for name in item.cells)
    chosen = choose(list(columns)) if columns else None
    for item in chain(first, items):
        if isinstance(item, Reject):
            yield item
        elif chosen is not None:
            yield item, chosen


def records[Chosen](
    items: Iterator[Row | Reject],
    *,
    choose: Callable[[list[str]], Chosen],
    make: Callable[[Row, Chosen], Iterable[Record]],
) -> Iterator[Record | Reject]:
    """Turns rows into records with `make`, each with its place; a row that it refuses becomes a Reject.

    Raises:
        SourceError: `choose` does not find its columns.
    """
    for item in with_columns(items, choose):
        if isinstance(item, Reject):
            yield item
            continue
        try:
            for record in make(*item):
                yield record if record.where else replace(record, where=item[0].where, offsets=item[0].offsets)
        except UnusableError as error:
            yield reject(error, where=item[0].where, excerpt=item[0].cells)


def text_of(cells: Mapping[str, Any], column: str) -> str:
    """Returns a cell as text: empty for None and NaN, while the letters NAN may be a peptide."""
    value = cells.get(column)
    return "" if value is None or value != value else str(value)  # noqa: PLR0124 - only NaN differs from itself


def group_of(cells: Mapping[str, Any], column: str | None, *, default: str) -> str:
    """Returns a row's group: the value of the group column, or the default where that is missing.

    Raises:
        UnusableError: the value cannot be written.
    """
    value = cells.get(column) if column is not None else None
    return default if is_missing(value) else clean_line(str(value))


class _Pulled:
    """Lines for csv.reader, which takes as many as a row has, and the place of those it took last."""

    def __init__(self, found: Iterator[Line]) -> None:
        self._found = found
        self._taken: list[Line] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._found)
        self._taken.append(line)
        return "\n" if line.text is None else line.text

    def place(self) -> tuple[int, tuple[int, int] | None, bool]:
        """Returns the last line's number, the offsets, and whether a line was too long; forgets them."""
        taken, self._taken = self._taken, []
        start, stop = taken[0].start, taken[-1].stop
        offsets = None if start is None or stop is None else (start, stop)
        return taken[-1].number, offsets, any(line.text is None for line in taken)


def _csv_rows(path: Path, options: TableOptions) -> Iterator[Row | Reject]:
    found = islice(placed_lines(path, encoding=options.encoding), options.skip_lines, None)
    first = next((line for line in found if line.text is None or line.text.strip()), None)
    if first is None:
        return
    pulled, columns = _Pulled(chain([first], found)), list[str]()
    reader = csv.reader(
        pulled,
        delimiter=options.delimiter or _delimiter(first.text or "", path),
        quoting=csv.QUOTE_MINIMAL if options.quotes else csv.QUOTE_NONE,
        strict=options.quotes,
    )
    try:
        for cells in reader:
            number, offsets, too_long = pulled.place()
            if too_long:
                yield reject(_too_long(), where=f"line {number}", excerpt="")
            elif not columns:
                columns = _columns(cells, header=options.header)
                if not options.header:
                    yield _row(f"line {number}", columns, cells, offsets, options.missing)
            elif cells:
                yield _row(f"line {number}", columns, cells, offsets, options.missing)
    except csv.Error as error:
        number, *_ = pulled.place()
        told = f"line {number}: must be a table, but {error}; mend it or set quotes: false"
        raise SourceError("damaged", told) from error


def _too_long() -> UnusableError:
    return UnusableError("too_large", f"must have lines of at most {LONGEST:,} bytes, but has a longer one")


def _row(
    where: str, columns: list[str], cells: list[str], offsets: tuple[int, int] | None, missing: tuple[str, ...]
) -> Row | Reject:
    if len(cells) != len(columns):
        found = UnusableError("ragged_row", f"must have {len(columns)} cells, but has {len(cells)}")
        return reject(found, where=where, excerpt=cells)
    named = {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
    if missing:
        named = {name: "" if cell in missing else cell for name, cell in named.items()}
    return Row(where=where, cells=named, offsets=offsets)


def _columns(cells: list[str], *, header: bool) -> list[str]:
    if not header:
        return [str(number) for number in range(len(cells))]
    normal = [unicodedata.normalize("NFC", cell.strip()) for cell in cells]
    return _named_once([name or f"unnamed {number}" for number, name in enumerate(normal)])


def _named_once(names: list[str]) -> list[str]:
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise SourceError("wrong_columns", f"must name each column once, but has {twice!r} twice; rename one")
    return names


def _delimiter(line: str, path: Path) -> str:
    if suffix(path) == ".tsv":
        return "\t"
    counts = {mark: line.count(mark) for mark in ",\t;|"}
    best = max(counts, key=lambda mark: counts[mark])
    return best if counts[best] else ","


def _jsonl_rows(path: Path, options: TableOptions) -> Iterator[Row | Reject]:
    for line in placed_lines(path, encoding=options.encoding):
        if line.text is not None and not line.text.strip():
            continue
        try:
            value = _object(line.text)
            yield Row(where=f"line {line.number}", cells=value, offsets=line.offsets)
        except UnusableError as error:
            yield reject(error, where=f"line {line.number}", excerpt=line.text or "")


def _object(text: str | None) -> dict[str, Any]:
    if text is None:
        raise _too_long()
    value = loads(text)
    if not isinstance(value, dict):
        raise UnusableError("bad_json", f"must be an object, but is {type(value).__name__}")
    return value


def _json_rows(path: Path, options: TableOptions) -> Iterator[Row | Reject]:
    """Rows of an array of objects, of an object of objects, or of an object of texts (columns key and value)."""
    for item in items(path, encoding=options.encoding):
        if isinstance(item.value, Reject):
            yield item.value
            continue
        own = item.value if isinstance(item.value, dict) else {"value": item.value}
        yield Row(where=item.where, cells={"key": item.key, **own}, offsets=item.offsets)


def _parquet_rows(path: Path) -> Iterator[Row | Reject]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = _named_once([unicodedata.normalize("NFC", name) for name in file.schema_arrow.names])
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for cells in batch.rename_columns(names).to_pylist():
                    number += 1
                    yield Row(where=f"row {number}", cells=cells)
    except (SourceError, MemoryError):
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise SourceError("damaged", f"must be parquet, but {str(error)[:200]}; fetch it again") from error

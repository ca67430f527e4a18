"""Tables of any kind as rows: csv, tsv, txt, jsonl, json and parquet, plain or gzipped, in UTF-8 or CP949."""

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, BinaryIO, cast

from pydantic import Field, field_validator

from corpus.clean import clean_line, is_missing
from corpus.modality import Options, Record, Reject, SourceError, UnusableError, reject

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".json", ".parquet")
_BLOCK = 1 << 20
_FIRST_ROWS = 64  # of JSON lines, where a row may leave columns out
csv.field_size_limit(1 << 24)  # a long protein or article is one cell; the default stops at 128 KiB


class TableOptions(Options):
    """How to read a table. Nothing needs to be said about an ordinary one.

    Attributes:
        delimiter: what separates cells; found in the first line when not given.
        encoding: of the bytes; UTF-8, UTF-16 with a mark or CP949 is found when not given.
        header: whether the first line names the columns; without it they are called 0, 1, 2...
        quotes: whether a cell may stand in double quotes.
        skip_lines: lines to leave out before the header.
        group: a column; rows of one value stay in the same split.
    """

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    encoding: str | None = None
    header: bool = True
    quotes: bool = True
    skip_lines: Annotated[int, Field(ge=0)] = 0
    group: str | int | None = None

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        try:
            codecs.lookup(value or "utf-8")
        except LookupError as error:
            raise ValueError(f"must be an encoding that Python knows, but is {value!r}; change it") from error
        return value


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: where it stands, for messages, and its cells by column."""

    where: str
    cells: dict[str, Any]


def suffix(path: Path) -> str:
    """Returns the ending that says what a file is, without .gz: 'a.CSV.gz' -> '.csv'."""
    bare = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return bare.suffix.lower()


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for reading, gunzipped when its first bytes say that it is gzipped.

    Raises:
        SourceError: the file is empty, or its compression is damaged.
    """
    with path.open("rb") as file:
        start = file.read(2)
        if not start:
            raise SourceError("empty_file", "must hold data, but is empty; fetch it again")
        file.seek(0)
        try:
            yield cast("BinaryIO", gzip.GzipFile(fileobj=file)) if start == b"\x1f\x8b" else file
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise SourceError("damaged", f"must be a whole gzip file, but {error}; fetch it again") from error


def lines(path: Path, *, encoding: str | None = None) -> Iterator[str]:
    r"""Yields the lines of a text file with their \n, decoded strictly.

    Raises:
        SourceError: the file is empty, is in no encoding we know, or its compression is damaged.
    """
    chosen = encoding or find_encoding(path)
    with open_bytes(path) as file, io.TextIOWrapper(file, encoding=chosen, newline="") as text:
        try:
            yield from text
        except UnicodeDecodeError as error:
            raise SourceError("encoding", f"must be in {chosen}, but {error}; give the right encoding") from error


def find_encoding(path: Path) -> str:
    """Returns the first of utf-16 (with a mark), utf-8-sig and cp949 that decodes the whole file.

    Latin-1 is never tried: it decodes everything, wrongly.

    Raises:
        SourceError: none does, or the compression is damaged.
    """
    with open_bytes(path) as file:
        start = file.read(2)
    candidates = ("utf-16",) if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else ("utf-8-sig", "cp949")
    for encoding in candidates:
        if _decodes(path, encoding):
            return encoding
    raise SourceError("encoding", f"must be in {' or '.join(candidates)}, but is in neither; give its encoding")


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
    """Turns rows into records with `make`; a row that it refuses becomes a Reject.

    Raises:
        SourceError: `choose` does not find its columns.
    """
    for item in with_columns(items, choose):
        if isinstance(item, Reject):
            yield item
            continue
        try:
            yield from make(*item)
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


def _decodes(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    with open_bytes(path) as file:
        try:
            while block := file.read(_BLOCK):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _csv_rows(path: Path, options: TableOptions) -> Iterator[Row | Reject]:
    text = lines(path, encoding=options.encoding)
    numbered = islice(enumerate(text), options.skip_lines, None)
    offset, first = next(((number, line) for number, line in numbered if line.strip()), (0, ""))
    delimiter = options.delimiter or _delimiter(first, path)
    reader = csv.reader(
        chain([first], text),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if options.quotes else csv.QUOTE_NONE,
        strict=options.quotes,
    )
    columns: list[str] | None = None
    try:
        for cells in reader:
            if columns is None:
                columns = _columns(cells, header=options.header)
                if options.header:
                    continue
            if cells:
                yield _row(f"line {reader.line_num + offset}", columns, cells)
    except csv.Error as error:
        told = f"line {reader.line_num + offset}: must be a table, but {error}; mend it or set quotes: false"
        raise SourceError("damaged", told) from error


def _row(where: str, columns: list[str], cells: list[str]) -> Row | Reject:
    if len(cells) != len(columns):
        found = UnusableError("ragged_row", f"must have {len(columns)} cells, but has {len(cells)}")
        return reject(found, where=where, excerpt=cells)
    return Row(where=where, cells={name: cell.strip() for name, cell in zip(columns, cells, strict=True)})


def _columns(cells: list[str], *, header: bool) -> list[str]:
    if not header:
        return [str(number) for number in range(len(cells))]
    named = [cell.strip() or f"unnamed {number}" for number, cell in enumerate(cells)]
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice:
        raise SourceError("wrong_columns", f"must name each column once, but has {twice!r} twice; rename one")
    return named


def _delimiter(line: str, path: Path) -> str:
    if suffix(path) == ".tsv":
        return "\t"
    counts = {mark: line.count(mark) for mark in ",\t;|"}
    best = max(counts, key=lambda mark: counts[mark])
    return best if counts[best] else ","


def _jsonl_rows(path: Path, options: TableOptions) -> Iterator[Row | Reject]:
    for number, line in enumerate(lines(path, encoding=options.encoding), start=1):
        if not line.strip():
            continue
        try:
            value = _loads(line)
            if not isinstance(value, dict):
                raise UnusableError("bad_json", f"must be an object, but is {type(value).__name__}")  # noqa: TRY301
            yield Row(where=f"line {number}", cells=value)
        except UnusableError as error:
            yield reject(error, where=f"line {number}", excerpt=line)


def _json_rows(path: Path, options: TableOptions) -> Iterator[Row | Reject]:
    """Rows of an array of objects, of an object of objects, or of an object of texts (columns key and value)."""
    try:
        value = _loads("".join(lines(path, encoding=options.encoding)))
    except UnusableError as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError("damaged", error.reason) from error
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        cells = {"key": key, **item} if isinstance(item, dict) else {"key": key, "value": item}
        yield Row(where=f"item {key}", cells=cells)


def _loads(text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise UnusableError("bad_json", "must have each key once, but has one twice")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=lambda _: None)  # NaN is a missing value
    except json.JSONDecodeError as error:
        raise UnusableError("bad_json", f"must be JSON, but {error}") from error
    except RecursionError as error:
        raise UnusableError("bad_json", "must be nested less than 1000 levels deep") from error


def _parquet_rows(path: Path) -> Iterator[Row | Reject]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for cells in batch.to_pylist():
                    number += 1
                    yield Row(where=f"row {number}", cells=cells)
    except (pa.ArrowException, OSError) as error:
        raise SourceError("damaged", f"must be parquet, but {str(error)[:200]}; fetch it again") from error

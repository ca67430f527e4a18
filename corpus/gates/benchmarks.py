"""Evaluation sets, read for their texts and ids alone: by a modality as a source is, or as a table."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus.clean import is_missing
from corpus.formats import tables
from corpus.gates.config import Benchmark
from corpus.modality import Record, Reject, SourceError, modality
from corpus.symbols import plain


@dataclass(frozen=True, kw_only=True)
class Item:
    """One item: its texts, each looked for by itself, and what the world knows it by."""

    texts: tuple[str, ...]
    ids: tuple[str, ...]


def items(benchmark: Benchmark, root: Path) -> Iterator[Item]:
    """Yields the items of a benchmark; one that cannot be read has neither text nor id.

    Raises:
        ValueError: the file cannot be read, lacks a column or holds no item.
    """
    found = 0
    try:
        for item in _by_modality(benchmark, root) if benchmark.modality else _by_columns(benchmark, root):
            found += 1
            yield item
    except SourceError as error:
        raise ValueError(f"the benchmark {benchmark.name} ({benchmark.path}): {error.reason}") from error
    if not found:
        told = "must hold items, but has none; mend its columns or leave it out"
        raise ValueError(f"the benchmark {benchmark.name} ({benchmark.path}): {told}")


def _by_modality(benchmark: Benchmark, root: Path) -> Iterator[Item]:
    reader = modality(str(benchmark.modality))
    for record in reader.read(benchmark.locate(root), reader.Options.model_validate(benchmark.options)):
        if isinstance(record, Record):
            yield Item(texts=(plain(reader.render(record.content)),), ids=record.ids)
        elif isinstance(record, Reject):
            yield Item(texts=(), ids=())


def _by_columns(benchmark: Benchmark, root: Path) -> Iterator[Item]:
    options = tables.TableOptions.model_validate(benchmark.options)
    wanted = [*benchmark.columns, *benchmark.ids.values()]
    for row in tables.rows(benchmark.locate(root), options):
        if not isinstance(row, tables.Row):
            yield Item(texts=(), ids=())
            continue
        missing = [name for name in wanted if name.partition(".")[0] not in row.cells]
        if len(missing) == len(wanted):
            told = f"must have the columns {', '.join(wanted)}, but {row.where} has {', '.join(row.cells)[:200]}"
            raise SourceError("wrong_columns", f"{told}; mend columns: and ids:")
        yield Item(
            texts=tuple(text for name in benchmark.columns for text in _texts(_cell(row.cells, name))),
            ids=tuple(
                f"{kind}:{text}" for kind, name in benchmark.ids.items() for text in _texts(_cell(row.cells, name))
            ),
        )


def _cell(cells: dict[str, Any], name: str) -> Any:
    """Returns a cell by its column; `CONTEXT.text` is the field text of the object in CONTEXT."""
    if name in cells:
        return cells[name]
    first, _, rest = name.partition(".")
    inner = cells.get(first)
    return _cell(inner, rest) if rest and isinstance(inner, dict) else None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif not is_missing(value):
        yield str(value)

"""Counts: a table with a row for each test, visit or person as numbers by group; small groups are never written."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from corpus.annotations import find_column
from corpus.clean import clean_line
from corpus.entities import task_names
from corpus.formats import papers
from corpus.formats.figures import is_blank
from corpus.formats.tables import Row, with_columns
from corpus.modality import Item, Note, Reject, SourceError, UnusableError, reject

_MOST_GROUPS = 1_000_000
_NOT_STATED = "not stated"


def read(
    rows: Iterator[Row | Reject], by: Sequence[str | int], *, minimum: int, about: Mapping[str, str]
) -> Iterator[Item]:
    """Yields the number of rows for every value of the columns: a record for each value of the first of several.

    Groups of fewer than `minimum` rows are left out. No sum is written, as it would give them away.

    Raises:
        SourceError: a column is not there, or there are too many groups.
    """
    found: Counter[tuple[str, ...]] = Counter()
    names: list[str] = []

    def choose(columns: list[str]) -> list[str]:
        chosen = [find_column(name, columns) for name in by]
        names.extend(task_names(chosen, taken=()))
        return chosen

    for item in with_columns(rows, choose):
        if isinstance(item, Reject):
            yield item
            continue
        try:
            found[tuple(_value(item[0].cells.get(column)) for column in item[1])] += 1
        except UnusableError as error:
            yield reject(error, where=item[0].where, excerpt=item[1])
        if len(found) > _MOST_GROUPS:
            raise SourceError("too_large", f"count_by: must give at most {_MOST_GROUPS} groups; leave a column out")
    kept = {key: number for key, number in found.items() if number >= minimum}
    yield from _records(kept, names, about=about)
    if len(kept) < len(found):
        yield Note(f"{len(found) - len(kept)} groups of fewer than {minimum} rows are left out")


def _value(cell: object) -> str:
    return _NOT_STATED if is_blank(cell) else clean_line(str(cell))


def _records(kept: Mapping[tuple[str, ...], int], names: Sequence[str], *, about: Mapping[str, str]) -> Iterator[Item]:
    if not kept:
        return
    title = f"Number by {', '.join(names[1:] or names)}"
    for first, keys in _parted(sorted(kept), several=len(names) > 1):
        lines = [f"{', '.join(key[1:] or key)}: {kept[key]}" for key in keys]
        facts = {"kind": "counts", **about, **({names[0]: first} if first is not None else {})}
        where = f"rows of {names[0]} {first}" if first is not None else "all rows"
        group = f"counts {' '.join(names)} {first}"
        yield papers.record(facts, [(title, "\n".join(lines))], where=where, language=None, group=group)


def _parted(keys: Iterable[tuple[str, ...]], *, several: bool) -> Iterator[tuple[str | None, list[tuple[str, ...]]]]:
    parts: dict[str | None, list[tuple[str, ...]]] = {}
    for key in keys:
        parts.setdefault(key[0] if several else None, []).append(key)
    yield from parts.items()

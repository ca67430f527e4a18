"""Populations: statistics of places over time, facts of places, and counts of tables with a row for each case."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from corpus import annotations, document
from corpus.annotations import Column, Columns, Name
from corpus.entities import column_title, first_column, task_names
from corpus.formats import counts, papers, series, tables
from corpus.formats.figures import counts_rows, figure_columns
from corpus.formats.series import Bounds, Layout
from corpus.formats.spool import Spool
from corpus.formats.tables import Row, TableOptions
from corpus.modality import Item, Note, Record, Reject, SourceError, UnusableError, reject
from corpus.symbols import tags

SUFFIXES = tables.SUFFIXES
SCALE = "L7"
SYMBOLS = (*tags("population"), *document.SYMBOLS)
_SHARE = 0.9  # of a column's cells that must be numbers; a row with another is refused


class Options(TableOptions):
    """How to read statistics. A tidy table (place, year, values) or a wide one (a column a year) needs none.

    Attributes:
        entity: the column that names places; like the next ones found among the usual names.
        code: the column with their codes, such as ISO 3166.
        time: the column with years or dates.
        indicator: the column that names the measure of each row.
        values: the columns with values; all that hold numbers when not given.
        by: columns that part a measure, such as sex and age.
        facts: columns that say something about a place: `{name: column}`; of a table without time all.
        about: facts of every record: `{source: Our World in Data}`.
        minimum: what a value is at least; a row with a smaller one is refused.
        maximum: what a value is at most.
        digits: how many significant digits of a value with a fraction are written.
        count_by: columns to count the rows by, instead of all the above.
        minimum_count: groups with fewer rows are not written.
    """

    entity: str | int | None = None
    code: str | int | None = None
    time: str | int | None = None
    indicator: str | int | None = None
    values: tuple[str | int, ...] | None = None
    by: tuple[str | int, ...] | None = None
    facts: Columns = Field(default_factory=dict)
    about: dict[Name, str] = Field(default_factory=dict)
    minimum: float | None = None
    maximum: float | None = None
    digits: Annotated[int, Field(ge=1, le=17)] = 6
    count_by: tuple[str | int, ...] | None = Field(default=None, min_length=1)
    minimum_count: Annotated[int, Field(ge=1)] = 11


def read(path: Path, options: Options, /) -> Iterator[Item]:
    """Yields one record a place; with `count_by`, one for each value of its first column.

    Raises:
        SourceError: the table names no places, has no values, or has rows of persons that are not counted.
    """
    rows = tables.rows(path, options)
    if options.count_by is not None:
        yield from counts.read(rows, options.count_by, minimum=options.minimum_count, about=options.about)
        return
    first = next(_cells(path, options), {})
    found = list(first)
    if not found:
        yield from (row for row in rows if isinstance(row, Reject))
        return
    series.refuse_persons(found)
    layout = _layout(path, options, found, sizes=series.sizes(first))
    left = [name for name in found if name not in _used(layout)]
    if left:
        yield Note(f"columns that are not read: {', '.join(left)[:300]}")
    yield from _places(rows, layout, options) if layout.time or layout.years else _facts(rows, layout, options)


def render(content: Mapping[str, Any], /) -> str:
    """Writes <|population|>, what is known of a place, its series, and <|/population|>."""
    return document.write("population", content)


def parse(rendered: str, /) -> dict[str, Any]:
    """Reads back what `render` wrote."""
    return document.read("population", rendered)


def _layout(path: Path, options: Options, found: list[str], *, sizes: list[str]) -> Layout:
    wanted = {role: getattr(options, role) for role in ("entity", "code", "time", "indicator")}
    chosen = series.places(found, wanted, sizes=sizes)
    years = {} if options.time is not None or chosen["time"] else series.year_columns(found)
    by = series.dimensions([name for name in found if name not in chosen.values()], options.by)
    facts = annotations.find_columns(options.facts, found)
    used = {*chosen.values(), *by, *years, *(str(spec.column) for spec in facts.values())}
    if chosen["time"] is None and not years:
        said = [name for name in found if (name not in used or name in by) and not counts_rows(name)]
        rest = task_names(said, taken=("place", "code"))
        facts = facts or {name: Column(column=column) for name, column in rest.items()}
        return Layout(entity=str(chosen["entity"]), code=chosen["code"], facts=facts)
    columns = (
        [] if years else _values(path, options, found, used={str(name) for name in used}, indicator=chosen["indicator"])
    )
    return Layout(
        entity=str(chosen["entity"]),
        code=chosen["code"],
        time=chosen["time"],
        years=years,
        indicator=chosen["indicator"],
        unit=chosen["unit"],
        values=_titled(columns),
        by=by,
        facts=facts,
    )


def _values(path: Path, options: Options, found: list[str], *, used: set[str], indicator: str | None) -> list[str]:
    """Returns the columns with values: those named, that of a table with indicators, or all that hold numbers.

    Raises:
        SourceError: there is none.
    """
    if options.values is not None:
        return [annotations.find_column(name, found) for name in options.values]
    rest = [name for name in found if name not in used]
    value = first_column(rest, series.VALUES if indicator is not None else series.SURE_VALUES)
    chosen = [value] if value is not None else figure_columns(_cells(path, options), besides=used, share=_SHARE)
    if not chosen:
        raise SourceError(
            "no_values", f"must have a column with numbers, but has {', '.join(found)[:300]}; set values:"
        )
    return chosen


def _titled(columns: list[str]) -> dict[str, str]:
    """Returns {title: column}.

    Raises:
        SourceError: two columns have one title, or one cannot be written.
    """
    titled = {column_title(column): column for column in columns}
    if len(titled) < len(columns):
        raise SourceError("wrong_columns", "must name each column once, but two differ only in blanks; rename one")
    return titled


def _used(layout: Layout) -> set[str]:
    roles = (layout.entity, layout.code, layout.time, layout.indicator, layout.unit)
    named = {str(spec.column) for spec in layout.facts.values()}
    return {*(role for role in roles if role), *layout.years, *layout.values.values(), *layout.by, *named}


def _places(rows: Iterator[Row | Reject], layout: Layout, options: Options) -> Iterator[Item]:
    """Yields a record for each place of a table, wherever its rows stand."""
    bounds = Bounds(least=options.minimum, most=options.maximum, digits=options.digits)
    taken = places = 0
    with Spool() as spool:
        for row in rows:
            if isinstance(row, Reject):
                yield row
                continue
            try:
                named, code = series.place(row.cells, layout)
                group = tables.group_of(row.cells, _group(options, row), default="")
                facts = {"code": code, **annotations.take(row.cells, layout.facts)}
                spool.add(named, [row.where, facts, group, list(series.cells(row.cells, layout, bounds=bounds))])
                taken += 1
            except UnusableError as error:
                yield reject(error, where=row.where, excerpt=row.cells)
        for named, found in spool.owners():
            places += 1
            yield from _place(named, found, options)
    yield Note(f"{taken} rows of {places} places")


def _place(named: str, rows: list[list[Any]], options: Options) -> Iterator[Item]:
    """Yields the record of a place, and a reject for every row that gives a value once more."""
    facts: dict[str, str] = {}
    measures: dict[str, dict[str, str]] = {}
    for where, known, _, values in rows:
        twice = next(((measure, time) for measure, time, _ in values if time in measures.get(measure, {})), None)
        if twice is not None:
            told = f"must have one value of {twice[0][:80]} for {named[:80]} and {twice[1]}, but has another before"
            yield reject(UnusableError("duplicate", told), where=where, excerpt=values)
            continue
        for measure, time, value in values:
            measures.setdefault(measure, {})[time] = value
        facts = {**{name: value for name, value in known.items() if value}, **facts}
    sections = [(measure, "\n".join(map(": ".join, values.items()))) for measure, values in measures.items()]
    where = f"{rows[0][0]} and further ones of {named}"
    try:
        if not sections:
            raise UnusableError("no_values", f"{named[:80]} must have a value, but all are missing")  # noqa: TRY301
        yield _record(named, facts, sections, where=where, options=options, group=rows[0][2])
    except UnusableError as error:
        yield reject(error, where=where, excerpt=named)


def _facts(rows: Iterator[Row | Reject], layout: Layout, options: Options) -> Iterator[Item]:
    """Yields a record for each row of a table without time."""
    seen: set[str] = set()
    for row in rows:
        if isinstance(row, Reject):
            yield row
            continue
        try:
            named, code = series.place(row.cells, layout)
            facts = {"code": code, **annotations.take(row.cells, layout.facts)}
            if named in seen:
                raise UnusableError("duplicate", f"must have one row for {named[:80]}, but has another before")  # noqa: TRY301
            seen.add(named)
            group = tables.group_of(row.cells, _group(options, row), default="")
            record = _record(named, facts, [], where=row.where, options=options, group=group)
            yield replace(record, offsets=row.offsets)
        except UnusableError as error:
            yield reject(error, where=row.where, excerpt=row.cells)


def _record(
    named: str,
    facts: Mapping[str, str],
    sections: list[tuple[str, str]],
    *,
    where: str,
    options: Options,
    group: str,
) -> Record:
    known = {"place": named, **facts, **options.about}
    return papers.record(known, sections, where=where, language=None, group=group or f"place {named}")


def _group(options: Options, row: Row) -> str | None:
    return None if options.group is None else annotations.find_column(options.group, list(row.cells))


def _cells(path: Path, options: Options) -> Iterator[Mapping[str, Any]]:
    return (row.cells for row in tables.rows(path, options) if isinstance(row, Row))

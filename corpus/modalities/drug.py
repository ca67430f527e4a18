"""Drugs: labels (SPL, openFDA), safety reports, ATC and NDC codes, drug-target pairs, concentrations over time."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from corpus import annotations, document, spans
from corpus.annotations import Columns, Name
from corpus.formats import drugpairs, drugtables, openfda, pharmacokinetics, spl, tables
from corpus.formats.tables import Row, TableOptions
from corpus.modality import Item, Reject, SourceError
from corpus.symbols import tags

SUFFIXES = (*tables.SUFFIXES, ".xml")
SCALE = "L4"
SYMBOLS = (*tags("drug"), *document.SYMBOLS)


class Options(TableOptions):
    """How to read what is known about drugs.

    Attributes:
        kind: what a table holds: pairs of drugs or of drug and target, concentrations over time (pk), ATC codes, or
            facts from its columns; found by the names of its columns when not given. In a JSON file, `openfda`.
        columns: where a table has what its kind needs: `{drug: ..., target: ..., label: ...}`, `{subject: ..., time:
            ..., concentration: ...}` or `{code: ..., name: ..., level: ...}`; the usual names are found.
        facts: columns to write as facts, beside what the kind says: `{name: column}`.
        about: facts of all records of a table: `{drug: theophylline, unit: mg/L}`.
        digits: how many significant digits of a label or concentration with a fraction are written.
        sections: LOINC codes of the label sections to keep; all when not given.
        language: of labels that do not say it.
    """

    kind: Literal["openfda", "pairs", "pk", "atc", "facts"] | None = None
    columns: dict[str, str | int] = Field(default_factory=dict)
    facts: Columns = Field(default_factory=dict)
    about: dict[Name, str] = Field(default_factory=dict)
    digits: Annotated[int, Field(ge=1, le=17)] = 6
    sections: tuple[Annotated[str, Field(pattern=r"^\d+-\d$")], ...] | None = None
    language: Annotated[str, Field(pattern="^[a-z]{2}$")] = "en"


def read(path: Path, options: Options, /) -> Iterator[Item]:
    """Yields a record for every label, report, code, pair or subject.

    Raises:
        SourceError: the file is of no kind that is known here.
    """
    suffix = tables.suffix(path)
    if suffix == ".xml":
        yield from spl.read(path, sections=options.sections, language=options.language)
    elif options.kind == "openfda" or (options.kind is None and not options.facts and suffix in (".json", ".jsonl")):
        yield from openfda.read(path, encoding=options.encoding, sections=options.sections, language=options.language)
    elif options.kind in (None, "pairs") and drugpairs.is_words(path, options):
        yield from _pairs(drugpairs.word_rows(path, options), options)
    else:
        yield from _table(path, options)


def render(content: Mapping[str, Any], /) -> str:
    """Writes <|drug|>, facts, sections, molecules and proteins, and <|/drug|>."""
    return spans.write("drug", content)


def parse(rendered: str, /) -> dict[str, Any]:
    """Reads back what `render` wrote."""
    return spans.read("drug", rendered)


def _table(path: Path, options: Options) -> Iterator[Item]:
    rows = tables.rows(path, options)
    kind = options.kind or _kind(path, options)
    if kind == "pairs":
        yield from _pairs(rows, options)
    elif kind == "pk":
        columns = pharmacokinetics.choose(list(_first(path, options)), options.columns)
        facts = annotations.find_columns(options.facts, list(_first(path, options)))
        yield from pharmacokinetics.read(rows, columns, digits=options.digits, facts=facts, about=options.about)
    elif kind == "atc":
        columns = drugtables.atc_columns(list(_first(path, options)), options.columns)
        names = drugtables.atc_names(drugtables.cells_of(tables.rows(path, options)), columns)
        yield from tables.records(
            rows, choose=lambda _: columns, make=lambda row, found: [drugtables.atc_record(row, found, names=names)]
        )
    else:
        yield from _facts(rows, options)


def _pairs(rows: Iterator[Row | Reject] | Iterator[Row], options: Options) -> Iterator[Item]:
    def choose(found: list[str]) -> tuple[drugpairs.Chosen, dict[str, annotations.Column]]:
        chosen = drugpairs.choose(found, options.columns, group=options.group)
        return chosen, annotations.find_columns(options.facts, found)

    def make(row: Row, chosen: tuple[drugpairs.Chosen, dict[str, annotations.Column]]) -> Iterator[Any]:
        facts = {**drugtables.cleaned(options.about), **annotations.take(row.cells, chosen[1])}
        yield drugpairs.record(row, chosen[0], digits=options.digits, facts=facts)

    yield from tables.records(rows, choose=choose, make=make)


def _facts(rows: Iterator[Row | Reject], options: Options) -> Iterator[Item]:
    def choose(found: list[str]) -> tuple[dict[str, annotations.Column], str | None]:
        wanted = annotations.find_columns(options.facts, found)
        group = None if options.group is None else annotations.find_column(options.group, found)
        return drugtables.fact_columns(found, wanted), group

    yield from tables.records(
        rows,
        choose=choose,
        make=lambda row, chosen: [drugtables.fact_record(row, chosen[0], group=chosen[1], about=options.about)],
    )


def _kind(path: Path, options: Options) -> str:
    """Returns what a table holds, by the names of its columns.

    Raises:
        SourceError: they say nothing.
    """
    first = _first(path, options)
    found = list(first)
    if drugpairs.has_pairs(found):
        return "pairs"
    if pharmacokinetics.has_samples(found):
        return "pk"
    if drugtables.has_atc(first):
        return "atc"
    if options.facts or not found or drugtables.has_codes(found):
        return "facts"
    told = f"must have columns of pairs, concentrations or drug codes, but has {', '.join(found)[:300]}"
    raise SourceError("wrong_columns", f"{told}; set kind: and columns:, or facts:")


def _first(path: Path, options: Options) -> Mapping[str, Any]:
    return next(drugtables.cells_of(tables.rows(path, options)), {})

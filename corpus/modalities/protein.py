"""Proteins, DNA and RNA: FASTA, tables of sequences or variants, PDB and mmCIF; one symbol per residue."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from corpus import annotations, entities
from corpus.annotations import Column
from corpus.clean import clean_line
from corpus.entities import Chosen, EntityOptions
from corpus.formats import fasta, sequences, structures, tables, variants
from corpus.formats.figures import figure, is_blank
from corpus.formats.sequences import Alphabet, clean_sequence
from corpus.formats.tables import Row
from corpus.formats.variants import Mutation
from corpus.modality import Item, Note, Record, Reject, SourceError

SUFFIXES = (*fasta.SUFFIXES, *structures.SUFFIXES, *tables.SUFFIXES)
SCALE = "L3"
SYMBOLS = sequences.SYMBOLS
_USUAL = (
    "sequence",
    "seq",
    "proteinsequence",
    "protein",
    "aasequence",
    "aaseq",
    "targetseq",
    "targetsequence",
    "primary",
)
_IDS = {
    "uniprot": ("uniprot", "uniprotid", "uniprotaccession", "entry"),
    "dms": ("dmsid",),
    **{kind: (kind,) for kind in fasta.IDS if kind != "uniprot"},
}


class Options(EntityOptions):
    """How to read proteins.

    Attributes:
        header_pattern: a regular expression on FASTA headers; its named groups are columns, beside id, description,
            organism and the NAME=value words of the header.
        alphabet: what the letters of FASTA and tables are; a structure's chains say it themselves.
        mutation: the column with mutations such as A108D; the usual ones are found in a table of variants.
        score: a column with the effect of the mutations or another number, written as `score`; likewise.
        wild_type: what the mutations change: a sequence, a FASTA file, or "from mutations".
        offset: added to a mutation's number to find its residue in the wild type.
    """

    header_pattern: str | None = None
    alphabet: Alphabet = "protein"
    mutation: str | int | None = None
    score: str | int | None = None
    wild_type: str | None = Field(default=None, min_length=1)
    offset: int = Field(default=0, ge=-40_000, le=40_000)

    @model_validator(mode="after")
    def _fits(self) -> "Options":
        if self.wild_type is not None and self.column is not None:
            raise ValueError("column: must be left out where wild_type: is given, but is there; set mutation: instead")
        return self

    @field_validator("header_pattern")
    @classmethod
    def _is_pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"must be a regular expression, but {error}; mend {value!r}") from error
        return value


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    table: Chosen
    mutation: str | None
    score: str | None


def read(path: Path, options: Options, /) -> Iterator[Item]:
    """Yields sequences in upper case without alignment gaps.

    A record's group is the group column, for a variant its mutated places, else its sequence.
    """
    wild_type = None
    if options.wild_type is not None:
        wild_type, told, offset = _wild_type(options.wild_type, path, options)
        options = options.model_copy(update={"offset": offset})
        yield Note(told)

    def make(row: Row, chosen: _Chosen) -> Iterator[Record]:
        return _record(row, chosen, options, wild_type=wild_type)

    yield from tables.records(_rows(path, options), choose=lambda found: _choose(found, options, path=path), make=make)


def render(content: Mapping[str, Any], /) -> str:
    """Writes <|protein|>, a symbol per amino acid, <|/protein|> and the annotations; likewise <|dna|> and <|rna|>."""
    written = sequences.write(content["sequence"], alphabet=content.get("alphabet", "protein"))
    return f"{written}{annotations.write(content['properties'])}"


def parse(rendered: str, /) -> dict[str, Any]:
    """Reads back what `render` wrote."""
    sequence, alphabet, rest = sequences.read(rendered)
    properties = annotations.read(rest)
    return _content(sequence, alphabet=alphabet, properties=properties)


def _content(sequence: str, *, alphabet: Alphabet, properties: dict[str, str]) -> dict[str, Any]:
    kind = {} if alphabet == "protein" else {"alphabet": alphabet}
    return {**kind, "sequence": sequence, "properties": properties}


def _rows(path: Path, options: Options) -> Iterator[Row | Reject]:
    kind = tables.suffix(path)
    if kind in fasta.SUFFIXES:
        return fasta.rows(path, encoding=options.encoding, pattern=re.compile(options.header_pattern or ""))
    if kind in structures.SUFFIXES:
        return structures.rows(path, encoding=options.encoding)
    return tables.rows(path, options)


def _cells(path: Path, options: Options) -> Iterator[Mapping[str, Any]]:
    return (row.cells for row in _rows(path, options) if isinstance(row, Row))


def _wild_type(given: str, path: Path, options: Options) -> tuple[str, str, int]:
    """Returns the wild type, where it comes from and its offset; the table must have a column with mutations.

    Raises:
        SourceError: it has none, or there is no such wild type.
    """
    found = list(next(_cells(path, options), {}))
    column = _named(options.mutation, found, usual=variants.COLUMNS)
    if column is None:
        told = f"must have a column {', '.join(variants.COLUMNS[:3])} or so, but has {', '.join(found)[:300]}"
        raise SourceError("wrong_columns", f"{told}; set mutation:")
    rows = _cells(path, options)
    return variants.wild_type(given, folder=path.parent, column=column, rows=rows, offset=options.offset)


def _choose(found: list[str], options: Options, *, path: Path) -> _Chosen:
    mutated = entities.first_column(found, variants.MUTATED)
    is_variants = options.wild_type is not None or mutated is not None
    mutation = _named(options.mutation, found, usual=variants.COLUMNS if is_variants else ())
    score = _named(options.score, found, usual=variants.SCORES if is_variants else ())
    if options.wild_type is None:
        _check_sequences(found, options)
    chosen = entities.choose(
        found,
        options,
        usual=variants.COLUMNS if options.wild_type else (*variants.MUTATED, *_USUAL),
        usual_ids=_IDS,
        rows=lambda: (
            {name: cells[name] for name in cells if name not in (mutation, score)} for cells in _cells(path, options)
        ),
    )
    facts = {name: Column(column=name) for name in _facts(path, options) if name in found}
    return _Chosen(table=replace(chosen, properties={**facts, **chosen.properties}), mutation=mutation, score=score)


def _facts(path: Path, options: Options) -> tuple[str, ...]:
    """Returns what is written of each record of a structure or FASTA file without being asked for."""
    if tables.suffix(path) in structures.SUFFIXES:
        return () if options.properties else structures.FACTS
    return ("organism",) if tables.suffix(path) in fasta.SUFFIXES else ()


def _named(wanted: str | int | None, found: list[str], *, usual: Iterable[str]) -> str | None:
    return entities.first_column(found, usual) if wanted is None else annotations.find_column(wanted, found)


def _check_sequences(found: list[str], options: Options) -> None:
    """Says what is missing of a table that has mutations, but no sequences."""
    mutation = entities.first_column(found, variants.COLUMNS)
    has_sequences = entities.first_column(found, (*variants.MUTATED, *_USUAL)) is not None
    if options.column is None and mutation is not None and not has_sequences:
        told = f"must have sequences, or mutations and what they change, but has only mutations ({mutation})"
        ways = f"a sequence, a FASTA file or {variants.FROM_MUTATIONS!r}"
        raise SourceError("no_wild_type", f"{told}; set wild_type: to {ways}")


def _record(row: Row, chosen: _Chosen, options: Options, *, wild_type: str | None) -> Iterator[Record]:
    cells, table = row.cells, chosen.table
    alphabet = cells.get(structures.ALPHABET, options.alphabet)
    changes = _mutations(cells, chosen)
    given = tables.text_of(cells, table.column)
    if wild_type is not None:
        sequence = clean_sequence(variants.mutate(wild_type, changes or [], offset=options.offset))
    else:
        sequence = clean_sequence(given, alphabet=alphabet)
        variants.check_mutated(sequence, changes or [], offset=options.offset)
    properties = {**_variant(cells, chosen, digits=table.digits), **entities.labels(cells, table)}
    yield Record(
        content=_content(sequence, alphabet=alphabet, properties=properties),
        group=tables.group_of(cells, table.group, default=_places(changes) or sequence),
        date=cells.get(structures.DATE),
        ids=entities.names_of(cells, table.ids),
    )


def _mutations(cells: Mapping[str, Any], chosen: _Chosen) -> list[Mutation] | None:
    """Returns a row's mutations; None where it has no such column, or repeats the sequence there (insertions)."""
    if chosen.mutation is None:
        return None
    given = tables.text_of(cells, chosen.mutation)
    if chosen.mutation != chosen.table.column and given and given == tables.text_of(cells, chosen.table.column):
        return None
    return variants.mutations(given)


def _variant(cells: Mapping[str, Any], chosen: _Chosen, *, digits: int) -> dict[str, str]:
    """Returns a variant's mutations and score; a score that is missing is left out."""
    found = {}
    if chosen.mutation is not None and _mutations(cells, chosen) is not None:
        found["mutation"] = clean_line(tables.text_of(cells, chosen.mutation))
    if chosen.score is not None and not is_blank(cells.get(chosen.score)):
        found["score"] = figure("score", cells[chosen.score], digits=digits)
    return found


def _places(changes: list[Mutation] | None) -> str:
    """Returns the group of a variant: those that change the same residues stay in one split."""
    return "residues " + ",".join(str(place) for place in sorted(change.place for change in changes)) if changes else ""

"""Proteins: FASTA, aligned or not, and tables with a sequence column; one symbol per amino acid."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import field_validator

from corpus import annotations, tables
from corpus.entities import Chosen, EntityOptions, choose
from corpus.modality import Item, Record, SourceError, UnusableError
from corpus.symbols import inside, names, symbol, tags
from corpus.tables import Row

_FASTA = (".fasta", ".fa", ".faa", ".fas", ".a2m", ".a3m", ".aln")
SUFFIXES = (*_FASTA, *tables.SUFFIXES)
_LETTERS = "ACDEFGHIKLMNPQRSTVWYBZXUOJ*"
SCALE = "L3"
SYMBOLS = (*tags("protein"), *(symbol("aa", letter) for letter in _LETTERS))
_TO_SYMBOL = {letter: symbol("aa", letter) for letter in _LETTERS}
_USUAL = ("sequence", "seq", "proteinsequence", "protein", "aasequence", "aaseq", "targetseq", "targetsequence")
_GAPS = re.compile(r"[-.\s]")
_OTHER = re.compile(r"[^ACDEFGHIKLMNPQRSTVWYBZXUOJ*]")
_NUCLEOTIDES = re.compile(r"[ACGTUN]{30,}")
_MAX_LENGTH = 40_000  # titin, the longest protein known, has about 35,000


class Options(EntityOptions):
    """How to read proteins.

    Attributes:
        header_pattern: a regular expression on FASTA headers; its named groups are columns, beside id and description.
    """

    header_pattern: str | None = None

    @field_validator("header_pattern")
    @classmethod
    def _is_pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"must be a regular expression, but {error}; mend {value!r}") from error
        return value


def read(path: Path, options: Options, /) -> Iterator[Item]:
    """Yields proteins in upper case without alignment gaps; a record's group is its sequence, or the group column."""
    rows = _fasta_rows(path, options) if tables.suffix(path) in _FASTA else tables.rows(path, options)
    yield from tables.records(rows, choose=lambda found: choose(found, options, usual=_USUAL), make=_record)


def render(content: Mapping[str, Any], /) -> str:
    """Writes <|protein|>, a symbol per amino acid, <|/protein|> and the annotations."""
    opening, closing = tags("protein")
    body = "".join(_TO_SYMBOL[letter] for letter in content["sequence"])
    return f"{opening}{body}{closing}{annotations.write(content['properties'])}"


def parse(rendered: str, /) -> dict[str, Any]:
    """Reads back what `render` wrote."""
    body, rest = inside(rendered, "protein")
    return {"sequence": "".join(names(body)), "properties": annotations.read(rest)}


def clean_sequence(given: str) -> str:
    """Returns a sequence in upper case without gaps: lower case in a2m and a3m are residues too, . and - are none.

    Raises:
        UnusableError: it is empty, too long, holds other letters, or is DNA or RNA.
    """
    sequence = _GAPS.sub("", given).upper()
    if not sequence:
        raise UnusableError("empty", "must hold amino acids, but is empty")
    if len(sequence) > _MAX_LENGTH:
        raise UnusableError("too_large", f"must have at most {_MAX_LENGTH} residues, but has {len(sequence)}")
    other = _OTHER.search(sequence)
    if other:
        place = f"{other.group()!a} at {other.start() + 1}"
        raise UnusableError("unknown_residue", f"must hold only {_LETTERS}, but has {place}")
    if _NUCLEOTIDES.fullmatch(sequence):
        raise UnusableError("nucleotides", "must be amino acids, but holds only nucleotides")
    return sequence


def _record(row: Row, chosen: Chosen) -> Iterator[Record]:
    sequence = clean_sequence(tables.text_of(row.cells, chosen.column))
    content = {"sequence": sequence, "properties": annotations.take(row.cells, chosen.properties)}
    yield Record(content=content, group=tables.group_of(row.cells, chosen.group, default=sequence))


def _fasta_rows(path: Path, options: Options) -> Iterator[Row]:
    pattern = re.compile(options.header_pattern or "")
    header, parts, start = "", list[str](), 0
    for number, line in enumerate(tables.lines(path, encoding=options.encoding), start=1):
        if line.startswith(">"):
            if start:
                yield _fasta_row(header, parts, start, pattern)
            header, parts, start = line[1:].strip(), [], number
        elif start:
            parts.append(line.strip())
        elif line.strip() and not line.startswith(";"):
            raise SourceError("damaged", f"line {number}: FASTA must begin with >, but is {line[:30]!r}; mend it")
    if start:
        yield _fasta_row(header, parts, start, pattern)


def _fasta_row(header: str, parts: list[str], line: int, pattern: re.Pattern[str]) -> Row:
    found = pattern.search(header)
    groups = found.groupdict() if found else dict.fromkeys(pattern.groupindex)
    name, _, description = header.partition(" ")
    cells = {"id": name, "description": description.strip(), **groups, "sequence": "".join(parts)}
    return Row(where=f"line {line}", cells=cells)

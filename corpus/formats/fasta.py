"""FASTA of any kind: its entries, and what the headers of UniProt, NCBI, Ensembl, PDB and FLIP say about them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from corpus.formats import tables
from corpus.formats.lines import Line
from corpus.formats.tables import Row
from corpus.modality import Reject, SourceError, UnusableError, reject

SUFFIXES = (".fasta", ".fa", ".faa", ".fas", ".a2m", ".a3m", ".aln", ".fna", ".ffn", ".frn", ".mpfa", ".pep")
IDS = ("uniprot", "refseq", "genbank", "pdb", "ensembl", "uniref")
_MOST_LETTERS = 20_000_000
_WORD = re.compile(r"(?:^|[\s|])([A-Za-z]\w{1,30})=(.*?)(?=\s+[A-Za-z]\w{1,30}=|$)")
_BRACKETS = re.compile(r"\[([^\[\]]+)\]\s*$")
_UNIPROT = re.compile(r"(?:sp|tr)\|([A-Z0-9]+(?:-\d+)?)\|(\S+)")
_UNIREF = re.compile(r"(UniRef\d+_\S+)")
_PIPED = re.compile(r"(?:^|\|)(ref|gb|emb|dbj|pdb|lcl)\|([\w.:-]+)(?:\|(\w+))?")
_REFSEQ = re.compile(r"([NXYWA][PMRCGTZ]_\d{6,}(?:\.\d+)?)")
_ENSEMBL = re.compile(r"(ENS[A-Z]*[GTP]\d{11}(?:\.\d+)?)")
_NAMED = {"OS": "organism", "OX": "taxon", "GN": "gene", "PE": "evidence", "SV": "version", "Tax": "organism"}
_DATABASES = {"ref": "refseq", "gb": "genbank", "emb": "genbank", "dbj": "genbank", "pdb": "pdb", "lcl": "local"}


def rows(path: Path, *, encoding: str | None, pattern: re.Pattern[str]) -> Iterator[Row | Reject]:
    """Yields the entries of a file as rows; the groups that `pattern` names in a header are further columns.

    Raises:
        SourceError: the file does not begin with >, or is in no encoding we know.
    """
    entry: _Entry | None = None
    for line in tables.placed_lines(path, encoding=encoding):
        text = line.text or ""
        if text.startswith(">"):
            if entry is not None:
                yield _row(entry, pattern)
            entry = _Entry(header=text[1:].strip(), line=line.number, start=line.start, stop=line.stop)
        elif entry is not None:
            entry.add(line)
        elif line.text is None or (text.strip() and not text.startswith((";", "#"))):
            raise SourceError("damaged", f"line {line.number}: FASTA must begin with >, but is {text[:30]!r}; mend it")
    if entry is not None:
        yield _row(entry, pattern)


def is_fasta(name: str) -> bool:
    """Says whether a name is that of a FASTA file."""
    return tables.suffix(Path(name)) in SUFFIXES


def header_cells(header: str) -> dict[str, str]:
    """Returns what a header says: id, description, organism and the like, NAME=value words, and the ids it names."""
    name, _, description = header.partition(" ")
    cells = {"id": name, "description": description.strip()}
    for key, value in _WORD.findall(header):
        cells[_NAMED.get(key, key.lower())] = value.strip()
    bracketed = _BRACKETS.search(description)
    if bracketed and "=" not in bracketed.group(1):
        cells.setdefault("organism", bracketed.group(1).strip())
    return {**cells, **_ids(name)}


def _ids(name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    if uniprot := _UNIPROT.match(name):
        return {"uniprot": uniprot.group(1), "entry": uniprot.group(2)}
    if uniref := _UNIREF.match(name):
        return {"uniref": uniref.group(1)}
    for database, identity, chain in _PIPED.findall(name):
        kind = _DATABASES[database]
        if kind != "local":
            found[kind] = f"{identity}_{chain}" if kind == "pdb" and chain else identity
    for kind, pattern in (("refseq", _REFSEQ), ("ensembl", _ENSEMBL)):
        if kind not in found and (known := pattern.match(name)):
            found[kind] = known.group(1)
    return found


@dataclass(kw_only=True)
class _Entry:
    """A header and what has been read below it."""

    header: str
    line: int
    start: int | None
    stop: int | None
    letters: int = 0
    parts: list[str] = field(default_factory=list)

    def add(self, line: Line) -> None:
        """Takes a further line; only counts it once there is too much."""
        self.stop = line.stop
        self.letters += _MOST_LETTERS if line.text is None else len(line.text)
        if line.text is not None and self.letters <= _MOST_LETTERS and not line.text.startswith(";"):
            self.parts.append(line.text.strip())


def _row(entry: _Entry, pattern: re.Pattern[str]) -> Row | Reject:
    where = f"line {entry.line}"
    if entry.letters > _MOST_LETTERS:
        error = UnusableError("too_large", f"must have at most {_MOST_LETTERS} letters, but has {entry.letters}")
        return reject(error, where=where, excerpt=entry.header)
    found = pattern.search(entry.header)
    groups = found.groupdict() if found else dict.fromkeys(pattern.groupindex)
    cells = {**header_cells(entry.header), **groups, "sequence": "".join(entry.parts)}
    known = entry.start is not None and entry.stop is not None
    return Row(where=where, cells=cells, offsets=(entry.start or 0, entry.stop or 0) if known else None)

"""Structures: the sequence of every chain of a PDB or mmCIF file, from SEQRES, and without it from the atoms."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from corpus.formats import pdbfile, tables
from corpus.formats.sequences import Alphabet
from corpus.formats.tables import Row
from corpus.modality import Reject, SourceError, UnusableError, reject

PDB = (".pdb", ".ent", ".pdb1")
MMCIF = (".cif", ".mmcif")
SUFFIXES = (*PDB, *MMCIF)
FACTS = ("structure", "title", "organism", "method", "resolution", "modified residues", "observed", "chain breaks")
ALPHABET, DATE = "alphabet of the chain", "date of the structure"  # columns that no table has
_WATER = frozenset({"HOH", "DOD", "WAT"})
_DNA = frozenset({"DA", "DC", "DG", "DT", "DI", "DU", "DN"})
_RNA = frozenset({"A", "C", "G", "U", "I", "N"})
_MORE = {"SEC": "U", "PYL": "O", "UNK": "X", "ASX": "B", "GLX": "Z", "XLE": "J"}
_UNKNOWN: dict[Alphabet, str] = {"protein": "X", "dna": "N", "rna": "N"}
_AMINO = "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL SEC PYL UNK ASX GLX"
_STANDARD = frozenset(_AMINO.split()) | _DNA | _RNA
_MOST_CHAINS = 10_000


@dataclass(kw_only=True)
class Structure:
    """What a structure file says: its facts, each chain's residues as deposited, and those seen in its atoms."""

    facts: dict[str, str] = field(default_factory=dict)
    date: str | None = None
    references: dict[str, str] = field(default_factory=dict)
    deposited: dict[str, list[str]] = field(default_factory=dict)
    observed: dict[str, dict[tuple[int, str], str]] = field(default_factory=dict)


def rows(path: Path, *, encoding: str | None) -> Iterator[Row | Reject]:
    """Yields one row for every different sequence of a structure, with the chains that have it.

    Raises:
        SourceError: the file is none, or holds no chain.
    """
    lines = tables.lines(path, encoding=encoding)
    read = pdbfile.read_pdb if tables.suffix(path) in PDB else pdbfile.read_mmcif
    structure = read(lines, Structure())
    chains = dict.fromkeys([*structure.deposited, *structure.observed])
    if len(chains) > _MOST_CHAINS:
        raise SourceError("too_large", f"must have at most {_MOST_CHAINS} chains, but has {len(chains)}")
    alike: dict[tuple[str, Alphabet], list[str]] = {}
    facts: dict[tuple[str, Alphabet], dict[str, str]] = {}
    for chain in chains:
        made = _chain(structure, chain)
        if made is not None:
            alike.setdefault(made[0], []).append(chain)
            facts.setdefault(made[0], made[1])
    if not alike:
        raise SourceError("no_chain", "must hold a chain of residues (SEQRES or ATOM), but has none; fetch it again")
    for (sequence, alphabet), names in alike.items():
        yield _row(structure, names, sequence, alphabet=alphabet, facts=facts[sequence, alphabet])


def _row(
    structure: Structure, names: list[str], sequence: str, *, alphabet: Alphabet, facts: Mapping[str, str]
) -> Row | Reject:
    called = f"{structure.facts.get('structure', '')} chain {', '.join(name or '-' for name in names[:20])}".strip()
    where = f"chain {names[0] or '-'}"
    if not set(sequence) - set("XN"):
        error = UnusableError("no_residues", "must have known residues, but all are unknown")
        return reject(error, where=where, excerpt=sequence[:60])
    cells: dict[str, Any] = {
        **structure.facts,
        **facts,
        "structure": called,
        "sequence": sequence,
        ALPHABET: alphabet,
        DATE: structure.date,
        "pdb": structure.facts.get("structure"),
        "uniprot": structure.references.get(names[0]),
    }
    return Row(where=where, cells=cells)


def _chain(structure: Structure, chain: str) -> tuple[tuple[str, Alphabet], dict[str, str]] | None:
    """Returns a chain's sequence with its alphabet, and what its atoms add; None for water, ions and ligands."""
    seen = structure.observed.get(chain, {})
    given = structure.deposited.get(chain)
    alphabet = _alphabet(given or seen.values())
    if alphabet is None:
        return None
    letters = _letters(alphabet)
    known = [name for name in seen.values() if name in letters]
    residues = given or known
    sequence = "".join(letters.get(name, _UNKNOWN[alphabet]) for name in residues)
    changed = [
        f"{name} {place} ({letters.get(name, _UNKNOWN[alphabet])})"
        for place, name in enumerate(residues, start=1)
        if name not in _STANDARD
    ]
    numbers = [number for (number, _), name in seen.items() if name in letters]
    breaks = [f"{left}-{right}" for left, right in pairwise(numbers) if right - left > 1]
    facts = {"modified residues": "; ".join(changed[:50]), "chain breaks": ", ".join(breaks[:50])}
    if given and seen:
        facts["observed"] = f"{len(known)} of {len(given)} residues"
    return (sequence, alphabet), facts


def _alphabet(residues: Iterable[str]) -> Alphabet | None:
    """Returns what most residues of a chain are; None where none is a residue."""
    names = [name for name in residues if name not in _WATER]
    proteins = _letters("protein")
    counts: dict[Alphabet, int] = {
        "protein": sum(name in proteins and name not in _RNA for name in names),
        "dna": sum(name in _DNA for name in names),
        "rna": sum(name in _RNA for name in names),
    }
    best = max(counts, key=lambda alphabet: counts[alphabet])
    return best if counts[best] else None


def _letters(alphabet: Alphabet) -> dict[str, str]:
    from Bio.Data import PDBData

    if alphabet == "protein":
        return {**_stripped(PDBData.protein_letters_3to1_extended), **_stripped(PDBData.protein_letters_3to1), **_MORE}
    wrong, right = ("U", "T") if alphabet == "dna" else ("T", "U")
    found = {**_stripped(PDBData.nucleic_letters_3to1_extended), **_stripped(PDBData.nucleic_letters_3to1)}
    return {name: right if letter == wrong else letter for name, letter in found.items()}


def _stripped(letters: Mapping[str, str]) -> dict[str, str]:
    return {name.strip(): letter for name, letter in letters.items()}

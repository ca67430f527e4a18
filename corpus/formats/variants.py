"""Variants of a protein: mutations such as A108D or p.Ala108Asp, and the sequence that they make of the wild type."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus.clean import is_missing
from corpus.formats import fasta
from corpus.formats.sequences import LETTERS, clean_sequence
from corpus.formats.tables import Row
from corpus.modality import SourceError, UnusableError

FROM_MUTATIONS = "from mutations"
COLUMNS = ("mutant", "variant", "mutation", "mutations", "mutants", "aamutations", "hgvspro", "aasubstitutions")
MUTATED = ("mutatedsequence", "mutantsequence", "mutantseq", "mutseq")
SCORES = ("dmsscore", "score", "fitness", "effect", "activity", "ddg", "target")
_NAMES = """ala arg asn asp cys gln glu gly his ile leu lys met phe pro ser thr trp tyr val sec pyl asx glx xaa ter"""
_THREE = dict(zip(_NAMES.split(), "ARNDCQEGHILKMFPSTWYVUOBZX*", strict=True))
_ONE = re.compile(r"([A-Z*])(\d{1,5})([A-Z*=-]|del|DEL)")
_LONG = re.compile(r"\(?([A-Za-z]{3})(\d{1,5})([A-Za-z]{3}|[=*-])\)?")
_CUT = re.compile(r"[,;:/+&\s]+")
_WILD = frozenset({"wt", "_wt", "wildtype", "wild-type", "wild type", "p.=", "p.(=)", "=", "_sy"})
_MOST = 40_000


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """One residue replaced; `new` is * for a stop and empty for a residue that is gone."""

    old: str
    place: int
    new: str


def mutations(text: str) -> list[Mutation]:
    """Returns the mutations of a cell, in the order written; none for the wild type.

    Raises:
        UnusableError: it is written in no form that we know: insertions, frame shifts, whole names.
    """
    given = text.strip()
    if given.casefold() in _WILD:
        return []
    bare = given.removeprefix("p.").strip("[]")
    found = [_mutation(part) for part in _CUT.split(bare) if part]
    if not found:
        raise UnusableError("mutation_form", "must name a mutation such as A108D, but is empty")
    places = [mutation.place for mutation in found]
    if len(set(places)) != len(places):
        raise UnusableError("mutation_twice", f"must change each residue once, but is {given[:60]!r}")
    return found


def mutate(wild_type: str, changes: Iterable[Mutation], *, offset: int) -> str:
    """Returns the wild type with the mutations made; residue 1 of a mutation is residue 1 + offset of the wild type.

    A stop ends the sequence behind it.

    Raises:
        UnusableError: the wild type has another residue there, or ends before.
    """
    residues = list(wild_type)
    for change in changes:
        place = change.place + offset
        if not 1 <= place <= len(residues):
            told = f"residue {change.place} must be in the wild type, but that is {place} of {len(residues)}"
            raise UnusableError("mutation_outside", f"{told}; mend wild_type: or offset:")
        found = wild_type[place - 1]
        if change.old not in (found, "X"):
            told = f"residue {change.place} of the wild type must be {change.old}, but is {found}"
            raise UnusableError("mutation_mismatch", f"{told}; mend wild_type: or offset:")
        residues[place - 1] = change.old if change.new == "=" else change.new
    made = "".join(residues)
    stop = made.find("*", 0, len(made) - 1)
    return made if stop < 0 or "*" in wild_type[:-1] else made[: stop + 1]


def check_mutated(sequence: str, changes: Iterable[Mutation], *, offset: int) -> None:
    """Refuses a mutated sequence that does not have its mutations.

    Raises:
        UnusableError: another residue is there.
    """
    changed = list(changes)
    if any(change.new in ("", "=") for change in changed):
        return  # what follows has moved, or nothing has changed
    for change in changed:
        place = change.place + offset
        found = sequence[place - 1] if 1 <= place <= len(sequence) else "none"
        if found != change.new:
            told = f"residue {change.place} must be {change.new} after the mutation, but is {found}"
            raise UnusableError("mutation_mismatch", f"{told}; mend offset:")


def wild_type(
    given: str, *, folder: Path, column: str | None, rows: Iterable[Mapping[str, Any]], offset: int = 0
) -> tuple[str, str, int]:
    """Returns the wild type that an option means, a line that says where it comes from, and the offset of its residues.

    `given` is a sequence, a FASTA file (its first entry; relative to `folder`), or "from mutations": the residues
    that the table's own mutations replace, X where none does; where they count from 0, so does the offset.

    Raises:
        SourceError: there is no such file, it holds no sequence, or two mutations name different residues.
    """
    if given == FROM_MUTATIONS:
        return _from_mutations(column, rows, offset)
    if fasta.is_fasta(given):
        name, sequence = _from_fasta(folder / os.path.expandvars(given))
        return sequence, f"wild type of {len(sequence)} residues from {name}", offset
    try:
        sequence = clean_sequence(given)
    except UnusableError as error:
        told = f"wild_type: must be a sequence, a FASTA file or {FROM_MUTATIONS!r}, but {error.reason}; mend it"
        raise SourceError("wild_type", told) from error
    return sequence, f"wild type of {len(sequence)} residues as given", offset


def _mutation(part: str) -> Mutation:
    if found := _ONE.fullmatch(part):
        old, place, new = found[1], int(found[2]), found[3]
    elif found := _LONG.fullmatch(part.removeprefix("p.")):
        old, place, new = _THREE.get(found[1].casefold(), "?"), int(found[2]), _long_new(found[3])
    else:
        raise UnusableError("mutation_form", f"must be a mutation such as A108D or p.Ala108Asp, but is {part[:40]!r}")
    new = "" if new.casefold() in ("-", "del") else new
    if old not in LETTERS["protein"] or (new not in LETTERS["protein"] and new != "="):
        raise UnusableError("mutation_form", f"must change an amino acid into another, but is {part[:40]!r}")
    return Mutation(old=old, place=place, new=new)


def _long_new(written: str) -> str:
    return written if written in ("=", "*", "-") or written.casefold() == "del" else _THREE.get(written.casefold(), "?")


def _from_mutations(column: str | None, rows: Iterable[Mapping[str, Any]], offset: int) -> tuple[str, str, int]:
    residues: dict[int, str] = {}
    for cells in rows:
        value = cells.get(column or "")
        for change in [] if is_missing(value) else _tried(str(value)):
            known = residues.setdefault(change.place, change.old)
            if known != change.old:
                told = f"residue {change.place} must be one amino acid, but mutations say {known} and {change.old}"
                raise SourceError("wild_type", f"{told}; give wild_type: as a sequence")
    offset += int(offset == 0 and 0 in residues)
    residues = {place + offset: residue for place, residue in residues.items()}
    most = max(residues, default=0)
    if not 0 < most <= _MOST:
        told = f"must have mutations of residues 1 to {_MOST}, but has {most or 'none'}; give wild_type: as a sequence"
        raise SourceError("wild_type", told)
    sequence = "".join(residues.get(place, "X") for place in range(1, most + 1))
    told = f"wild type of {most} residues from its mutations; {sequence.count('X')} unknown"
    return sequence, told + (f"; offset: {offset}" if offset else ""), offset


def _tried(text: str) -> list[Mutation]:
    try:
        return mutations(text)
    except UnusableError:
        return []  # its row will say so


def _from_fasta(path: Path) -> tuple[str, str]:
    try:
        first = next(iter(fasta.rows(path, encoding=None, pattern=re.compile(""))), None)
    except OSError as error:
        told = f"wild_type: must be a file, but {path.name} cannot be read ({error.strerror}); mend it"
        raise SourceError("wild_type", told) from error
    if not isinstance(first, Row):
        raise SourceError("wild_type", f"wild_type: must hold a sequence, but {path.name} holds none; mend it")
    try:
        return str(first.cells["id"]), clean_sequence(str(first.cells["sequence"]))
    except UnusableError as error:
        raise SourceError("wild_type", f"wild_type: must be a protein, but {error.reason}; mend {path.name}") from error

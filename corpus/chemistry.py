"""Chemistry: a SMILES checked and made canonical by RDKit, and SD files cut into molecules."""

import re
from collections.abc import Iterator

from rdkit import Chem, rdBase

from corpus.modality import UnusableError

_MAX_LENGTH = 2000
_MAX_ATOMS = 500
_STEREO = re.compile(r"[@/\\]|\[\d")
_CHARGE = re.compile(r"[+-]+(\d*)")
_ISOTOPE = re.compile(r"\[(\d+)")
_PROPERTY = re.compile(r"^>.*?<([^>]+)>")


def canonical(given: str) -> tuple[str, str]:
    """Returns a molecule's canonical SMILES and that of its skeleton (without stereochemistry and isotopes).

    Raises:
        UnusableError: the text is not one molecule that RDKit accepts; RDKit alone would read '' as no atoms,
            drop what follows a blank or a non-ASCII character, and wrap a charge of 9999999 to 127.
    """
    smiles = given.strip()
    _check_text(smiles)
    with rdBase.BlockLogs():
        molecule: Chem.Mol | None = Chem.MolFromSmiles(smiles)
        return _written(molecule if molecule is not None else _explain(smiles))


def canonical_block(block: str) -> tuple[str, str]:
    """Returns the same for one molecule of an SD file.

    Raises:
        UnusableError: RDKit does not accept it.
    """
    with rdBase.BlockLogs():
        molecule = Chem.MolFromMolBlock(block)
        if molecule is None:
            raise UnusableError("unparsable", "must be a mol block that RDKit reads, but is not")
        return _written(molecule)


def sd_entries(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields (mol block, its properties) of every entry of an SD file."""
    entry: list[str] = []
    for line in lines:
        if line.startswith("$$$$"):
            yield _entry(entry)
            entry = []
        else:
            entry.append(line.rstrip("\r\n"))
    if any(line.strip() for line in entry):
        yield _entry(entry)


def _entry(lines: list[str]) -> tuple[str, dict[str, str]]:
    end = next((number for number, line in enumerate(lines) if line.startswith("M  END")), len(lines) - 1)
    properties: dict[str, str] = {}
    name = ""
    for line in lines[end + 1 :]:
        found = _PROPERTY.match(line)
        if found:
            name = found.group(1)
            properties[name] = ""
        elif name and line.strip():
            properties[name] = f"{properties[name]} {line}".strip()
    return "\n".join(lines[: end + 1]), properties


def _check_text(smiles: str) -> None:
    if not smiles:
        raise UnusableError("empty", "must hold a SMILES, but is empty")
    if not smiles.isascii():
        raise UnusableError("non_ascii", "must be ASCII, but is not")
    if not smiles.isprintable() or " " in smiles:
        raise UnusableError("blank_or_control", "must hold no blanks or control characters, but does")
    if len(smiles) > _MAX_LENGTH:
        raise UnusableError("too_large", f"must have at most {_MAX_LENGTH} characters, but has {len(smiles)}")
    for bracket in re.findall(r"\[[^\]]*\]", smiles):
        _check_bracket(bracket)


def _check_bracket(bracket: str) -> None:
    """Keeps to OpenSMILES: charges of -15 to 15, isotopes of at most three digits."""
    charge = _CHARGE.search(bracket)
    if charge and (int(charge.group(1) or 1) > 15 or len(charge.group()) > 15):
        raise UnusableError("charge", f"must have charges from -15 to 15, but has {bracket[:30]}")
    isotope = _ISOTOPE.match(bracket)
    if isotope and len(isotope.group(1)) > 3:
        raise UnusableError("isotope", f"must have isotopes of at most 999, but has {bracket[:30]}")


def _written(molecule: Chem.Mol) -> tuple[str, str]:
    atoms = molecule.GetNumAtoms()
    if not 0 < atoms <= _MAX_ATOMS:
        code = "too_large" if atoms else "empty"
        raise UnusableError(code, f"must have 1 to {_MAX_ATOMS} heavy atoms, but has {atoms}")
    smiles = Chem.MolToSmiles(molecule)
    if not _STEREO.search(smiles):
        return smiles, smiles
    return smiles, Chem.MolToSmiles(molecule, isomericSmiles=False)


def _explain(smiles: str) -> Chem.Mol:
    molecule = Chem.MolFromSmiles(smiles, sanitize=False)
    if molecule is None:
        raise UnusableError("unparsable", "must be a SMILES that RDKit parses, but is not")
    try:
        Chem.SanitizeMol(molecule)
    except Chem.MolSanitizeException as error:
        raise UnusableError("impossible", f"must be a possible molecule, but {error}") from error
    return molecule

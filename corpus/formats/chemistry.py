"""Chemistry: a SMILES or a mol block checked and made canonical by RDKit."""

import re

from rdkit import Chem, rdBase

from corpus.modality import UnusableError

_MAX_LENGTH = 2000
_MAX_ATOMS = 500
_MAX_BLOCK = 200_000  # characters: 500 heavy atoms with all their hydrogens take half of it
_STEREO = re.compile(r"[@/\\]|\[\d")
_CHARGE = re.compile(r"[+-]+(\d*)")
_ISOTOPE = re.compile(r"\[(\d+)")
_HYDROGENS = re.compile(r"H\d\d")
_BRACKET = re.compile(r"\[[^\]]*\]")
_SELFIES = re.compile(r"(?=.*\[C\])(\[[^\[\]]+\]){2,}")
_RING = re.compile(r"([-=#$:/\\~]?)(%\(\d+\)|%\d\d|\d)")
_SLASHES = frozenset({"/", "\\", ""})
_PARTS_OF_POLYMERS = frozenset({"SRU", "MON", "MER", "COP", "CRO", "MOD", "GRA", "ANY"})


def canonical(given: str, *, wildcards: bool = False) -> tuple[str, str]:
    """Returns a molecule's canonical SMILES and that of its skeleton (without stereochemistry and isotopes).

    Salts and mixtures stay whole, radicals and coordinate bonds as they are written; atom maps, which number atoms
    for a reaction, are taken off.

    Raises:
        UnusableError: the text is not one molecule that RDKit accepts; RDKit alone would read '' as no atoms, drop
            what follows a blank or a non-ASCII character, wrap a charge of 9999999 to 127, and accept carbon of mass
            1, SELFIES, wildcards, unspecified bonds and rings opened with one bond and closed with another.
    """
    smiles = given.strip()
    _check_text(smiles)
    with rdBase.BlockLogs():
        molecule: Chem.Mol | None = Chem.MolFromSmiles(smiles)
        return _written(molecule if molecule is not None else _explain(smiles), wildcards=wildcards)


def canonical_block(block: str, *, wildcards: bool = False) -> tuple[str, str]:
    """Returns the same for one mol block, V2000 or V3000.

    Raises:
        UnusableError: RDKit does not accept it, or it is a query or part of a polymer.
    """
    if len(block) > _MAX_BLOCK:
        raise UnusableError("too_large", f"must have at most {_MAX_BLOCK} characters, but has {len(block)}")
    if "M  END" not in block:
        raise UnusableError("unparsable", "must be a mol block, but has no line M  END")
    with rdBase.BlockLogs():
        molecule = _from_block(block)
        if molecule is None:
            raise UnusableError("unparsable", "must be a mol block that RDKit reads, but is not")
        groups = {group.GetProp("TYPE") for group in Chem.GetMolSubstanceGroups(molecule) if group.HasProp("TYPE")}
        if groups & _PARTS_OF_POLYMERS:
            raise UnusableError("polymer", f"must be a molecule, but is a polymer ({', '.join(sorted(groups))})")
        return _written(molecule, wildcards=wildcards)


def _from_block(block: str) -> Chem.Mol | None:
    try:
        return Chem.MolFromMolBlock(block)
    except (RuntimeError, ValueError, UnicodeError) as error:
        raise UnusableError("unparsable", f"must be a mol block that RDKit reads, but {str(error)[:100]}") from error


def _check_text(smiles: str) -> None:
    if not smiles:
        raise UnusableError("empty", "must hold a SMILES, but is empty")
    if not smiles.isascii():
        raise UnusableError("non_ascii", "must be ASCII, but is not")
    if "|" in smiles:
        raise UnusableError("extended", "must be a plain SMILES, but has an extension |...|; write it without")
    if not smiles.isprintable() or " " in smiles:
        raise UnusableError("blank_or_control", "must hold no blanks or control characters, but does")
    if len(smiles) > _MAX_LENGTH:
        raise UnusableError("too_large", f"must have at most {_MAX_LENGTH} characters, but has {len(smiles)}")
    _check_kind(smiles)
    for bracket in _BRACKET.findall(smiles):
        _check_bracket(bracket)
    _check_rings(smiles)


def _check_kind(smiles: str) -> None:
    """Refuses what chemists write in other languages that look like SMILES."""
    if smiles.startswith(("InChI=", "1S/")):
        raise UnusableError("inchi", "must be a SMILES, but is an InChI; convert it (RDKit: MolFromInchi, MolToSmiles)")
    if ">" in smiles.replace("->", ""):
        raise UnusableError("reaction", "must be one molecule, but is a reaction (>)")
    if _SELFIES.fullmatch(smiles):
        raise UnusableError("selfies", "must be a SMILES, but is written like SELFIES; decode it")


def _check_bracket(bracket: str) -> None:
    """Keeps to OpenSMILES: charges of -15 to 15, isotopes of at most three digits, at most 9 hydrogens, no query."""
    charge = _CHARGE.search(bracket)
    if charge and (int(charge.group(1) or 1) > 15 or len(charge.group()) > 15):
        raise UnusableError("charge", f"must have charges from -15 to 15, but has {bracket[:30]}")
    isotope = _ISOTOPE.match(bracket)
    if isotope and len(isotope.group(1)) > 3:
        raise UnusableError("isotope", f"must have isotopes of at most 999, but has {bracket[:30]}")
    if _HYDROGENS.search(bracket):
        raise UnusableError("hydrogens", f"must have at most 9 hydrogens at an atom, but has {bracket[:30]}")
    if "#" in bracket:
        raise UnusableError("query", f"must be a molecule, but holds the pattern {bracket[:30]}")


def _check_rings(smiles: str) -> None:
    """Refuses a ring that is opened with one bond and closed with another; RDKit would take the second."""
    opened: dict[str, str] = {}
    for bond, ring in _RING.findall(_BRACKET.sub("*", smiles)):
        number = ring.strip("%()").lstrip("0") or "0"
        if number not in opened:
            opened[number] = bond
        elif (first := opened.pop(number)) != bond and bond and first and not {bond, first} <= _SLASHES:
            raise UnusableError("ring_bond", f"must close ring {number} with its own bond {first}, but has {bond}")


def _written(molecule: Chem.Mol, *, wildcards: bool) -> tuple[str, str]:
    atoms = molecule.GetNumAtoms()
    if not 0 < atoms <= _MAX_ATOMS:
        code = "too_large" if atoms else "empty"
        raise UnusableError(code, f"must have 1 to {_MAX_ATOMS} heavy atoms, but has {atoms}")
    for atom in molecule.GetAtoms():
        _check_atom(atom, wildcards=wildcards)
    smiles = Chem.MolToSmiles(molecule)
    outside = _BRACKET.sub("", smiles) if "~" in smiles or ":" in smiles else ""
    if "~" in outside or ":" in outside:
        bond = "an unspecified" if "~" in outside else "a lone aromatic"
        raise UnusableError("bond", f"must have bonds of a known order, but has {bond} one")
    if not _STEREO.search(smiles):
        return smiles, smiles
    return smiles, Chem.MolToSmiles(molecule, isomericSmiles=False)


def _check_atom(atom: Chem.Atom, *, wildcards: bool) -> None:
    """Takes off an atom map, and refuses what no atom can be."""
    protons, isotope, charge = atom.GetAtomicNum(), atom.GetIsotope(), atom.GetFormalCharge()
    if atom.HasProp("molAtomMapNumber"):
        atom.ClearProp("molAtomMapNumber")
    if atom.HasQuery() and "AtomOr" in atom.DescribeQuery():
        raise UnusableError("query", "must be a molecule, but holds a list of possible atoms")
    if protons == 0 and not wildcards:
        raise UnusableError("wildcard", "must name every atom, but has a wildcard (*); set wildcards: true to keep it")
    if protons and isotope and not protons <= isotope <= 3 * protons + 4:
        raise UnusableError("isotope", f"must have possible isotopes, but has {atom.GetSymbol()} of mass {isotope}")
    if protons and charge > protons:
        raise UnusableError("charge", f"must have electrons to lose, but has {atom.GetSymbol()} of charge {charge}")


def _explain(smiles: str) -> Chem.Mol:
    molecule = Chem.MolFromSmiles(smiles, sanitize=False)
    if molecule is None:
        raise UnusableError("unparsable", "must be a SMILES that RDKit parses, but is not")
    try:
        Chem.SanitizeMol(molecule)
    except Chem.MolSanitizeException as error:
        raise UnusableError("impossible", f"must be a possible molecule, but {error}") from error
    return molecule

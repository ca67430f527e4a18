"""Molecules: SMILES in tables, .smi and SD files; one symbol per glyph of the whole OpenSMILES language."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from corpus import annotations, tables
from corpus.entities import Chosen, EntityOptions, choose
from corpus.modality import Item, Record, Reject, UnusableError
from corpus.symbols import inside, names, symbol, tags
from corpus.tables import Row

SUFFIXES = (*tables.SUFFIXES, ".smi", ".smiles", ".sdf", ".sd")
_USUAL = (
    "molblock",
    "smiles",
    "canonicalsmiles",
    "isomericsmiles",
    "isosmiles",
    "mol",
    "molecule",
    "structure",
    "drug",
)
_ELEMENTS = """
    H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb
    Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au
    Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts
    Og
"""
_AROMATIC = ("b", "c", "n", "o", "p", "s", "se", "as", "te", "si")
_CHIRAL = ("@", "@@", "@TH", "@AL", "@SP", "@TB", "@OH")
_SIGNS = "()[].-=#$:/\\+*%~"
_DATIVE = {"->": "right", "<-": "left"}  # a name of a symbol holds no < and >
_GLYPHS = (*_ELEMENTS.split(), *_AROMATIC, *_CHIRAL, *_SIGNS, *"0123456789")
_TO_SYMBOL = {glyph: symbol("mol", _DATIVE.get(glyph, glyph)) for glyph in (*_GLYPHS, *_DATIVE)}
_TO_GLYPH = {name: glyph for glyph, name in _DATIVE.items()}
SCALE = "L2"
SYMBOLS = (*tags("molecule"), *_TO_SYMBOL.values())


def _pattern(glyphs: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(glyph) for glyph in sorted(glyphs, key=len, reverse=True)))


_BRACKET = re.compile(r"(\[[^\[\]]*\])")
_INSIDE = _pattern(_GLYPHS)  # Sc is scandium in brackets, and sulphur with an aromatic carbon outside
_OUTSIDE = _pattern([*"BCNOPSFI", "Cl", "Br", *"bcnops", *_SIGNS, *"0123456789", *_DATIVE])


class Options(EntityOptions):
    """How to read molecules."""


def read(path: Path, options: Options, /) -> Iterator[Item]:
    """Yields canonical molecules; a record's group is its skeleton, so that stereoisomers stay together."""
    kind = tables.suffix(path)
    if kind in (".sdf", ".sd"):
        rows = _sd_rows(path, options)
    elif kind in (".smi", ".smiles"):
        rows = _smi_rows(path, options)
    else:
        rows = tables.rows(path, options)
    yield from tables.records(rows, choose=lambda found: choose(found, options, usual=_USUAL), make=_record)


def render(content: Mapping[str, Any], /) -> str:
    """Writes <|molecule|>, a symbol per glyph, <|/molecule|> and the annotations."""
    opening, closing = tags("molecule")
    body = "".join(_TO_SYMBOL[glyph] for glyph in glyphs(content["smiles"]))
    return f"{opening}{body}{closing}{annotations.write(content['properties'])}"


def parse(rendered: str, /) -> dict[str, Any]:
    """Reads back what `render` wrote."""
    body, rest = inside(rendered, "molecule")
    smiles = "".join(_TO_GLYPH.get(name, name) for name in names(body))
    return {"smiles": smiles, "properties": annotations.read(rest)}


def glyphs(smiles: str) -> list[str]:
    """Cuts a SMILES in glyphs; bracket atoms fall apart in element, isotope, chirality, hydrogens and charge.

    Raises:
        UnusableError: it holds a character that no glyph has.
    """
    parts = _BRACKET.split(smiles)
    cut = [found for part in parts for found in (_INSIDE if part.startswith("[") else _OUTSIDE).findall(part)]
    if "".join(cut) != smiles:
        raise UnusableError("unknown_glyph", "must be written in OpenSMILES, but is not")
    return cut


def _record(row: Row, chosen: Chosen) -> Iterator[Record]:
    from corpus.chemistry import canonical, canonical_block

    given = tables.text_of(row.cells, chosen.column)
    smiles, skeleton = canonical_block(given) if "M  END" in given else canonical(given)
    glyphs(smiles)
    content = {"smiles": smiles, "properties": annotations.take(row.cells, chosen.properties)}
    yield Record(content=content, group=tables.group_of(row.cells, chosen.group, default=skeleton))


def _smi_rows(path: Path, options: Options) -> Iterator[Row | Reject]:
    for number, line in enumerate(tables.lines(path, encoding=options.encoding), start=1):
        words = line.split(maxsplit=1)
        if words and not (number == 1 and words[0].casefold() == "smiles"):
            yield Row(where=f"line {number}", cells={"smiles": words[0], "name": " ".join(words[1:]).strip()})


def _sd_rows(path: Path, options: Options) -> Iterator[Row | Reject]:
    from corpus.chemistry import sd_entries

    for number, (block, cells) in enumerate(sd_entries(tables.lines(path, encoding=options.encoding)), start=1):
        yield Row(where=f"entry {number}", cells={"mol block": block, **cells})

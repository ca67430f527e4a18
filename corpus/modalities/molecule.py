"""Molecules: SMILES in tables, .smi and SD files; one symbol per glyph of the whole OpenSMILES language."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from corpus import annotations
from corpus.entities import Chosen, EntityOptions, choose, first_column, labels, names_of
from corpus.formats import tables
from corpus.formats.tables import Row
from corpus.modality import Item, Record, Reject, SourceError, UnusableError, reject
from corpus.symbols import inside, names, symbol, tags

SUFFIXES = (*tables.SUFFIXES, ".smi", ".smiles", ".sdf", ".sd", ".mol")
_BLOCK = "mol block"
_COMMENTS = ("//", "#")  # of a line in a .smi file: no SMILES begins so
_USUAL = (
    "molblock",
    "smiles",
    "canonicalsmiles",
    "isomericsmiles",
    "isosmiles",
    "smilesstring",
    "standardizedsmiles",
    "compoundisosmiles",
    "ligandsmiles",
    "mol",
    "molecule",
    "structure",
    "drug",
)
_INCHI = ("inchi", "standardinchi", "inchistring")
_IDS = {
    "chembl": ("moleculechemblid", "chemblid", "compoundchemblid", "cmpdchemblid"),
    "cid": ("cid", "pubchemcid", "pubchemcompoundcid"),
    "inchikey": ("inchikey", "standardinchikey", "ligandinchikey"),
    "cas": ("cas", "casrn", "casnumber"),
    "unii": ("unii",),
    "dtxsid": ("dtxsid", "dsstoxsubstanceid"),
    "zinc": ("zincid",),
}
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
    """How to read molecules.

    Attributes:
        wildcards: keeps molecules with open places (*), such as the side chain of a polymer; they are refused else.
    """

    wildcards: bool = False


def read(path: Path, options: Options, /) -> Iterator[Item]:
    """Yields canonical molecules; a record's group is its skeleton, so that stereoisomers stay together."""

    def chosen(found: list[str]) -> Chosen:
        return _choose(found, options, path=path)

    def make(row: Row, columns: Chosen) -> Iterator[Record]:
        return _record(row, columns, wildcards=options.wildcards)

    yield from tables.records(_rows(path, options), choose=chosen, make=make)


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


def _choose(found: list[str], options: Options, *, path: Path) -> Chosen:
    inchi = first_column(found, _INCHI)
    if options.column is None and inchi and first_column(found, _USUAL) is None:
        told = f"must have a column with SMILES, but has only InChI ({inchi}); convert it with RDKit"
        raise SourceError("wrong_columns", told)

    def again() -> Iterator[Mapping[str, Any]]:
        return (row.cells for row in _rows(path, options) if isinstance(row, Row))

    return choose(found, options, usual=_USUAL, usual_ids=_IDS, rows=again)


def _record(row: Row, chosen: Chosen, *, wildcards: bool) -> Iterator[Record]:
    from corpus.formats.chemistry import canonical, canonical_block

    given = tables.text_of(row.cells, chosen.column)
    is_block = "M  END" in given or chosen.column == _BLOCK
    smiles, skeleton = (canonical_block if is_block else canonical)(given, wildcards=wildcards)
    glyphs(smiles)
    content = {"smiles": smiles, "properties": labels(row.cells, chosen)}
    group = tables.group_of(row.cells, chosen.group, default=skeleton)
    yield Record(content=content, group=group, ids=names_of(row.cells, chosen.ids))


def _rows(path: Path, options: Options) -> Iterator[Row | Reject]:
    kind = tables.suffix(path)
    if kind in (".sdf", ".sd", ".mol"):
        return _sd_rows(path, options)
    return _smi_rows(path, options) if kind in (".smi", ".smiles") else tables.rows(path, options)


def _smi_rows(path: Path, options: Options) -> Iterator[Row | Reject]:
    for line in tables.placed_lines(path, encoding=options.encoding):
        where, words = f"line {line.number}", (line.text or "").split(maxsplit=1)
        if line.text is None:
            yield reject(UnusableError("too_large", "must be a short line, but is not"), where=where, excerpt="")
        elif (
            words and not words[0].startswith(_COMMENTS) and not (line.number == 1 and words[0].casefold() == "smiles")
        ):
            smiles, rest = words[0], " ".join(words[1:]).strip()
            extended = rest.startswith("|")  # belongs to the SMILES, and is refused with it
            cells = {"smiles": f"{smiles} {rest}" if extended else smiles, "name": "" if extended else rest}
            yield Row(where=where, cells=cells, offsets=line.offsets)


def _sd_rows(path: Path, options: Options) -> Iterator[Row | Reject]:
    from corpus.formats import sdfile

    lines = tables.placed_lines(path, encoding=options.encoding)
    for number, entry in enumerate(sdfile.entries(lines), start=1):
        where = f"entry {number}"
        if entry.error is not None:
            yield reject(entry.error, where=where, excerpt=entry.properties)
        else:
            yield Row(where=where, cells={**entry.properties, _BLOCK: entry.block}, offsets=entry.offsets)

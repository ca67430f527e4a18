"""Chemistry: what RDKit would silently accept, decided case by case."""

import pytest
from rdkit import Chem

from corpus.formats.chemistry import canonical, canonical_block
from corpus.modality import UnusableError

REFUSED = {
    "CCO>>CC": ("reaction", "must be one molecule, but is a reaction"),
    "CCO|$x$|": ("extended", "must be a plain SMILES, but has an extension"),
    "InChI=1S/CH4/h1H4": ("inchi", "must be a SMILES, but is an InChI; convert it"),
    "[C][C][O]": ("selfies", "must be a SMILES, but is written like SELFIES; decode it"),
    "[C][=C][F]": ("selfies", "must be a SMILES"),
    "[#6]C": ("query", "must be a molecule, but holds the pattern"),
    "*CC": ("wildcard", r"must name every atom, but has a wildcard \(\*\); set wildcards: true to keep it"),
    "C~C": ("bond", "must have bonds of a known order, but has an unspecified one"),
    "C:C": ("bond", "must have bonds of a known order, but has a lone aromatic one"),
    "C-1CC=1": ("ring_bond", "must close ring 1 with its own bond -, but has ="),
    "C=%10CC-%10": ("ring_bond", "must close ring 10 with its own bond =, but has -"),
    "[1CH4]": ("isotope", "must have possible isotopes, but has C of mass 1"),
    "[999C]": ("isotope", "must have possible isotopes, but has C of mass 999"),
    "[H+5]": ("charge", "must have electrons to lose, but has H of charge 5"),
    "[FeH20]": ("hydrogens", "must have at most 9 hydrogens at an atom, but has"),
    "[C,N]": ("unparsable", "must be a SMILES that RDKit parses"),
    "[Uu]": ("unparsable", "must be a SMILES that RDKit parses"),
}
KEPT = {
    "[CH3:1][OH:2]": "CO",  # numbers of atoms in a reaction
    "[C:0]": "[C]",
    "[2H]O[2H]": "[2H]O[2H]",
    "[13CH3]C": "C[13CH3]",
    "[Cl].CCN": "CCN.[Cl]",  # a radical, as some tables write a chloride
    "C[CH2]": "[CH2]C",
    "[Na+].[Cl-]": "[Cl-].[Na+]",
    "N->[Cu]": "[NH3]->[Cu]",
    "C$C": "C$C",
    "C=1CC1": "C1=CC1",
    "F/C=C/1CCCC1": "FC=C1CCCC1",
    "C%(123)CC%(123)": "C1CC1",
    "[Uuo]": "[Og]",
}
HEAD = "\n  x\n\n"
V3000 = f"""{HEAD}  0  0  0     0  0            999 V3000
M  V30 BEGIN CTAB
M  V30 COUNTS 3 2 0 0 0
M  V30 BEGIN ATOM
M  V30 1 C 0 0 0 0
M  V30 2 C 1.5 0 0 0
M  V30 3 O 3 0 0 0
M  V30 END ATOM
M  V30 BEGIN BOND
M  V30 1 1 1 2
M  V30 2 1 2 3
M  V30 END BOND
M  V30 END CTAB
M  END
"""
BOND = "  1  2  {}  0\n"
TWO = "    0.0000    0.0000    0.0000 {} 0  0\n    1.5000    0.0000    0.0000 C   0  0\n"
V2000 = HEAD + "  2  1  0  0  0  0  0  0  0  0999 V2000\n" + TWO


@pytest.mark.parametrize(("smiles", "expected"), REFUSED.items())
def test_what_rdkit_would_accept_is_refused(smiles: str, expected: tuple[str, str]) -> None:
    with pytest.raises(UnusableError, match=expected[1]) as caught:
        canonical(smiles)
    assert caught.value.code == expected[0]


@pytest.mark.parametrize(("smiles", "written"), KEPT.items())
def test_what_is_kept(smiles: str, written: str) -> None:
    assert canonical(smiles)[0] == written


def test_a_wildcard_is_kept_where_it_is_wanted() -> None:
    assert canonical("*CC", wildcards=True)[0] == "*CC"


def test_mol_blocks_of_both_versions() -> None:
    assert canonical_block(V3000)[0] == "CCO"
    assert canonical_block(Chem.MolToMolBlock(Chem.MolFromSmiles("C[C@H](N)O")))[0] == "C[C@H](N)O"


@pytest.mark.parametrize(
    ("block", "code", "message"),
    [
        (V2000.format("C  ") + BOND.format(1), "unparsable", "must be a mol block, but has no line M  END"),
        (V2000.format("Xx ") + BOND.format(1) + "M  END\n", "unparsable", "must be a mol block that RDKit reads"),
        (V2000.format("R# ") + BOND.format(1) + "M  END\n", "wildcard", "must name every atom"),
        (
            V2000.format("L  ") + BOND.format(1) + "M  ALS   1  2 F C   N   \nM  END\n",
            "query",
            "a list of possible atoms",
        ),
        (V2000.format("C  ") + BOND.format(8) + "M  END\n", "bond", "but has an unspecified one"),
        (
            V2000.format("C  ") + BOND.format(1) + "M  STY  1   1 SRU\nM  SAL   1  2   1   2\nM  END\n",
            "polymer",
            r"must be a molecule, but is a polymer \(SRU\)",
        ),
        ("x" * 300_000, "too_large", "must have at most 200000 characters, but has 300000"),
        (f"{HEAD}  0  0  0  0  0  0  0  0  0  0999 V2000\nM  END\n", "empty", "must have 1 to 500 heavy atoms"),
    ],
)
def test_what_is_no_molecule_in_a_mol_block(block: str, code: str, message: str) -> None:
    with pytest.raises(UnusableError, match=message) as caught:
        canonical_block(block)
    assert caught.value.code == code

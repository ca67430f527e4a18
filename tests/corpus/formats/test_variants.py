"""Variants: every way to write a mutation, and wild types of every origin."""

from pathlib import Path

import pytest

from corpus.formats.variants import FROM_MUTATIONS, Mutation, mutate, mutations, wild_type
from corpus.modality import SourceError, UnusableError


@pytest.mark.parametrize(
    ("written", "found"),
    [
        *(("A108D", [("A", 108, "D")]), ("p.Ala108Asp", [("A", 108, "D")]), ("p.(Ala108Asp)", [("A", 108, "D")])),
        *(("A1G:L2V", [("A", 1, "G"), ("L", 2, "V")]), ("p.[Ala1Gly;Leu2Val]", [("A", 1, "G"), ("L", 2, "V")])),
        *(("Q5*", [("Q", 5, "*")]), ("p.Gln5Ter", [("Q", 5, "*")]), ("A3del", [("A", 3, "")]), ("A3-", [("A", 3, "")])),
        *(
            ("p.Ala5=", [("A", 5, "=")]),
            ("WT", []),
            ("p.=", []),
            ("_wt", []),
            ("A1G L2V", [("A", 1, "G"), ("L", 2, "V")]),
        ),
    ],
)
def test_how_mutations_are_written(written: str, found: list[tuple[str, int, str]]) -> None:
    assert [(one.old, one.place, one.new) for one in mutations(written)] == found


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("", "must name a mutation such as A108D, but is empty"),
        ("insertion", "must be a mutation such as A108D or p.Ala108Asp, but is 'insertion'"),
        ("p.Met1fs", "must be a mutation such as A108D or p.Ala108Asp, but is 'Met1fs'"),
        ("A5G,A5V", "must change each residue once, but is 'A5G,A5V'"),
        ("p.Abc5Gly", "must change an amino acid into another, but is 'Abc5Gly'"),
    ],
)
def test_what_is_no_mutation(written: str, message: str) -> None:
    with pytest.raises(UnusableError, match=message.replace(".", r"\.") if "such" in message else message):
        mutations(written)


def test_deletions_and_unknown_residues() -> None:
    assert mutate("MKT", [Mutation(old="K", place=2, new="")], offset=0) == "MT"
    assert mutate("MKT", [Mutation(old="X", place=1, new="R")], offset=1) == "MRT"
    with pytest.raises(
        UnusableError, match="residue 2 of the wild type must be A, but is K; mend wild_type: or offset:"
    ):
        mutate("MKT", [Mutation(old="A", place=2, new="G")], offset=0)


def test_wild_types_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty.fasta").write_text(";nothing\n")
    (tmp_path / "dna.fasta").write_text(">a\n" + "ACGT" * 20)
    cases = {
        "M1K": "wild_type: must be a sequence, a FASTA file or 'from mutations', but must hold only",
        "gone.fasta": "wild_type: must be a file, but gone.fasta cannot be read",
        "empty.fasta": "wild_type: must hold a sequence, but empty.fasta holds none",
        "dna.fasta": "wild_type: must be a protein, but must be amino acids",
    }
    for given, message in cases.items():
        with pytest.raises(SourceError, match=message):
            wild_type(given, folder=tmp_path, column="m", rows=[])
    with pytest.raises(SourceError, match="residue 1 must be one amino acid, but mutations say M and A"):
        wild_type(FROM_MUTATIONS, folder=tmp_path, column="m", rows=[{"m": "M1K"}, {"m": "A1K"}])
    with pytest.raises(SourceError, match="must have mutations of residues 1 to 40000, but has none"):
        wild_type(FROM_MUTATIONS, folder=tmp_path, column="m", rows=[{"m": ""}, {"m": "x"}])

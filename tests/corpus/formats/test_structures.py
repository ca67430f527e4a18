"""Structures: PDB and mmCIF, deposited residues and those of atoms, modified ones, DNA, breaks, damage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corpus.modality import SourceError

Read = Callable[..., Any]

HEADER = """HEADER    HYDROLASE                               03-AUG-86   1ABC
TITLE     A PROTEIN
TITLE    2 WITH A LONG TITLE
SOURCE    MOL_ID: 1; ORGANISM_SCIENTIFIC: HOMO SAPIENS;
EXPDTA    X-RAY DIFFRACTION
REMARK   2 RESOLUTION.    1.80 ANGSTROMS.
DBREF  1ABC A    1     4  UNP    P04637   P53_HUMAN        1      4
"""
SEQRES = """SEQRES   1 A    4  MSE LYS UNK SEC
SEQRES   1 B    4  MSE LYS UNK SEC
SEQRES   1 C    3   DA  DT  DN
SEQRES   1 D    2  HOH HOH
"""


def _atom(kind: str, name: str, chain: str, *, number: int, code: str = " ") -> str:
    return (
        f"{kind:<6}    1  CA  {name:>3} {chain}{number:>4}{code}      0.000   0.000   0.000  1.00  0.00           C\n"
    )


def test_deposited_residues(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.pdb"
    path.write_text(HEADER + SEQRES + _atom("HETATM", "MSE", "A", number=1) + _atom("ATOM", "LYS", "A", number=2))
    found = read("protein", path)
    protein, dna = found.records
    assert protein.content == {
        "sequence": "MKXU",
        "properties": {
            "structure": "1ABC chain A, B",
            "title": "A PROTEIN WITH A LONG TITLE",
            "organism": "HOMO SAPIENS",
            "method": "X-RAY DIFFRACTION",
            "resolution": "1.80 ANGSTROMS",
            "modified residues": "MSE 1 (M)",
            "observed": "2 of 4 residues",
        },
    }
    assert (protein.ids, protein.date, protein.where) == (("uniprot:P04637", "pdb:1ABC"), "1986-08-03", "chain A")
    assert (dna.content["alphabet"], dna.content["sequence"]) == ("dna", "ATN")


def test_residues_of_atoms(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.ent"
    atoms = [
        *(_atom("ATOM", name, "A", number=number) for name, number in (("GLY", 1), ("GLY", 1), ("ALA", 2), ("TRP", 9))),
        _atom("ATOM", "TRP", "A", number=9, code="A"),
        *(_atom("HETATM", name, "A", number=number) for name, number in (("SEP", 10), ("HOH", 500), ("ATP", 501))),
        _atom("ATOM", "U", "R", number=1),
        _atom("ATOM", "PSU", "R", number=2),
        "ENDMDL\n",
        _atom("ATOM", "LYS", "A", number=99),
    ]
    path.write_text("".join(atoms))
    found = read("protein", path, properties={"breaks": "chain breaks", "changed": "modified residues"})
    assert [record.content for record in found.records] == [
        {"sequence": "GAWWS", "properties": {"breaks": "2-9", "changed": "SEP 5 (S)"}},
        {"alphabet": "rna", "sequence": "UU", "properties": {"changed": "PSU 2 (U)"}},
    ]


CIF = """data_1ABC
_entry.id 1ABC
_struct.title 'a title'
_exptl.method 'X-RAY DIFFRACTION'
_refine.ls_d_res_high 2.1
_pdbx_database_status.recvd_initial_deposition_date 2016-08-03
_entity_src_gen.pdbx_gene_src_scientific_name 'Homo sapiens'
loop_
_struct_ref.db_name
_struct_ref.pdbx_db_accession
UNP P04637
loop_
_entity_poly.entity_id
_entity_poly.pdbx_strand_id
1 A,B
loop_
_pdbx_poly_seq_scheme.asym_id
_pdbx_poly_seq_scheme.seq_id
_pdbx_poly_seq_scheme.mon_id
_pdbx_poly_seq_scheme.pdb_strand_id
A 1 MSE A
A 2 LYS A
A 2 ARG A
A 3 THR A
B 1 MSE B
B 2 LYS B
B 3 THR B
#
"""
SITES = """loop_
_atom_site.group_PDB
_atom_site.label_atom_id
_atom_site.label_comp_id
_atom_site.auth_seq_id
_atom_site.auth_asym_id
_atom_site.pdbx_PDB_model_num
HETATM CA MSE 1 A 1
ATOM   CA LYS 2 A 1
ATOM   CB LYS 2 A 1
ATOM   CA THR 7 A 1
ATOM   CA TRP 8 A 2
ATOM   "C1'" DG 1 Q 1
"""


def test_mmcif(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.cif"
    path.write_text(CIF + SITES)
    protein, dna = read("protein", path).records
    assert protein.content["sequence"] == "MKT"
    assert protein.content["properties"] == {
        "structure": "1ABC chain A, B",
        "title": "a title",
        "organism": "Homo sapiens",
        "method": "X-RAY DIFFRACTION",
        "resolution": "2.1 ANGSTROMS",
        "modified residues": "MSE 1 (M)",
        "observed": "3 of 3 residues",
        "chain breaks": "2-7",
    }
    assert (protein.ids, protein.date) == (("uniprot:P04637", "pdb:1ABC"), "2016-08-03")
    assert (dna.content["alphabet"], dna.content["sequence"]) == ("dna", "G")


def test_mmcif_with_atoms_or_entities_only(tmp_path: Path, read: Read) -> None:
    atoms, entities = tmp_path / "a.cif", tmp_path / "b.cif"
    atoms.write_text("data_x\n" + SITES)
    assert [record.content["sequence"] for record in read("protein", atoms).records] == ["MKT", "G"]
    rows = "loop_\n_entity_poly_seq.entity_id\n_entity_poly_seq.num\n_entity_poly_seq.mon_id\n1 1 GLY\n1 2 ALA\n"
    entities.write_text(f"data_x\n{rows}loop_\n_struct_asym.id\n_struct_asym.entity_id\nA 1\nB 2\n")
    assert [record.content["sequence"] for record in read("protein", entities).records] == ["GA"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.cif", "hello\n", "must be mmCIF, but .*data_"),
        ("a.cif", "data_x\n_struct.title 'open\n", "must be mmCIF, but Line ended with quote open"),
        ("a.pdb", "REMARK   1 nothing\n", r"must hold a chain of residues \(SEQRES or ATOM\), but has none"),
    ],
)
def test_what_is_no_structure(tmp_path: Path, read: Read, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=message):
        read("protein", tmp_path / name)


def test_too_many_chains_and_lines(tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpus.formats.structures._MOST_CHAINS", 1)
    path = tmp_path / "a.pdb"
    path.write_text(SEQRES)
    with pytest.raises(SourceError, match="must have at most 1 chains, but has 4"):
        read("protein", path)
    monkeypatch.setattr("corpus.formats.pdbfile._MOST_ROWS", 1)
    for name, text in (("a.pdb", SEQRES), ("a.cif", CIF)):
        (tmp_path / name).write_text(text)
        with pytest.raises(SourceError, match="must have at most 1 lines, but has more; split it"):
            read("protein", tmp_path / name)


def test_unknown_residues_only(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.pdb"
    path.write_text("SEQRES   1 A    2  UNK UNK\n")
    assert read("protein", path).codes() == ["no_residues"]


def test_the_shared_structure(read: Read, real: Callable[[str], Path]) -> None:
    found = read("protein", real("../shared/data/proteins/5L33.pdb"))
    assert [len(record.content["sequence"]) for record in found.records] == [108]
    assert found.records[0].content["properties"]["observed"] == "106 of 108 residues"

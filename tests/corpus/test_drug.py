"""Drugs: pairs with spans of molecules and proteins, ATC and NDC tables, facts, and which table is what."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.formats.chemistry import canonical
from corpus.modalities.drug import parse, render
from corpus.modality import SourceError

Read = Callable[..., Any]

SPANS = st.one_of(
    st.sampled_from([["molecule", canonical(smiles)[0]] for smiles in ("OCC", "N->[Cu]", "[Na+].[Cl-]", "C[C@H](N)O")]),
    st.text(alphabet="ACDEFGHIKLMNPQRSTVWY*", min_size=1).map(lambda sequence: ["protein", sequence]),
)
LINES = st.text(alphabet="abc: <|>é한\n", min_size=1).map(str.strip).filter(lambda line: line and "<|" not in line)


@given(st.lists(SPANS, max_size=3), st.lists(LINES, max_size=2), st.dictionaries(st.just("kind"), st.just("a: b")))
def test_every_document_comes_back(spans: list[list[str]], texts: list[str], facts: dict[str, str]) -> None:
    content: dict[str, Any] = {"facts": facts, "sections": [["title: x", text] for text in texts]}
    content |= {"spans": spans} if spans else {}
    assert parse(render(content)) == content


def test_words_of_a_text_file(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "dti.txt"
    path.write_text(
        "OCC MKTAYIAKQRQISFVKSHFSRQ 7.36500000001\n\nC1 MKTAYIAKQRQISFVKSHFSRQ 1\nCC MKTAYIAKQRQISFVKSHFSRQ\n"
    )
    found = read("drug", path)
    assert [record.content for record in found.records] == [
        {
            "facts": {"kind": "drug-target pair", "label": "7.365"},
            "sections": [],
            "spans": [["molecule", "CCO"], ["protein", "MKTAYIAKQRQISFVKSHFSRQ"]],
        }
    ]
    assert found.records[0].group == "CCO"
    assert [(item.where, item.code) for item in found.rejects] == [("line 3", "unparsable"), ("line 4", "ragged_row")]
    path.write_text("smiles1 smiles2\nOCC CC\n")
    assert read("drug", path).records[0].content["spans"] == [["molecule", "CCO"], ["molecule", "CC"]]


def test_a_table_of_affinities(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(
        "Ligand SMILES\tBindingDB Target Chain Sequence\tKi (nM)\tIC50 (nM)\tPubChem CID of Ligand\tname\n"
        "OCC\tMKTAYI\t >10000\t\t702\tethanol\nCC\tMKTAYI\t\t\t\t\nCC\tMK1\t5\t\t\t\n"
    )
    found = read("drug", path, facts={"name": "name"}, about={"source": "x"})
    assert found.records[0].content["facts"] == {
        "kind": "drug-target pair",
        "Ki (nM)": ">10000",
        "source": "x",
        "name": "ethanol",
    }
    assert found.records[0].ids == ("cid:702",)
    assert [(item.where, item.code) for item in found.rejects] == [
        ("line 3", "no_label"),
        ("line 4", "unknown_residue"),
    ]
    assert found.rejects[0].reason == "must have a label (Ki (nM), IC50 (nM)), but has none"


def test_named_columns_and_groups(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text("left,right,effect,family\nOCC,CC,nausea,f\n")
    wanted = {"drug": "left", "second": "right", "label": "effect"}
    (record,) = read("drug", path, kind="pairs", columns=wanted, group="family").records
    assert (record.content["facts"], record.group) == ({"kind": "drug-drug pair", "effect": "nausea"}, "f")
    with pytest.raises(SourceError, match=r"must have a column with SMILES, and one with proteins .*; set columns:"):
        read("drug", path, kind="pairs")


def test_atc_codes_know_the_groups_above(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "atc.csv"
    path.write_text(
        "ATC code,ATC level name,level,DDD,UOM,Adm.R\nA10BA02,metformin,5,2,g,O\nA,ALIMENTARY TRACT,1,NA,NA,NA\n"
        "A10BA,Biguanides,4,,,\nA1,x,1,,,\nB01,y,1,,,\nB02,,2,,,\n"
    )
    found = read("drug", path)
    assert found.records[0].content["facts"] == {
        "ATC": "A10BA02",
        "name": "metformin",
        "level": "5, substance",
        "anatomical group": "ALIMENTARY TRACT",
        "chemical group": "Biguanides",
        "defined daily dose": "2 g",
    }
    assert (found.records[0].ids, found.records[0].group) == (("atc:A10BA02",), "atc:A10BA")
    assert [(item.where, item.code) for item in found.rejects] == [
        ("line 5", "atc_code"),
        ("line 6", "atc_level"),
        ("line 7", "no_name"),
    ]
    path.write_text("key,word\n1,x\n")
    with pytest.raises(SourceError, match="must have a column code, but has key, word; set columns:"):
        read("drug", path, kind="atc")
    found = read("drug", path, kind="atc", columns={"code": "key", "name": "word"})
    assert found.rejects[0].reason == "must be an ATC code such as A10BA02, but is '1'"


def test_products_and_links(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "product.txt"
    path.write_text("PRODUCTID\tPRODUCTNDC\tPROPRIETARYNAME\tDEASCHEDULE\n1\t0002-0800\tZolgin\t\n")
    (record,) = read("drug", path).records
    assert (record.content["facts"], record.ids) == ({"name": "Zolgin", "NDC": "0002-0800"}, ("ndc:0002-0800",))
    path.write_text("PRODUCTNDC\tNDCPACKAGECODE\tPACKAGEDESCRIPTION\n0002-0800\t0002-0800-01\t1 VIAL (0002-0800-01)\n")
    (record,) = read("drug", path).records
    assert record.content["facts"] == {"NDC": "0002-0800", "package": "1 VIAL (0002-0800-01)"}
    path = tmp_path / "links.csv"
    path.write_text("rxcui,atc_code\n1,A10BA02\n,\n")
    found = read("drug", path)
    assert found.records[0].content["facts"] == {"rxcui": "1", "atc code": "A10BA02"}
    assert found.codes() == ["empty"]
    found = read("drug", path, facts={"ATC": 1}, about={"source": "x"}, group="rxcui")
    assert (found.records[0].content["facts"], found.records[0].group) == ({"source": "x", "ATC": "A10BA02"}, "1")


def test_a_table_of_nothing_we_know(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(
        SourceError, match="must have columns of pairs, concentrations or drug codes, but has a, b; set"
    ):
        read("drug", path)


@pytest.mark.parametrize(
    ("name", "options", "records"),
    [
        ("drug_target/ddi.txt", {}, 50),
        ("drug_target/dti.txt", {}, 2),
        ("drug_labels/sections.csv", {"facts": {"label section": 0}, "header": False, "delimiter": "\t"}, 88),
    ],
)
def test_the_shared_tables(
    name: str, options: dict[str, Any], records: int, read: Read, real: Callable[[str], Path]
) -> None:
    found = read("drug", real(f"../shared/data/{name}"), **options)
    assert (len(found.records), found.rejects) == (records, [])

"""Proteins: FASTA and tables, every reason to reject one, and sequences that come back from their symbols."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from corpus.formats.sequences import LETTERS, clean_sequence
from corpus.modalities.protein import SYMBOLS, Options, parse, render
from corpus.modality import SourceError, UnusableError
from corpus.symbols import SYMBOL

Read = Callable[..., Any]


@given(st.text(alphabet="ACDEFGHIKLMNPQRSTVWYBZXUOJ*", min_size=1), st.dictionaries(st.just("class"), st.just("a: b")))
def test_every_protein_comes_back_from_its_symbols(sequence: str, properties: dict[str, str]) -> None:
    content = {"sequence": sequence, "properties": properties}
    assert parse(render(content)) == content


@pytest.mark.parametrize(
    ("given_sequence", "code"),
    [
        ("", "empty"),
        ("--..", "empty"),
        ("MKT1", "unknown_residue"),
        ("MKÄ", "unknown_residue"),
        ("M\x00K", "unknown_residue"),
        ("M" * 40_001, "too_large"),
        ("ACGT" * 10, "nucleotides"),
        ("CCCEEEHHHC" * 5, "secondary_structure"),
        ("CCCHHHHHHC" * 5, "secondary_structure"),
        ("acguNNNN" * 5, "nucleotides"),
    ],
)
def test_what_is_no_protein_is_rejected(given_sequence: str, code: str) -> None:
    with pytest.raises(UnusableError, match=f"^{code}: must"):
        clean_sequence(given_sequence)


def test_an_alignment_is_read_without_its_gaps() -> None:
    assert clean_sequence("mkt--LL..ayI*") == "MKTLLAYI*"


@pytest.mark.parametrize("suffix", [".fasta", ".fa", ".faa", ".a2m", ".fasta.gz"])
def test_fasta(tmp_path: Path, read: Read, suffix: str) -> None:
    content = b"; a comment\n\n>P1|1.5 first one\nMKT\nll-a\n\n>P2|x\n>P3|2 third\nM1\n"
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    wanted = {"score": "score", "about": "description"}
    found = read("protein", path, header_pattern=r"\|(?P<score>[\d.]+)", properties=wanted)
    assert [record.content for record in found.records] == [
        {"sequence": "MKTLLA", "properties": {"score": "1.5", "about": "first one"}}
    ]
    assert [(item.where, item.code) for item in found.rejects] == [("line 7", "empty"), ("line 8", "unknown_residue")]


def test_what_is_no_fasta_is_refused(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.fasta"
    path.write_text("MKT\n>P1\nMKT\n")
    with pytest.raises(SourceError, match=r"line 1: FASTA must begin with >, but is 'MKT.n'; mend it"):
        read("protein", path)


def test_a_bad_header_pattern_is_refused() -> None:
    with pytest.raises(ValidationError, match="must be a regular expression, but missing"):
        Options(header_pattern="(")


def test_tables_and_groups(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Target_Seq,family\nMKT,a\nmka,a\n,b\nNAN,\n")
    found = read("protein", path, group="family")
    assert [(record.content["sequence"], record.group) for record in found.records] == [
        ("MKT", "a"),
        ("MKA", "a"),
        ("NAN", "NAN"),
    ]
    assert found.codes() == ["empty"]


def test_the_demo_peptides_are_read_whole(read: Read, real: Callable[[str], Path]) -> None:
    path = real(".demo-data/modlamp/data/AMPvsUniProt.csv")
    wanted = {"antimicrobial": {"column": 1, "values": {"1": "yes", "0": "no"}}}
    found = read("protein", path, skip_lines=1, header=False, column=0, properties=wanted)
    assert (len(found.records), found.rejects) == (5200, [])
    answers = [record.content["properties"]["antimicrobial"] for record in found.records]
    assert (answers.count("yes"), answers.count("no")) == (2600, 2600)


@given(st.sampled_from(["dna", "rna"]), st.data())
def test_nucleotides_have_tags_of_their_own(alphabet: Any, data: st.DataObject) -> None:
    sequence = data.draw(st.text(alphabet=LETTERS[alphabet], min_size=1))
    content = {"alphabet": alphabet, "sequence": sequence, "properties": {"gene": "TP53"}}
    rendered = render(content)
    assert parse(rendered) == content
    assert rendered.startswith(f"<|{alphabet}|><|nt:{sequence[0]}|>")
    assert set(SYMBOL.findall(rendered)) <= set(SYMBOLS)


def test_dna_and_rna_in_fasta(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.fna"
    path.write_text(f">a\nacgtnRY\n>b\nACGU\n>c\n{'A' * 50}\n")
    dna, rna = read("protein", path, alphabet="dna"), read("protein", path, alphabet="rna")
    assert [record.content["sequence"] for record in dna.records] == ["ACGTNRY", "A" * 50]
    assert [record.content["sequence"] for record in rna.records] == ["ACGU", "A" * 50]
    assert dna.rejects[0].reason == "must hold only ACGTRYSWKMBDHVN, but has 'U' at 4"
    assert read("protein", path).codes() == ["nucleotides"]


def test_headers_give_ids_and_the_organism(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.fasta"
    path.write_text(
        ">sp|P04637|P53_HUMAN Cellular tumor antigen p53 OS=Homo sapiens OX=9606 GN=TP53 PE=1 SV=4\nMEEPQ\n"
        ">NP_000537.3 cellular tumor antigen p53 isoform a [Homo sapiens]\nMEEPR\n"
        ">Sequence0 TARGET=1.4459050863 SET=train VALIDATION=False\nMEEPS\n"
    )
    found = read("protein", path, score="target", properties={"gene": "gene", "set": "set"})
    assert [(record.ids, record.content["properties"]) for record in found.records] == [
        (("uniprot:P04637",), {"organism": "Homo sapiens", "gene": "TP53"}),
        (("refseq:NP_000537.3",), {"organism": "Homo sapiens"}),
        ((), {"score": "1.44591", "set": "train"}),
    ]
    assert found.records[1].offsets == (96, 167)


def test_variants_with_their_sequences(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "mutant,mutated_sequence,DMS_score,DMS_score_bin\n"
        "M1A:K2R,ART,-0.123456789,0\nT3V,MKT,1,1\nMKTA,MKTA,2,1\nK2E,MET,,1\n"
    )
    found = read("protein", path, tasks=["DMS_score_bin"])
    assert [(record.content["sequence"], record.content["properties"]) for record in found.records] == [
        ("ART", {"mutation": "M1A:K2R", "score": "-0.123457", "DMS score bin": "0"}),
        ("MKTA", {"score": "2", "DMS score bin": "1"}),  # a table of insertions repeats the sequence
        ("MET", {"mutation": "K2E", "DMS score bin": "1"}),
    ]
    assert [record.group for record in found.records] == ["residues 1,2", "MKTA", "residues 2"]
    assert [(item.where, item.reason) for item in found.rejects] == [
        ("line 3", "residue 3 must be V after the mutation, but is T; mend offset:")
    ]


def test_mutations_need_a_wild_type(tmp_path: Path, read: Read) -> None:
    path, fasta = tmp_path / "a.tsv", tmp_path / "wild.fasta"
    path.write_text("variant\tscore\nK2R,T3*\t0.5\nWT\t1\nA2R\t2\nK9R\t3\n")
    fasta.write_text(">x|P1 first\nGMKTAY\n")
    with pytest.raises(
        SourceError, match=r"has only mutations \(variant\); set wild_type: to a sequence, a FASTA file"
    ):
        read("protein", path)
    found = read("protein", path, wild_type="wild.fasta", offset=1, digits=2)
    assert [record.content for record in found.records] == [
        {"sequence": "GMR*", "properties": {"mutation": "K2R,T3*", "score": "0.5"}},
        {"sequence": "GMKTAY", "properties": {"mutation": "WT", "score": "1"}},
    ]
    assert found.notes[0].text == "wild type of 6 residues from x|P1"
    assert [(item.where, item.code) for item in found.rejects] == [
        ("line 4", "mutation_mismatch"),
        ("line 5", "mutation_outside"),
    ]


def test_a_wild_type_from_the_mutations(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("variant\tscore\nK2R\t0.5\nM1A,Y5F\t1\n")
    found = read("protein", path, wild_type="from mutations")
    assert [record.content["sequence"] for record in found.records] == ["MRXXY", "AKXXF"]
    assert found.notes[0].text == "wild type of 5 residues from its mutations; 2 unknown"


@pytest.mark.parametrize(("rows", "options"), [("I0L\nE1K,K2R\n", {}), ("I5L\nE6K,K7R\n", {"offset": -4})])
def test_mutations_may_count_from_another_number_than_one(
    tmp_path: Path, read: Read, rows: str, options: dict[str, Any]
) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(f"variant\n{rows}")
    found = read("protein", path, wild_type="from mutations", **options)
    assert [record.content["sequence"] for record in found.records] == ["LEK", "IKR"]
    assert (
        found.notes[0].text
        == f"wild type of 3 residues from its mutations; 0 unknown; offset: {options.get('offset', 1)}"
    )


def test_a_wild_type_without_mutations(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.csv"
    path.write_text("sequence,y\nMKT,1\n")
    with pytest.raises(SourceError, match="must have a column mutant, variant, mutation or so, but has sequence, y"):
        read("protein", path, wild_type="MKT")
    with pytest.raises(ValidationError, match="must be left out where wild_type: is given"):
        Options(wild_type="MKT", column="sequence")


def test_the_shared_variants(read: Read, real: Callable[[str], Path]) -> None:
    table = real("../shared/data/proteins/BLAT_ECOLX_Ranganathan2015.csv")
    found = read("protein", table, wild_type="P62593.fasta", score="2500")
    assert (len(found.records), found.rejects) == (4996, [])
    assert found.records[0].content["properties"] == {"mutation": "H24C", "score": "-0.41826"}

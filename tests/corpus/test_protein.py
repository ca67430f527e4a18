"""Proteins: FASTA and tables, every reason to reject one, and sequences that come back from their symbols."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from corpus.modalities.protein import Options, parse, render
from corpus.modality import SourceError, UnusableError
from corpus.sequences import clean_sequence

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

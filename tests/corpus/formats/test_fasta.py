"""FASTA: what headers say, comments and giant entries."""

import re
from pathlib import Path

import pytest

from corpus.formats import fasta
from corpus.modality import Reject


@pytest.mark.parametrize(
    ("header", "known"),
    [
        ("tr|A0A140D2T1|A0A_ZIKV x OS=Zika virus OX=64320", {"uniprot": "A0A140D2T1", "organism": "Zika virus"}),
        ("sp|P04637-2|P53_HUMAN Isoform 2", {"uniprot": "P04637-2", "entry": "P53_HUMAN"}),
        ("UniRef50_P12345 Cluster: x n=2 Tax=Bacteria TaxID=2", {"uniref": "UniRef50_P12345", "organism": "Bacteria"}),
        ("gi|1234|ref|NP_000537.3| p53 [Homo sapiens]", {"refseq": "NP_000537.3", "organism": "Homo sapiens"}),
        ("gb|AAA59989.1| tumor antigen", {"genbank": "AAA59989.1"}),
        ("pdb|1ABC|A Chain A", {"pdb": "1ABC_A"}),
        ("ENSP00000269305.4 pep gene:ENSG00000141510", {"ensembl": "ENSP00000269305.4"}),
        ("lcl|x1 [gene=dnaA] [protein=x]", {"id": "lcl|x1"}),
        ("", {"id": "", "description": ""}),
    ],
)
def test_what_headers_say(header: str, known: dict[str, str]) -> None:
    assert known.items() <= fasta.header_cells(header).items()


def test_comments_and_giant_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fasta, "_MOST_LETTERS", 20)
    path = tmp_path / "a.fasta"
    path.write_text(";head\n>a\nMK\n;note\nTA\n>b\n" + "M" * 30 + "\n")
    first, second = fasta.rows(path, encoding=None, pattern=re.compile(""))
    assert not isinstance(first, Reject)
    assert first.cells["sequence"] == "MKTA"
    assert isinstance(second, Reject)
    assert (second.where, second.code) == ("line 6", "too_large")

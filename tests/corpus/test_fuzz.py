"""Whatever bytes a file holds: records, rejects or one SourceError come out, and nothing else."""

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.modality import Record, SourceError, modality

SEEDS = {
    "a.csv": b'smiles,label\nCCO,1\n"C,C",0\n',
    "a.tsv": "이름\tsmiles\n환자\tCCO\n".encode("cp949"),
    "a.jsonl": b'{"smiles": "CCO", "en": "a", "ko": "\\ud55c"}\n',
    "a.json": b'{"1": {"smiles": "CCO", "en": "a", "ko": "\\ud55c"}}',
    "a.smi": b"CCO name\n[Na+].[Cl-] salt\n",
    "a.sdf": b"\n\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n    0.0 0.0 0.0 C   0  0\nM  END\n> <a>\n1\n\n$$$$\n",
    "a.fasta": b">P1 first\nMKTAYI\n>P2\nMK--kt*\n",
    "a.md": "# Fever\n\n열이 난다.\n".encode(),
    "a.pdb": b"SEQRES   1 A    2  MSE LYS\nATOM      1  CA  LYS A   2       0.000   0.000   0.000  1.00  0.00\n",
    "a.cif": b"data_x\nloop_\n_entity_poly_seq.entity_id\n_entity_poly_seq.mon_id\n1 GLY\n_struct_asym.id A\n"
    b"_struct_asym.entity_id 1\n",
    "variants.tsv": b"variant\tscore\nM1A,K2R\t0.1\np.Thr3Ter\t5\n",
    "label.xml": b'<document xmlns="urn:hl7-org:v3"><setId root="a"/><component><structuredBody><component><section>'
    b"<title>Uses</title><text><list><item>a<sup>2</sup></item></list></text></section></component></structuredBody>"
    b"</component></document>",
    "fda.json": b'{"results": [{"set_id": "a", "effective_time": "20200101", "purpose": ["x"]},\n'
    b'{"patient": {"drug": [{"medicinalproduct": "D"}], "reaction": {"reactionmeddrapt": "R"}}}]}',
    "pairs.tsv": b"smiles\ttarget\tKi (nM)\nCCO\tMKTAYI\t>10\n",
    "pairs.txt": b"CCO MKTAYIAKQRQISFVKSHFSRQ 1.5\n",
    "samples.csv": b"ID,TIME,AMT,DV\n1,0,5,.\n1,1,.,<BLQ\n",
    "atc.csv": b"atc_code,name,level\nA,x,1\nA10,y,2\n",
    "years.csv": '지역,성별,시점,인구\n서울,남,2020,"1,100"\n'.encode("cp949"),
    "wide.csv": b"Country Name,Country Code,1990,1991\nKorea,KOR,5,..\n",
    "article.nxml": b'<article><front><article-meta><article-id pub-id-type="pmid">7</article-id></article-meta>'
    b'</front><body><sec><title>A</title><p>x<sup>2</sup> <xref ref-type="bibr">1</xref></p></sec></body></article>',
    "citation.xml": b"<PubmedArticle><MedlineCitation><PMID>7</PMID><Article><ArticleTitle>T</ArticleTitle><Abstract>"
    b"<AbstractText>x</AbstractText></Abstract></Article></MedlineCitation></PubmedArticle>",
    "asked.jsonl": b'{"question": "Q", "opa": "a", "opb": "b", "cop": 2}\n',
    "words.tsv": b"a\tO\nb\tB-X\n\nc\tO\n",
    "study.json": b'{"studies": [{"protocolSection": {"identificationModule": {"nctId": "NCT00000001"}}}]}',
    "ae.csv": b"STUDYID,DOMAIN,USUBJID,AETERM,AESTDY\nS,AE,1,Rash,2\nS,AE,1,Fall,1\n",
    "topics.xml": b'<topics><topic number="1">A man</topic></topics>',
    "a.tmx": b'<tmx><tu><tuv xml:lang="en"><seg>a</seg></tuv><tuv xml:lang="ko"><seg>&#xAC00;</seg></tuv></tu></tmx>',
    "a.xml": b"<ICD10CM.tabular><diag><name>A00</name><desc>Cholera</desc></diag></ICD10CM.tabular>",
}
OPTIONS: dict[str, dict[str, Any]] = {
    "variants.tsv": {"wild_type": "MKTAY"},
    "study.json": {"format": "registry"},
    "ae.csv": {"format": "cdisc"},
    "topics.xml": {"format": "topics"},
    "trial": {"study": "T", "fields": {"s": "smiles"}, "outcome": {"o": "label"}},
}
PAIRS = [
    *(("molecule", name) for name in ("a.csv", "a.tsv", "a.jsonl", "a.json", "a.smi", "a.sdf")),
    *(("drug", name) for name in ("label.xml", "fda.json", "pairs.tsv", "pairs.txt", "samples.csv", "atc.csv")),
    *(("protein", name) for name in ("a.fasta", "a.pdb", "a.cif", "variants.tsv")),
    *(("population", "years.csv"), ("population", "wide.csv")),
    *(("literature", name) for name in ("article.nxml", "citation.xml", "asked.jsonl", "words.tsv")),
    *(("trial", name) for name in ("a.csv", "study.json", "ae.csv", "topics.xml")),
    *(("text", name) for name in ("a.jsonl", "a.md", "a.xml", "a.tmx")),
]


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes cut out, put in or changed in a good file; or any bytes."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=200))
    start = draw(st.integers(0, len(content)))
    stop = draw(st.integers(start, min(len(content), start + 4)))
    return content[:start] + draw(st.binary(max_size=6)) + content[stop:]


@pytest.mark.parametrize(("name", "file"), PAIRS)
@settings(max_examples=70, deadline=None)
@given(data=st.data())
def test_bytes_never_raise_anything_else(name: str, file: str, data: st.DataObject) -> None:
    reader = modality(name)
    options = reader.Options.model_validate(OPTIONS.get(file) or OPTIONS.get(name, {}))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file
        path.write_bytes(data.draw(damaged(SEEDS[file])))
        with contextlib.suppress(SourceError):
            for item in reader.read(path, options):
                if isinstance(item, Record):
                    assert reader.parse(reader.render(item.content)) == item.content
                    assert item.group.encode()

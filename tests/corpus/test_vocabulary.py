"""The vocabulary: every modality's symbols, each once and one token; the genes of a table; nothing unknown."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from corpus import document, tokenizer, vocabulary
from corpus.cells.rank import BINS
from corpus.encoder import Encoder
from corpus.formats import sequences
from corpus.modality import modalities, modality
from corpus.survey import make_tokenizer
from corpus.symbols import END, PAD, SYMBOL, VALUES, symbol, tags

TABLE = ["TP53", "HLA-A", "ENSG00000141510", "MT-CO1"]
FACTS: dict[str, Any] = {
    "facts": {"name": "심장 12.5 mg/L"},
    "sections": [["Dose", "Take 1/2 tablet.\n\n  - at 8:00"], ["", "끝"]],
}
NAMED = {"properties": {"note": "CD4 450, 약물: x"}}
CONTENTS: dict[str, list[dict[str, Any]]] = {
    "molecule": [{"smiles": "C[C@H](N)c1cc[nH]c1.[Na+].[13CH4]", **NAMED}],
    "protein": [{"sequence": "MKT*", **NAMED}, {"sequence": "ACGTN", "alphabet": "dna", **NAMED}],
    "omics": [{"genes": ["TP53", "MT-CO1"], **NAMED}, {"genes": ["HLA-A"], "bins": [50], **NAMED}],
    "text": [{"text": "심장은 120 mL 를 보낸다.\n\n\tThe heart's valves…"}],
    "trial": [{"fields": {"study": "A", "나이": "63"}, "outcome": {"death": "no"}}],
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    table = tmp_path_factory.mktemp("genes") / "genes.txt"
    table.write_text("\n".join(TABLE))
    symbols = vocabulary.all_symbols(genes=table, found=[symbol("gene", "OTHER"), symbol("gene", "TP53")])
    made = tokenizer.train(["The heart 심장 mL"] * 3, vocab_size=300)
    return Encoder.load(tokenizer.add_symbols(made, symbols, vocab_size=None))


def _rendered(name: str) -> list[str]:
    contents = CONTENTS.get(name, [FACTS])
    texts = [modality(name).render(content) for content in contents]
    assert [modality(name).parse(text) for text in texts] == contents
    return texts


@pytest.mark.parametrize("name", modalities())
def test_every_modality_comes_back_and_knows_all(encoder: Encoder, name: str) -> None:
    texts = _rendered(name)
    ids = encoder.encode(texts)
    assert encoder.check(texts, ids) == []
    assert encoder.unknown(ids) == 0
    assert encoder.decode(ids) == texts


@pytest.mark.parametrize("name", modalities())
def test_no_text_is_merged_within_symbols(encoder: Encoder, name: str) -> None:
    for text in _rendered(name):
        symbols = SYMBOL.findall(text)
        found = [str(encoder.tokenizer.id_to_token(number)) for number in encoder.encode([text])[0].tolist()]
        assert [token for token in found if SYMBOL.fullmatch(token)] == symbols
        assert set(symbols) <= encoder.tokenizer.get_vocab().keys()


def test_what_is_declared_is_there_once_and_needs_no_data() -> None:
    found = vocabulary.declared()
    assert len(found) == len(set(found))
    wanted = {*document.SYMBOLS, *sequences.SYMBOLS, *VALUES, symbol("value", str(BINS - 1))}
    wanted |= {each for name in modalities() for each in (*tags(name), *modality(name).SYMBOLS)}
    assert set(found) == wanted
    assert all(SYMBOL.fullmatch(each) and each not in (END, PAD) for each in found)
    assert {symbol("nt", letter) for letter in "ACGTURYSWKMBDHVN"} <= set(found)
    assert {*tags("dna"), *tags("rna")} <= set(found)


def test_genes_stand_behind_what_is_declared_in_the_order_of_the_table(encoder: Encoder) -> None:
    genes = [symbol("gene", name) for name in TABLE]
    vocab = encoder.tokenizer.get_vocab()
    places = [vocab[each] for each in [*vocabulary.declared(), *genes, symbol("gene", "OTHER")]]
    assert places == list(range(places[0], places[0] + len(places)))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "TP53\nHLA-A\n"),
        ("a.csv", "gene_id,length\nTP53,1\nHLA-A,2\nTP53,3\n"),
        ("a.tsv", '\ufeff"TP53"\t1\n\nHLA-A\t2'),
        ("a.json", '{"<pad>": 0, "TP53": 1, "HLA-A": 2}'),
        ("a.json.gz", '["TP53", "HLA-A"]'),
    ],
)
def test_tables_of_genes(tmp_path: Path, name: str, text: str) -> None:
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert vocabulary.gene_symbols(tmp_path / name) == ["<|gene:TP53|>", "<|gene:HLA-A|>"]


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.txt", b"TP 53", "must be a table of genes, but a symbol's name must be 1-50 ASCII"),
        ("a.txt", b"\xff", "must be a table of genes, but 'utf-8' codec"),
        ("a.json", b"{", "must be a table of genes, but Expecting property name"),
        ("a.json", b"3", "must be a table of genes, but 'int' object is not iterable"),
        ("a.csv.gz", b"TP53", "must be a table of genes, but Not a gzipped file"),
        ("a.csv", b"gene_id\n", "must name a gene, but names none"),
    ],
)
def test_what_is_no_table_of_genes_is_refused(tmp_path: Path, name: str, data: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf"^tokenize.genes: .*{re.escape(told)}"):
        vocabulary.gene_symbols(tmp_path / name)


def test_thousands_of_genes_are_no_different(tmp_path: Path) -> None:
    table = tmp_path / "genes.json"
    table.write_text(json.dumps([f"ENSG{number:011}" for number in range(20_000)]))
    made = tokenizer.train(["a"] * 3, vocab_size=256)
    tokenizer.save(tokenizer.add_symbols(made, vocabulary.gene_symbols(table), vocab_size=None), tmp_path)
    loaded = Encoder.load(tmp_path)
    text = "<|gene:ENSG00000019999|><|gene:ENSG00000000000|> x"
    assert loaded.encode([text])[0].tolist() == Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids
    assert loaded.slow is None


def test_a_run_takes_the_genes_of_its_table_and_those_of_its_records(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    line = json.dumps({"modality": "omics", "content": {"genes": ["OTHER"], "properties": {"type": "T cell"}}})
    for split in ("train", "valid"):
        (tmp_path / "records" / f"omics.{split}.jsonl").write_text(f"{line}\n" * 3)
    (tmp_path / "genes.txt").write_text("\n".join(TABLE))
    made = make_tokenizer(tmp_path, base=None, vocab_size=640, genes=tmp_path / "genes.txt")
    vocab = made.get_vocab()
    assert {*vocabulary.declared(), *(symbol("gene", name) for name in [*TABLE, "OTHER"])} <= vocab.keys()
    assert len(vocab) == 640

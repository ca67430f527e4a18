"""The tokenizer: nothing is unknown, symbols are their own ids, and transformers reads it the same way."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rdkit import Chem
from tokenizers import Tokenizer

from corpus import tokenizer as made
from corpus.clean import clean_text
from corpus.modalities import molecule, protein, text, trial
from corpus.modality import UnusableError
from corpus.symbols import END, PAD

SYMBOLS = [*molecule.SYMBOLS, *protein.SYMBOLS, *text.SYMBOLS, *trial.SYMBOLS]
TEXTS = ["The heart pumps blood through 120 vessels. ", "심장은 혈액을 온몸으로 보낸다. "] * 20
SIZE = 640


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    room = made.room_for_text(SYMBOLS, vocab_size=SIZE)
    return made.add_symbols(made.train(TEXTS, vocab_size=room), SYMBOLS, vocab_size=SIZE)


def _comes_back(tokenizer: Tokenizer, written: str) -> list[int]:
    ids: list[int] = tokenizer.encode(written).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == written
    return ids


@given(given_text=st.text())
def test_any_text_comes_back(tokenizer: Tokenizer, given_text: str) -> None:
    try:
        _comes_back(tokenizer, text.render({"text": clean_text(given_text)}))
    except UnusableError:
        return


@given(sequence=st.text(alphabet="ACDEFGHIKLMNPQRSTVWYBZXUOJ*", min_size=1))
def test_a_protein_is_one_token_a_letter(tokenizer: Tokenizer, sequence: str) -> None:
    ids = _comes_back(tokenizer, protein.render({"sequence": sequence, "properties": {}}))
    assert len(ids) == len(sequence) + 2


_ELEMENTS = ["H", "He", "C", "N", "Sc", "Cs", "Co", "Og", "c", "n", "se", "as", "te", "*", "#118"]
_CHIRAL = ["", "@", "@@", "@TH1", "@TH2", "@AL1", "@AL2", "@SP1", "@SP3", "@TB1", "@TB20", "@OH1", "@OH30"]
_ATOM = st.builds(
    "[{}{}{}{}{}{}]".format,
    st.sampled_from(["", "1", "13", "238"]),
    st.sampled_from(_ELEMENTS),
    st.sampled_from(_CHIRAL),
    st.sampled_from(["", "H", "H4"]),
    st.sampled_from(["", "+", "-", "++", "+2", "-15"]),
    st.sampled_from(["", ":1", ":42"]),
)
_BARE = st.sampled_from(["B", "C", "N", "O", "P", "S", "F", "Cl", "Br", "I", "b", "c", "n", "o", "p", "s", "*"])
_BOND = st.sampled_from(["", "-", "=", "#", "$", ":", "/", "\\", ".", "~", "->", "<-"])
_RING = st.sampled_from(["", "1", "12", "%10", "%(123)", "=%99"])
_CHAIN = st.lists(st.builds("{}{}{}".format, _BOND, _ATOM | _BARE, _RING), min_size=1, max_size=9).map("".join)
_SMILES = st.builds("{}({}){}".format, _CHAIN, _CHAIN, _CHAIN) | _CHAIN


@given(smiles=_SMILES)
def test_all_of_opensmiles_is_one_token_a_glyph(tokenizer: Tokenizer, smiles: str) -> None:
    written = molecule.render({"smiles": smiles, "properties": {}})
    ids = _comes_back(tokenizer, written)
    assert len(ids) == len(molecule.glyphs(smiles)) + 2
    assert molecule.parse(written)["smiles"] == smiles


def test_what_rdkit_writes_is_one_token_a_glyph(tokenizer: Tokenizer) -> None:
    for given_smiles in (
        "OC[C@@H](O1)[C@@H](O)[C@H](O)[C@@H](O)[C@H](O)1",
        "[2H]C([2H])/C=C/c1c[nH]c2ccccc12",
        "[Cu+2]<-N",
    ):
        found = Chem.MolFromSmiles(given_smiles)
        options = [{}, {"doRandom": True}, {"kekuleSmiles": True}, {"allHsExplicit": True}, {"allBondsExplicit": True}]
        for smiles in (Chem.MolToSmiles(found, **each) for each in options):
            _comes_back(tokenizer, molecule.render({"smiles": smiles, "properties": {}}))


@pytest.mark.parametrize("smiles", ["C>>O", "CC.O>[Pd]>CO", "C>O>N", "Cé", "C C", "C!C", "[C;H1]", "{C}"])
def test_what_is_no_opensmiles_has_no_glyphs(smiles: str) -> None:
    with pytest.raises(UnusableError, match="must be written in OpenSMILES, but is not"):
        molecule.glyphs(smiles)


def test_symbols_and_text_share_no_id(tokenizer: Tokenizer) -> None:
    letters = set(_comes_back(tokenizer, protein.render({"sequence": "ACDEFGHIKLM", "properties": {}})))
    written = set(_comes_back(tokenizer, "ACDEFGHIKLM aa:A"))
    assert not letters & written


def test_every_digit_is_a_token(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("age: 1234").tokens[-4:] == ["Ġ1", "2", "3", "4"]


def test_the_table_has_the_size_asked_for(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size() == SIZE
    assert sorted(tokenizer.get_vocab().values()) == list(range(SIZE))


def test_training_twice_gives_the_same_file(tokenizer: Tokenizer, tmp_path: Path) -> None:
    room = made.room_for_text(SYMBOLS, vocab_size=SIZE)
    again = made.add_symbols(made.train(TEXTS, vocab_size=room), SYMBOLS, vocab_size=SIZE)
    assert made.save(tokenizer, tmp_path / "a") == made.save(again, tmp_path / "b")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_transformers_gives_equal_ids(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    made.save(tokenizer, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert (len(loaded), loaded.eos_token, loaded.pad_token) == (SIZE, END, PAD)
    content = {"smiles": "C[C@H](N)c1cc[nH]c1.[Na+]", "properties": {"약물": "Na 12, x"}}
    for written in (molecule.render(content), "심장 heart\n\n  12", f"a{END}b"):
        ids = loaded(written)["input_ids"]
        assert ids == tokenizer.encode(written).ids
        assert loaded.decode(ids, skip_special_tokens=False) == written


def test_too_small_a_table_is_refused() -> None:
    least = 256 + len(SYMBOLS) + 2
    with pytest.raises(ValueError, match=rf"^tokenize.vocab_size: must be at least {least} \(256 bytes, .*; raise it$"):
        made.room_for_text(SYMBOLS, vocab_size=least - 1)


def test_a_trained_tokenizer_is_loaded_and_extended(tmp_path: Path) -> None:
    trained = made.train(TEXTS, vocab_size=300)
    parts = json.loads(trained.to_str())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(parts["vocab"]))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in parts["merges"]))
    loaded = made.add_symbols(made.load(tmp_path), SYMBOLS, vocab_size=None)
    assert loaded.get_vocab_size() % 128 == 0
    assert parts["vocab"].items() <= loaded.get_vocab().items()
    _comes_back(loaded, protein.render({"sequence": "MKT", "properties": {"a": "심장 12"}}))
    with pytest.raises(ValueError, match=r"^tokenize.vocab_size: must be at least \d+, but is 300; raise it or leave"):
        made.add_symbols(made.load(tmp_path), SYMBOLS, vocab_size=300)


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    told = "must be a tokenizer.json or a folder with vocab.json and merges.txt, but"
    with pytest.raises(ValueError, match=f"tokenizer {re.escape(str(tmp_path))}: {told}"):
        made.load(tmp_path)

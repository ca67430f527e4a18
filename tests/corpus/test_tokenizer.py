"""The tokenizer: nothing is unknown, symbols are their own ids, and transformers reads it the same way."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
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

"""The encoder: the ids of the Hugging Face tokenizer, whatever the text and however the tokenizer is built."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from corpus import encoder, tokenizer
from corpus.encoder import Encoder
from corpus.modalities import molecule, protein, text
from corpus.symbols import END, SYMBOL

SYMBOLS = [*text.SYMBOLS, *protein.SYMBOLS, *molecule.SYMBOLS, "<|gene:HLA-A|>"]
TEXTS = [
    "The heart's valves aren't what they'd been:\n\n  they pump  120 mL, 5.5 L/min (70 kg).\r\n\tNaCl",
    "심장은 혈액을 온몸으로 보낸다. 환자는 2024년 3월 4일에 입원했다.",
    "Ärzte sagen: café, naïve, Zürich... def f(x):\n    return x / 2  # ok",
] * 9
GPT2 = "../shared/data/tokenizers/gpt2"
_DIGITS = pre_tokenizers.Digits(individual_digits=True)
_GPT2_WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False)


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    cut = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


PIPELINES = {
    "ours": _split(tokenizer.WORDS),
    "gpt2": _GPT2_WORDS,
    "smollm2": pre_tokenizers.Sequence([_DIGITS, _GPT2_WORDS]),
    "llama3": _split(encoder.LLAMA3),
    "qwen2": _split(encoder.QWEN2),
    "gpt4o": _split(encoder.CASED),
}


def _trained(words: pre_tokenizers.PreTokenizer) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = words
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator(TEXTS, trainer)
    return tokenizer.add_symbols(made, SYMBOLS, vocab_size=None)


@pytest.fixture(scope="module")
def encoders() -> dict[str, Encoder]:
    return {name: Encoder.load(_trained(words)) for name, words in PIPELINES.items()}


def _same(made: Encoder, texts: list[str]) -> None:
    ids = made.encode(texts)
    assert all(each.dtype == np.uint32 for each in ids)
    expected = [made.tokenizer.encode(each, add_special_tokens=False).ids for each in texts]
    assert [each.tolist() for each in ids] == expected
    assert made.decode(ids) == [made.tokenizer.decode(each, skip_special_tokens=False) for each in expected]
    known = made.tokenizer.get_vocab()
    strange = [place for place, each in enumerate(texts) if not known.keys() >= set(SYMBOL.findall(each))]
    assert made.check(texts, ids) == strange


_PIECES = [
    "a",
    "ab",
    "The",
    "'s",
    "'S",
    "'re",
    "'",
    "don't",
    ".",
    "...",
    ").",
    "!?/",
    "$",
    "1",
    "12",
    "34567",
    "9",
    "²",
]
_WORDS = [
    "심장",
    "은",
    "각힣",
    "Ä",
    "naïve",
    "e\u0301",
    "\u0301",
    "ǅ",
    "ª",
    "٣",
    "ﬁ",
    "\u211d",
    "\u0e01\u0e33",
    "\U0001f600",
]
_BLANKS = [" ", "  ", "\n", "\n\n", "\r\n", "\t", "\x0b", "\x1c", "\x1f", "\x85", "\xa0", "\u2003", "\u2028", "\u3000"]
_ODD = [
    "\u200b",
    "\ufeff",
    "\u180e",
    "\ufdd0",
    "\U000e0001",
    "<|",
    "|>",
    "<",
    "|",
    "<|aa:?|>",
    "\n/",
    "<|aa:A",
    END,
]
WRITTEN = st.lists(
    st.sampled_from([*_PIECES, *_WORDS, *_BLANKS, *_BLANKS, *_ODD, *SYMBOLS[:6]]) | st.text(max_size=4), max_size=14
)


@given(pieces=WRITTEN)
@example(pieces=["a", " ", "\n", " ", "b"])
@example(pieces=["!", "\x1c", " ", "a"])
@example(pieces=["a", "\xa0", " ", " ", "b"])
@example(pieces=["{", "\n/", "'s"])
@example(pieces=["12", "٣", "4"])
def test_ids_are_those_of_the_tokenizer(encoders: dict[str, Encoder], pieces: list[str]) -> None:
    for made in encoders.values():
        assert made.slow is None
        _same(made, ["".join(pieces)])


@pytest.mark.parametrize(
    "text_of", ["x" * 5000, "가" * 3000, "\n" * 999, "<|aa:A|>" * 2000, "", "a b " * 2000, "\U0001f600" * 500]
)
def test_long_texts_are_no_different(encoders: dict[str, Encoder], text_of: str) -> None:
    for made in encoders.values():
        _same(made, [text_of, f"<|text|>{text_of}<|/text|>"])


@pytest.mark.parametrize(
    "name", ["ko_en/ntrex_en_ko_dev.jsonl", "drug_labels/sections.csv", "guidelines/opioidcds-01.json"]
)
def test_real_files_are_no_different(encoders: dict[str, Encoder], real: Callable[[str], Path], name: str) -> None:
    lines = real(f"../shared/data/{name}").read_text().split("\n")
    texts = ["\n".join(lines[start : start + 40]) for start in range(0, min(len(lines), 160), 40)]
    for made in [*encoders.values(), Encoder.load(real(f"{GPT2}/vocab.json").parent)]:
        assert made.slow is None
        _same(made, texts)


def test_an_encoder_travels(encoders: dict[str, Encoder]) -> None:
    again = pickle.loads(pickle.dumps(encoders["ours"]))  # noqa: S301 - made here
    assert [each.tolist() for each in again.encode(TEXTS)] == [each.tolist() for each in encoders["ours"].encode(TEXTS)]


def test_what_the_tokenizer_would_put_around_or_cut_off_is_left_out() -> None:
    made = _trained(PIPELINES["gpt2"])
    made.post_processor = processors.TemplateProcessing(single="<|eod|> $A", special_tokens=[("<|eod|>", 600)])
    made.enable_truncation(2)
    made.enable_padding(length=9)
    found = Encoder.load(made)
    assert found.slow is None
    _same(found, TEXTS)


def test_few_chunks_are_kept(encoders: dict[str, Encoder], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "STORED", 8)
    made = Encoder.load(encoders["ours"].tokenizer)
    _same(made, [*TEXTS, "y" * 999])
    assert len(made._chunks) <= 8
    assert all(len(chunk) < 200 for chunk in made._chunks)


def test_a_text_that_does_not_come_back_is_told(encoders: dict[str, Encoder]) -> None:
    made = encoders["ours"]
    ids = made.encode(TEXTS[:3])
    assert made.check(TEXTS[:3], [ids[0], ids[1][:-1], ids[2]]) == [1]
    assert made.check([TEXTS[1], TEXTS[0], TEXTS[2]], ids) == [0, 1]


@pytest.mark.parametrize("slow", [False, True])
def test_a_symbol_without_an_id_is_told(slow: bool) -> None:
    made = _trained(PIPELINES["ours"])
    if slow:
        made.add_tokens([AddedToken("a word", normalized=False)])
    found = Encoder.load(made)
    texts = ["<|gene:HLA-A|>", "<|gene:TP53|> x", "plain"]
    assert found.check(texts, found.encode(texts)) == [1]
    assert found.strangers == {"<|gene:TP53|>"}


def _with(**parts: Any) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(json.loads(_trained(PIPELINES["ours"]).to_str()) | parts))


def _spaced() -> Tokenizer:
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    made.train_from_iterator(
        TEXTS[:2], trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>"], show_progress=False)
    )
    return made


def _added(token: AddedToken) -> Tokenizer:
    made = _trained(PIPELINES["ours"])
    made.add_tokens([token])
    return made


SLOW = {
    "words are no bytes": _spaced(),
    "words are cut in a way": _trained(_split(r"\w+|\W+")),
    "changes text before": _with(normalizer={"type": "Lowercase"}),
    "depend on what stands beside": _added(AddedToken("<mask>", lstrip=True)),
    "blanks, or with parts of a symbol": _added(AddedToken("a b")),
    "found in two passes": _added(AddedToken("<mask>", normalized=True)),
    "no BPE": Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>")),
}


@pytest.mark.parametrize("why", SLOW)
def test_what_is_not_understood_is_left_to_the_tokenizer(why: str) -> None:
    made = Encoder.load(SLOW[why])
    assert made.slow is not None
    assert why in made.slow
    ids = made.encode(TEXTS)
    assert [each.tolist() for each in ids] == [
        made.tokenizer.encode(each, add_special_tokens=False).ids for each in TEXTS
    ]
    decoded = [made.tokenizer.decode(each.tolist(), skip_special_tokens=False) for each in ids]
    assert made.decode(ids) == decoded
    assert made.check(TEXTS, ids) == [place for place, each in enumerate(decoded) if each != TEXTS[place]]


def test_unknown_tokens_are_counted() -> None:
    made = Encoder.load(SLOW["no BPE"])
    assert made.unknown(made.encode(["a", "b"])) == 1
    assert Encoder.load(_trained(PIPELINES["ours"])).unknown([np.array([0, 1], np.uint32)]) == 0


def test_composed_text_is_no_different() -> None:
    made = Encoder.load(_with(normalizer=json.loads(Tokenizer(models.BPE()).to_str())["normalizer"]))
    composing = made.tokenizer
    composing.normalizer = normalizers.NFC()
    found = Encoder.load(composing)
    assert found.slow is None
    ids = found.encode(["e\u0301 cafe\u0301 각 \u1100\u1161\u11a8"])
    assert ids[0].tolist() == composing.encode("e\u0301 cafe\u0301 각 \u1100\u1161\u11a8").ids

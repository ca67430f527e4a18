"""Encoding text fast: exactly the ids of the Hugging Face tokenizer, most of them from a table of chunks seen before.

A byte-level BPE never joins a letter with a blank behind it, so a text can be cut before blanks and each chunk encoded
by itself. Chunks repeat, therefore each is encoded once by the tokenizer itself and then looked up; symbols are looked
up by name. Where a tokenizer is built in another way than those known here, all is left to it.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from tokenizers import Tokenizer, pre_tokenizers

from corpus import tokenizer as tokenizers
from corpus.symbols import SYMBOL

Ids = np.ndarray
STORED = 1 << 18  # chunks: about 60 MB
_LONGEST = 128  # characters of a chunk that is worth storing
_CONTRACTED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_BLANKS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = rf"{_CONTRACTED}\p{{N}}{{1,3}}{_BLANKS}"
QWEN2 = rf"{_CONTRACTED}\p{{N}}{_BLANKS}"
WORDS_OF_LINES = (LLAMA3, QWEN2, CASED)
# Cuts stand only where every known tokenizer ends a word, and only beside letters, digits, signs and blanks that every
# reading of Unicode holds for such; what stands beside others is left in one chunk.
_LETTERS, _SIGN, _BARE = "[A-Za-z가-힣]++", r"[!-/:-@\[-`{-~]", r"(?![^\x00-\x7f])"
_REST = r"\s*\S+(?:(?![ \t\r\n])\s+\S*)*|\s+"
_OURS = re.compile(rf"\s*(?:{_LETTERS}{_BARE}|[0-9]|{_SIGN}++(?=[A-Za-z0-9 \t\r\n]|\Z))|{_REST}")
_GPT2 = re.compile(rf"\s*(?:{_LETTERS}{_BARE}|[0-9]++{_BARE}|{_SIGN}++(?<!')(?=[A-Za-z0-9 \t\r\n]|\Z))|{_REST}")
# Here a word may begin with a sign, and end with line ends or, in one of them, with a slash behind those.
_LINES = re.compile(
    rf"\s*[\r\n](?=[^\s/])|\s*(?:{_SIGN}*+{_LETTERS}(?!'){_BARE}|[0-9]{{1,3}}+{_BARE}|{_SIGN}++(?=[0-9 ]))"
    r"|\s*\S+(?:(?! )\s+(?:(?<![\r\n])|(?=/))\S+)*(?:(?! )\s+)?|\s+"
)


class Encoder:
    """A tokenizer's ids for many texts; cheap to send to another process.

    Attributes:
        tokenizer: the Hugging Face tokenizer whose ids these are, without those it would put around a text.
        slow: why all is left to the tokenizer, or None where chunks are looked up.
        strangers: what texts have held so far that is written like a symbol, but has no id of its own.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        parts = json.loads(self.tokenizer.to_str())
        found = _cutter(parts)
        self.slow = found if isinstance(found, str) else None
        self._cut = None if isinstance(found, str) else found.findall
        self._chunks = _Chunks(self._encoded)
        self.strangers: set[str] = set()
        self._symbols = {
            token["content"][2:]: np.uint32(token["id"]).tobytes()
            for token in parts["added_tokens"]
            if SYMBOL.fullmatch(token["content"])
        }
        self._bytes = _bytes_of_tokens(self.tokenizer, parts)

    @classmethod
    def load(cls, given: Path | Tokenizer) -> Self:
        """Returns the encoder of a tokenizer, or of a file or folder that `corpus.tokenizer.load` reads.

        Raises:
            ValueError: there is no tokenizer, or it cannot be read.
        """
        return cls(given if isinstance(given, Tokenizer) else tokenizers.load(given))

    def __reduce__(self) -> tuple[Callable[..., "Encoder"], tuple[str]]:
        return _restored, (self.tokenizer.to_str(),)

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Returns the ids of each text as uint32, without an end token."""
        if self._cut is None:
            self._note_strangers(*texts)
            found = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
            return [np.array(each.ids, np.uint32) for each in found]
        return [np.frombuffer(self._looked_up(text, self._cut), np.uint32) for text in texts]

    def decode(self, ids: Sequence[Ids]) -> list[str]:
        """Returns the text of each list of ids, symbols and special tokens included."""
        if self._bytes is None:
            return self.tokenizer.decode_batch([each.tolist() for each in ids], skip_special_tokens=False)
        return [self._joined(each).decode(errors="replace") for each in ids]

    def check(self, texts: Sequence[str], ids: Sequence[Ids]) -> list[int]:
        """Returns the places of texts that do not come back from their ids, or hold a symbol that has no id."""
        if self._bytes is None:
            same = [text == decoded for text, decoded in zip(texts, self.decode(ids), strict=True)]
        else:
            same = [self._joined(each) == text.encode() for text, each in zip(texts, ids, strict=True)]
        if self.strangers:
            same = [
                each and self.strangers.isdisjoint(SYMBOL.findall(text)) for each, text in zip(same, texts, strict=True)
            ]
        return [place for place, each in enumerate(same) if not each]

    def unknown(self, ids: Sequence[Ids]) -> int:
        """Returns how many ids stand for something that the tokenizer does not know; a byte-level one knows all."""
        name = getattr(self.tokenizer.model, "unk_token", None)
        unknown = None if name is None else self.tokenizer.token_to_id(name)
        return 0 if unknown is None else sum(int((each == unknown).sum()) for each in ids)

    def _looked_up(self, text: str, cut: Callable[[str], list[str]]) -> bytes:
        """Returns the ids of one text as bytes; one that holds an unknown symbol is left to the tokenizer."""
        head, *pieces = text.split("<|")
        found = [*map(self._chunks.__getitem__, cut(head))]
        for piece in pieces:
            ids = self._symbols.get(piece)
            if ids is not None:
                found.append(ids)
                continue
            name, closing, rest = piece.partition("|>")
            ids = self._symbols.get(name + closing) if closing else None
            if ids is None:
                self._note_strangers(text)
                return self._encoded(text)
            found.append(ids)
            found += map(self._chunks.__getitem__, cut(rest))
        return b"".join(found)

    def _note_strangers(self, *texts: str) -> None:
        self.strangers.update(each for text in texts for each in SYMBOL.findall(text) if each[2:] not in self._symbols)

    def _encoded(self, text: str) -> bytes:
        return np.array(self.tokenizer.encode(text, add_special_tokens=False).ids, np.uint32).tobytes()

    def _joined(self, ids: Ids) -> bytes:
        table: list[bytes] = self._bytes or []
        return b"".join(map(table.__getitem__, ids.tolist()))


class _Chunks(dict[str, bytes]):
    """Chunk -> its ids; one not seen before is encoded, and stored where there is room."""

    def __init__(self, encode: Callable[[str], bytes]) -> None:
        super().__init__()
        self._encode = encode

    def __missing__(self, chunk: str) -> bytes:
        ids = self._encode(chunk)
        if len(chunk) <= _LONGEST:
            if len(self) >= STORED:
                self.clear()
            self[chunk] = ids
        return ids


def _restored(tokenizer: str) -> Encoder:
    return Encoder(Tokenizer.from_str(tokenizer))


def _cutter(parts: dict[str, Any]) -> re.Pattern[str] | str:
    """Returns where texts may be cut, or why this tokenizer's may not."""
    if parts["model"]["type"] != "BPE" or parts["model"].get("dropout"):
        return "its model is no BPE without dropout"
    if (parts["normalizer"] or {"type": "NFC"}) != {"type": "NFC"}:
        return "it changes text before it cuts it"
    return _strange_tokens(parts["added_tokens"]) or _known_words(parts["pre_tokenizer"])


def _strange_tokens(added: Sequence[dict[str, Any]]) -> str | None:
    """Returns why added tokens may reach over a cut or break a symbol, or None."""
    if any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in added):
        return "it has added tokens that depend on what stands beside them"
    others = [token["content"] for token in added if not SYMBOL.fullmatch(token["content"])]
    if any(re.search(r"\s|<\||<$", content) for content in others):
        return "it has added tokens with blanks, or with parts of a symbol"
    if others and any(token["normalized"] for token in added):
        return "it has added tokens that are found in two passes"
    return None


def _known_words(found: dict[str, Any] | None) -> re.Pattern[str] | str:
    """Returns where texts may be cut for a pre-tokenizer, or why that is not known."""
    steps = list((found or {}).get("pretokenizers", [found]))
    if steps and steps[0] == {"type": "Digits", "individual_digits": True}:
        steps = steps[1:]
    if not steps or (steps[-1] or {}).get("type") != "ByteLevel" or steps[-1]["add_prefix_space"]:
        return "its words are no bytes"
    if len(steps) == 1 and steps[0]["use_regex"]:
        return _GPT2
    if len(steps) == 2 and not steps[1]["use_regex"]:
        return _cut_of_words(steps[0])
    return "its words are cut in a way that is not known here"


def _cut_of_words(step: dict[str, Any]) -> re.Pattern[str] | str:
    whole = (step.get("behavior"), step.get("invert")) in {("Isolated", False), ("Removed", True)}
    words = (step.get("pattern") or {}).get("Regex")
    if whole and words == tokenizers.WORDS:
        return _OURS
    if whole and words in WORDS_OF_LINES:
        return _LINES
    return "its words are cut in a way that is not known here"


def _bytes_of_tokens(tokenizer: Tokenizer, parts: dict[str, Any]) -> list[bytes] | None:
    """Returns the bytes of every id, or None where decoding is more than to join them."""
    if (parts["decoder"] or {}).get("type") != "ByteLevel":
        return None
    vocabulary = {number: token for token, number in tokenizer.get_vocab(with_added_tokens=True).items()}
    written = byte_of_character()
    return [_bytes_of_token(vocabulary.get(number, ""), written) for number in range(max(vocabulary) + 1)]


def _bytes_of_token(token: str, written: dict[str, int]) -> bytes:
    try:
        return bytes(map(written.__getitem__, token))
    except KeyError:  # an added token of characters that stand for no byte stands for itself
        return token.encode()


def byte_of_character() -> dict[str, int]:
    """Returns the byte that each character of a byte-level token stands for (Radford et al. 2019)."""
    itself = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(itself)]
    found = {chr(byte): byte for byte in itself} | {chr(256 + place): byte for place, byte in enumerate(others)}
    if found.keys() != set(pre_tokenizers.ByteLevel.alphabet()):
        raise RuntimeError("tokenizers must write bytes as GPT-2 does, but no longer does; mend corpus/encoder.py")
    return found

"""Shingles: runs of words, or of letters of Korean, Chinese and Japanese, as hashes; vectorised over many texts."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_BASE = 0x9E3779B97F4A7C15  # odd, so that powers never vanish modulo 2**64
_BMP = 0x10000
_BLOCK = 1 << 16  # letters
_WORD, _LETTER = 1, 2
_LETTERS = ((0x1100, 0x11FF), (0x3040, 0x30FF), (0x3130, 0x318F), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3))


@dataclass(frozen=True, kw_only=True)
class Units:
    """The words and letters of some texts, one after the other.

    Attributes:
        hashes: of each unit.
        letters: whether each is a letter of a script without blanks between words.
        starts: of each text, and the end: text n has the units starts[n] to starts[n + 1].
    """

    hashes: Hashes
    letters: NDArray[np.bool_]
    starts: NDArray[np.int64]


def units(texts: Sequence[str]) -> Units:
    """Splits texts in units: case, punctuation, blanks and compatibility forms (full width, ligatures) do not count."""
    if len(texts) == 1 and len(texts[0]) > 2 * _BLOCK:
        return _in_blocks(texts[0])
    normal = [text if text.isascii() else unicodedata.normalize("NFKC", text) for text in texts]
    ends = np.cumsum(np.fromiter(map(len, normal), dtype=np.int64, count=len(normal)) + 1)
    codes, kind, begins = _classes("\n".join(normal))
    kept = np.flatnonzero(kind)
    folded = codes[kept].astype(np.uint64)
    first = np.flatnonzero(begins[kept])
    if not len(first):
        empty = np.zeros(0, dtype=np.uint64)
        return Units(hashes=empty, letters=empty.astype(bool), starts=np.zeros(len(texts) + 1, dtype=np.int64))
    lengths = np.diff(first, append=len(kept))
    place = np.arange(len(kept)) - np.repeat(first, lengths)
    summed = np.add.reduceat(folded * _powers(int(lengths.max()))[place], first)
    starts = np.searchsorted(kept[first], np.concatenate(([0], ends)))
    return Units(hashes=mix(summed), letters=kind[kept[first]] == _LETTER, starts=starts.astype(np.int64))


def _classes(text: str) -> tuple[NDArray[np.uint32], NDArray[np.uint8], NDArray[np.bool_]]:
    """Returns letters in small, whether each is none, of a word or a unit itself, and whether a unit begins there."""
    fold, kinds = _tables()
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    low = codes if text.isascii() else np.minimum(codes, _BMP)
    kind = kinds[low]
    begins = kind != 0
    begins[1:] &= (kind[1:] == _LETTER) | (kind[:-1] != _WORD)
    return (fold[low] if text.isascii() else np.where(codes < _BMP, fold[low], codes)), kind, begins


def _in_blocks(text: str) -> Units:
    """Splits a long text block by block: what a block needs stays in the processor's cache."""
    parts, begin = [], 0
    while begin < len(text):
        end = begin + _BLOCK
        while end < len(text) and end < begin + 2 * _BLOCK and not text[end].isspace():
            end += 1
        parts.append(units([text[begin:end]]))
        begin = end
    hashes = np.concatenate([part.hashes for part in parts])
    letters = np.concatenate([part.letters for part in parts])
    return Units(hashes=hashes, letters=letters, starts=np.asarray([0, len(hashes)], dtype=np.int64))


def runs(hashes: Hashes, length: int) -> Hashes:
    """Returns the hash of every run of `length` hashes: (n - length + 1,)."""
    if len(hashes) < length:
        return np.zeros(0, dtype=np.uint64)
    block, size, done = hashes, 1, 0
    found: Hashes | None = None
    while size <= length:
        if length & size:
            tail = block[done:]
            found = tail if found is None else found[: len(tail)] * _power(size) + tail[: len(found)]
            done += size
        size *= 2
        if size <= length:
            half = size // 2
            block = block[:-half] * _power(half) + block[half:]
    return mix((block if found is None else found)[: len(hashes) - length + 1])


def shingles(texts: Sequence[str], length: int) -> tuple[Hashes, NDArray[np.int64], NDArray[np.int64]]:
    """Returns the shingles of some texts, where each text's begin (and the end), and how many units each text has.

    A text with fewer units than `length` has one shingle, of all of them; an empty one has none.
    """
    found = units(texts)
    counts = np.diff(found.starts)
    padded = np.where(counts > 0, counts + length - 1, 0)
    begins = np.concatenate(([0], np.cumsum(padded)))
    spread = np.zeros(int(begins[-1]) + length, dtype=np.uint64)
    spread[_ranges(begins[:-1], counts)] = found.hashes
    numbers = np.where(counts > 0, np.maximum(1, counts - length + 1), 0)
    every = runs(spread, length)
    starts = np.concatenate(([0], np.cumsum(numbers)))
    return every[_ranges(begins[:-1], numbers)], starts, counts


def mix(values: Hashes) -> Hashes:
    """Spreads every bit over all 64 (the finalizer of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Hashes = values ^ (values >> np.uint64(31))
    return mixed


def mix32(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Spreads every bit over all 32 (the finalizer of MurmurHash3), as datasketch does before it permutes."""
    values = (values ^ (values >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    values = (values ^ (values >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    mixed: NDArray[np.uint32] = values ^ (values >> np.uint32(16))
    return mixed


def _ranges(begins: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns begin, begin + 1, ... of each range, one after the other."""
    offsets = np.repeat(begins - np.concatenate(([0], np.cumsum(counts)[:-1])), counts)
    found: NDArray[np.int64] = offsets + np.arange(len(offsets))
    return found


def _power(exponent: int) -> np.uint64:
    return np.uint64(pow(_BASE, exponent, 1 << 64))


@cache
def _some_powers(number: int) -> Hashes:
    powers: Hashes = np.cumprod(np.full(number, _BASE, dtype=np.uint64), dtype=np.uint64)
    return powers


def _powers(number: int) -> Hashes:
    return _some_powers(max(64, 1 << (number - 1).bit_length()))


@cache
def _tables() -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    fold = np.arange(_BMP + 1, dtype=np.uint32)
    kinds = np.zeros(_BMP + 1, dtype=np.uint8)
    kinds[_BMP] = _WORD  # whatever lies beyond is taken for a word's letter
    for code in range(_BMP):
        letter = chr(code)
        if letter.isalnum():
            kinds[code] = _WORD
            lower = letter.lower()
            fold[code] = ord(lower[0])
    for first, last in _LETTERS:
        kinds[first : last + 1][kinds[first : last + 1] != 0] = _LETTER
    return fold, kinds

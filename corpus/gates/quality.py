"""Quality: whether a text is worth learning, by rules with reasons; those of Gopher, for English and Korean.

Short texts (a question, a term, a diagnosis) are judged only by what is wrong at any length; statistics need words.
Gopher's rules: Rae et al. 2021, https://arxiv.org/abs/2112.11446, table A1.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corpus.gates.config import QualityConfig, Rule
from corpus.gates.shingles import runs, units

Broken = tuple[str, str, dict[str, Any]]  # code, reason, detail
Found = tuple[str, dict[str, Any]] | None

_BEHIND = re.escape("".join(chr(code) + bytes([code]).decode("cp1252", "ignore") for code in range(0x80, 0xC0)))
_MISREAD_STARTS = "\xc2\xc3\xe2\xef\xec\xed\xeb\xea"
_MISREAD = re.compile(  # UTF-8 that was read as Latin-1 or Windows-1252
    rf"[\xc2\xc3][{_BEHIND}]|\xe2[\x80\u20ac][{_BEHIND}]|\xef\xbf\xbd|\xef\xbb\xbf|[\xea-\xed][{_BEHIND}]{{2}}"
)
_LATIN_PAIRS = re.compile(r"[\xa1-\xfe]{4,}")  # CP949 that was read as Latin-1
_COMMON = frozenset(
    ("the", "be", "to", "of", "and", "that", "have", "with", "in", "is", "for", "was", "are", "or", "a")
)
_COMMON_FROM = 300  # words: a chapter of diagnoses has none of them either
_FRAMES = (  # phrases of a page's frame
    "lorem ipsum",
    "javascript",
    "cookie",
    "privacy policy",
    "terms of use",
    "terms of service",
    "terms and conditions",
    "sign up for our",
    "subscribe to",
    "newsletter",
    "all rights reserved",
    "click here",
    "page not found",
    "404 error",
    "access denied",
    "log in to",
    "login to",
    "share on facebook",
    "share on twitter",
    "무단전재",
    "무단 전재",
    "재배포 금지",
    "재배포금지",
    "저작권자",
    "자바스크립트",
    "쿠키",
    "개인정보 처리방침",
    "개인정보처리방침",
    "이용약관",
    "페이지를 찾을 수 없",
    "로그인이 필요",
    "뉴스레터",
    "구독하기",
    "구독신청",
    "댓글쓰기",
    "댓글 쓰기",
    "본문 바로가기",
)
_FRAME_LETTERS = 20_000  # no page of nothing else is longer
_PHRASE_WORDS, _PHRASE_LETTERS = 10, 25
_PHRASES_FROM = 250  # words or letters: an answer repeats its question, a short table its words
_SPACE, _LATIN, _SYLLABLE, _RARE, _OTHER, _DIGIT, _MARK, _SYMBOL = range(8)  # rare: Hangul outside KS X 1001
_MARKS = "_.,;:!?'\"()[]%/+<>=°±µ&·–—\u2018’“”…-"
_BMP = 0x10000


@dataclass(frozen=True)
class _Text:
    """A text and what several rules need of it."""

    text: str
    language: str | None
    config: QualityConfig

    @cached_property
    def kinds(self) -> NDArray[np.uint8]:
        """The kind of each character."""
        codes = np.frombuffer(self.text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        return _kinds()[codes if self.text.isascii() else np.minimum(codes, _BMP)]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """How many characters there are of each kind."""
        return np.bincount(self.kinds, minlength=8)

    @property
    def letters(self) -> int:
        """Characters that are no blanks."""
        return len(self.text) - int(self.counts[_SPACE])

    @property
    def hangul(self) -> int:
        return int(self.counts[_SYLLABLE] + self.counts[_RARE])

    @property
    def latin(self) -> int:
        return int(self.counts[_LATIN])

    @cached_property
    def words(self) -> NDArray[np.bool_]:
        """Of each word, as blanks part them, whether it holds a letter."""
        blank = np.concatenate(([True], self.kinds == _SPACE))
        starts = np.flatnonzero(blank[:-1] & ~blank[1:])
        lettered = (self.kinds >= _LATIN) & (self.kinds <= _OTHER)
        return np.logical_or.reduceat(lettered, starts) if len(starts) else np.zeros(0, dtype=bool)

    @cached_property
    def lines(self) -> list[str]:
        return [line.strip() for line in self.text.split("\n") if line.strip()]

    @property
    def long(self) -> bool:
        return len(self.words) >= self.config.stated_from


def judge(text: str, language: str | None, *, config: QualityConfig, off: frozenset[str]) -> Broken | None:
    """Returns the first rule that a text breaks, with its reason and figures, or None.

    Args:
        text: as people read it.
        language: as its source says; None where it has none.
        config: of the gate.
        off: rules that are not used.
    """
    seen = _Text(text, language, config)
    for code, rule in _RULES.items():
        found = None if code in off else rule(seen)
        if found:
            return code, *found
    return None


def _too_short(seen: _Text) -> Found:
    if seen.letters + seen.hangul < seen.config.min_letters:
        return f"must have {seen.config.min_letters} letters, but has {seen.letters}", {"letters": seen.letters}
    return None


def _too_long(seen: _Text) -> Found:
    found = len(seen.text)
    if found > seen.config.max_letters:
        return f"must have at most {seen.config.max_letters:,} letters, but has {found:,}", {"letters": found}
    return None


def _mojibake(seen: _Text) -> Found:
    if seen.text.isascii():
        return None
    starts = any(letter in seen.text for letter in _MISREAD_STARTS)
    misread = sum(map(len, _MISREAD.findall(seen.text))) if starts else 0
    pairs = sum(map(len, _LATIN_PAIRS.findall(seen.text)))
    strange = int(seen.counts[_RARE]) if seen.hangul >= 10 else 0
    for number, whole, most in ((misread, seen.letters, 0.01), (pairs, seen.letters, 0.2), (strange, seen.hangul, 0.1)):
        if number > most * whole:
            return f"must be decoded rightly, but {number} of {whole} letters are not", {"letters": number, "of": whole}
    return None


def _no_words(seen: _Text) -> Found:
    worded = int(seen.words.sum())
    if not worded:
        return "must hold words, but holds none", {}
    if seen.long and worded < 0.5 * len(seen.words):
        return f"half of it must be words, but {worded} of {len(seen.words)} are", {"words": worded}
    return None


def _word_length(seen: _Text) -> Found:
    if not seen.long:
        return None
    if 2 * seen.hangul > seen.letters:
        least, most, mean = 1.5, 8.0, seen.letters / len(seen.words)
    else:  # runs of letters: an address or a formula is many
        inside = np.concatenate(([False], (seen.kinds >= _LATIN) & (seen.kinds <= _DIGIT)))
        least, most, mean = 2.5, 10.0, int(inside.sum()) / max(1, int((inside[1:] & ~inside[:-1]).sum()))
    if least <= mean <= most:
        return None
    return f"words must have {least} to {most} letters on average, but have {mean:.1f}", {"mean": round(mean, 2)}


def _symbols(seen: _Text) -> Found:
    number = int(seen.counts[_SYMBOL]) if seen.long else 0
    if number > 0.15 * seen.letters:
        return f"at most 15% may be symbols, but {number / seen.letters:.0%} are", {"symbols": number}
    return None


def _repeated_lines(seen: _Text) -> Found:
    if not seen.long or len(seen.lines) < 6:
        return None
    repeated = [(line, times - 1) for line, times in Counter(seen.lines).items() if times > 1]
    number = sum(times for _, times in repeated)
    letters = sum(len(line) * times for line, times in repeated)
    if number > 0.5 * len(seen.lines) and letters > 0.3 * len(seen.text):
        told = f"at most half of its lines may be repeated, but {number} of {len(seen.lines)} are"
        return told, {"lines": number, "of": len(seen.lines)}
    return None


def _repeated_phrases(seen: _Text) -> Found:
    if len(seen.words) + seen.hangul < _PHRASES_FROM:
        return None
    found = units([seen.text])
    size = _PHRASE_LETTERS if 2 * int(found.letters.sum()) > len(found.hashes) else _PHRASE_WORDS
    phrases = runs(found.hashes, size)
    _, first = np.unique(phrases, return_index=True)
    if len(first) == len(phrases):
        return None
    again = np.ones(len(phrases), dtype=bool)
    again[first] = False
    covered = int((np.convolve(again, np.ones(size, dtype=int)) > 0).sum())
    if covered > 0.7 * len(found.hashes):
        share = f"{covered / len(found.hashes):.0%}"
        told = f"at most 70% may be phrases of {size} words or letters that were there before, but {share} are"
        return told, {"words": covered, "of": len(found.hashes)}
    return None


def _boilerplate(seen: _Text) -> Found:
    if len(seen.text) > _FRAME_LETTERS:
        return None
    lower = seen.text.lower()
    if sum(frame in lower for frame in _FRAMES) < 2:
        return None
    parts = [part for part in re.split(r"[\n|]|(?<=[.!?]) ", lower) if any(frame in part for frame in _FRAMES)]
    if sum(map(len, parts)) > 0.4 * len(lower):
        return f"must be more than a page's frame, but {len(parts)} parts of it are one", {"parts": len(parts)}
    return None


def _language(seen: _Text) -> Found:
    whole = max(1, seen.hangul + seen.latin)
    if seen.language == "ko" and len(seen.text) >= 50 and seen.hangul < 0.1 * whole:
        return f"Korean must be Hangul, but {seen.hangul} of {whole} letters are", {"hangul": seen.hangul}
    if seen.language == "en" and seen.hangul > 0.3 * whole:
        return f"English must be Latin, but {seen.hangul} of {whole} letters are Hangul", {"hangul": seen.hangul}
    if seen.language == "en" and len(seen.words) >= _COMMON_FROM and _COMMON.isdisjoint(seen.text.lower().split()):
        return "English must hold a common word such as 'the' or 'of', but holds none", {"words": len(seen.words)}
    return None


@cache
def _kinds() -> NDArray[np.uint8]:
    kinds = np.full(_BMP + 1, _OTHER, dtype=np.uint8)
    for code in range(_BMP):
        letter = chr(code)
        if letter.isspace():
            kinds[code] = _SPACE
        elif letter.isdigit():
            kinds[code] = _DIGIT
        elif not letter.isalpha():
            kinds[code] = _MARK if letter in _MARKS or unicodedata.category(letter)[0] == "M" else _SYMBOL
    kinds[[code for code in range(0x250) if chr(code).isalpha()]] = _LATIN
    kinds[0xAC00:0xD7A4] = _RARE  # next to none in real Korean, much in UTF-8 that was read as CP949
    common = bytes(byte for row in range(0xB0, 0xC9) for column in range(0xA1, 0xFF) for byte in (row, column))
    kinds[[ord(letter) for letter in common.decode("euc_kr")]] = _SYLLABLE
    return kinds


_RULES: dict[Rule, Callable[[_Text], Found]] = {
    "too_short": _too_short,
    "too_long": _too_long,
    "mojibake": _mojibake,
    "no_words": _no_words,
    "word_length": _word_length,
    "symbols": _symbols,
    "repeated_lines": _repeated_lines,
    "repeated_phrases": _repeated_phrases,
    "boilerplate": _boilerplate,
    "language": _language,
}

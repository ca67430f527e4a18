"""Quality: whether a text is worth learning, by rules with reasons; those of Gopher, for English and Korean.

Short texts (a question, a term, a diagnosis) are judged only by what is wrong at any length; statistics need words.
Gopher's rules: Rae et al. 2021, https://arxiv.org/abs/2112.11446, table A1.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from corpus.gates.config import QualityConfig, Rule
from corpus.gates.shingles import runs, units

Broken = tuple[str, str, dict[str, Any]]  # code, reason, detail

_MISREAD = re.compile(  # UTF-8 that was read as Latin-1 or Windows-1252
    r"[ÃÂ][\x80-\xbf¡-¿€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]|â€[\x80-\xbf™œ“”˜¢šž¦]|ï¿½|ï»¿|[ìíëê][\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ°-¿]{2}"
)
_LATIN_PAIRS = re.compile(r"[\xa1-\xfe]{4,}")  # CP949 that was read as Latin-1
_SYMBOL = re.compile(r"[^\w\s.,;:!?'\"()\[\]%/+<>=°±µ&·–—‘’“”…-]")
_COMMON = frozenset({"the", "be", "to", "of", "and", "that", "have", "with", "in", "is", "for", "was", "were", "are", "or", "a"})
_BOILERPLATE = re.compile(
    r"lorem ipsum|(?:enable|activate) javascript|javascript is (?:disabled|required|not)|(?:accept|use[sd]?|enable) (?:all )?cookies|cookie (?:policy|settings)"
    r"|privacy policy|terms (?:of|and) (?:use|service|conditions)|sign up for our|subscribe to|newsletter|all rights reserved|click here|page not found|404 error"
    r"|access denied|log ?in to (?:view|continue)|share on (?:facebook|twitter)|무단 ?전재|재배포 ?금지|저작권자|자바스크립트|쿠키를? ?(?:사용|허용)|개인정보 ?처리 ?방침|이용 ?약관"
    r"|페이지를 찾을 수 없|로그인이? 필요|뉴스레터|구독(?:하기|신청)|댓글 ?쓰기|본문 바로가기",
    re.IGNORECASE,
)
_HANGUL = re.compile(r"[가-힣]")
_LATIN = re.compile(r"[A-Za-z]")
_PHRASE_WORDS, _PHRASE_LETTERS = 10, 25


@dataclass(frozen=True)
class _Text:
    """A text and what several rules need of it."""

    text: str
    language: str | None
    config: QualityConfig

    @cached_property
    def words(self) -> list[str]:
        return self.text.split()

    @cached_property
    def letters(self) -> int:
        return sum(map(len, self.words))

    @cached_property
    def lines(self) -> list[str]:
        return [line.strip() for line in self.text.split("\n") if line.strip()]

    @cached_property
    def hangul(self) -> int:
        return 0 if self.text.isascii() else len(_HANGUL.findall(self.text))

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


def _too_short(seen: _Text) -> tuple[str, dict[str, Any]] | None:
    if seen.letters < seen.config.min_letters:
        return f"must have {seen.config.min_letters} letters, but has {seen.letters}", {"letters": seen.letters}
    return None


def _too_long(seen: _Text) -> tuple[str, dict[str, Any]] | None:
    if len(seen.text) > seen.config.max_letters:
        found = len(seen.text)
        return f"must have at most {seen.config.max_letters:,} letters, but has {found:,}", {"letters": found}
    return None


def _mojibake(seen: _Text) -> tuple[str, dict[str, Any]] | None:
    if seen.text.isascii():
        return None
    misread = sum(len(found) for found in _MISREAD.findall(seen.text))
    pairs = sum(len(found) for found in _LATIN_PAIRS.findall(seen.text))
    strange = _strange_syllables(seen.text) if seen.hangul >= 10 else 0
    for number, whole, most in ((misread, seen.letters, 0.01), (pairs, seen.letters, 0.2), (strange, seen.hangul, 0.1)):
        if number > most * whole:
            return f"must be decoded rightly, but {number} of {whole} letters are not", {"letters": number, "of": whole}
    return None


def _strange_syllables(text: str) -> int:
    """Counts Hangul outside KS X 1001: next to none in real Korean, much in UTF-8 that was read as CP949."""
    hangul = "".join(_HANGUL.findall(text))
    return len(hangul) - len(hangul.encode("euc_kr", "ignore")) // 2


def _no_words(seen: _Text) -> tuple[str, dict[str, Any]] | None:
    if not any(letter.isalpha() for letter in seen.text):
        return "must hold words, but holds none", {}
    if seen.long:
        worded = sum(any(letter.isalpha() for letter in word) for word in seen.words)
        if worded < 0.5 * len(seen.words):
            return f"half of it must be words, but {worded} of {len(seen.words)} are", {"words": worded}
    return None


def _word_length(seen: _Text) -> tuple[str, dict[str, Any]] | None:
    if not seen.long:
        return None
    least, most = (1.5, 8.0) if 2 * seen.hangul > seen.letters else (2.5, 12.0)
    mean = seen.letters / len(seen.words)
    if least <= mean <= most:
        return None
    return f"words must have {least} to {most} letters on average, but have {mean:.1f}", {"mean": round(mean, 2)}


def _symbols(seen: _Text) -> tuple[str, dict[str, Any]] | None:
    number = len(_SYMBOL.findall(seen.text)) if seen.long else 0
    if number > 0.15 * seen.letters:
        return f"at most 15% may be symbols, but {number / seen.letters:.0%} are", {"symbols": number}
    return None


def _repeated_lines(seen: _Text) -> tuple[str, dict[str, Any]] | None:
    if not seen.long or len(seen.lines) < 6:
        return None
    repeated = [(line, times - 1) for line, times in Counter(seen.lines).items() if times > 1]
    number = sum(times for _, times in repeated)
    letters = sum(len(line) * times for line, times in repeated)
    if number > 0.3 * len(seen.lines) and letters > 0.2 * len(seen.text):
        told = f"at most 30% of its lines may be repeated, but {number} of {len(seen.lines)} are"
        return told, {"lines": number, "of": len(seen.lines)}
    return None


def _repeated_phrases(seen: _Text) -> tuple[str, dict[str, Any]] | None:
    if not seen.long:
        return None
    found = units([seen.text])
    size = _PHRASE_LETTERS if 2 * int(found.letters.sum()) > len(found.hashes) else _PHRASE_WORDS
    phrases = runs(found.hashes, size)
    if len(phrases) < 2 * size:
        return None
    _, first, times = np.unique(phrases, return_index=True, return_counts=True)
    if not (times > 1).any():
        return None
    again = np.ones(len(phrases), dtype=bool)
    again[first] = False
    covered = int((np.convolve(again, np.ones(size, dtype=int)) > 0).sum())
    if covered > 0.3 * len(found.hashes):
        told = f"at most 30% may be phrases of {size} words that were there before, but {covered / len(found.hashes):.0%} are"
        return told, {"words": covered, "of": len(found.hashes)}
    return None


def _boilerplate(seen: _Text) -> tuple[str, dict[str, Any]] | None:
    found = len(_BOILERPLATE.findall(seen.text)) if len(seen.text) < 20_000 else 0
    if found < 2:
        return None
    lines = sum(len(line) for line in _sentences(seen.text) if _BOILERPLATE.search(line))
    if lines > 0.4 * len(seen.text):
        return f"must be more than a page's frame, but {found} phrases of it are one", {"phrases": found}
    return None


def _sentences(text: str) -> Iterator[str]:
    return (part for part in re.split(r"[\n|]|(?<=[.!?]) ", text) if part.strip())


def _language(seen: _Text) -> tuple[str, dict[str, Any]] | None:
    latin = len(_LATIN.findall(seen.text))
    whole = max(1, seen.hangul + latin)
    if seen.language == "ko" and len(seen.text) >= 50 and seen.hangul < 0.1 * whole:
        return f"Korean must be Hangul, but {seen.hangul} of {whole} letters are", {"hangul": seen.hangul, "latin": latin}
    if seen.language == "en" and seen.hangul > 0.3 * whole:
        return f"English must be Latin, but {seen.hangul} of {whole} letters are Hangul", {"hangul": seen.hangul}
    if seen.language == "en" and seen.long and not {word.lower() for word in seen.words} & _COMMON:
        return "English must hold a common word such as 'the' or 'of', but holds none", {"words": len(seen.words)}
    return None


_RULES: dict[Rule, Callable[[_Text], tuple[str, dict[str, Any]] | None]] = {
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

"""Cleaning text: one Unicode form, no control characters, nothing that could be read as a symbol."""

import re
import unicodedata

from corpus.modality import UnusableError
from corpus.symbols import SYMBOL

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_HANGUL = re.compile(r"[가-힣ㄱ-ㆎ]")
_LATIN = re.compile(r"[A-Za-z]")
_MISSING = frozenset({"", "NA", "N/A", "n/a", "<NA>", "NaN", "nan", "NULL", "null", "None"})  # "none" may be an answer


def clean_text(text: str) -> str:
    r"""Returns text in NFC with \n line ends and without blanks at its end.

    Raises:
        UnusableError: it is empty, holds control characters or half a surrogate pair, was decoded wrongly
            before, or holds something written like a symbol.
    """
    cleaned = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).strip()
    if not cleaned:
        raise UnusableError("empty", "must hold text, but is empty")
    _refuse(cleaned, _CONTROL, "control_character", "must hold no control characters")
    _refuse(cleaned, re.compile("[\ud800-\udfff]"), "not_unicode", "must hold whole characters")
    _refuse(cleaned, re.compile("\ufffd"), "decoded_wrongly", "must be decoded rightly")
    _refuse(cleaned, SYMBOL, "reserved_symbol", "must hold nothing written like a symbol")
    return cleaned


def clean_line(text: str) -> str:
    """Returns text on one line, every run of blanks as one blank.

    Raises:
        UnusableError: as in `clean_text`.
    """
    return clean_text(" ".join(text.split()))


def is_missing(value: object) -> bool:
    """Says whether a cell holds nothing: None, NaN, an empty list, or a word people write for it."""
    if isinstance(value, float):
        return value != value  # noqa: PLR0124 - only NaN differs from itself
    if isinstance(value, str):
        return value.strip() in _MISSING
    return value is None or value == []


def check_language(text: str, language: str) -> None:
    """Refuses text that is visibly not in the language it is said to be in.

    Raises:
        UnusableError: Korean without Hangul, or English with more Hangul than Latin letters.
    """
    hangul = len(_HANGUL.findall(text))
    if language == "ko" and not hangul:
        raise UnusableError("language", "Korean text must hold Hangul, but holds none")
    if language == "en" and hangul > len(_LATIN.findall(text)):
        raise UnusableError("language", "English text must be in Latin letters, but is mostly Hangul")


def _refuse(text: str, pattern: re.Pattern[str], code: str, rule: str) -> None:
    found = pattern.search(text)
    if found:
        raise UnusableError(code, f"{rule}, but has {found.group()!a} at character {found.start() + 1}")

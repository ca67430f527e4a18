"""Cleaning text: one Unicode form, nothing that nobody sees, nothing that could be read as a symbol."""

import re
import unicodedata

from corpus.modality import UnusableError
from corpus.symbols import SYMBOL

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_HANGUL = re.compile("[가-힣ㄱ-ㆎ\u1100-\u11ff\ua960-\ua97f\ud7b0-\ud7ff]")
_LATIN = re.compile(r"[A-Za-z]")
# Letters of Cyrillic, Hebrew, Arabic, India, Thailand, Burma, Japan and China; Greek ones are signs of science.
_FOREIGN = re.compile("[\u0400-\u052f\u05d0-\u06ff\u0900-\u0dff\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff]")
_HALF_WIDTH = re.compile("[\uffa0-\uffdc]")  # Hangul letters of old terminals
# Nobody sees these, and they make equal texts unequal: soft hyphen, marks and overrides of direction, zero-width
# space, word joiner, byte order mark, tags. The joiners U+200C and U+200D stay where they shape what is read.
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]")
_EMOJI = "\u2190-\u21ff\u2300-\u23ff\u2600-\u27bf\u2b00-\u2bff\ufe0f\u20e3\U0001f000-\U0001faff"
_JOINED_SCRIPTS = "\u0600-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u18af"  # Arabic, Indic, Burmese, Khmer, Mongolian
_LOOSE_JOINER = re.compile(
    f"(?<![{_EMOJI}{_JOINED_SCRIPTS}])[\u200c\u200d]+|[\u200c\u200d]+(?![{_EMOJI}{_JOINED_SCRIPTS}])"
)
_ODD = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\uffa0-\uffdc\U000e0000-\U000e007f]")
_MISSING = frozenset({"", "NA", "N/A", "n/a", "<NA>", "NaN", "nan", "NULL", "null", "None"})  # "none" may be an answer


def clean_text(text: str) -> str:
    r"""Returns text in NFC with \n line ends, without blanks at its ends and without what nobody sees.

    Raises:
        UnusableError: it is empty, holds control characters or half a surrogate pair, was decoded wrongly
            before, or holds something written like a symbol.
    """
    cleaned = unicodedata.normalize("NFC", visible(text.replace("\r\n", "\n").replace("\r", "\n"))).strip()
    if not cleaned:
        raise UnusableError("empty", "must hold text, but is empty")
    _refuse(cleaned, _CONTROL, "control_character", "must hold no control characters")
    _refuse(cleaned, re.compile("[\ud800-\udfff]"), "not_unicode", "must hold whole characters")
    _refuse(cleaned, re.compile("\ufffd"), "decoded_wrongly", "must be decoded rightly")
    _refuse(cleaned, SYMBOL, "reserved_symbol", "must hold nothing written like a symbol")
    return cleaned


def visible(text: str) -> str:
    """Returns text without what nobody sees, and half-width Hangul letters as ordinary ones."""
    if text.isascii() or not _ODD.search(text):
        return text
    seen = _LOOSE_JOINER.sub("", _INVISIBLE.sub("", text))
    return _HALF_WIDTH.sub(lambda found: _WHOLE.get(found.group(), ""), seen)


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
        UnusableError: Korean without Hangul, or English with more Hangul or other foreign letters than Latin ones.
    """
    is_there = _HANGUL.search(text)
    if language == "ko" and not is_there:
        raise UnusableError("language", "Korean text must hold Hangul, but holds none")
    if language == "en" and is_there and len(_HANGUL.findall(text)) > len(_LATIN.findall(text)):
        raise UnusableError("language", "English text must be in Latin letters, but is mostly Hangul")
    if language == "en" and _FOREIGN.search(text) and len(_FOREIGN.findall(text)) > len(_LATIN.findall(text)):
        raise UnusableError("language", "English text must be in Latin letters, but is mostly in others; set language:")


def _whole(letter: str) -> str:
    """Returns the ordinary letter of a half-width one."""
    kind, _, code = unicodedata.decomposition(letter).partition(" ")
    return chr(int(code, 16)) if kind == "<narrow>" else ""


_WHOLE = {letter: _whole(letter) for letter in map(chr, range(0xFFA0, 0xFFDD))}


def _refuse(text: str, pattern: re.Pattern[str], code: str, rule: str) -> None:
    found = pattern.search(text)
    if found:
        raise UnusableError(code, f"{rule}, but has {found.group()!a} at character {found.start() + 1}")

"""Dates and languages as files write them, in the forms that records hold: ISO 8601 and ISO 639-1."""

import re
from datetime import date

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ISO = re.compile(r"(\d{4})(?:[-/.](\d{1,2})(?:[-/.](\d{1,2}))?)?(?:[T ].*)?")
_WRITTEN = re.compile(r"([A-Za-z]{3})[a-z]*\.?\s+(?:(\d{1,2}),?\s+)?(\d{4})")
_HANGUL = re.compile("[\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3]")
_LETTER = re.compile(r"[^\W\d_]")
_CODES = {
    "eng": "en",
    "kor": "ko",
    "jpn": "ja",
    "chi": "zh",
    "zho": "zh",
    "ger": "de",
    "deu": "de",
    "fre": "fr",
    "fra": "fr",
    "spa": "es",
    "por": "pt",
    "ita": "it",
    "rus": "ru",
    "dut": "nl",
    "nld": "nl",
    "pol": "pl",
    "tur": "tr",
    "hun": "hu",
    "cze": "cs",
    "ces": "cs",
    "dan": "da",
    "swe": "sv",
    "nor": "no",
    "fin": "fi",
    "ara": "ar",
    "heb": "he",
    "per": "fa",
    "fas": "fa",
    "ukr": "uk",
    "vie": "vi",
    "tha": "th",
    "korean": "ko",
    "english": "en",
}


def iso_date(year: object, month: object = None, *, day: object = None) -> str | None:
    """Returns "2021", "2021-03" or "2021-03-04", as far as the parts are a real date; None without a year."""
    years = _number(year)
    if years is None or not 1000 <= years <= 9999:
        return None
    months, days = _month(month), _number(day)
    if months is None:
        return f"{years:04}"
    if days is None or not _exists(years, months, days):
        return f"{years:04}-{months:02}"
    return f"{years:04}-{months:02}-{days:02}"


def written_date(text: object) -> str | None:
    """Reads "2021-03-04T10:00", "2021/3", "March 4, 2021" or "Mar 2021"; None for anything else."""
    given = str(text or "").strip()
    if found := _ISO.fullmatch(given):
        return iso_date(found[1], found[2], day=found[3])
    if found := _WRITTEN.fullmatch(given):
        return iso_date(found[3], found[1], day=found[2])
    return None


def language_code(written: str) -> str | None:
    """Returns the two letters of "en", "en-US", "ko_KR", "kor" or "Korean"; None for what names no language we know."""
    bare = re.split(r"[-_]", written.strip())[0].casefold()
    if re.fullmatch("[a-z]{2}", bare):
        return bare
    return _CODES.get(bare)


def is_korean(text: str, *, share: float = 0.3) -> bool:
    """Says whether at least this share of a text's letters (of its first 5,000 characters) is Hangul."""
    start = text[:5000]
    if not _HANGUL.search(start):
        return False
    letters = len(_LETTER.findall(start))
    return bool(letters) and len(_HANGUL.findall(start)) >= share * letters


def _number(value: object) -> int | None:
    text = str(value or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else None


def _month(value: object) -> int | None:
    short = str(value or "").strip()[:3].casefold()
    if short in _MONTHS:
        return _MONTHS.index(short) + 1
    number = _number(value)
    return number if number is not None and 1 <= number <= 12 else None


def _exists(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True

"""Figures: numbers as tables write them, checked, and written with a stated number of digits."""

import re
from collections.abc import Collection, Iterable, Mapping
from math import floor, isfinite, log10
from typing import Any

from corpus.annotations import bare
from corpus.clean import is_missing
from corpus.modality import UnusableError

_NUMBER = re.compile(r"[+-]?(\d{1,3}(,\d{3})+|\d+)?(\.\d*)?([eE][+-]?\d+)?", re.ASCII)
_PLAIN = re.compile(r"-?\d+(\.\d+)?", re.ASCII)  # what nearly all are, and quick to read
_SHORT = 15
_DIGIT = re.compile(r"\d")
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_EXPONENT = re.compile(r"[eE].*")
_WHOLE = re.compile(r"(-?\d+)\.0*")
_TRUE = {"true": "1", "false": "0"}
_NO_FIGURE = frozenset({"-", "--", ".", "..", "...", "…", ":", "?", "#N/A", "#NUM!", "#DIV/0!", "NaN%"})
_NOT_SPACE = frozenset({"id", "index", "rownames", "rowname", "rownumber", "row", "cid", "molid", "no", "number"})


def is_blank(value: object) -> bool:
    """Says whether a cell of figures holds none: a missing value, or a sign that tables write for it."""
    return is_missing(value) or (isinstance(value, str) and value.strip() in _NO_FIGURE)


def number(value: object) -> float | None:
    """Returns a cell's number, 1 or 0 for true and false; None for what is no number. 1,234.5 is one, 1,2 is not.

    Raises:
        UnusableError: it is infinite, or larger than a double holds.
    """
    text = str(value).strip()
    if len(text) <= _SHORT and _PLAIN.fullmatch(text):
        return float(text)
    text = text.replace("\u2212", "-")  # a minus sign as typesetters write it
    text = _TRUE.get(text.casefold(), text)
    if _INFINITE.fullmatch(text):
        raise UnusableError("not_finite", f"must be a finite number, but is {text}")
    if len(text) > 400 or not _NUMBER.fullmatch(text) or not _DIGIT.search(_EXPONENT.sub("", text)):
        return None
    found = float(text.replace(",", ""))
    if not isfinite(found):
        raise UnusableError("not_finite", f"must be a number below 1.8e308, but is {text[:30]}")
    return found


def figure(name: str, value: object, *, digits: int) -> str:
    """Returns a cell's number as it is written in a record.

    Raises:
        UnusableError: it is no finite number.
    """
    found = number(value)
    if found is None:
        raise UnusableError("not_a_number", f"{name} must be a number, but is {str(value)[:60]!r}")
    text = str(value).strip().replace("\u2212", "-").replace(",", "").removeprefix("+")
    return written(_TRUE.get(text.casefold(), text), found, digits=digits)


def written(text: str, value: float, *, digits: int) -> str:
    """Returns a number with at most `digits` significant digits; whole numbers and shorter ones stay as they are."""
    whole = _WHOLE.fullmatch(text)
    if whole:
        return whole.group(1)
    if len(_EXPONENT.sub("", text).replace(".", "").lstrip("+-0")) <= digits or "." not in text:
        return text
    size = floor(log10(abs(value))) if value else 0
    if not -5 <= size <= 15:
        shortened = f"{value:.{digits}g}"
        return shortened if isfinite(float(shortened)) else text
    shortened = f"{value:.{max(0, digits - size - 1)}f}"
    return shortened.rstrip("0").rstrip(".") if "." in shortened else shortened


def figure_columns(
    rows: Iterable[Mapping[str, Any]], *, besides: Collection[str] = (), share: float = 1.0
) -> list[str]:
    """Returns the columns of whose cells this share, and at least one, holds numbers; blank cells do not count.

    Row numbers and the like are left out.
    """
    seen: dict[str, int] = {}
    figures: dict[str, int] = {}
    for cells in rows:
        for name, value in cells.items():
            if name not in besides and not is_blank(value):
                seen[name] = seen.get(name, 0) + 1
                figures[name] = figures.get(name, 0) + _is_figure(value)
    return [name for name, most in seen.items() if figures[name] >= max(1, share * most) and not counts_rows(name)]


def _is_figure(value: object) -> bool:
    try:
        return number(value) is not None
    except UnusableError:
        return True  # a number out of range: its row will say so


def counts_rows(name: str) -> bool:
    """Says whether a column numbers the rows, and says nothing about them."""
    return bare(name) in _NOT_SPACE or re.fullmatch(r"(unnamed:? ?\d+)?", name, re.IGNORECASE) is not None

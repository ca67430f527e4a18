"""Personal data in a text: what kind and where, never what; Korean and American forms, by rule."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from corpus.gates import numbers, people, resident
from corpus.gates.config import Action, Kind
from corpus.gates.hits import Hit, Page

_UNSEEN = (
    (0xAD, 0xAD),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x2060),
    (0xFEFF, 0xFEFF),
)
_HIDDEN = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in _UNSEEN) + "\x00]")
_FOLDED = 0x20000  # no decimal digit has a higher code
_DASHES = (
    "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u30fc\u3161\ufe58\ufe63\uff0d\u00b7\u2022\u2027\u2219"
    "\u22c5\u30fb\uff65\u318d\u119e\u2024\u2e31"
)
_MASKS = "\u25cf\u25cb\u25ef\u25a0\u25a1\u2605\u2606\u203b\u00d7\u2217\uff0a\u25c6\u25c7\u2b24"

Finder = Callable[[Page], Iterator[Hit]]

_NUMBERED: tuple[tuple[tuple[Kind, ...], Finder], ...] = (  # the first to take a place keeps it
    (("resident_number", "foreigner_number"), resident.find),
    (("card",), numbers.cards),
    (("driving_licence",), numbers.driving_licences),
    (("business_number",), numbers.business_numbers),
    (("ssn",), numbers.social_security_numbers),
    (("phone_kr",), numbers.korean_phones),
    (("phone_us",), numbers.american_phones),
    (("phone_other",), numbers.other_phones),
    (("passport",), numbers.passports),
    (("record_number",), numbers.record_numbers),
)
_NAMED: tuple[tuple[tuple[Kind, ...], Finder], ...] = (
    (("email",), people.emails),
    (("birth_date",), people.birth_dates),
    (("name",), people.names),
    (("titled_name",), people.titled_names),
)


def scan(text: str, actions: Mapping[Kind, Action]) -> list[Hit]:
    """Returns the personal data in a text, by place; kinds whose action is `off` are not looked for."""
    plain, places = _readable(text)
    lower = plain.lower()
    page = Page(plain, lower if len(lower) == len(plain) else plain)
    taken: list[Hit] = []
    for kinds, finder in (*_NUMBERED, *_NAMED) if page.numbered else _NAMED:
        if any(actions[kind] != "off" for kind in kinds):
            free = [hit for hit in finder(page) if not _overlaps(hit, taken)]
            taken += [hit for hit in free if actions[hit.kind] != "off"]
    taken.sort(key=lambda hit: hit.start)
    if places is None:
        return taken
    return [Hit(hit.kind, int(places[hit.start]), int(places[hit.end - 1]) + 1) for hit in taken]


def _overlaps(hit: Hit, taken: list[Hit]) -> bool:
    return any(hit.start < other.end and other.start < hit.end for other in taken)


def _readable(text: str) -> tuple[str, NDArray[np.int64] | None]:
    """Returns a text with one form for digits, dashes, blanks and masks; and where its letters were, if some hid."""
    if text.isascii():
        return text, None
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    folded = np.where(codes < _FOLDED, _fold()[np.minimum(codes, _FOLDED - 1)], codes)
    hidden = _HIDDEN.search(text) is not None
    places = np.flatnonzero(folded) if hidden else None
    return (folded if places is None else folded[places]).tobytes().decode("utf-32-le", "surrogatepass"), places


@cache
def _fold() -> NDArray[np.uint32]:
    fold = np.arange(_FOLDED, dtype=np.uint32)
    fold[0xFF01:0xFF5F] -= 0xFEE0  # full width
    for code in range(0x80, _FOLDED):
        if unicodedata.decimal(chr(code), None) is not None:
            fold[code] = ord("0") + unicodedata.decimal(chr(code))
        elif unicodedata.category(chr(code)) == "Zs":
            fold[code] = ord(" ")
    for letters, plain in ((_DASHES, "-"), (_MASKS, "*"), ("\u2028\u2029\x85", "\n")):
        fold[[ord(letter) for letter in letters]] = ord(plain)
    fold[[code for first, last in _UNSEEN for code in range(first, last + 1)]] = 0
    return fold

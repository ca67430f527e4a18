"""Korean resident and foreigner registration numbers, in the ways that people write them.

YYMMDD-SNNNNNC: a birth date, a digit for century, sex and citizenship, and a check digit in those issued before October
2020. The date and S decide; the check digit is evidence where the form alone could be another number.
"""

import re
from collections.abc import Iterator
from datetime import date

from corpus.gates.config import Kind
from corpus.gates.hits import Hit, Page

_MASK = r"*xX_#?-"
_NUMBER = re.compile(
    rf"""(?<!\d)
    (?P<date>
        (?:18|19|20)\d\d(?P<gap>[-./ ]{{0,2}})\d\d(?P=gap)\d\d
        | \d\d(?P<mark>[-./]?[ ]?)\d\d(?P=mark)\d\d
        | \d\d년[ ]?\d\d?월[ ]?\d\d?일
    )
    (?P<sep>
        \W{{0,5}}
        | [ ]?(?:다시|대시|하이픈|dash)[ ]?
        | \W{{0,3}}(?:뒷?[ ]?(?:자리|번호)|뒤)\W{{0,4}}
    )
    (?P<rest>\d[\d{_MASK}]{{6}})
    (?!\d)""",
    re.VERBOSE,
)
_SPACED = re.compile(r"(?<!\d)(?<!\d )\d(?: \d){5}(?: ?- ?| {1,3})\d(?: \d){6}(?! ?\d)")
_PARTED = re.compile(r"\n(?=\d)")
_REST = re.compile(rf"\d+[{re.escape(_MASK)}]*")
_STRONG = re.compile(r"[-~/_:가-힣a-z]")
_CUES = re.compile(
    r"주민|민번|외국인|등록번호|생년|식별번호|rrn|resident|registration|foreigner|\barc\b|national id|jumin"
)
_OTHER = re.compile(r"isbn|issn|gtin|ean\b|upc|timestamp|epoch|unix")
_WEIGHTS = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)


def find(page: Page) -> Iterator[Hit]:
    """Yields the numbers among runs of digits."""
    places = {
        *page.like((13, 13)),
        *page.like((15, 15)),
        *page.like((6, 6), (1, 7), gap=12),
        *page.like((8, 8), (1, 7), gap=12),
        *page.like((2, 2), (1, 2), (1, 2), (1, 7), gap=6),
        *page.like((4, 4), (2, 2), (2, 2), (1, 7), gap=6),
    }
    done = 0
    for place in sorted(places):
        match = _NUMBER.match(page.text, place) if place >= done else None
        kind = _judge(page, match) if match else None
        if match and kind:
            done = match.end()
            yield Hit(kind, match.start(), done)
    yield from _spaced(page)
    yield from _parted(page)


def _spaced(page: Page) -> Iterator[Hit]:
    for place in page.like(*[(1, 1)] * 13, gap=3):
        match = _SPACED.match(page.text, place)
        digits = re.sub(r"\D", "", match.group()) if match else ""
        kind = _kind(digits[:6], digits[6:]) if match else None
        if match and kind and (_told(page, *match.span()) or (checks(digits) and len(set(digits)) > 3)):
            yield Hit(kind, *match.span())


def _told(page: Page, start: int, end: int) -> bool:
    return page.cued(start, words=_CUES) or page.cued(end + 15, words=_CUES) or page.near_hangul(start, end)


def _parted(page: Page) -> Iterator[Hit]:
    """Yields numbers with a line break inside of one half."""
    if "\n" not in page.text:
        return
    for gap in _PARTED.finditer(page.text):
        start, end = max(0, gap.start() - 20), min(len(page.text), gap.end() + 20)
        left = page.text[start : gap.start()].removesuffix("\r").removesuffix("-")
        if not left[-1:].isdigit():
            continue
        for match in _NUMBER.finditer(left + page.text[gap.end() : end]):
            if not match.start() < len(left) < match.end() or match.start("sep") <= len(left) <= match.end("sep"):
                continue
            kind, first, last = _kind(match["date"], match["rest"]), start + match.start(), start + match.end()
            last += gap.end() - start - len(left)
            if kind and "-" in match["sep"] and not page.fraction(first):
                yield Hit(kind, first, last)


def _judge(page: Page, match: re.Match[str]) -> Kind | None:
    kind = _kind(match["date"], match["rest"])
    start, end, gap = match.start(), match.end(), match["sep"]
    if kind is None or page.fraction(start):
        return None
    if match["rest"][0] in "90":  # born before 1900
        return kind if page.cued(start, words=_CUES) else None
    if _STRONG.search(gap):
        return kind
    whole = match["rest"].isdigit() and not match["mark"] and len(match["date"]) == 6
    if whole and not gap.strip(" .()[]\r\n") and gap.count("\n") < 2 and not _doubtful(page, start, end):
        return kind
    digits = match["date"] + match["rest"]
    if gap in ("", " ") and checks(digits) and not page.joined(start, end) and not page.cued(start, words=_OTHER):
        return kind
    return kind if _evident(page, start, end, digits=digits) else None


def _doubtful(page: Page, start: int, end: int) -> bool:
    return page.joined(start, end) or page.among_numbers(start, end) or page.cued(start, words=_OTHER)


def _evident(page: Page, start: int, end: int, *, digits: str) -> bool:
    if page.cued(start, words=_CUES):
        return True
    plain = re.sub(r"[^\d]", "", digits)[-13:]
    return not _doubtful(page, start, end) and (checks(plain) or page.near_hangul(start, end))


def _kind(written: str, rest: str) -> Kind | None:
    if not _REST.fullmatch(rest):
        return None
    digits = "".join(part.zfill(2) for part in re.findall(r"\d+", written))
    century = {"9": 1800, "0": 1800, "1": 1900, "2": 1900, "5": 1900, "6": 1900}.get(rest[0], 2000)
    if len(digits) == 8:
        if int(digits[:2]) * 100 != century:
            return None
        digits = digits[2:]
    try:
        date(century + int(digits[:2]), int(digits[2:4]), int(digits[4:6]))
    except ValueError:
        return None
    return "foreigner_number" if rest[0] in "5678" else "resident_number"


def checks(digits: str) -> bool:
    """Says whether 13 digits end in the check digit of a number issued before October 2020."""
    if len(digits) != 13 or not digits.isascii() or not digits.isdigit():
        return False
    remainder = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, digits, strict=False)) % 11
    base = 13 if digits[6] in "5678" else 11
    return (base - remainder) % 10 == int(digits[12])

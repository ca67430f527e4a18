"""Numbers of people other than resident numbers: phones, cards, passports, licences, records, American ones."""

import re
from collections.abc import Iterable, Iterator

from corpus.gates.hits import Hit, Page, luhn

_CARD = re.compile(r"\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?!\d)|\d{4}([ -])\d{6}\2\d{5}(?!\d)|\d{15,16}(?!\d)")
_ISSUER = re.compile(r"4\d{15}|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|35\d{14}|6[025]\d{14}|9[1-9]\d{14}")
_CARD_CUES = re.compile(r"card|카드|visa|master|amex|결제|신용|체크")
_DRIVING = re.compile(r"(?<!\d-)(?:1[1-9]|2[0-8])-\d\d-\d{6}-\d\d(?!-?\d)")
_DRIVING_REGION = re.compile(r"\d\d-\d{6}-\d\d(?!-?\d)")
_REGIONS = re.compile(r"(?:서울|부산|경기|강원|충북|충남|전북|전남|경북|경남|제주|대구|인천|광주|대전|울산) ?$")
_DRIVING_BARE = re.compile(r"(?:1[1-9]|2[0-8])[ -]?\d\d[ -]?\d{6}[ -]?\d\d(?!\d)")
_DRIVING_CUES = re.compile(r"면허|driver|driving")
_BUSINESS = re.compile(r"(?<!\d-)\d{3}-?\d\d-?\d{5}(?!-?\d)")
_BUSINESS_CUES = re.compile(r"사업자|business (?:registration )?(?:no|number)")
_PERSON = re.compile(r"대표|성명|이름|사업주|원장|개인|owner|name")
_SSN = re.compile(r"(?<!\d-)(\d{3})([ -]?)(\d\d)\2(\d{4})(?!-?\d)")
_SSN_CUES = re.compile(r"\bssn\b|social security|\bss ?#|사회보장")
_PHONE_CUES = re.compile(r"전화|연락처|휴대|핸드폰|팩스|☎|tel|phone|mobile|cell|fax|h\.?p\b|call|contact")
_MOBILE = re.compile(r"01[016789]([-. )/]{0,3})(\d{3,4})([-. /]{0,3})(\d{4})(?![\d.]\d|\d|-\d)")
_AREA = r"2|3[1-3]|4[1-4]|5[1-5]|6[1-4]|70|50\d"
_LAND = re.compile(rf"(?<!\d-)0(?:{_AREA})([-. )/]{{1,3}})(\d{{3,4}})([-. /]{{1,3}})(\d{{4}})(?![\d.]\d|\d|-\d)")
_BARE = re.compile(rf"0(?:{_AREA})\d{{7,8}}(?!\d)")
_KOREA = re.compile(
    rf"(?:00 ?)?82[-. )/]{{0,3}}\(?0?\)?[-. ]?(?:1[016789]|{_AREA})[-. )/]{{0,3}}\d{{3,4}}[-. /]{{0,3}}\d{{4}}(?!\d)"
)
_AMERICAN = re.compile(r"(?<!\d-)([2-9]\d\d)(\)?)([-. ]{0,2})([2-9]\d\d)([-. ]?)(\d{4})(?![\d.]\d|\d|-\d)")
_TOLL_FREE = frozenset({"800", "822", "833", "844", "855", "866", "877", "888", "900"})
_ABROAD = re.compile(r"(?!82|1\b)[1-9]\d{0,2}(?:[-. ()/]{1,3}\d{1,8}){2,5}(?!\d)")
_PASSPORT_CUES = re.compile(r"여권|passport")
_PASSPORT = re.compile(r"(?<![a-z0-9])(?:[a-z]{1,2}\d{7,8}|m\d{3}[a-z]\d{4}|\d{9})(?![a-z0-9])")
_RECORD_CUES = {  # what stands before the number of a record, in two parts: a word, and what may follow it
    "mrn": r"",
    "medical record": r" ?(?:no|number|num|id|#)",
    "chart": r" ?(?:no|number|#)",
    "hospital": r" (?:no|number|id)",
    "patient": r"(?: ?id| no| number|'s id)",
    "pt": r" ?(?:id|no)",
    "병록": r" ?번호",
    "차트": r" ?번호",
    "환자": r" ?(?:(?:등록 ?)?번호|id)",
    "등록": r" ?번호",
}
_RECORDS = {
    cue: re.compile(
        rf"{rest}(?![a-z])[\s.:=#)는은이가]{{0,6}}(?:is |was )?(?P<id>[a-z]{{0,3}}-?\d[\d-]{{3,13}}\d)(?!\d)"
    )
    for cue, rest in _RECORD_CUES.items()
}
_NOT_PATIENTS = re.compile(r"(?:사업자|주민|외국인|시험|임상|품목|연구|과제|법인|특허|허가|논문|제품|의약품|상표) ?$")


def cards(page: Page) -> Iterator[Hit]:
    """Yields card numbers: an issuer's first digits, and Luhn's check digit."""
    places = (*page.like(*[(4, 4)] * 4, gap=1), *page.like((4, 4), (6, 6), (5, 5), gap=1), *page.like((15, 16)))
    for match in _at(_CARD, page, places):
        digits = re.sub(r"\D", "", match.group())
        lost = page.joined(*match.span()) or page.among_numbers(*match.span())
        sure = page.cued(match.start(), words=_CARD_CUES) or not lost
        if _ISSUER.fullmatch(digits) and luhn(digits) and len(set(digits)) > 1 and sure:
            yield Hit("card", *match.span())


def driving_licences(page: Page) -> Iterator[Hit]:
    """Yields Korean driving licence numbers."""
    for match in _at(_DRIVING, page, page.like((2, 2), (2, 2), (6, 6), (2, 2), gap=1)):
        yield Hit("driving_licence", *match.span())
    for match in _at(_DRIVING_REGION, page, page.like((2, 2), (6, 6), (2, 2), gap=1)):
        if _REGIONS.search(page.text[max(0, match.start() - 4) : match.start()]):
            yield Hit("driving_licence", *match.span())
    for match in _at(_DRIVING_BARE, page, (*page.like((12, 12)), *page.like((2, 2), (2, 2), (6, 6), (2, 2), gap=1))):
        if page.cued(match.start(), words=_DRIVING_CUES):
            yield Hit("driving_licence", *match.span())


def business_numbers(page: Page) -> Iterator[Hit]:
    """Yields Korean business numbers that stand beside a person."""
    for match in _at(_BUSINESS, page, (*page.like((3, 3), (2, 2), (5, 5), gap=1), *page.like((10, 10)))):
        around = page.lower[max(0, match.start() - 60) : match.end() + 60]
        sure = page.cued(match.start(), words=_BUSINESS_CUES) and _PERSON.search(around)
        if sure and _checks_business(re.sub(r"\D", "", match.group())):
            yield Hit("business_number", *match.span())


def social_security_numbers(page: Page) -> Iterator[Hit]:
    """Yields American social security numbers; without a cue only those that can have been issued."""
    for match in _at(_SSN, page, (*page.like((3, 3), (2, 2), (4, 4), gap=1), *page.like((9, 9)))):
        area, mark, group, serial = match.groups()
        issued = area not in {"000", "666"} and area < "900" and group != "00" and serial != "0000"
        alone = mark == "-" and not page.among_numbers(*match.span())
        if page.cued(match.start(), words=_SSN_CUES) or (issued and alone):
            yield Hit("ssn", *match.span())


def korean_phones(page: Page) -> Iterator[Hit]:
    """Yields Korean phones: mobile in any form, others with their marks or a cue, and from abroad."""
    places = (*page.like((2, 2), (1, 11), gap=4), *page.like((4, 4), (1, 11)), *page.like((11, 14)))
    for match in _at(_KOREA, page, places):
        before = page.text[max(0, match.start() - 3) : match.start()]
        if match[0].startswith("00") or re.search(r"\+ ?\(?$|[(]$", before):
            yield Hit("phone_kr", *match.span())
    for match in _at(_MOBILE, page, (*page.like((10, 11)), *page.like((3, 3), (3, 8)), *page.like((7, 7), (4, 4)))):
        lost = page.joined(*match.span()) or page.among_numbers(*match.span())
        if (match[1] and match[3]) or not lost or page.cued(match.start(), words=_PHONE_CUES):
            yield Hit("phone_kr", *match.span())
    yield from _land_lines(page)


def _land_lines(page: Page) -> Iterator[Hit]:
    for match in _at(_LAND, page, page.like((2, 4), (3, 4), (4, 4))):
        sure = match[1].strip(" .") and match[3].strip(" .")
        if sure or page.cued(match.start(), words=_PHONE_CUES) or page.near_hangul(*match.span()):
            yield Hit("phone_kr", *match.span())
    for match in _at(_BARE, page, page.like((9, 12))):
        if page.cued(match.start(), words=_PHONE_CUES, within=20):
            yield Hit("phone_kr", *match.span())


def american_phones(page: Page) -> Iterator[Hit]:
    """Yields American phones but those that nobody owns (toll-free)."""
    for match in _at(_AMERICAN, page, (*page.like((3, 3), (3, 3), (4, 4), gap=2), *page.like((10, 10)))):
        area, closed, first, _, second, _ = match.groups()
        opened = page.text[max(0, match.start() - 1) : match.start()] == "("
        shaped = (opened and closed) or (first == second and first in ("-", "."))
        if area in _TOLL_FREE or opened != bool(closed) or page.fraction(match.start()):
            continue
        if shaped or page.cued(match.start(), words=_PHONE_CUES, within=20):
            yield Hit("phone_us", *match.span())


def other_phones(page: Page) -> Iterator[Hit]:
    """Yields phones of other countries, which begin with + and a country's code."""
    if "+" in page.text:
        for match in _at(_ABROAD, page, page.like((1, 3), (1, 8), (1, 8))):
            before = page.text[max(0, match.start() - 2) : match.start()]
            if before[-1:] == "+" and not before[:1].isalnum() and 8 <= len(re.sub(r"\D", "", match.group())) <= 15:
                yield Hit("phone_other", *match.span())


def passports(page: Page) -> Iterator[Hit]:
    """Yields passport numbers behind a cue."""
    if "여권" in page.text or "passport" in page.lower:
        for cue in _PASSPORT_CUES.finditer(page.lower):
            match = _PASSPORT.search(page.lower, cue.end(), cue.end() + 40)
            if match:
                yield Hit("passport", *match.span())


def record_numbers(page: Page) -> Iterator[Hit]:
    """Yields numbers of medical records behind a cue."""
    for cue, pattern in _RECORDS.items():
        for match in page.after(cue, pattern) if cue in page.lower else ():
            place = match.start() - len(cue)
            before = page.lower[max(0, place - 6) : place]
            if not (before[-1:].isalpha() and before.isascii()) and not (
                cue == "등록" and _NOT_PATIENTS.search(before)
            ):
                yield Hit("record_number", *match.span("id"))


def _at(pattern: re.Pattern[str], page: Page, places: Iterable[int]) -> Iterator[re.Match[str]]:
    done = 0
    for place in sorted(places):
        match = pattern.match(page.text, place) if place >= done else None
        if match:
            done = match.end()
            if not page.fraction(match.start()):
                yield match


def _checks_business(digits: str) -> bool:
    weighed = [int(digit) * weight for digit, weight in zip(digits, (1, 3, 7, 1, 3, 7, 1, 3, 5), strict=False)]
    return (10 - (sum(weighed) + weighed[8] // 10) % 10) % 10 == int(digits[9])

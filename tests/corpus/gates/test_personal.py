"""The search for personal data: what it must find in all forms, what it must leave alone, and what it may say."""

import random
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest

from corpus.gates.config import ACTIONS, GatesConfig
from corpus.gates.hits import luhn
from corpus.gates.personal import scan
from corpus.gates.resident import checks
from corpus.gates.screen import Screen
from corpus.modality import Record

FORMS: dict[str, Callable[[str, str], str]] = {
    "dash": lambda first, second: f"{first}-{second}",
    "none": lambda first, second: first + second,
    "blank": lambda first, second: f"{first} {second}",
    "full width": lambda first, second: _wide(f"{first}-{second}"),
    "en dash": lambda first, second: f"{first} – {second}",
    "middle dot": lambda first, second: f"{first}·{second}",
    "masked": lambda first, second: f"{first}-{second[0]}******",
    "line break": lambda first, second: f"{first}-\n{second}",
}
MORE: dict[str, Callable[[str, str], str]] = {
    "em dash": lambda first, second: f"{first}—{second}",
    "dot": lambda first, second: f"{first}.{second}",
    "dotted date": lambda first, second: f"{first[:2]}.{first[2:4]}.{first[4:]}-{second}",
    "year in full": lambda first, second: f"{_century(second)}{first}-{second}",
    "circles": lambda first, second: f"{first}-{second[0]}●●●●●●",
    "brackets": lambda first, second: f"{first}({second})",
    "bare line break": lambda first, second: f"{first}\n{second}",
    "broken half": lambda first, second: f"{first}-{second[:3]}\n{second[3:]}",
    "hidden space": lambda first, second: f"{first[:3]}\u200b{first[3:]}-{second}",
    "every digit": lambda first, second: f"{' '.join(first)} - {' '.join(second)} (주민등록번호)",
    "halves named": lambda first, second: f"앞자리 {first} 뒷자리 {second}",
}
PLACES = (
    "환자 주민번호는 {}이며 2020년 3월에 내원하였다.",
    "홍길동({})",
    "The number {} was in the file.",
    "{}",
    "id: {}\nage: 63",
)


def _wide(text: str) -> str:
    return "".join(chr(ord(letter) + 0xFEE0) for letter in text)


def _century(second: str) -> int:
    return 20 if second[0] in "3478" else 19


def _number(rng: random.Random, *, foreign: bool = False) -> tuple[str, str]:
    """Makes a resident number; half of them with the check digit of those issued before October 2020."""
    day = date(1930, 1, 1) + timedelta(days=rng.randrange(94 * 365))
    digit = rng.choice("12" if day.year < 2000 else "34")
    first, second = day.strftime("%y%m%d"), (str(int(digit) + 4) if foreign else digit) + f"{rng.randrange(10**6):06d}"
    if rng.random() < 0.5:
        second = next(second[:6] + last for last in "0123456789" if checks(first + second[:6] + last))
    return first, second


def _kinds(text: str) -> list[str]:
    return [hit.kind for hit in scan(text, ACTIONS)]


@pytest.mark.parametrize("form", [*FORMS, *MORE])
def test_resident_numbers_are_found_in_every_written_form(form: str) -> None:
    rng = random.Random(f"resident {form}")
    missed = []
    for number in range(50):  # 8 forms of 50 are the 400 numbers, more forms come on top
        text = PLACES[number % len(PLACES)].format({**FORMS, **MORE}[form](*_number(rng, foreign=number % 10 == 9)))
        wanted = "foreigner_number" if number % 10 == 9 else "resident_number"
        if wanted not in _kinds(text):
            missed.append(text)
    assert missed == []


def test_a_bare_number_in_a_table_needs_its_check_digit() -> None:
    rng = random.Random(1)
    for _ in range(50):
        first, second = _number(rng)
        found = "resident_number" in _kinds(f"1,{first}{second},12.5")
        assert found is checks(first + second)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("연락처 010-1234-5678", "phone_kr"),
        ("01012345678로 전화", "phone_kr"),
        (_wide("010-1234-5678"), "phone_kr"),
        ("+82-10-1234-5678", "phone_kr"),
        ("+82 2 2072 1234", "phone_kr"),
        ("02)2072-1234", "phone_kr"),
        ("Tel 0220721234", "phone_kr"),
        ("여권번호 M12345678", "passport"),
        ("passport no. M123A4567", "passport"),
        ("운전면허 11-04-123456-78", "driving_licence"),
        ("서울 04-123456-78", "driving_licence"),
        ("대표 홍길동 사업자등록번호 124-81-00998", "business_number"),
        ("4111 1111 1111 1111", "card"),
        ("ssn: 123456789", "ssn"),
        ("123-45-6789", "ssn"),
        ("call (212) 555-1234", "phone_us"),
        ("+49 30 1234567", "phone_other"),
        ("write to hong.gildong@snuh.org.", "email"),
        ("MRN: 1234567", "record_number"),
        ("등록번호 12345678", "record_number"),
        ("병록번호: 0012345", "record_number"),
        ("차트번호 2020-12345", "record_number"),
        ("환자 홍길동 내원", "name"),
        ("환자 홍길동님은", "name"),
        ("성명: 김 철수", "name"),
        ("Patient name: Jane Roe", "name"),
        ("Mr. Brown said", "titled_name"),
        ("김영수 씨는", "titled_name"),
        ("생년월일: 1990년 1월 2일", "birth_date"),
        ("DOB 01/02/1990", "birth_date"),
    ],
)
def test_other_personal_data_is_found(text: str, kind: str) -> None:
    assert kind in _kinds(text)


@pytest.mark.parametrize(
    "text",
    [
        "991332-1234567",  # no such month
        "990230-1234567",  # no such day
        "0.9001011234567 of all",
        "9001011234567,12.5,9001011234569",  # a table of numbers, and wrong check digits
        "ISBN 9001011234567",
        "PMID 32901011, 12345678",
        "NCT01234567 began on 2020-01-01",
        "call 1-800-332-1088",
        "환자 이상은 없었다",
        "환자 기록이 병원을 떠나지 않는다",
        "환자 구성이 다르다",
        "환자 안전을 위하여",
        "임상시험 등록번호 12345678",
        "doi 10.1002/humu.23636 and 45(3): 1234-1245",
        "4111 1111 1111 1112",  # Luhn's digit is wrong
        "pages 123-456, 7890",
        "C1=CC=C(C=C1)C(=O)O",
        "사업자등록번호 124-81-00998",  # of a company
        "000-12-3456",
        "Patient: Acute",
    ],
)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert _kinds(text) == []


def test_luhn_is_the_check_of_cards() -> None:
    assert luhn("4539578763621486")
    assert not luhn("4539578763621487")


def test_a_kind_is_kept_counted_or_left_by_the_run_file() -> None:
    text, record = "Reach kim@snuh.org or 010-1234-5678.", Record(content={}, group="a")
    config = GatesConfig.model_validate(
        {"personal": {"sources": {"papers": {"email": "count", "phone_kr": "count"}, "synthetic": "off"}}}
    )
    screen = Screen(config, Path())
    finding = screen.check(record, text, source="notes", modality="text")
    assert finding
    assert (finding.gate, finding.code) == ("personal", "email")
    assert screen.check(record, text, source="papers", modality="text") is None
    assert screen.take()["personal"] == {"email": 2, "phone_kr": 2}
    assert screen.check(record, text, source="synthetic", modality="text") is None
    assert screen.check(record, text, source="notes", modality="molecule") is None
    assert screen.take()["personal"] == {}


def test_a_finding_tells_kinds_and_places_and_never_the_data() -> None:
    text = "환자 홍길동, 주민번호 900101-1234567, hong@snuh.org"
    finding = Screen(GatesConfig(), Path()).check(Record(content={}, group="a"), text, source="a", modality="text")
    assert finding
    assert finding.reason == "must hold no personal data, but holds 1 name, 1 resident_number, 1 email"
    assert finding.detail["kinds"] == {"name": 1, "resident_number": 1, "email": 1}
    kind, start, end = finding.detail["offsets"][1]
    assert (kind, text[start:end]) == ("resident_number", "900101-1234567")
    told = f"{finding.reason} {finding.detail}"
    assert not any(secret in told for secret in ("홍길동", "900101", "1234567", "snuh"))


def test_places_are_those_of_the_text_as_it_was_given() -> None:
    text = "가\u200b나 9001\u200b01-1234567 끝"
    (hit,) = scan(text, ACTIONS)
    assert text[hit.start : hit.end] == "9001\u200b01-1234567"


@pytest.mark.parametrize(
    "name", ["ko_en/ntrex_en_ko_dev.jsonl", "literature_qa/medmcqa_dev_part.jsonl", "molecules/BBBP.csv"]
)
def test_real_files_hold_no_resident_number(name: str, real: Callable[[str], Path]) -> None:
    text = real(f"../shared/data/{name}").read_text()
    assert not {"resident_number", "foreigner_number", "card", "ssn"} & set(_kinds(text[:300_000]))

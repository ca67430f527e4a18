"""Names behind cue words, e-mail addresses and dates of birth."""

import re
from collections.abc import Iterator

from corpus.gates.hits import HANGUL, Hit, Page

_EMAIL = re.compile(r"[A-Za-z0-9_.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-]*@)")
_SURNAMES = (
    "김이박최정강조윤장임한오서신권황안송류전홍고문양손배백허남심노하곽성차주우구민유진지엄채원천방공현함변염여추도소석선설마길연위표명기반왕"
    "금옥육인맹제모탁국어은편용예경봉사부"
)
_DOUBLE = "남궁|황보|제갈|사공|선우|서문|독고|동방|어금|망절"
_GIVEN = frozenset(
    "가강건겸경고관광구권규균근기길나남노다단달담대덕도동두라란람래려련렬령록루리린림만명모무문미민배백범별병보복봉빈사산삼상새서석선설섭성세소솔"
    "송수숙순술숭슬승시식신실심아안애양언여연열엽영예오옥온완용우욱운웅원월위유윤율은음의이익인일임자잔장재전점정제조종주준중지진찬창채천철청초춘충치"
    "태택평필하학한해향혁현형혜호홍화환회효훈휘흠흥희"
)
_WORDS = (  # that look like a name
    "이상은 이상의 이상이 이상을 이상한 이상인 이송을 이송의 정보의 정보를 "
    "정보는 안정성 안전성 안전의 정신의 정상의 정상인 정상은 조사의 조기의 "
    "신체의 신장의 신경의 고혈압 고지혈 유전자 유전성 이식은 이식의 이용의 "
    "이용은 이해의 이환의 주의의 주기의 진료의 진단의 진행의 전체의 전이의 "
    "전원의 임상의 임신의 임신한 한명의 한국인 여성의 여성은 여성이 남성의 "
    "남성은 남성이 모두의 대상의 성인의 성인은 소아의 소아는 미상 없음 무명 "
    "익명 비공개 기록의 방문의 문의의 인원의 가족의 중심의 안내의 사망의 사례의 "
    "상태의 수준의 관리의 우선의 연령의 평균의 "
)
_NOT_NAMES = frozenset(_WORDS.split())
_NOUN_WORDS = (  # what stands behind "patient" and begins like a family name
    "간호 감염 경과 경험 고통 관리 교육 구분 구성 권리 기록 기준 나이 "
    "노출 대상 동의 등록 마취 만족 명단 모집 문의 반응 방문 배정 변화 "
    "보호 부담 사고 사례 사망 상담 상태 선별 선정 설명 성별 "
    "수술 순응 신상 신원 안내 안전 연령 예후 용태 원인 위치 유입 유형 "
    "응대 의뢰 이동 이송 이탈 인식 임상 자료 전원 정보 제공 조사 주소 "
    "중심 지도 지원 진단 진료 진술 차트 채혈 처치 추적 편의 표본 피부 "
    "현황 호송 황달 회복 "
)
_NOUNS = frozenset(_NOUN_WORDS.split())
_PARTICLES = frozenset("이은는의을를가도와과인로별용군만")
_HONORIFIC = r"(?: ?(?:님|씨|군|양|환자|할머니|할아버지|아동|어르신))"
_KOREAN_CUES = (
    "환자",
    "성명",
    "성 명",
    "이름",
    "이 름",
    "성함",
    "보호자",
    "수진자",
    "피보험자",
    "대상자명",
    "담당의",
    "주치의",
)
_NAME = rf"(?P<name>(?:{_DOUBLE})[가-힣]{{1,2}}|[{_SURNAMES}](?: ?[가-힣]){{1,3}})"
_NAMED = re.compile(rf"(?: ?(?:성 ?명|이름|명))?(?: ?[:=] ?|\t|\| ?){_NAME}(?![가-힣])")
_CALLED = re.compile(
    rf"(?:은|이)? (?P<name>(?:{_DOUBLE})[가-힣]{{1,2}}|[{_SURNAMES}][가-힣]{{2}})"
    rf"(?P<after>{_HONORIFIC}|(?:이?(?:은|는|이|가|의|을|를|에게|께서|입니다|이다|과|와|랑))?(?=[\s.,;:()/\[\]]|$))"
)
_POLITE = re.compile(rf"(?<![가-힣])[{_SURNAMES}][가-힣]{{2}}(?= ?$)")
_ENGLISH_CUES = (  # what a name stands behind; all but the first in any case of letters
    "Patient",
    "patient name",
    "patient's name",
    "patient full name",
    "patients name",
    "pt name",
    "pt. name",
    "name of patient",
    "name of the patient",
    "full name",
    "first name",
    "last name",
    "family name",
    "given name",
    "maiden name",
    "surname",
    "next of kin",
    "guardian",
    "mother's name",
    "father's name",
)
_ENGLISH = re.compile(r"(?:\s?[:=]\s?|(?<=[Nn]ame) is )(?P<name>[A-Z][A-Za-z'’-]+(?:,? [A-Z][A-Za-z.'’-]*){0,3})")
_PATIENT = re.compile(r" ?: ?(?P<name>[A-Z][a-z'’-]+,? [A-Z][a-z'’-]+)(?=[\s,.;(]|$)")
_NO_NAME = frozenset(
    {"Unknown", "None", "N", "NA", "Anonymous", "Male", "Female", "Yes", "No", "The", "A", "An", "Not", "Redacted"}
)
_ENDED = re.compile(r"(?:은|는|이|가|의|을|를|와|과|도|에게|께서)?(?![가-힣])")
_TITLES = ("Mr", "Mrs", "Ms", "Miss", "Mx", "Dr", "Prof")
_TITLED = re.compile(r"\.? (?P<name>[A-Z][a-z'’-]+(?: [A-Z][a-z'’-]+)?)")
_BIRTH_CUES = (
    "생년월일",
    "생년 월일",
    "출생일",
    "출생연월일",
    "date of birth",
    "birth date",
    "birthdate",
    "dob",
    "d.o.b.",
    "born on",
    "born",
)
_DATE = (
    r"(?P<date>\d{4}[-./년 ]{1,3}\d\d?[-./월 ]{1,3}\d\d?|\d\d?[-./]\d\d?[-./]\d{2,4}|\d{6,8}"
    r"|\d\d?[- ][a-z]{3,9}[-, ]{1,2}\d{4}|[a-z]{3,9} \d\d?,? \d{4})(?!\d)"
)
_BIRTH = re.compile(r"\s?[:=은는]? ?" + _DATE)


def emails(page: Page) -> Iterator[Hit]:
    """Yields e-mail addresses."""
    if "@" in page.text:
        for match in _EMAIL.finditer(page.text):
            yield Hit("email", *match.span())


def names(page: Page) -> Iterator[Hit]:
    """Yields names that a cue announces: `성명: 홍길동`, `환자 홍길동님`, `Patient name: Jane Roe`."""
    if not page.text.isascii():
        yield from _korean_names(page)
    if len(page.lower) == len(page.text):
        for cue in (cue for cue in _ENGLISH_CUES if cue.lower() in page.lower):
            yield from _english_names(page, cue)


def _english_names(page: Page, cue: str) -> Iterator[Hit]:
    bare = cue == "Patient"
    text, pattern = (page.text, _PATIENT) if bare else (page.lower, _ENGLISH)
    place = text.find(cue)
    while place >= 0:
        match = pattern.match(page.text, place + len(cue))
        begins = not page.text[place - 1 : place].isalpha() and (not bare or page.text[place - 1 : place] in ("", "\n"))
        if match and begins and re.split(r"[ ,.]", match["name"])[0] not in _NO_NAME:
            yield Hit("name", *match.span("name"))
        place = text.find(cue, place + len(cue))


def _korean_names(page: Page) -> Iterator[Hit]:
    for cue in (cue for cue in _KOREAN_CUES if cue in page.text):
        for match in page.after(cue, _NAMED):
            if match["name"].replace(" ", "") not in _NOT_NAMES:
                yield Hit("name", *match.span("name"))
        for match in page.after(cue, _CALLED):
            begins = not HANGUL.match(page.text, match.start() - len(cue) - 1) if match.start() > len(cue) else True
            if begins and _is_name(match["name"], sure=match["after"].strip()[:1] in ("님", "씨", "군", "양")):
                yield Hit("name", *match.span("name"))


def titled_names(page: Page) -> Iterator[Hit]:
    """Yields names behind a title: Mr., Dr., 홍길동 씨."""
    for title in _TITLES:
        for match in page.after(title, _TITLED, lower=False) if title in page.text else ():
            place = match.start() - len(title)
            if not page.text[max(0, place - 1) : place].isalnum():
                yield Hit("titled_name", *match.span("name"))
    for polite in () if page.text.isascii() else ("씨", "님"):
        for end in page.after(polite, _ENDED):
            name = _POLITE.search(page.text, max(0, end.start() - 6), end.start() - 1)
            if name and _is_name(name.group(), sure=False):
                yield Hit("titled_name", *name.span())


def birth_dates(page: Page) -> Iterator[Hit]:
    """Yields dates of birth behind a cue."""
    for cue in _BIRTH_CUES:
        for match in page.after(cue, _BIRTH) if cue in page.lower else ():
            yield Hit("birth_date", *match.span("date"))


def _is_name(name: str, *, sure: bool) -> bool:
    given = name[2:] if name[:2] in _DOUBLE.split("|") else name[1:]
    noun = name[:2] in _NOUNS and name[2:] in _PARTICLES
    return name not in _NOT_NAMES and (sure or (not noun and set(given) <= _GIVEN))

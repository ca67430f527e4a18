"""Quality: each rule on a text that breaks it, and real texts that break none."""

import random
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from corpus.gates.config import GatesConfig, QualityConfig
from corpus.gates.quality import judge
from corpus.gates.screen import Screen
from corpus.modality import Record, modality
from corpus.symbols import plain

PROSE = (
    "The trial enrolled adults with type 2 diabetes who had not reached their target in spite of metformin. "
    "They were given the new drug or placebo for a year, and the primary outcome was the change of HbA1c. "
    "Adverse events were rare and mild in both groups, and nobody left the study because of one of them."
)
KOREAN = (
    "이번 임상시험에는 메트포르민으로 조절되지 않는 제2형 당뇨병 환자가 참여하였다. "
    "환자들은 일 년 동안 신약이나 위약을 복용하였고 일차 평가 변수는 당화혈색소의 변화였다. "
    "이상 반응은 두 군 모두에서 드물고 가벼웠으며 그 때문에 중단한 사람은 없었다."
)
WORDS = [f"w{'abcdefghij'[number % 10]}{number:x}" for number in range(2000)]


def _code(text: str, language: str | None = "en", **config: object) -> str | None:
    broken = judge(text, language, config=QualityConfig.model_validate(config), off=frozenset())
    return broken[0] if broken else None


@pytest.mark.parametrize(
    ("code", "text", "language"),
    [
        ("too_short", "a", "en"),
        ("mojibake", PROSE.encode().decode("latin-1").replace("'", "") + "The patientâ€™s CafÃ© naÃ¯ve Ã©tude", "en"),
        ("mojibake", KOREAN.encode().decode("latin-1"), "ko"),
        ("mojibake", KOREAN.encode().decode("cp1252", "ignore"), None),
        ("mojibake", KOREAN.encode("cp949").decode("latin-1"), None),
        ("mojibake", KOREAN.encode().decode("cp949", "ignore"), None),
        ("no_words", "1 2 3", "en"),
        ("no_words", "12.5 mg " + "0.25 " * 100, "en"),
        ("word_length", "Pneumonoultramicroscopicsilicovolcanoconiosis " * 60, "en"),
        ("word_length", "a b " * 60, "en"),
        ("symbols", "the ### of and *** with " * 30, "en"),
        ("repeated_lines", "\n".join([*PROSE.split(". "), *["Read more about the trial here"] * 20]), "en"),
        ("repeated_phrases", f"{PROSE} " * 8, "en"),
        ("repeated_phrases", f"{KOREAN} " * 8, "ko"),
        ("boilerplate", "Accept all cookies to go on. Sign up for our newsletter today. All rights reserved.", "en"),
        ("boilerplate", "무단전재 및 재배포 금지\n본문 바로가기\n로그인이 필요합니다", "ko"),
        ("language", PROSE, "ko"),
        ("language", KOREAN, "en"),
        ("language", " ".join(random.Random(0).choices(WORDS, k=400)), "en"),
    ],
)
def test_a_text_breaks_a_rule(code: str, text: str, language: str | None) -> None:
    assert _code(text, language) == code


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (PROSE, "en"),
        (KOREAN, "ko"),
        (KOREAN, None),
        ("약", "ko"),
        ("B12", "en"),
        ("Malignant neoplasm of lip", "en"),
        ("Is aspirin safe?", "en"),
        ("Ménière's disease, naïve, 25 °C, β-blocker, α₁", "en"),
        ("See https://www.example.org/a/very/long/address/that/goes/on/and/on?with=arguments " + PROSE, "en"),
        (PROSE + " All rights reserved. See our privacy policy.", "en"),
        ("\n".join(["Yes", "No"] * 10), "en"),
    ],
)
def test_a_good_text_breaks_none(text: str, language: str | None) -> None:
    assert _code(text, language) is None


def test_limits_are_settings_and_reasons_have_figures() -> None:
    assert judge("x" * 200, "en", config=QualityConfig(max_letters=100), off=frozenset()) == (
        "too_long",
        "must have at most 100 letters, but has 200",
        {"letters": 200},
    )
    assert _code("abc", min_letters=4) == "too_short"


def test_a_rule_can_be_left_out_for_all_or_for_one_source() -> None:
    config = GatesConfig.model_validate({"quality": {"off": ["too_short"], "sources": {"logs": ["no_words"]}}})
    screen, record = Screen(config, Path()), Record(content={}, group="a", language="en")
    assert screen.check(record, "a", source="notes", modality="text") is None
    assert screen.check(record, "12", source="logs", modality="text") is None
    finding = screen.check(record, "12", source="notes", modality="text")
    assert finding
    assert (finding.gate, finding.code, finding.reason) == ("quality", "no_words", "must hold words, but holds none")
    assert screen.check(record, "12", source="notes", modality="trial") is None, "structured records are not judged"
    assert screen.take()["quality"] == {"no_words": 1}


@pytest.mark.parametrize(
    ("name", "path", "most"),
    [
        ("literature", "../shared/data/literature_qa/medmcqa_dev_part.jsonl", 1),  # a table that lost its blanks
        ("literature", "../shared/data/literature_qa/pubmedqa_pqal_dev.json", 0),
        ("literature", "../shared/data/literature_qa/evidence_inference_dev_articles.jsonl", 0),
        ("text", ".demo-data/simple_icd_10_cm/data/icd10c-tabular-April-1-2026.xml", 0),
    ],
)
def test_real_files_lose_next_to_nothing(real: Callable[[str], Path], name: str, path: str, most: int) -> None:
    reader = modality(name)
    items = islice(reader.read(real(path), reader.Options()), 400)
    texts = [plain(reader.render(item.content)) for item in items if isinstance(item, Record)]
    assert texts
    assert sum(_code(text) is not None for text in texts) <= most

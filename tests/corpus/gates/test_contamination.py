"""Evaluation sets: a planted question is caught whatever surrounds it, and what cannot be checked is said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corpus.gates.config import GatesConfig
from corpus.gates.contamination import Index, build
from corpus.gates.screen import Screen, ready, totals
from corpus.modality import Record

LONG = (
    "Which of the following drugs, given for six weeks after surgery, lowers the risk of venous thromboembolism "
    "in patients who have had a total hip replacement?"
)
SHORT = "The nerve that supplies the deltoid muscle is which one?"  # 10 words
TINY = "Dose of aspirin?"
KOREAN = (
    "다음 중 고관절 전치환술을 받은 환자에서 수술 후 육 주 동안 투여하여 "
    "정맥 혈전색전증의 위험을 낮추는 약물은 무엇인가?"
)
AROUND = "We met the family twice that year and wrote down what they said. "


def _config(path: Path, **more: Any) -> GatesConfig:
    benchmark = {"name": "exam", "path": str(path), "columns": ["question"], "ids": {"pmid": "source"}, **more}
    return GatesConfig.model_validate({"contamination": {"benchmarks": [benchmark]}})


@pytest.fixture
def exam(tmp_path: Path) -> Path:
    path = tmp_path / "exam.jsonl"
    questions = [LONG, SHORT, TINY, KOREAN]
    rows = [{"question": question, "source": str(100 + number)} for number, question in enumerate(questions)]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    return path


@pytest.fixture
def index(exam: Path, tmp_path: Path) -> Index:
    build(_config(exam).contamination, tmp_path, folder=tmp_path / "index")
    return Index.load(tmp_path / "index")


@pytest.mark.parametrize(
    ("text", "item"),
    [
        (LONG, 0),
        (AROUND + LONG.upper().replace(",", " --") + AROUND, 0),
        (AROUND + LONG.lower().replace("?", "").replace(" ", "\n") + " " + AROUND, 0),
        ("given for six weeks after surgery, lowers the risk of venous thromboembolism in", 0),  # 13 words of it
        (AROUND + SHORT.replace("?", ""), 1),
        (f"그는 물었다. {KOREAN.replace(' ', '')} 답은 없었다.", 3),
        (KOREAN[:50], 3),
    ],
)
def test_a_planted_question_is_found(index: Index, text: str, item: int) -> None:
    assert index.check(text, ()) == {"exam": {item}}


@pytest.mark.parametrize(
    "text",
    [
        "",
        AROUND * 20,
        "given for six weeks after surgery, lowers the risk of venous",  # 11 words of it
        "The nerve that supplies the deltoid muscle is the axillary nerve.",
        TINY,
        KOREAN[:20],
    ],
)
def test_what_is_no_question_is_not_found(index: Index, text: str) -> None:
    assert index.check(text, ()) == {}


def test_an_id_is_found_and_what_cannot_be_checked_is_counted(index: Index) -> None:
    assert index.check("", ("PMID:102", "nct:NCT00000102")) == {"exam": {2}}
    assert index.benchmarks() == {"exam": {"items": 4, "checkable": 3, "with_ids": 4}}


def test_the_screen_keeps_the_record_out_and_counts_by_benchmark(exam: Path, tmp_path: Path) -> None:
    config, folder = _config(exam), tmp_path / "gates"
    ready(config, tmp_path, folder=folder)
    screen = Screen(config, folder)
    record = Record(content={}, group="a", ids=("pmid:102",))
    finding = screen.check(record, AROUND + LONG, source="web", modality="text")
    assert finding
    assert (finding.gate, finding.code) == ("contamination", "contaminated")
    assert finding.reason == "must hold no item of an evaluation set, but holds 2 of exam"
    assert finding.detail == {"exam": [0, 2]}
    first = screen.take()
    screen.check(Record(content={}, group="b"), LONG, source="web", modality="text")
    counted = totals([first, screen.take()], config, folder=folder)
    assert counted["contamination"] == {"exam": {"items": 4, "checkable": 3, "with_ids": 4, "found": 2, "records": 2}}


def test_runs_that_many_different_questions_share_are_their_form(tmp_path: Path) -> None:
    form = "Read the statement below with care and then choose the one best answer among those that follow it"
    own = (
        "in the ward number {} there were twice as many people with a fever of {} degrees as in the other one last year"
    )
    passage = (
        "A passage that many questions share is content however often it stands in the file of the benchmark itself"
    )
    rows = [{"question": f"{form} {own.format(n, n * 7)}", "context": passage} for n in range(12)]
    (tmp_path / "exam.json").write_text(json.dumps(rows))
    config = _config(tmp_path / "exam.json", columns=["question", "context"], ids={})
    build(config.contamination, tmp_path, folder=tmp_path)
    index = Index.load(tmp_path)
    assert index.check(f"{form}. Good luck.", ()) == {}
    assert index.check(own.format(5, 35), ()) == {"exam": {5}}
    assert len(index.check(passage, ())["exam"]) == 12


def test_a_benchmark_may_be_read_by_a_modality(tmp_path: Path) -> None:
    (tmp_path / "exam.txt").write_text(f"{LONG}\n\n{AROUND}\n")
    benchmark = {"name": "exam", "path": "exam.txt", "modality": "text"}
    config = GatesConfig.model_validate({"contamination": {"benchmarks": [benchmark]}})
    build(config.contamination, tmp_path, folder=tmp_path / "index")
    assert Index.load(tmp_path / "index").check(LONG.upper(), ()) == {"exam": {0}}


def test_nested_columns_and_keys_are_read(tmp_path: Path) -> None:
    (tmp_path / "exam.json").write_text(json.dumps({"22663011": {"Q": {"text": [LONG, ""]}}, "2": {"Q": None}}))
    config = _config(tmp_path / "exam.json", columns=["Q.text"], ids={"pmid": "key"})
    build(config.contamination, tmp_path, folder=tmp_path)
    index = Index.load(tmp_path)
    assert index.check(LONG, ()) == index.check("", ["pmid:22663011"]) == {"exam": {0}}
    assert index.benchmarks()["exam"] == {"items": 2, "checkable": 1, "with_ids": 2}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[{"text": "a"}]', "must have the columns question, source, but item 0 has"),
        ("[]", r"the benchmark exam \(.*\): must hold items, but has none; mend its columns or leave it out"),
    ],
)
def test_a_benchmark_that_cannot_be_read_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "exam.json").write_text(text)
    with pytest.raises(ValueError, match=told):
        build(_config(tmp_path / "exam.json").contamination, tmp_path, folder=tmp_path)


def test_real_questions_are_found_again(real: Callable[[str], Path], tmp_path: Path) -> None:
    path = real("../shared/data/literature_qa/medmcqa_dev_part.jsonl")
    build(_config(path, ids={"medmcqa": "id"}).contamination, tmp_path, folder=tmp_path)
    index = Index.load(tmp_path)
    rows = [json.loads(line) for line in path.read_text().splitlines()[:300]]
    checkable = [number for number, row in enumerate(rows) if len(row["question"].split()) >= 10]
    missed = [n for n in checkable if n not in index.check(AROUND + rows[n]["question"].upper(), ()).get("exam", ())]
    assert len(checkable) > 100
    assert missed == []

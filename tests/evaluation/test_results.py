"""Answers, lines of items.jsonl and summaries, from scores that are written here by hand."""

import json
import math

import pytest

from evaluation import results
from evaluation.benchmarks import benchmark
from evaluation.items import Item, make_item
from parallelism.question import Scored


def item(number: int, *, answer: int = 0, stream: str = "text.en") -> Item:
    return make_item(
        group=f"{number // 2}",
        stream=stream,
        prompt=f"<|text|><|gene:CD3D|><|gene:CD74|>{number}.",
        choices=[" 예", " no, never"],
        answer=answer,
        guess=1,
    )


def scored(*logprobs: float) -> Scored:
    return Scored(logprobs=logprobs, truncated=logprobs[0] < -50)


def test_the_longer_choice_wins_per_byte_and_the_shorter_by_sum() -> None:
    """Three bytes of a Korean syllable and a space are 4 bytes; ' no, never' has 10."""
    by_sum = results.answer(item(0), scored(-4.0, -5.0), by_length=False)
    by_byte = results.answer(item(0), scored(-4.0, -5.0), by_length=True)
    assert by_sum.normalized == by_byte.normalized == (-1.0, -0.5)
    assert (by_sum.chosen, by_sum.correct) == (0, True)
    assert (by_byte.chosen, by_byte.correct) == (1, False)


def test_the_first_of_equal_choices_is_chosen() -> None:
    assert results.answer(item(0, answer=1), scored(-2.0, -2.0), by_length=False).chosen == 0


def test_a_summary_says_how_many_how_sure_and_against_what() -> None:
    asked = [
        item(number, answer=int(number % 4 == 3), stream=f"text.{'ko' if number % 2 else 'en'}") for number in range(40)
    ]
    scores = {each.id: scored(-60.0 if number == 0 else -1.0, -900.0) for number, each in enumerate(asked)}
    found = benchmark("text_continuation")
    summary = results.summary(found, results.answers(asked, scores, benchmark=found), seed=3, left_out=2)
    assert (summary["n"], summary["groups"], summary["truncated"], summary["chance"]) == (40, 20, 1, 0.5)
    assert summary["accuracy"]["value"] == pytest.approx(0.75)
    assert summary["baseline"]["value"] == pytest.approx(0.25)
    assert (summary["verdict"], summary["few_groups"], summary["left_out"]) == ("better", False, 2)
    assert summary["question"] == found.QUESTION
    assert summary["streams"]["text.en"]["value"] == 1.0
    assert summary["streams"]["text.ko"] == pytest.approx({"value": 0.5, "low": 0.25, "high": 0.75, "n": 20}, abs=0.06)
    assert summary["metric"] == "accuracy by log-probability per byte"
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_a_summary_says_why_few_groups_are_a_tie() -> None:
    asked = [item(number) for number in range(18)]
    found = benchmark("text_continuation")
    answered = results.answers(asked, {each.id: scored(-1.0, -900.0) for each in asked}, benchmark=found)
    summary = results.summary(found, answered, seed=3)
    assert (summary["groups"], summary["difference"]["low"]) == (9, 1)
    assert (summary["verdict"], summary["few_groups"]) == ("tie", True)
    assert summary["question"].endswith("? (Fewer than 10 independent groups: no verdict, so a tie.)")


def test_samples_are_written_for_people() -> None:
    found = benchmark("bilingual_pair")
    answered = results.answers([item(1)], {item(1).id: scored(-1.0, -1.0 - math.log(3))}, benchmark=found)
    (sample,) = results.summary(found, answered, seed=0)["samples"]
    assert sample["prompt"] == "CD3D CD741."
    assert sample["choices"] == ["예", "no, never"]
    assert (sample["answer"], sample["baseline"]) == (0, 1)
    assert sample["probabilities"] == pytest.approx([0.75, 0.25])


def test_a_line_of_items_holds_question_and_answer() -> None:
    answered = results.answer(item(5), scored(-4.0, -5.0), by_length=False)
    line = results.row("cell_type", answered)
    assert line == {
        "benchmark": "cell_type",
        "id": item(5).id,
        "group": "2",
        "stream": "text.en",
        "prompt": "<|text|><|gene:CD3D|><|gene:CD74|>5.",
        "choices": (" 예", " no, never"),
        "answer": 0,
        "guess": 1,
        "logprobs": (-4.0, -5.0),
        "normalized": (-1.0, -0.5),
        "chosen": 0,
        "correct": True,
        "truncated": False,
    }

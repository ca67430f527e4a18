"""From scores to answers: what the model chose on each item, and what a benchmark's page shows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from corpus.symbols import plain
from evaluation.benchmarks import Benchmark
from evaluation.items import Item
from evaluation.score import Scores
from evaluation.statistics import MIN_GROUPS, compare, estimate, few_groups
from parallelism.question import Scored

SAMPLES = 3
_FEW_GROUPS = f"(Fewer than {MIN_GROUPS} independent groups: no verdict, so a tie.)"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model chose on one item.

    Attributes:
        item: the question.
        logprobs: ln P(choice | prompt) in nats, for each choice.
        normalized: the same per UTF-8 byte of the choice, which no tokenizer changes.
        chosen: the index of the choice with the highest score.
        truncated: whether the prompt was longer than the model's context.
    """

    item: Item
    logprobs: tuple[float, ...]
    normalized: tuple[float, ...]
    chosen: int
    truncated: bool

    @property
    def correct(self) -> bool:
        """Returns whether the model chose the right answer."""
        return self.chosen == self.item.answer


def answer(item: Item, scored: Scored, *, by_length: bool) -> Answer:
    """Returns the choice with the highest log-probability, per byte when `by_length`; the first among equals."""
    normalized = tuple(
        logprob / len(choice.encode()) for logprob, choice in zip(scored.logprobs, item.choices, strict=True)
    )
    deciding = normalized if by_length else scored.logprobs
    return Answer(
        item=item,
        logprobs=scored.logprobs,
        normalized=normalized,
        chosen=deciding.index(max(deciding)),
        truncated=scored.truncated,
    )


def answers(items: Sequence[Item], scores: Scores, *, benchmark: Benchmark) -> list[Answer]:
    """Returns the model's answer to every item, in the order of `items`."""
    return [answer(item, scores[item.id], by_length=benchmark.NORMALIZED) for item in items]


def row(name: str, answered: Answer) -> dict[str, Any]:
    """Returns an item and its answer as one line of items.jsonl."""
    return {
        "benchmark": name,
        **asdict(answered.item),
        "logprobs": answered.logprobs,
        "normalized": answered.normalized,
        "chosen": answered.chosen,
        "correct": answered.correct,
        "truncated": answered.truncated,
    }


def summary(benchmark: Benchmark, answered: Sequence[Answer], *, seed: int, left_out: int = 0) -> dict[str, Any]:
    """Returns what a report shows of a benchmark: JSON values, the same for the same answers and seed.

    Args:
        benchmark: that asked.
        answered: its items with the model's answers.
        seed: of the resamples.
        left_out: held-out records that it did not ask about because no choice is right.
    """
    items = [each.item for each in answered]
    groups = [item.group for item in items]
    few = few_groups(groups)
    compared = compare(
        [float(each.correct) for each in answered],
        [item.baseline for item in items],
        groups=groups,
        seed=seed,
    )
    return {
        "question": benchmark.QUESTION + (f" {_FEW_GROUPS}" if few else ""),
        "modality": benchmark.MODALITY,
        "metric": "accuracy by log-probability" + (" per byte" if benchmark.NORMALIZED else ""),
        "n": len(items),
        "groups": len(set(groups)),
        "accuracy": asdict(compared.model),
        "baseline": {"name": benchmark.BASELINE, **asdict(compared.baseline)},
        "difference": asdict(compared.difference),
        "verdict": compared.verdict,
        "few_groups": few,
        "chance": math.fsum(1 / len(item.choices) for item in items) / len(items),
        "left_out": left_out,
        "truncated": sum(each.truncated for each in answered),
        "streams": _by_stream(answered, seed=seed),
        "samples": [_sample(each) for each in answered[:SAMPLES]],
    }


def _by_stream(answered: Sequence[Answer], *, seed: int) -> Mapping[str, Any]:
    """Returns the accuracy on each stream: one row for Korean, one for English."""
    found: dict[str, list[Answer]] = {}
    for each in answered:
        found.setdefault(each.item.stream, []).append(each)
    return {
        stream: asdict(
            estimate([float(each.correct) for each in part], groups=[each.item.group for each in part], seed=seed)
        )
        for stream, part in sorted(found.items())
    }


def _sample(answered: Answer) -> dict[str, Any]:
    """Returns an item as people read it, with the model's probabilities over the choices.

    Samples are the first items by id, a digest: nobody chose them.
    """
    item = answered.item
    highest = max(answered.logprobs)
    weights = [math.exp(logprob - highest) for logprob in answered.logprobs]
    return {
        "prompt": plain(item.prompt.replace("|><|gene:", "|> <|gene:")).strip(),
        "choices": [plain(choice).strip() for choice in item.choices],
        "answer": item.answer,
        "chosen": answered.chosen,
        "baseline": item.guess,
        "probabilities": [weight / math.fsum(weights) for weight in weights],
    }

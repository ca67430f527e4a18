"""One multiple-choice question of a benchmark, and the helpers that make it the same on every machine."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from slurm.files import digest

POOL = 1_000  # wrong choices to draw from; more would not make questions harder, only slower


@dataclass(frozen=True, kw_only=True)
class Item:
    """A prompt, the choices that may follow it, and the index of the right one.

    Attributes:
        id: digest of the content.
        group: items of one group (sentences of one document, say) are not independent and are resampled together.
        stream: the held-out stream that the question stands on.
        guess: the index that the benchmark's trivial baseline chooses; None for chance.
    """

    id: str
    group: str
    stream: str
    prompt: str
    choices: tuple[str, ...]
    answer: int
    guess: int | None

    @property
    def baseline(self) -> float:
        """Returns what the baseline scores here: 1 right, 0 wrong, or what chance gives."""
        return 1 / len(self.choices) if self.guess is None else float(self.guess == self.answer)


def make_item(*, group: str, stream: str, prompt: str, choices: Sequence[str], answer: int, guess: int | None) -> Item:
    """Returns an item with its id.

    Raises:
        ValueError: fewer than two different choices, an answer that is none of them, or a prompt that ends in a space
            (tokenizers join a space to the word after it, so it belongs to the choice).
    """
    if len(set(choices)) != len(choices) or len(choices) < 2 or not 0 <= answer < len(choices):
        raise ValueError(
            f"an item needs at least 2 different choices and an answer among them, but got answer {answer} of "
            f"{list(choices)!r}; leave out such a record"
        )
    if not prompt or prompt[-1].isspace():
        raise ValueError(f"a prompt must not end in a space, but {prompt[-40:]!r} does; begin each choice with it")
    content = {"prompt": prompt, "choices": list(choices), "answer": answer}
    return Item(
        id=digest(content)[:16],
        group=group,
        stream=stream,
        prompt=prompt,
        choices=tuple(choices),
        answer=answer,
        guess=guess,
    )


def distractors(texts: Iterable[str], *, seed: int) -> list[str]:
    """Returns what the wrong choices of all items are drawn from: different texts, sorted, at most POOL."""
    different = sorted(set(texts))
    return different if len(different) <= POOL else sorted(random.Random(seed).sample(different, POOL))


def with_distractors(
    right: str, pool: Sequence[str], *, without: set[str], count: int, seed: int
) -> tuple[list[str], int]:
    """Returns the right choice among `count` others, and its index; a pure function of the seed and the texts.

    Args:
        right: the right choice.
        pool: from `distractors`.
        without: texts that are no wrong choices, such as the other sentences of the document.
        count: wrong choices.
        seed: of the draw.

    Raises:
        ValueError: there are too few others.
    """
    others = [text for text in pool if text != right and text not in without]
    if len(others) < count:
        raise ValueError(
            f"a question needs {count} wrong choices, but the held-out documents offer {len(others)}; raise "
            f"prepare.valid_fraction or add documents"
        )
    generator = random.Random(f"{seed}/{right}")
    choices = [right, *generator.sample(others, count)]
    generator.shuffle(choices)
    return choices, choices.index(right)


def select(items: Sequence[Item], *, most: int) -> list[Item]:
    """Returns at most `most` different items, sorted by id: a choice that new records disturb as little as can be."""
    return [item for _, item in sorted({item.id: item for item in items}.items())][:most]


def best(choices: Sequence[str], score: Callable[[str], float]) -> int:
    """Returns the index of the choice with the highest score, the first among equals."""
    return max(range(len(choices)), key=lambda index: (score(choices[index]), -index))

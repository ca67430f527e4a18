"""Which sentence comes next in a document? The others are taken from other held-out documents of the same language.

Asks at every space between two sentences of a paragraph; sentences of one document, and of its translation, are one
group. The baseline chooses the sentence of the most common letters, without reading the document.

Reads text.en.valid and text.ko.valid; scored by log-probability per byte, since sentences differ in length. An item:

    prompt    <|text|>Why solubility limits oral drugs

              A tablet can act in the body only after its active molecule has dissolved in the fluids of the gut.
    choices   Molecules with large, flat aromatic systems often pack tightly in crystals.
              The kidney then retains salt and water.
              Vaccines train the immune system before an infection.
              Controls show whether the assay itself has worked.
    answer    the first
"""

import math
import re
from collections import Counter
from collections.abc import Mapping

from corpus.symbols import tags
from evaluation.heldout import Record, Records
from evaluation.items import Item, best, make_item, with_distractors

QUESTION = "Which of four sentences continues the document?"
MODALITY = "text"
BASELINE = "the sentence whose letters are the most common in the train split"
NORMALIZED = True

STREAMS = ("text.en", "text.ko")
_BETWEEN = re.compile(r"(?<=[.!?])(?= [^\sa-z])")  # "e.g. this" goes on in lower case
_SENTENCE = re.compile(r" [^\n]*?[.!?](?= [^\sa-z]|\n|$)")


def items(records: Records, /) -> list[Item]:
    """Returns an item for every space between two sentences of a held-out document."""
    return [item for stream in STREAMS for item in _stream_items(records, stream)]


def continuations(text: str) -> list[tuple[str, str]]:
    """Returns (text so far, next sentence with the space before it) for every place between two sentences."""
    places = [found.start() for found in _BETWEEN.finditer(text)]
    following = [(place, _SENTENCE.match(text, place)) for place in places]
    return [(text[:place], sentence.group()) for place, sentence in following if sentence]


def _stream_items(records: Records, stream: str) -> list[Item]:
    asked = [
        (record, *pair) for record in records.held_out(stream) for pair in continuations(record["content"]["text"])
    ]
    if not asked:
        return []
    logprobs = _letters(records, stream)
    by_group: dict[str, set[str]] = {}
    for record, _, sentence in asked:
        by_group.setdefault(record["group"], set()).add(sentence)
    everything = {sentence for sentences in by_group.values() for sentence in sentences}
    return [
        _item(
            record,
            before,
            sentence,
            others=everything - by_group[record["group"]],
            logprobs=logprobs,
            seed=records.seed,
        )
        for record, before, sentence in asked
    ]


def _item(
    record: Record, before: str, sentence: str, *, others: set[str], logprobs: Mapping[str, float], seed: int
) -> Item:
    choices, answer = with_distractors(sentence, others, count=3, seed=seed)
    rare = min(logprobs.values())
    return make_item(
        group=record["group"],
        stream=record["stream"],
        prompt=tags("text")[0] + before,
        choices=choices,
        answer=answer,
        guess=best(choices, lambda text: sum(logprobs.get(letter, rare) for letter in text) / len(text)),
    )


def _letters(records: Records, stream: str) -> dict[str, float]:
    """Returns the log-probability of every letter of the train split."""
    counted = Counter("".join(record["content"]["text"] for record in records.train(stream)))
    return {letter: math.log(count / counted.total()) for letter, count in counted.items()}

"""Which sentence comes next in a document? The others are taken from other held-out documents of the same language.

Asks at the spaces between two sentences of a paragraph, at most PLACES in a document; sentences of one document, and
of its translation, are one group. The baseline chooses the sentence of the most common letters, without reading the
document.

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
from collections.abc import Mapping, Sequence
from itertools import islice

from corpus.symbols import tags
from evaluation.heldout import Record, Records
from evaluation.items import Item, best, distractors, make_item, with_distractors

QUESTION = "Which of four sentences continues the document?"
MODALITY = "text"
BASELINE = "the sentence whose letters are the most common in the train split"
NORMALIZED = True

STREAMS = ("text.en", "text.ko")
PLACES = 32  # each prompt repeats the text so far: a book asked about throughout would take the square of its length
_BETWEEN = re.compile(r"(?<=[.!?])(?= [^\sa-z])")  # "e.g. this" goes on in lower case
_SENTENCE = re.compile(r" [^\n]*?[.!?](?= [^\sa-z]|\n|$)")


def items(records: Records, /) -> list[Item]:
    """Returns an item for the spaces between two sentences of each held-out document."""
    return [item for stream in STREAMS for item in _stream_items(records, stream)]


def continuations(text: str) -> list[tuple[str, str]]:
    """Returns (text so far, next sentence with the space before it) for the first PLACES between two sentences."""
    places = [found.start() for found in islice(_BETWEEN.finditer(text), PLACES)]
    following = [(place, _SENTENCE.match(text, place)) for place in places]
    return [(text[:place], sentence.group()) for place, sentence in following if sentence]


def _stream_items(records: Records, stream: str) -> list[Item]:
    found = records.held_out(stream, lambda record: record if continuations(record["content"]["text"]) else None)
    asked = [(record, *pair) for record in found for pair in continuations(record["content"]["text"])]
    if not asked:
        return []
    logprobs = _letters(records, stream)
    by_group: dict[str, set[str]] = {}
    for record, _, sentence in asked:
        by_group.setdefault(record["group"], set()).add(sentence)
    pool = distractors((sentence for _, _, sentence in asked), seed=records.seed)
    return [
        _item(
            record,
            before,
            sentence,
            pool=pool,
            own=by_group[record["group"]],
            logprobs=logprobs,
            seed=records.seed,
        )
        for record, before, sentence in asked
    ]


def _item(
    record: Record,
    before: str,
    sentence: str,
    *,
    pool: Sequence[str],
    own: set[str],
    logprobs: Mapping[str, float],
    seed: int,
) -> Item:
    choices, answer = with_distractors(sentence, pool, without=own, count=3, seed=seed)
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
    counted: Counter[str] = Counter()
    for text in records.train(stream, lambda record: record["content"]["text"]):
        counted.update(text)
    return {letter: math.log(count / counted.total()) for letter, count in counted.items()}

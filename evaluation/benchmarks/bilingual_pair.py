"""Which Korean sentence translates the English one? The others come from other held-out documents.

A document and its translation share a group. Its first paragraph, the title, and the sentences of the rest are asked
about, as far as both languages have the same number of them. The two texts never meet in one training document, so a
small model is expected at chance.

Reads text.en.valid and text.ko.valid; scored by log-probability per byte, since sentences differ in length. An item:

    prompt    <|text|>Why solubility limits oral drugs<|/text|><|eod|><|text|>
    choices   용해도가 경구 약물을 제한하는 이유 and three other titles or sentences
    answer    the first
"""

import re
from collections.abc import Iterator, Sequence

from corpus.modality import modality
from corpus.symbols import END, tags
from evaluation.heldout import Record, Records
from evaluation.items import Item, distractors, make_item, with_distractors

QUESTION = "Which of four Korean sentences translates the English one?"
MODALITY = "text"
BASELINE = "chance"
NORMALIZED = True

_BREAK = re.compile(r"\n+|(?<=[.!?]) +(?=[^\sa-z])")


def items(records: Records, /) -> list[Item]:
    """Returns an item for every English sentence of a held-out document with a Korean counterpart."""
    korean = dict(records.held_out("text.ko", _sentences))
    pool = distractors((each for found in korean.values() for each in found), seed=records.seed)
    english = records.held_out("text.en", lambda record: _sentences(record) if record["group"] in korean else None)
    return [
        item
        for group, found in english
        for item in _document(group, found, korean[group], pool=pool, seed=records.seed)
    ]


def sentences(text: str) -> list[str]:
    """Returns a document's paragraphs, cut into sentences."""
    return [part for part in _BREAK.split(text) if part]


def _sentences(record: Record) -> tuple[str, list[str]]:
    return record["group"], sentences(record["content"]["text"])


def _document(group: str, english: list[str], korean: list[str], *, pool: Sequence[str], seed: int) -> Iterator[Item]:
    for source, target in zip(english, korean, strict=True) if len(english) == len(korean) else ():
        choices, answer = with_distractors(target, pool, without=set(korean), count=3, seed=seed)
        yield make_item(
            group=group,
            stream="text.ko",
            prompt=modality("text").render({"text": source}) + END + tags("text")[0],
            choices=choices,
            answer=answer,
            guess=None,
        )

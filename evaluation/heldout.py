"""What benchmarks read: the records of a run, and questions on what is written behind a record."""

import heapq
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

from corpus.modality import modality
from corpus.records import read_records, streams
from corpus.symbols import END
from evaluation.items import Item, make_item

TRAIN_RECORDS = 20_000  # enough to know classes and letters; the train split of a large run has billions
HELD_OUT_RECORDS = 1_000  # enough for the items of a benchmark; a large run holds millions out

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Records:
    """The records that prepare wrote below `folder`. Benchmarks ask about held-out ones; baselines know train ones.

    A split is read as a stream, and the records with the smallest ids are kept: ids are digests, so these are a fair
    sample of all sources, in whatever order they were prepared.

    Attributes:
        folder: of the stage prepare.
        seed: of what a benchmark draws.
        left_out: held-out records that were not asked about because no choice is right, by annotation.
    """

    folder: Path
    seed: int
    left_out: dict[str, int] = field(default_factory=dict, compare=False)

    def held_out[T](self, stream: str, read: Callable[[Record], T | None]) -> list[T]:
        """Returns what `read` gives for at most HELD_OUT_RECORDS records that no model has trained on.

        Records for which it gives None do not count; there are none when the run has no such stream.
        """
        return self._smallest(stream, read, split="valid", most=HELD_OUT_RECORDS)

    def train[T](self, stream: str, read: Callable[[Record], T | None]) -> list[T]:
        """Returns the same for at most TRAIN_RECORDS train records."""
        return self._smallest(stream, read, split="train", most=TRAIN_RECORDS)

    def _smallest[T](self, stream: str, read: Callable[[Record], T | None], *, split: str, most: int) -> list[T]:
        if stream not in streams(self.folder):
            return []
        found = ((record["id"], read(record)) for record in read_records(self.folder, stream, split=split))
        kept = ((key, value) for key, value in found if value is not None)
        return [value for _, value in heapq.nsmallest(most, kept, key=itemgetter(0))]


def annotated_items(records: Records, *, stream: str, field: str, name: str) -> list[Item]:
    """Asks for an annotation that is written behind a record, such as ` solubility: low`.

    Choices are all values that the train split has, so that the majority baseline faces the same choices. Other
    annotations are left out of the prompt: they could give the answer away. A held-out record whose value no train
    record has is left out and counted, because no choice would be right. A choice ends with the document, so that a
    value that begins another ("T cell" and "T cell, CD4+") is not more likely for being shorter.

    Args:
        records: of the run.
        stream: whose records are asked about; its modality has the same name.
        field: of a record's content, the mapping that holds the annotations.
        name: of the annotation.
    """
    counted = Counter(records.train(stream, lambda record: record["content"][field].get(name)))
    values = sorted(counted)
    if len(values) < 2:
        return []
    common = max(values, key=lambda value: counted[value])
    held_out = records.held_out(stream, lambda record: record if name in record["content"][field] else None)
    known = [record for record in held_out if record["content"][field][name] in counted]
    records.left_out[name] = len(held_out) - len(known)
    return [_item(record, field=field, name=name, values=values, common=common) for record in known]


def _item(record: Record, *, field: str, name: str, values: list[str], common: str) -> Item:
    value = record["content"][field][name]
    rendered = modality(record["modality"]).render({**record["content"], field: {name: value}})
    return make_item(
        group=record["group"],
        stream=record["stream"],
        prompt=rendered.removesuffix(f" {value}"),
        choices=[f" {value}{END}" for value in values],
        answer=values.index(value),
        guess=values.index(common),
    )

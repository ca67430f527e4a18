"""What benchmarks read: the records of a run, and questions on what is written behind a record."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from corpus.modality import modality
from corpus.records import read_records, streams
from corpus.symbols import END
from evaluation.items import Item, make_item

TRAIN_RECORDS = 20_000  # enough to know classes and letters; the train split of a large run has billions

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Records:
    """The records that prepare wrote below `folder`. Benchmarks ask about held-out ones; baselines know train ones.

    What a benchmark draws, it draws from `seed`.
    """

    folder: Path
    seed: int

    def held_out(self, stream: str) -> Iterator[Record]:
        """Yields the records that no model has trained on; none when the run has no such stream."""
        return read_records(self.folder, stream, split="valid") if stream in streams(self.folder) else iter(())

    def train(self, stream: str) -> Iterator[Record]:
        """Yields the first train records, at most TRAIN_RECORDS; none when the run has no such stream."""
        found = read_records(self.folder, stream, split="train") if stream in streams(self.folder) else iter(())
        return islice(found, TRAIN_RECORDS)


def annotated_items(records: Records, *, stream: str, field: str, name: str) -> list[Item]:
    """Asks for an annotation that is written behind a record, such as ` solubility: low`.

    Choices are all values that the train split has, so that the majority baseline faces the same choices. Other
    annotations are left out of the prompt: they could give the answer away. A held-out record whose value no train
    record has is left out, because no choice would be right. A choice ends with the document, so that a value that
    begins another ("T cell" and "T cell, CD4+") is not more likely for being shorter.

    Args:
        records: of the run.
        stream: whose records are asked about; its modality has the same name.
        field: of a record's content, the mapping that holds the annotations.
        name: of the annotation.
    """
    counted = Counter(record["content"][field].get(name) for record in records.train(stream))
    del counted[None]
    values = sorted(counted)
    if len(values) < 2:
        return []
    common = max(values, key=lambda value: counted[value])
    known = [record for record in records.held_out(stream) if record["content"][field].get(name) in counted]
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

"""One shard's work: a range of records read, encoded, checked, packed and written; the same bytes whoever does it."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np

from corpus.encoder import Encoder
from corpus.modality import modality
from corpus.packing import Documents, Layout, joined, packed
from corpus.pairs import Document, Pairs
from corpus.shards import Content, token_type, write_shard
from corpus.survey import Unit
from corpus.symbols import END, PAD, plain
from corpus.tokenstream import ID_BYTES
from corpus.workers import beat
from slurm.files import read_json, write_json

COUNTED = ("sources", "source_documents", "languages", "scales")
"""What tokens are counted by; of sources, documents too."""

_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Shaping:
    """How records become shards.

    Attributes:
        shard_tokens: about as many tokens are in a shard: it holds the records of 4 times as many bytes.
        pack_length: windows that documents are packed into; None puts them one after another.
        pairs: share of translated pairs that stand side by side in a stream of their own.
        seed: which pairs do depends on it.
    """

    shard_tokens: int = 1 << 24
    pack_length: int | None = None
    pairs: float = 0.0
    seed: int = 0


@dataclass(kw_only=True)
class _Tally:
    """What one shard holds, while it is read."""

    tokens: list[np.ndarray] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    records: bytearray = field(default_factory=bytearray)
    labels: list[tuple[int, int]] = field(default_factory=list)
    chars: int = 0
    counts: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in COUNTED})


@dataclass(frozen=True, kw_only=True)
class Encode:
    """Writes the shard of a range of records; safe to pickle.

    Attributes:
        folder: tokenize's.
        entries: where the entries of finished shards lie.
        tokenizer: the folder of the tokenizer.
        pairs: which documents a range holds.
        shaping: how they become a shard.
    """

    folder: Path
    entries: Path
    tokenizer: Path
    pairs: Pairs
    shaping: Shaping

    def __call__(self, unit: Unit) -> None:
        """Encodes, checks, packs and writes; the entry, written last, is the commit of the shard.

        Raises:
            ValueError: a record does not come back from its tokens.
        """
        started = time.perf_counter()
        tally = _Tally()
        for batch in batched(self.pairs.documents(unit.within, stream=unit.stream, split=unit.split), _BATCH):
            self._add(batch, tally)
        layout = self._layout(tally)
        pieces = layout.documents
        content = Content(
            tokens=layout.tokens,
            offsets=layout.offsets,
            records=np.frombuffer(bytes(tally.records), np.uint8).reshape(-1, ID_BYTES)[pieces],
            labels=_labels(tally, pieces) if "+" in unit.stream else None,
            lengths=layout.lengths if self.shaping.pack_length else None,
            breaks=layout.breaks if self.shaping.pack_length else None,
        )
        path = f"shards/{unit.name}"
        entry = {
            "path": path,
            "documents": len(tally.lengths),
            "padding": layout.padding,
            "chars": tally.chars,
            **{name: dict(sorted(found.items())) for name, found in tally.counts.items()},
            **write_shard(self.folder / path, content),
        }
        write_json(self._entry(unit), {"entry": entry, "seconds": time.perf_counter() - started})

    def done(self, unit: Unit) -> bool:
        """Returns whether the unit's shard is committed."""
        return self._entry(unit).is_file() and (self.folder / "shards" / unit.name).is_dir()

    def written(self, unit: Unit) -> tuple[dict[str, Any], float]:
        """Returns the entry of a unit's shard, and the seconds that it took."""
        found = read_json(self._entry(unit))
        return dict(found["entry"]), float(found["seconds"])

    def _entry(self, unit: Unit) -> Path:
        return self.entries / f"{unit.name}.json"

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder.load(self.tokenizer)

    @cached_property
    def _end(self) -> np.ndarray:
        return np.array([self._encoder.tokenizer.get_vocab()[END]], np.uint32)

    @cached_property
    def _pad_id(self) -> int:
        return int(self._encoder.tokenizer.get_vocab()[PAD])

    def _add(self, batch: Sequence[Document], tally: _Tally) -> None:
        records = [document.record for document in batch]
        texts = [modality(record["modality"]).render(record["content"]) for record in records]
        encoded = self._encoder.encode(texts)
        self._require_round_trip(records, texts, encoded)
        joined_ids = np.concatenate([part for ids in encoded for part in (ids, self._end)])
        tally.tokens.append(joined_ids.astype(token_type(self._encoder.tokenizer.get_vocab_size())))
        for document, text, ids in zip(batch, texts, encoded, strict=True):
            record, count = document.record, len(ids) + 1
            tally.lengths.append(count)
            tally.records += bytes.fromhex(record["id"])
            tally.labels += [] if document.label is None else [document.label]
            tally.chars += len(plain(text))
            tally.counts["sources"][record["source"]] += count
            tally.counts["source_documents"][record["source"]] += 1
            tally.counts["languages"][record.get("language") or "none"] += count
            tally.counts["scales"][record.get("scale") or modality(record["modality"]).SCALE] += count
        beat(len(joined_ids))

    def _require_round_trip(
        self, records: Sequence[Mapping[str, Any]], texts: Sequence[str], encoded: Sequence[np.ndarray]
    ) -> None:
        lost = set(self._encoder.check(texts, encoded))
        lost |= {
            place
            for place, (record, text) in enumerate(zip(records, texts, strict=True))
            if modality(record["modality"]).parse(text) != record["content"]
        }
        unknown = self._encoder.unknown(encoded)
        if lost or unknown:
            first = records[min(lost, default=0)]["id"]  # never its text: logs are for everyone
            told = f"{len(lost)} did not and {unknown} tokens are unknown (record {first})"
            raise ValueError(f"every record must come back from its tokens, but {told}; load another tokenizer")
        if any((ids == self._pad_id).any() for ids in encoded):
            raise ValueError(f"no record may hold {PAD}, which is padding, but one does; run prepare again")

    def _layout(self, tally: _Tally) -> Layout:
        tokens = np.concatenate([np.empty(0, token_type(self._encoder.tokenizer.get_vocab_size())), *tally.tokens])
        tally.tokens.clear()
        groups = np.array([group for group, _ in tally.labels], np.int64)
        documents = Documents(
            tokens=tokens,
            lengths=np.array(tally.lengths, np.int64),
            items=np.bincount(groups) if len(groups) else None,
        )
        if self.shaping.pack_length is None:
            return joined(documents)
        return packed(documents, size=self.shaping.pack_length, pad_id=self._pad_id)


def _labels(tally: _Tally, pieces: np.ndarray) -> np.ndarray:
    """Returns group and language of every piece; groups are numbered in the order in which they lie."""
    found: np.ndarray = np.array(tally.labels, np.int32).reshape(-1, 2)[pieces]
    found[:, 0] = np.cumsum(np.diff(found[:, 0], prepend=found[:1, 0]) != 0)
    return found

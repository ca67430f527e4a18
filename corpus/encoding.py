"""Encoding: records of every stream to token shards, with a round trip of every record."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import batched
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from corpus import tokenizer as tokenizers
from corpus.modality import modality
from corpus.packing import Document, Packing, plan
from corpus.records import SPLITS, read_records, streams
from corpus.shards import MANIFEST, ShardWriter
from corpus.symbols import END, PAD, SYMBOL, plain
from slurm.files import write_json

_BATCH = 512
_TEXT_PER_STREAM = 20_000_000  # characters for training the BPE: more changes little and takes memory


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A record's content, and the same as tagged text; its label, in a stream of pairs."""

    modality: str
    content: dict[str, Any]
    text: str
    label: tuple[int, int] | None = None


@dataclass(kw_only=True)
class Checks:
    """What was counted over all records; the last two must stay 0."""

    tokens: int = 0
    unknown: int = 0
    round_trip_failures: int = 0
    examples: list[str] = field(default_factory=list)


def make_tokenizer(records: Path, *, base: Path | None, vocab_size: int | None) -> Tokenizer:
    """Returns the tokenizer of a run: trained on the train split, or loaded from `base`, with all symbols.

    A stream with a quarter of another's text is read twice as often, so that a small one (Korean) gets its merges.

    Raises:
        ValueError: the symbols do not fit in `vocab_size`, or `base` cannot be loaded.
    """
    symbols, texts = _survey(records)
    if base is not None:
        return tokenizers.add_symbols(tokenizers.load(base), symbols, vocab_size=vocab_size)
    if vocab_size is None:
        raise ValueError("tokenize.vocab_size: must be given where no tokenizer is loaded, but is not; add it")
    room = tokenizers.room_for_text(symbols, vocab_size=vocab_size)
    trained = tokenizers.train(_balanced(texts), vocab_size=room)
    return tokenizers.add_symbols(trained, symbols, vocab_size=vocab_size)


def write_shards(
    records: Path,
    folder: Path,
    *,
    tokenizer: Tokenizer,
    shard_tokens: int,
    weights: Mapping[str, float] | None,
    packing: Packing | None = None,
    progress: Callable[[int, int, str], None],
) -> tuple[dict[str, Any], Checks]:
    """Encodes every record and commits the shards; returns the manifest and the checks.

    All is written to a temporary folder first. The manifest, written last, is the commit.

    Raises:
        ValueError: a record does not come back from its tokens, or the weights name an unknown stream.
    """
    partial = folder / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    checks = Checks()
    packing = packing or plan(records, rate=0.0, seed=0)
    found = packing.streams()
    entries: dict[str, dict[str, Any]] = {name: {} for name in found}
    jobs = [(name, split) for name in found for split in SPLITS]
    for number, (name, split) in enumerate(jobs):
        progress(number, len(jobs), f"{name} {split}: {checks.tokens:,} tokens")
        path = f"shards/{split}/{name}"
        writer = ShardWriter(partial / path, vocab_size=tokenizer.get_vocab_size(), shard_tokens=shard_tokens)
        chars = _encode(map(_render, packing.documents(name, split)), tokenizer, writer, checks)
        entries[name][split] = {"path": path, "chars": chars, **writer.close()}
    progress(len(jobs), len(jobs), f"{checks.tokens:,} tokens")
    if checks.round_trip_failures or checks.unknown:
        told = f"{checks.round_trip_failures} did not and {checks.unknown} tokens are unknown ({checks.examples[0]})"
        raise ValueError(f"every record must come back from its tokens, but {told}; load another tokenizer")
    manifest = {
        "format": 1,
        "tokenizer_digest": tokenizers.save(tokenizer, partial / "tokenizer"),
        "vocab_size": tokenizer.get_vocab_size(),
        "eod_id": tokenizer.token_to_id(END),
        "pad_id": tokenizer.token_to_id(PAD),
        "streams": entries,
        "mixture": mixture({name: entry["train"]["tokens"] for name, entry in entries.items()}, weights),
    }
    _commit(partial, folder, manifest)
    return manifest, checks


def mixture(tokens: Mapping[str, int], weights: Mapping[str, float] | None) -> dict[str, float]:
    """Returns each stream's share of training, by the weights given or by the square root of its tokens.

    The root lies between shares by size, where small scales drown, and equal shares, where they are repeated until
    they are known by heart: of a stream 100 times smaller, each token is seen 10 times as often.

    Raises:
        ValueError: the weights are not those of streams with training tokens.
    """
    usable = {name for name, number in tokens.items() if number}
    if weights is not None and not weights.keys() <= usable:
        known, unknown = ", ".join(sorted(usable)), ", ".join(sorted(weights.keys() - usable))
        raise ValueError(f"tokenize.mixture: must name streams of {known}, but has {unknown}; change it")
    raw = dict(weights) if weights is not None else {name: number**0.5 for name, number in tokens.items() if number}
    return {name: value / sum(raw.values()) for name, value in raw.items() if value}


def _render(document: Document) -> Rendered:
    record = document.record
    text = modality(record["modality"]).render(record["content"])
    return Rendered(modality=record["modality"], content=record["content"], text=text, label=document.label)


def _survey(records: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Returns all symbols, and the text parts of each stream's train split.

    Declared symbols come first, then those found in records (genes), each in a fixed order.
    """
    declared: dict[str, None] = {}
    found: set[str] = set()
    texts: dict[str, list[str]] = {}
    for stream in streams(records):
        declared |= dict.fromkeys(modality(stream.partition(".")[0]).SYMBOLS)
        texts[stream], size = [], 0
        for split in SPLITS:
            for record in (_render(Document(record=record)) for record in read_records(records, stream, split)):
                found.update(SYMBOL.findall(record.text))
                if split == "train" and size < _TEXT_PER_STREAM:
                    texts[stream] += filter(None, SYMBOL.split(record.text))
                    size += len(record.text)
    return [*declared, *sorted(found - declared.keys())], texts


def _balanced(texts: Mapping[str, Sequence[str]]) -> Iterator[str]:
    sizes = {stream: sum(map(len, parts)) for stream, parts in texts.items()}
    for stream, parts in texts.items():
        for _ in range(round((max(sizes.values()) / sizes[stream]) ** 0.5) if sizes[stream] else 0):
            yield from parts


def _encode(records: Iterable[Rendered], tokenizer: Tokenizer, writer: ShardWriter, checks: Checks) -> int:
    chars, end = 0, tokenizer.get_vocab()[END]
    for batch in batched(records, _BATCH):
        encoded = [found.ids for found in tokenizer.encode_batch_fast([record.text for record in batch])]
        _check(batch, encoded, tokenizer, checks)
        for record, ids in zip(batch, encoded, strict=True):
            writer.add([*ids, end], label=record.label)
        chars += sum(len(plain(record.text)) for record in batch)
    return chars


def _check(batch: Iterable[Rendered], encoded: list[list[int]], tokenizer: Tokenizer, checks: Checks) -> None:
    decoded = tokenizer.decode_batch(encoded, skip_special_tokens=False)
    unknown = getattr(tokenizer.model, "unk_token", None)
    unknown_id = None if unknown is None else tokenizer.token_to_id(unknown)
    for record, ids, text in zip(batch, encoded, decoded, strict=True):
        checks.tokens += len(ids) + 1
        checks.unknown += Counter(ids)[unknown_id] if unknown_id is not None else 0
        if text != record.text or modality(record.modality).parse(text) != record.content:
            checks.round_trip_failures += 1
            checks.examples.append(repr(record.text)[:80])


def _commit(partial: Path, folder: Path, manifest: Mapping[str, Any]) -> None:
    """Takes the old commit away, moves the new files in place, and commits them."""
    (folder / MANIFEST).unlink(missing_ok=True)
    for name in ("tokenizer", "shards"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (partial / name).rename(folder / name)
    partial.rmdir()
    write_json(folder / MANIFEST, manifest)

"""Encoding: records of every stream to token shards, in parallel, with a round trip of every record.

A shard holds a fixed range of records, cut by bytes of their file, so that its bytes are the same whoever writes it. A
run that was killed goes on with the shards that were not finished.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from corpus import tokenizer as tokenizers
from corpus.claims import Nodes
from corpus.mixture import MAIN, Mixing, shares
from corpus.pairs import Pairs, spoken
from corpus.ranges import Range, records_file
from corpus.records import SPLITS
from corpus.shards import FORMAT, MANIFEST, commit
from corpus.shardwork import COUNTED, Encode, Shaping
from corpus.survey import ALONE, RANGE_BYTES, Progress, Unit, begin, make_tokenizer, refuse_dead, state_of
from corpus.symbols import END, PAD
from corpus.workers import Crew, run_units
from slurm.files import digest, read_json

__all__ = ["WORK", "Shaping", "make_tokenizer", "write_shards"]

WORK = ".partial"
"""Where unfinished work lies."""

_BYTES_PER_TOKEN = 4  # of a file of records; most have more, and letters of proteins have less


@dataclass(frozen=True, kw_only=True)
class _Note:
    """Notes the pairs drawn from a range of records."""

    pairs: Pairs
    folder: Path

    def __call__(self, unit: Unit) -> None:
        path = self.file(unit)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.npy")
        np.save(new, self.pairs.note(unit.within))
        new.rename(path)

    def done(self, unit: Unit) -> bool:
        return self.file(unit).is_file()

    def file(self, unit: Unit) -> Path:
        return self.folder / f"{unit.name}.npy"


def write_shards(
    records: Path,
    folder: Path,
    *,
    tokenizer: Tokenizer,
    shaping: Shaping,
    mixing: Mapping[str, Mixing] | None = None,
    more: Callable[[], Mapping[str, Any]] = dict,
    crew: Crew = ALONE,
    progress: Progress = lambda *_: None,
) -> tuple[dict[str, Any], dict[str, float]]:
    """Encodes every record and commits the shards; returns the manifest and the seconds of work by stream.

    Every node of the crew calls it; those that are not the first return the manifest too. It is written last, and an
    earlier one is removed first.

    Args:
        records: prepare's folder.
        folder: tokenize's.
        tokenizer: with all symbols.
        shaping: how records become shards.
        mixing: how streams are mixed, by phase.
        more: makes streams that are no records (cells), behind the others; returns their entries for the manifest.
        crew: who does the work.
        progress: is told how many shards are done.

    Raises:
        ValueError: a record does not come back from its tokens, or a mixture names an unknown stream.
    """
    nodes = Nodes(rank=crew.rank, world_size=crew.world_size, meeting=crew.meeting)
    work = folder / WORK / "shards"
    with nodes.together():
        if nodes.rank == 0:
            (folder / MANIFEST).unlink(missing_ok=True)
        asked = {"shaping": vars(shaping), "tokenizer": digest(tokenizer.to_str()), "records": state_of(records)}
        begin(work, asked, nodes=nodes, clear=[folder / "shards", folder / "tokenizer"])
        if nodes.rank == 0:
            tokenizers.save(tokenizer, folder / "tokenizer")
        nodes.wait_for(folder / "tokenizer" / "tokenizer_config.json")
        pairs = _paired(records, work, shaping=shaping, crew=crew, nodes=nodes)
        units = _units(pairs, size=shaping.shard_tokens * _BYTES_PER_TOKEN)
        encode = Encode(folder=folder, entries=work, tokenizer=folder / "tokenizer", pairs=pairs, shaping=shaping)

        def told(done: int, total: int, tokens: int) -> None:
            progress(done, total, f"{tokens:,} tokens")

        refuse_dead(run_units(units, encode, committed=encode.done, crew=crew, progress=told, name="encode"), units)
        others = more()
        if nodes.rank == 0:
            mixing = mixing or {MAIN: Mixing()}
            return _finish(folder, encode, units, tokenizer=tokenizer, mixing=mixing, others=others)
        nodes.wait_for(folder / MANIFEST)
        return read_json(folder / MANIFEST), {}


def _paired(records: Path, work: Path, *, shaping: Shaping, crew: Crew, nodes: Nodes) -> Pairs:
    """Finds the pairs that stand side by side, where there are any."""
    pairs = Pairs(records=records, tables=work / "pairs", rate=shaping.pairs, seed=shaping.seed)
    if not shaping.pairs:
        return pairs
    units = [
        Unit(stream=name, split=split, number=number, within=within)
        for name in spoken(records)
        for split in SPLITS
        for number, within in enumerate(Range.of(records_file(records, stream=name, split=split), size=RANGE_BYTES))
    ]
    note = _Note(pairs=pairs, folder=work / "notes")
    refuse_dead(run_units(units, note, committed=note.done, crew=crew, name="pairs"), units)
    sorted_ = nodes.meeting / "pairs-sorted"  # of this execution: one before may have left tables that are written anew
    if nodes.rank == 0:
        for name, split in {(unit.stream, unit.split): None for unit in units}:
            found = [np.load(note.file(unit)) for unit in units if (unit.stream, unit.split) == (name, split)]
            pairs.keep(name, split, notes=found)
        pairs.tables.mkdir(parents=True, exist_ok=True)
        if nodes.many:
            sorted_.touch()
    else:
        nodes.wait_for(sorted_)
    return pairs


def _units(pairs: Pairs, *, size: int) -> list[Unit]:
    return [
        Unit(stream=name, split=split, number=number, within=within)
        for name in pairs.streams()
        for split in SPLITS
        for number, within in enumerate(pairs.ranges(name, split, size=size))
    ]


def _finish(
    folder: Path,
    encode: Encode,
    units: Sequence[Unit],
    *,
    tokenizer: Tokenizer,
    mixing: Mapping[str, Mixing],
    others: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, float]]:
    streams: dict[str, dict[str, Any]] = {}
    seconds: Counter[str] = Counter()
    for unit in units:
        entry, took = encode.written(unit)
        streams.setdefault(unit.stream, {}).setdefault(unit.split, []).append(entry)
        seconds[unit.stream] += took  # type: ignore[assignment]
    entries = {name: {split: _summed(found) for split, found in splits.items()} for name, splits in streams.items()}
    entries |= others
    tokens = {name: splits["train"]["tokens"] - splits["train"]["padding"] for name, splits in entries.items()}
    phases = dict(_phases(tokens, mixing))
    manifest = {
        "format": FORMAT,
        "tokenizer_digest": tokenizers.save(tokenizer, folder / "tokenizer"),
        "vocab_size": tokenizer.get_vocab_size(),
        "eod_id": tokenizer.token_to_id(END),
        "pad_id": tokenizer.token_to_id(PAD),
        "pack_length": encode.shaping.pack_length,
        "streams": entries,
        "mixture": phases[MAIN]["mixture"],
        "phases": phases,
    }
    committed = commit(folder, manifest)
    shutil.rmtree(folder / WORK)
    return committed, dict(seconds)


def _summed(shards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the entry of a stream and split."""
    counted = ("tokens", "documents", "padding", "chars")
    return {
        "kind": "tokens",
        **{name: sum(shard[name] for shard in shards) for name in counted},
        **{name: dict(sorted(sum((Counter(s[name]) for s in shards), Counter()).items())) for name in COUNTED},
        "shards": list(shards),
    }


def _phases(tokens: Mapping[str, int], mixing: Mapping[str, Mixing]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, each in mixing.items():
        place = "tokenize" if name == MAIN else f"tokenize.phases.{name}"
        mixture, notes = shares(tokens, each, place=place)
        yield name, {"mixture": mixture, "max_epochs": each.max_epochs, "notes": notes}

"""tokenize: clean records to token shards, with one tokenizer for text and every scientific symbol."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from corpus.cells.corpus import CellStoreConfig, build_cells, matrices
from corpus.gates.config import GatesConfig
from corpus.mixture import MAIN, Mixing
from corpus.modality import modalities
from jobs._stage import Context, Outcome, Stage, StageConfig
from slurm.resources import Spread


class TokenizeConfig(StageConfig, Mixing):
    """The `tokenize:` section: how records become shards, and how the streams are mixed (`corpus.mixture.Mixing`).

    Every CPU of `resources.cpus_per_task` encodes, on every node.

    Attributes:
        vocab_size: ids in all; what symbols and text leave is reserved. With `tokenizer` it may be left out.
        tokenizer: a trained tokenizer to extend, from the repository; none is trained then.
        genes: a table of genes that get an id each, whatever the records hold: its first column, from the repository.
        shard_tokens: about as many tokens are in a shard, which one worker holds in memory.
        pack_length: documents are packed into windows of so many tokens, none cut that fits in one; it must be
            pretrain's seq_length. Without it they stand one after another, and windows cut them.
        pairs: share of translated pairs that are packed side by side in a stream of their own, text.en+ko.
        phases: mixtures by name, for pretrain's phases.
        cell_store: whole cells, as the stream omics.cells beside those of records; `genes` gives them their symbols.
    """

    spread: ClassVar[Spread] = "nodes"
    resumable: ClassVar[bool] = True

    vocab_size: Annotated[int, Field(ge=512, le=1 << 20)] | None = None
    tokenizer: str | None = None
    genes: str | None = None
    shard_tokens: Annotated[int, Field(ge=1 << 16, multiple_of=1 << 16)] = 1 << 24
    pack_length: Annotated[int, Field(ge=2)] | None = None
    pairs: float = Field(default=0.0, ge=0, le=1)
    phases: dict[str, Mixing] = Field(default_factory=dict)
    cell_store: CellStoreConfig | None = None

    @model_validator(mode="after")
    def _sized(self) -> "TokenizeConfig":
        if self.vocab_size is None and self.tokenizer is None:
            raise ValueError("vocab_size: must be given where no tokenizer is loaded, but is not; add it")
        if MAIN in self.phases:
            raise ValueError(f"phases.{MAIN}: must not be given, as the section itself is that phase; rename it")
        return self

    def files(self, root: Path) -> Iterable[Path]:
        """Yields the tokenizer that is loaded and the table of genes, where they are."""
        given = root / (self.tokenizer or "")
        names = ("tokenizer.json", "vocab.json", "merges.txt") if given.is_dir() else ("",)
        loaded = [] if self.tokenizer is None else [file for name in names if (file := given / name).is_file()]
        cells = [] if self.cell_store is None else self.cell_store.files(root)
        return [*loaded, *([] if self.genes is None else [root / self.genes]), *cells]

    def problems(self, context: Context) -> Iterable[str]:
        """Yields a tokenizer that is not there, streams that no source can fill and windows that training cuts."""
        if self.tokenizer is not None and not (context.root / self.tokenizer).exists():
            found = context.root / self.tokenizer
            yield f"tokenizer: must be a tokenizer.json or its folder, but {found} is not there; mend the path"
        if self.genes is not None and not (context.root / self.genes).is_file():
            found = context.root / self.genes
            yield f"genes: must be a table of genes, but {found} is not there; mend the path"
        yield from self._cell_problems(context)
        yield from self.misnamed(modalities())
        for name, phase in self.phases.items():
            yield from (f"phases.{name}.{line}" for line in phase.misnamed(modalities()))
        wanted = getattr(context.sections.get("pretrain"), "seq_length", self.pack_length)
        if self.pack_length not in (None, wanted):
            told = f"must be pretrain.seq_length {wanted}, or windows would cut what was packed"
            yield f"pack_length: {told}, but is {self.pack_length}; make them equal, or leave it out"

    def _cell_problems(self, context: Context) -> Iterable[str]:
        """Yields cells that are not there, or that the licence policy of prepare does not allow."""
        if self.cell_store is None:
            return
        gates = getattr(context.sections.get("prepare"), "gates", GatesConfig())
        today = datetime.now(UTC).date()
        for line in self.cell_store.problems(context.root, policy=gates.licences, today=today):
            yield f"cell_store.{line}"

    @property
    def mixing(self) -> dict[str, Mixing]:
        """How the streams are mixed, by phase."""
        main = {name: getattr(self, name) for name in Mixing.model_fields if name in self.model_fields_set}
        return {MAIN: Mixing(**main), **self.phases}


def run(config: TokenizeConfig, stage: Stage) -> Outcome:
    """Makes the tokenizer, encodes every record, checks every round trip and commits the shards.

    Raises:
        ValueError: a record does not come back from its tokens, or a mixture names an unknown stream.
    """
    from corpus.encoding import WORK, Shaping, make_tokenizer, write_shards
    from corpus.workers import Crew
    from jobs._run import ROOT

    records, base = stage.root / "prepare", None if config.tokenizer is None else ROOT / config.tokenizer
    crew = Crew(
        workers=config.resources.cpus_per_task,
        rank=stage.rank,
        world_size=stage.world_size,
        meeting=stage.meeting,
        isolate=False,
    )
    together: dict[str, Any] = {"crew": crew, "progress": stage.progress}
    work = stage.folder / WORK / "survey"
    genes = None if config.genes is None else ROOT / config.genes
    tokenizer = make_tokenizer(records, base=base, vocab_size=config.vocab_size, genes=genes, work=work, **together)
    sizes = {name: getattr(config, name) for name in ("shard_tokens", "pack_length", "pairs")}
    shaping = Shaping(**sizes, seed=stage.seed)

    def cells() -> Mapping[str, Any]:
        if config.cell_store is None:
            return {}
        return build_cells(config.cell_store, stage.folder, tokenizer=tokenizer, seed=stage.seed, crew=crew, root=ROOT)

    manifest, seconds = write_shards(
        records, stage.folder, tokenizer=tokenizer, shaping=shaping, mixing=config.mixing, more=cells, **together
    )
    if stage.rank != 0:
        return Outcome(metrics={})
    store = config.cell_store
    told = [] if store is None else matrices(store, stage.folder, root=ROOT)
    return _outcome(stage, manifest, seconds, processes=crew.workers * crew.world_size, cells=told)


def _outcome(
    stage: Stage,
    manifest: Mapping[str, Any],
    seconds: Mapping[str, float],
    *,
    processes: int,
    cells: list[dict[str, Any]],
) -> Outcome:
    from corpus.shards import open_shards

    shards = open_shards(stage.folder)
    entropies = {name: shards.stream(name, "valid").unigram_entropy() for name in manifest["streams"]}
    rows = {name: _row(manifest, name, entropies[name], seconds.get(name, 0.0)) for name in manifest["streams"]}
    entries = [entry for splits in manifest["streams"].values() for entry in splits.values()]
    tokens, padding = (sum(entry[name] for entry in entries) for name in ("tokens", "padding"))
    for note in (line for phase in manifest["phases"].values() for line in phase["notes"]):
        print(note, flush=True)
    return Outcome(
        metrics={
            "tokens": float(tokens - padding),
            "tokens_per_s": (tokens - padding) * processes / sum(seconds.values()),  # of all attempts
            "padding": padding / max(1, tokens),
            "vocab_size": float(manifest["vocab_size"]),
            "unigram_entropy/valid": sum(share * entropies[name] for name, share in manifest["mixture"].items()),
            **_per_stream(rows),
        },
        outputs=_outputs(stage, manifest),
        details={
            "streams": rows,
            "sources": _sources(entries),
            "cells": cells,
            "languages": _counted(entries, "languages"),
            "scales": _counted(entries, "scales"),
            "phases": manifest["phases"],
            "tokenizer": {"vocab_size": manifest["vocab_size"], "digest": manifest["tokenizer_digest"]},
            "tokenizer_digest": manifest["tokenizer_digest"],
        },
    )


def _row(manifest: Mapping[str, Any], name: str, entropy: float, seconds: float) -> dict[str, Any]:
    train, valid = (manifest["streams"][name][split] for split in ("train", "valid"))
    tokens, padding, chars, documents = (train[key] + valid[key] for key in ("tokens", "padding", "chars", "documents"))
    return {
        "train_tokens": train["tokens"],
        "valid_tokens": valid["tokens"],
        "documents": documents,
        "chars_per_token": chars / max(1, tokens - padding),
        "mixture": manifest["mixture"].get(name, 0.0),
        "unigram_entropy": entropy,
        "padding": padding / max(1, tokens),
        "seconds": seconds,
    }


def _per_stream(table: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    names = {
        "tokens/train": "train_tokens",
        "tokens/valid": "valid_tokens",
        "chars_per_token": "chars_per_token",
        "unigram_entropy/valid": "unigram_entropy",
    }
    return {f"{metric}/{name}": float(row[key]) for name, row in table.items() for metric, key in names.items()}


def _counted(entries: Iterable[Mapping[str, Any]], name: str) -> dict[str, int]:
    """Returns tokens by what a token is of, most first."""
    found: dict[str, int] = {}
    for entry in entries:
        for key, tokens in entry.get(name, {}).items():
            found[key] = found.get(key, 0) + tokens
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


def _sources(entries: list[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    tokens, documents = _counted(entries, "sources"), _counted(entries, "source_documents")
    whole = sum(tokens.values())
    return {
        name: {"tokens": count, "documents": documents[name], "share": count / max(1, whole)}
        for name, count in tokens.items()
    }


def _outputs(stage: Stage, manifest: Mapping[str, Any]) -> dict[str, str]:
    from corpus.shards import MANIFEST, committed_files
    from slurm.files import sha256_file

    named = [MANIFEST, "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"]
    shards = {
        f"{entry['path']}/{name}": digest
        for entry in committed_files(manifest)
        for name, digest in entry["files"].items()
    }
    return {**{name: sha256_file(stage.folder / name) for name in named}, **shards}

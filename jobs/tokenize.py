"""tokenize: clean records to token shards, with one tokenizer for text and every scientific symbol."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from corpus.modality import modalities
from jobs._stage import Context, Outcome, Stage, StageConfig


class TokenizeConfig(StageConfig):
    """The `tokenize:` section.

    Attributes:
        vocab_size: ids in all; what symbols and text leave is reserved. With `tokenizer` it may be left out.
        tokenizer: a trained tokenizer to extend, from the repository; none is trained then.
        shard_tokens: tokens in one file.
        mixture: stream -> weight in training; by the square root of its tokens when not given.
        pairs: share of translated pairs that are packed side by side in a stream of their own, text.en+ko.
    """

    vocab_size: Annotated[int, Field(ge=512, le=1 << 20)] | None = None
    tokenizer: str | None = None
    shard_tokens: Annotated[int, Field(ge=1 << 16, multiple_of=1 << 16)] = 1 << 24
    mixture: dict[str, Annotated[float, Field(ge=0)]] | None = None
    pairs: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _sized(self) -> "TokenizeConfig":
        if self.vocab_size is None and self.tokenizer is None:
            raise ValueError("vocab_size: must be given where no tokenizer is loaded, but is not; add it")
        if self.mixture is not None and not sum(self.mixture.values()):
            raise ValueError("mixture: must have a weight above 0, but has none; add one")
        return self

    def files(self, root: Path) -> Iterable[Path]:
        """Yields the tokenizer that is loaded, if one is."""
        given = root / (self.tokenizer or "")
        return () if self.tokenizer is None else [given / "tokenizer.json" if given.is_dir() else given]

    def problems(self, context: Context) -> Iterable[str]:
        """Yields a tokenizer that is not there and streams that no source can fill."""
        if self.tokenizer is not None and not (context.root / self.tokenizer).exists():
            found = context.root / self.tokenizer
            yield f"tokenizer: must be a tokenizer.json or its folder, but {found} is not there; mend the path"
        for name in self.mixture or {}:
            if name.partition(".")[0] not in modalities():
                known = ", ".join(modalities())
                yield f"mixture.{name}: must be a modality of {known}, with .en or so for text, but is not; change it"


def run(config: TokenizeConfig, stage: Stage) -> Outcome:
    """Makes the tokenizer, encodes every record, checks every round trip and commits the shards."""
    from corpus.encoding import make_tokenizer, write_shards
    from corpus.packing import plan
    from corpus.shards import open_shards
    from jobs._run import ROOT

    records = stage.root / "prepare"
    base = None if config.tokenizer is None else ROOT / config.tokenizer
    tokenizer = make_tokenizer(records, base=base, vocab_size=config.vocab_size)
    started = time.perf_counter()
    manifest, checks = write_shards(
        records,
        stage.folder,
        tokenizer=tokenizer,
        shard_tokens=config.shard_tokens,
        weights=config.mixture,
        packing=plan(records, rate=config.pairs, seed=stage.seed),
        progress=stage.progress,
    )
    seconds = time.perf_counter() - started
    shards = open_shards(stage.folder)
    entropies = {name: shards.stream(name, "valid").unigram_entropy() for name in manifest["streams"]}
    table = {name: _row(manifest, name, entropies[name]) for name in manifest["streams"]}
    return Outcome(
        metrics={
            "tokens": float(checks.tokens),
            "tokens_per_s": checks.tokens / seconds,
            "vocab_size": float(manifest["vocab_size"]),
            "unknown": float(checks.unknown),
            "round_trip_failures": float(checks.round_trip_failures),
            "unigram_entropy/valid": sum(share * entropies[name] for name, share in manifest["mixture"].items()),
            **_per_stream(table),
        },
        outputs=_outputs(stage, manifest),
        details={"streams": table, "tokenizer_digest": manifest["tokenizer_digest"]},
    )


def _row(manifest: Mapping[str, Any], name: str, entropy: float) -> dict[str, Any]:
    train, valid = (manifest["streams"][name][split] for split in ("train", "valid"))
    tokens = train["tokens"] + valid["tokens"]
    return {
        "train_tokens": train["tokens"],
        "valid_tokens": valid["tokens"],
        "documents": train["documents"] + valid["documents"],
        "chars_per_token": (train["chars"] + valid["chars"]) / max(1, tokens),
        "mixture": manifest["mixture"].get(name, 0.0),
        "unigram_entropy": entropy,
    }


def _per_stream(table: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    names = {
        "tokens/train": "train_tokens",
        "tokens/valid": "valid_tokens",
        "chars_per_token": "chars_per_token",
        "unigram_entropy/valid": "unigram_entropy",
    }
    return {f"{metric}/{name}": float(row[key]) for name, row in table.items() for metric, key in names.items()}


def _outputs(stage: Stage, manifest: Mapping[str, Any]) -> dict[str, str]:
    from slurm.files import sha256_file

    entries = [entry for splits in manifest["streams"].values() for entry in splits.values()]
    shards = {f"{entry['path']}/{name}": digest for entry in entries for name, digest in entry["files"].items()}
    named = ["manifest.json", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"]
    return {**{name: sha256_file(stage.folder / name) for name in named}, **shards}

"""Does a model read Korean in the light of its English? `python benchmarks/bilingual.py --data ../shared/data/ko_en`.

Trains a small model from nothing on real translations, packed side by side (XLDA), with the stages' own code: records,
tokenizer, shards, trainer, export, scoring. Then every held-out Korean text is scored three times: after its own
English text, after that of another article, and after nothing. Whole articles are held out, and the interval of the
difference resamples articles. With --mask document, the same training never sees two texts at once: the control.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer

from corpus.encoding import Shaping, make_tokenizer, write_shards
from corpus.gates.config import GatesConfig
from corpus.merging import prepare as prepare_records
from corpus.mixture import MAIN, Mixing
from corpus.records import read_records
from corpus.shards import MANIFEST, Shards, open_shards
from corpus.source import Source
from corpus.together import shares as shares_of
from corpus.units import Settings
from evaluation.statistics import estimate
from parallelism import device
from parallelism.layout import Layout
from parallelism.presets import ModelShape
from parallelism.question import Question
from slurm.files import sha256_file

Mask = Literal["xlda", "document", "causal"]
SHAPE = ModelShape(
    num_layers=4,
    hidden_size=256,
    ffn_hidden_size=768,
    num_attention_heads=8,
    num_query_groups=4,
    kv_channels=32,
    max_position_embeddings=512,
    share_embeddings_and_output_weights=True,
)
SOURCES: tuple[dict[str, Any], ...] = (
    {"name": "ntrex", "path": "ntrex_en_ko_dev.jsonl", "license": "CC-BY-SA-4.0", "options": {"group": "doc"}},
    {
        "name": "tico19",
        "path": "tico19_google_en_ko.csv",
        "license": "CC0-1.0",
        "options": {"fields": {"en": ["sourceString"], "ko": [6]}},
    },
    {
        "name": "covid19-scenarios",
        "path": "covid19_scenarios_ko.json",
        "license": "MIT",
        "options": {"fields": {"en": ["key"], "ko": ["value"]}},
    },
)
VOCAB_SIZE, SEQ_LENGTH, BATCH = 1024, 256, 8
CONTEXTS = ("own", "another's", "none")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A held-out text in two languages, and the article that it is from."""

    english: str
    korean: str
    article: str


def main() -> None:
    """Prepares, trains and scores once for each seed, and prints a row of the table for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the three files of SOURCES")
    parser.add_argument("--train-iters", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--mask", choices=("xlda", "document", "causal"), default="xlda")
    parser.add_argument("--rate", type=float, default=1.0, help="share of pairs packed side by side")
    options = parser.parse_args()
    device.prepare()
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            shards = prepare(root, data=options.data.resolve(), rate=options.rate)
            tell(shards, mask=options.mask)
            train(root, shards, mask=options.mask, train_iters=options.train_iters, lr=options.lr, seed=seed)
            report(root, seed=seed, mask=options.mask, train_iters=options.train_iters)


def prepare(root: Path, *, data: Path, rate: float) -> Shards:
    """Reads the sources, holds out a fifth of the articles, and writes token shards; the seed of this is fixed."""
    sources = [
        Source.model_validate({"modality": "text", **settings, "path": str(data / settings["path"])})
        for settings in SOURCES
    ]
    every = GatesConfig.model_validate(  # the articles as they are published
        {"duplicates": {"near": False}, "quality": {"modalities": []}, "personal": {"skip": ["text"]}}
    )
    settings = Settings(root=data, seed=1, valid_fraction=0.2, gates=every)
    prepare_records(sources, root / "prepare", settings=settings)
    tokenizer = make_tokenizer(root / "prepare", base=None, vocab_size=VOCAB_SIZE)
    write_shards(
        root / "prepare",
        root / "tokenize",
        tokenizer=tokenizer,
        shaping=Shaping(pairs=rate, seed=1),
        mixing={MAIN: Mixing(mixture={"text.en+ko": 1.0})},  # what has no translation is a few hundred tokens
    )
    return open_shards(root / "tokenize")


def tell(shards: Shards, *, mask: Mask) -> None:
    """Prints what there is to learn from, and how often two languages meet."""
    for name, splits in shards.manifest["streams"].items():
        sizes = ", ".join(f"{split} {entry['tokens']:,} tokens" for split, entry in splits.items())
        print(f"{name}: {sizes}, {shards.mixture.get(name, 0):.1%} of training")
    shares = shares_of(shards, seq_length=SEQ_LENGTH, attention_mask=mask)
    print(", ".join(f"{name} {share:.1%}" for name, share in shares.items()), flush=True)


def train(root: Path, shards: Shards, *, mask: Mask, train_iters: int, lr: float, seed: int) -> None:
    """Trains with the trainer of every run, in this process, and exports the model."""
    from parallelism import launch, trainer
    from parallelism.export import export
    from parallelism.learner import Recipe

    batch: dict[str, Any] = {"global_batch_size": BATCH, "seq_length": SEQ_LENGTH}
    with launch.joined(launch.Place(rank=0, world_size=1, local_rank=0, rendezvous=None)):
        result = trainer.train(
            Recipe(
                shape=SHAPE,
                vocab_size=shards.vocab_size,
                precision="bf16",
                seed=seed,
                data_digest=sha256_file(shards.folder / MANIFEST),
                mixture=shards.mixture,
                attention_mask=mask,
                lr=lr,
                min_lr=1e-4,
                lr_decay_style="cosine",
                lr_warmup_iters=min(50, train_iters - 1),
                lr_decay_iters=train_iters,
                lr_wsd_decay_iters=0,
                weight_decay=0.1,
                adam_beta1=0.9,
                adam_beta2=0.95,
                clip_grad=1.0,
                **batch,
            ),
            layout=Layout(world_size=1, micro_batch_size=BATCH, **batch),
            schedule=trainer.Schedule(
                train_iters=train_iters,
                eval_interval=100,
                eval_samples=64,
                save_interval=train_iters,
                keep_checkpoints=2,
                async_save=False,
            ),
            corpus=trainer.Corpus(
                train={name: shards.stream(name, "train") for name in shards.mixture},
                valid={name: shards.stream(name, "valid") for name in shards.mixture},
            ),
            folder=root / "checkpoints",
            watcher=Printed(),
            facts={"run": "bilingual"},
        )
    if result.stopped:
        raise SystemExit(f"stopped on request after step {result.step}; run it again")
    export(
        result.checkpoint.path.parent,
        expected=result.checkpoint.digest,
        target=root / "model",
        tokenizer=shards.folder / "tokenizer",
        eod_id=shards.eod_id,
        pad_id=shards.manifest["pad_id"],
        samples={"text": shards.stream("text.en+ko", "valid").tokens(0, 512).reshape(4, 128)},
        max_logit_difference=0.5,
    )


@dataclass(frozen=True)
class Printed:
    """Prints validations, and where training is at every hundredth step."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Is not asked for."""

    def progress(self, done: int, *, total: int, note: str) -> None:
        """Prints a line now and then."""
        if done % 100 == 0:
            print(f"step {done} of {total}: {note}", flush=True)

    def note(self, line: str) -> None:
        """Prints the line."""
        print(line, flush=True)

    def saving(self, step: int) -> None:
        """Has nothing to make durable."""


def held_out(root: Path) -> list[Pair]:
    """Returns the pairs of the articles that were held out."""
    texts: dict[str, dict[str, Any]] = {}
    for language in ("en", "ko"):
        for record in read_records(root / "prepare", f"text.{language}", "valid"):
            if "pair" in record and record["source"] == "ntrex":
                texts.setdefault(record["pair"], {"article": record["group"]})[language] = record["content"]["text"]
    return [
        Pair(english=found["en"], korean=found["ko"], article=found["article"])
        for found in texts.values()
        if {"en", "ko"} <= found.keys()
    ]


def report(root: Path, *, seed: int, mask: Mask, train_iters: int) -> None:
    """Scores the held-out Korean texts in the three contexts and prints the means and the paired differences."""
    pairs = held_out(root)
    tokenizer = Tokenizer.from_file(str(root / "tokenize" / "tokenizer" / "tokenizer.json"))
    lengths = [len(tokenizer.encode(f"{pair.korean}<|/text|>").ids) for pair in pairs]
    nats = dict(zip(CONTEXTS, score(root / "model", pairs), strict=True))
    articles = [pair.article for pair in pairs]
    tokens = sum(lengths)
    print(
        f"mask {mask}, seed {seed}, {train_iters} steps: {len(pairs)} Korean texts of {len(set(articles))} articles, "
        f"{tokens:,} tokens"
    )
    for name in CONTEXTS:
        print(f"  after {name}: {sum(nats[name]) / tokens:.4f} nats a token")
    for name in CONTEXTS[1:]:
        gains = [(other - own) * len(pairs) / tokens for other, own in zip(nats[name], nats["own"], strict=True)]
        found = estimate(gains, groups=articles, seed=1)
        better = sum(gain > 0 for gain in gains) / len(gains)
        print(
            f"  own below {name} by {found.value:.4f} [{found.low:.4f}, {found.high:.4f}] nats a token, "
            f"in {better:.0%} of the texts",
            flush=True,
        )


def score(model: Path, pairs: Sequence[Pair]) -> list[list[float]]:
    """Returns the nats of every Korean text after its own English text, after another article's and after nothing."""
    from parallelism import scoring

    scorer = scoring.load(model)
    half = len(pairs) // 2  # another article's: pairs lie article by article
    asked = [
        [
            Question(prompt=_before(english), choices=(f"{pair.korean}<|/text|>",))
            for pair, english in zip(pairs, given, strict=True)
        ]
        for given in (
            [pair.english for pair in pairs],
            [pairs[(number + half) % len(pairs)].english for number in range(len(pairs))],
            [None] * len(pairs),
        )
    ]
    return [[-found.logprobs[0] for found in scoring.score(scorer, questions)] for questions in asked]


def _before(english: str | None) -> str:
    return "<|text|>" if english is None else f"<|text|>{english}<|/text|><|eod|><|text|>"


if __name__ == "__main__":
    began = time.perf_counter()
    main()
    print(f"{time.perf_counter() - began:.0f} s")

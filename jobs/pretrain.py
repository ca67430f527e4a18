"""pretrain: trains the model on the token shards with Megatron, one process per GPU, from its last good checkpoint."""

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from corpus.mixture import Course
from jobs import _start
from jobs._course import CourseConfig
from jobs._mixing import follow
from jobs._pace import costs
from jobs._stage import STOPPED, Context, Outcome, Stage
from parallelism.batches import Batches
from parallelism.layout import Layout, Recompute, problems
from parallelism.presets import ModelShape, preset
from slurm.resources import Spread
from slurm.site import Purpose

_LOG_EVERY = 20


class PretrainConfig(CourseConfig):
    """The `pretrain:` section, in Megatron's words.

    Attributes:
        model: a named size of parallelism/presets.py.
        start_from: a Hugging Face folder, from the repository, whose weights are the first ones.
        attention_mask: what a token sees of the documents packed with its own: all of them, none, or with xlda those
            that tokenize's `pairs` put beside it in another language.
        lr_decay_iters: steps until min_lr is reached; train_iters unless given.
        lr_wsd_decay_iters: how many of these the decay of "WSD" takes, after a constant rate.
        eval_samples: held-out windows of each stream in one validation.
        keep_checkpoints: how many of the newest checkpoints stay on disk; one to go on from, one to fall back to.
    """

    spread: ClassVar[Spread] = "ranks"
    purpose: ClassVar[Purpose] = "train"
    resumable: ClassVar[bool] = True

    model: str
    start_from: str | None = None
    precision: Literal["fp32", "bf16"] = "bf16"
    seq_length: int = Field(ge=2)
    attention_mask: Literal["causal", "document", "xlda"] = "causal"
    micro_batch_size: int = Field(default=1, ge=1)
    global_batch_size: int = Field(ge=1)
    train_iters: int = Field(ge=1)
    lr: float = Field(gt=0, le=1)
    min_lr: float = Field(default=0.0, ge=0)
    lr_decay_style: Literal["cosine", "WSD"] = "cosine"
    lr_warmup_iters: int = Field(default=0, ge=0)
    lr_decay_iters: int | None = Field(default=None, ge=1)
    lr_wsd_decay_iters: int | None = Field(default=None, ge=1)
    weight_decay: float = Field(default=0.1, ge=0, le=1)
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    adam_beta2: float = Field(default=0.95, ge=0, lt=1)
    clip_grad: float = Field(default=1.0, gt=0)
    eval_interval: int = Field(default=1000, ge=1)
    eval_samples: int = Field(default=256, ge=1)
    save_interval: int = Field(default=1000, ge=1)
    keep_checkpoints: int = Field(default=3, ge=2)
    tensor_model_parallel_size: int = Field(default=1, ge=1)
    pipeline_model_parallel_size: int = Field(default=1, ge=1)
    virtual_pipeline_model_parallel_size: int | None = Field(default=None, ge=2)
    context_parallel_size: int = Field(default=1, ge=1)
    expert_model_parallel_size: int = Field(default=1, ge=1)
    sequence_parallel: bool = False
    recompute_granularity: Recompute | None = None

    @field_validator("model")
    @classmethod
    def _known(cls, name: str) -> str:
        preset(name)
        return name

    @property
    def shape(self) -> ModelShape:
        """The model's size."""
        return preset(self.model)

    @property
    def layout(self) -> Layout:
        """How a step is spread over the job's processes."""
        return Layout(
            world_size=self.resources.world_size,
            global_batch_size=self.global_batch_size,
            micro_batch_size=self.micro_batch_size,
            seq_length=self.seq_length,
            tensor_model_parallel_size=self.tensor_model_parallel_size,
            pipeline_model_parallel_size=self.pipeline_model_parallel_size,
            virtual_pipeline_model_parallel_size=self.virtual_pipeline_model_parallel_size,
            context_parallel_size=self.context_parallel_size,
            expert_model_parallel_size=self.expert_model_parallel_size,
            sequence_parallel=self.sequence_parallel,
            recompute_granularity=self.recompute_granularity,
        )

    @property
    def decay_iters(self) -> int:
        """Steps until min_lr is reached."""
        return self.lr_decay_iters or self.train_iters

    @property
    def batches(self) -> Batches:
        """The samples of every step."""
        ramp = self.rampup_batch_size
        return Batches(global_batch_size=self.global_batch_size, ramp=ramp.ramp if ramp else None)

    def files(self, root: Path) -> Iterable[Path]:
        """Yields the files that the first weights come from."""
        return () if self.start_from is None else _start.files(root / self.start_from)

    def problems(self, context: Context) -> Iterable[str]:
        """Yields a layout that cannot be, a course that cannot be run and a learning rate that cannot be followed."""
        tokenize = context.sections.get("tokenize")
        unfit = [*problems(self.shape, layout=self.layout)]
        course = [
            *self.course_problems(
                global_batch_size=self.global_batch_size,
                decay_iters=self.decay_iters,
                tokenize=tokenize,
            )
        ]
        yield from (*unfit, *course)
        if self.start_from is not None:
            yield from _start.problems(context.root / self.start_from, shape=self.shape, tokenize=tokenize)
        if self.rampup_batch_size and not unfit and not course:
            yield from self._ramp_problems()
        if self.min_lr > self.lr:
            yield f"min_lr: must be at most lr {self.lr:g}, but is {self.min_lr:g}; lower it"
        if self.lr_warmup_iters >= self.decay_iters:
            yield (
                f"lr_warmup_iters: must be below lr_decay_iters (train_iters unless given) {self.decay_iters}, "
                f"but is {self.lr_warmup_iters}; lower it"
            )
        if self.attention_mask == "xlda" and getattr(tokenize, "pairs", 1) == 0:
            yield "attention_mask: must be causal or document where tokenize.pairs is 0, but is xlda; raise pairs"
        yield from self._wsd_problems()

    def _ramp_problems(self) -> Iterable[str]:
        for size in self.batches.sizes:
            for line in problems(self.shape, layout=replace(self.layout, global_batch_size=size)):
                yield f"rampup_batch_size: must only have sizes that fit the layout, but its {line}"
                return

    def _wsd_problems(self) -> Iterable[str]:
        decay = self.lr_wsd_decay_iters
        if (self.lr_decay_style == "WSD") != (decay is not None):
            yield "lr_wsd_decay_iters: must be given with lr_decay_style WSD, and only then; add it or remove it"
        elif decay is not None and decay > self.decay_iters - self.lr_warmup_iters:
            longest = self.decay_iters - self.lr_warmup_iters
            yield f"lr_wsd_decay_iters: must be at most {longest}, the steps after warm-up, but is {decay}; lower it"


def run(config: PretrainConfig, stage: Stage) -> Outcome:
    """Trains, and exits with STOPPED when asked to stop before the end.

    Raises:
        ValueError: the shards or the layout do not fit the configuration.
        TrainingError: the loss is not finite.
    """
    from corpus.shards import MANIFEST, open_shards
    from parallelism import device, kernels
    from slurm.files import sha256_file

    device.prepare()
    from parallelism import determinism, launch, trainer

    shards = open_shards(stage.root / "tokenize", share=(stage.rank, stage.world_size))
    found = problems(config.shape, layout=config.layout, vocab_size=shards.vocab_size)
    if found:
        raise ValueError("pretrain's layout must be possible, but " + "; ".join(found))
    if shards.pack_length not in (None, config.seq_length):
        told = f"must be tokenize's pack_length {shards.pack_length}, or windows cut what was packed"
        raise ValueError(f"pretrain.seq_length: {told}, but is {config.seq_length}; make them equal")
    course = course_of(config, shards.manifest)
    manifest = sha256_file(shards.folder / MANIFEST)
    if stage.rank == 0:
        print(*kernels.paths(), *course.notes, sep="\n", flush=True)
        stage.journal.dataset(name="shards", digest=manifest, source=str(shards.folder), context="training")
    forced = {"deterministic": determinism.demand()} if config.deterministic else {}
    with launch.joined(launch.place()):
        _meet(stage)
        first = _first_weights(config, shards)
        recipe = recipe_of(config, shards, data_digest=manifest, seed=stage.seed)
        result = trainer.train(
            replace(recipe, start_from_digest=first.digest) if first else recipe,
            layout=config.layout,
            schedule=_schedule(config),
            corpus=_corpus(shards),
            folder=stage.folder / "checkpoints",
            watcher=_Watcher(stage=stage),
            facts={"run": stage.run, "code": _versions(), "kernels": _kernels(), **forced, **_start.told(first)},
            start_from=first,
        )
    if result.stopped:
        print(f"stopped on request after step {result.step}; the same command goes on from {result.checkpoint.path}")
        sys.exit(STOPPED)
    if stage.rank != 0:
        return Outcome(metrics={})
    outcome = _outcome(stage, shards, result, together=_together(config, shards), course=course)
    return replace(outcome, inputs=_start.inputs(first))


def _first_weights(config: PretrainConfig, shards: Any) -> Any:
    """Returns the folder that training starts from, read once by all ranks together; none without one."""
    if config.start_from is None:
        return None
    from jobs._run import ROOT

    return _start.read(ROOT / config.start_from, tokenizer=shards.folder / "tokenizer" / "tokenizer.json")


def _meet(stage: Stage) -> None:
    """Checks that all ranks reach each other and agree; rank 0 tells how fast."""
    from parallelism import collective

    report = collective.check()
    if report is not None and stage.rank == 0:
        print(report, flush=True)
        stage.journal.metrics(int(os.environ.get("SLURM_RESTART_COUNT", "0")), report.metrics)


@dataclass(frozen=True, kw_only=True)
class _Watcher:
    """Passes on what rank 0 of the trainer tells: points to the journal, steps to the bar, lines to the log."""

    stage: Stage

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.stage.journal.metrics(step, values)

    def progress(self, done: int, *, total: int, note: str) -> None:
        self.stage.progress(done, total, note)
        if done % _LOG_EVERY == 0 or done in (1, total):
            self.note(f"step {done} of {total}: {note}")

    def note(self, line: str) -> None:
        print(line, flush=True)

    def saving(self, step: int) -> None:
        self.stage.journal.metrics(step, costs(self.stage.folder))
        self.stage.journal.sync()


def course_of(config: PretrainConfig, manifest: Mapping[str, Any]) -> Course:
    """Returns the mixtures that training follows on the shards of a manifest, and how often it sees each stream.

    Raises:
        ValueError: a phase is named that tokenize did not mix, or its caps leave too few tokens.
    """
    batches, steps = config.batches, config.train_iters
    return follow(config, manifest, batches=batches, train_iters=steps, seq_length=config.seq_length)


def recipe_of(config: PretrainConfig, shards: Any, *, data_digest: str, seed: int) -> Any:
    """Returns what decides the losses of this section on these shards: a parallelism.learner.Recipe."""
    from parallelism.learner import Recipe

    first, *later = course_of(config, shards.manifest).mixtures
    same = (
        *("shape", "precision", "seq_length", "global_batch_size", "lr", "min_lr", "lr_decay_style", "lr_warmup_iters"),
        *("weight_decay", "adam_beta1", "adam_beta2", "clip_grad", "setbacks", "attention_mask"),
    )
    return Recipe(
        **{name: getattr(config, name) for name in same},
        lr_decay_iters=config.decay_iters,
        lr_wsd_decay_iters=config.lr_wsd_decay_iters or 0,
        rampup_batch_size=config.batches.ramp,
        phases=tuple((phase.start_iter, mixture) for phase, mixture in zip(config.phases, later, strict=True)),
        vocab_size=shards.vocab_size,
        mixture=first,
        data_digest=data_digest,
        seed=seed,
    )


def _schedule(config: PretrainConfig) -> Any:
    from parallelism.trainer import Schedule

    names = (
        *("train_iters", "eval_interval", "eval_samples", "save_interval", "keep_checkpoints"),
        *("async_save", "stats_interval", "profile_steps"),
    )
    return Schedule(**{name: getattr(config, name) for name in names})


def _corpus(shards: Any) -> Any:
    from parallelism.trainer import Corpus

    names = shards.manifest["streams"]
    return Corpus(
        train={name: shards.stream(name, "train") for name in names},
        valid={name: shards.stream(name, "valid") for name in names},
    )


def _kernels() -> dict[str, str]:
    from parallelism import kernels

    return {kernel.operation: kernel.used for kernel in kernels.paths()}


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("medscale", "torch", "megatron-core")}


def _together(config: PretrainConfig, shards: Any) -> dict[str, float]:
    """How often training met two languages together; nothing where tokenize packed no pairs."""
    from corpus.together import shares

    if not any("+" in name for name in shards.mixture):
        return {}
    found = shares(shards, seq_length=config.seq_length, attention_mask=config.attention_mask)
    return {f"packing/{name}": share for name, share in found.items()}


def _outcome(stage: Stage, shards: Any, result: Any, *, together: Mapping[str, float], course: Course) -> Outcome:
    from slurm.files import sha256_file

    manifest = result.checkpoint.path / "manifest.json"
    table = {name: _row(shards, name, loss) for name, loss in result.valid.items()}
    return Outcome(
        metrics={
            "valid/loss": result.valid_mean,
            **{f"valid/loss/{name}": row["valid_loss"] for name, row in table.items()},
            **{f"valid/unigram_entropy/{name}": row["unigram_entropy"] for name, row in table.items()},
            "train/peak_tflops": result.peak_tflops,
            **result.rates,
            **together,
        },
        outputs={str(manifest.relative_to(stage.folder)): sha256_file(manifest)},
        details={
            "streams": table,
            "epochs": dict(course.epochs),
            "notes": list(course.notes),
            "checkpoint": {
                "path": str(result.checkpoint.path.relative_to(stage.folder)),
                "step": result.step,
                "digest": result.checkpoint.digest,
            },
            "resumed_from": result.resumed_from,
            "set_aside": list(result.refused),
            "skipped": list(result.history.skipped),
            "rewinds": [list(pair) for pair in result.history.rewinds],
            "kernels": _kernels(),
        },
    )


def _row(shards: Any, name: str, loss: float) -> dict[str, float]:
    """One stream's held-out loss beside the entropy of its held-out tokens, both in nats per token."""
    entropy = shards.stream(name, "valid").unigram_entropy()
    return {
        "valid_loss": loss,
        "unigram_entropy": entropy,
        "train_tokens": shards.manifest["streams"][name]["train"]["tokens"],
        "valid_tokens": shards.manifest["streams"][name]["valid"]["tokens"],
    }

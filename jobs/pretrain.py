"""pretrain: trains the model on the token shards with Megatron, one process per GPU, from its last good checkpoint."""

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from jobs._pace import costs
from jobs._stage import STOPPED, Context, Outcome, Stage, StageConfig
from parallelism.layout import Layout, Recompute, problems
from parallelism.presets import ModelShape, preset
from slurm.resources import Spread
from slurm.site import Purpose

_LOG_EVERY = 20


class PretrainConfig(StageConfig):
    """The `pretrain:` section, in Megatron's words.

    Attributes:
        model: a named size of parallelism/presets.py.
        lr_decay_iters: steps until min_lr is reached; train_iters unless given.
        lr_wsd_decay_iters: how many of these the decay of "WSD" takes, after a constant rate.
        eval_samples: held-out windows of each stream in one validation.
        keep_checkpoints: how many of the newest checkpoints stay on disk; one to go on from, one to fall back to.
    """

    spread: ClassVar[Spread] = "ranks"
    purpose: ClassVar[Purpose] = "train"
    resumable: ClassVar[bool] = True

    model: str
    precision: Literal["fp32", "bf16"] = "bf16"
    seq_length: int = Field(ge=2)
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

    def problems(self, context: Context) -> Iterable[str]:  # noqa: ARG002 - as every section
        """Yields a layout that cannot be and a learning rate that cannot be followed."""
        yield from problems(self.shape, layout=self.layout)
        if self.min_lr > self.lr:
            yield f"min_lr: must be at most lr {self.lr:g}, but is {self.min_lr:g}; lower it"
        if self.lr_warmup_iters >= self.decay_iters:
            yield (
                f"lr_warmup_iters: must be below lr_decay_iters (train_iters unless given) {self.decay_iters}, "
                f"but is {self.lr_warmup_iters}; lower it"
            )
        yield from self._wsd_problems()

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
    from parallelism import device
    from slurm.files import sha256_file

    device.prepare()
    from parallelism import launch, trainer

    shards = open_shards(stage.root / "tokenize", share=(stage.rank, stage.world_size))
    found = problems(config.shape, layout=config.layout, vocab_size=shards.vocab_size)
    if found:
        raise ValueError("pretrain's layout must be possible, but " + "; ".join(found))
    manifest = sha256_file(shards.folder / MANIFEST)
    if stage.rank == 0:
        stage.journal.dataset(name="shards", digest=manifest, source=str(shards.folder), context="training")
    with launch.joined(launch.place()):
        _meet(stage)
        result = trainer.train(
            _recipe(config, shards, data_digest=manifest, seed=stage.seed),
            layout=config.layout,
            schedule=_schedule(config),
            corpus=_corpus(shards),
            folder=stage.folder / "checkpoints",
            watcher=_Watcher(stage=stage),
            facts={"run": stage.run, "code": _versions()},
        )
    if result.stopped:
        print(f"stopped on request after step {result.step}; the same command goes on from {result.checkpoint.path}")
        sys.exit(STOPPED)
    return _outcome(stage, shards, result) if stage.rank == 0 else Outcome(metrics={})


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


def _recipe(config: PretrainConfig, shards: Any, *, data_digest: str, seed: int) -> Any:
    from parallelism.learner import Recipe

    same = (
        *("shape", "precision", "seq_length", "global_batch_size", "lr", "min_lr", "lr_decay_style", "lr_warmup_iters"),
        *("weight_decay", "adam_beta1", "adam_beta2", "clip_grad"),
    )
    return Recipe(
        **{name: getattr(config, name) for name in same},
        lr_decay_iters=config.decay_iters,
        lr_wsd_decay_iters=config.lr_wsd_decay_iters or 0,
        vocab_size=shards.vocab_size,
        mixture={name: weight for name, weight in shards.mixture.items() if weight > 0},
        data_digest=data_digest,
        seed=seed,
    )


def _schedule(config: PretrainConfig) -> Any:
    from parallelism.trainer import Schedule

    names = ("train_iters", "eval_interval", "eval_samples", "save_interval", "keep_checkpoints")
    return Schedule(**{name: getattr(config, name) for name in names})


def _corpus(shards: Any) -> Any:
    from parallelism.trainer import Corpus

    names = shards.manifest["streams"]
    return Corpus(
        train={name: shards.stream(name, "train") for name in names},
        valid={name: shards.stream(name, "valid") for name in names},
    )


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("medscale", "torch", "megatron-core")}


def _outcome(stage: Stage, shards: Any, result: Any) -> Outcome:
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
        },
        outputs={str(manifest.relative_to(stage.folder)): sha256_file(manifest)},
        details={
            "streams": table,
            "checkpoint": {
                "path": str(result.checkpoint.path.relative_to(stage.folder)),
                "step": result.step,
                "digest": result.checkpoint.digest,
            },
            "resumed_from": result.resumed_from,
            "set_aside": list(result.refused),
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

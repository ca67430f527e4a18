"""export: the last good checkpoint as Hugging Face safetensors, if their logits are the trained model's."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import Field

from jobs._stage import Context, Outcome, Stage, StageConfig
from jobs.pretrain import PretrainConfig
from parallelism import hf_config


class ExportConfig(StageConfig):
    """The `export:` section.

    Attributes:
        max_logit_difference: what every logit's difference to the trained model must stay below, in fp32.
        samples: held-out windows of each stream to compare on.
        sample_tokens: tokens of a window, at most pretrain's seq_length.
        kind: the type that transformers will take the model for; deepseek_v3 for latent attention and experts, llama
            for all others unless given.
        experts: whether each expert has tensors of its own, which vLLM wants, or transformers' stacked ones.
    """

    max_logit_difference: float = Field(default=1e-3, gt=0)
    samples: int = Field(default=2, ge=1)
    sample_tokens: int = Field(default=256, ge=1)
    kind: hf_config.Kind | None = None
    experts: Literal["per_expert", "fused"] = "per_expert"

    def problems(self, context: Context) -> Iterable[str]:
        """Yields why the model that is trained cannot be written as `kind`."""
        trained = context.sections.get("pretrain")
        if isinstance(trained, PretrainConfig):
            kind = self.kind or hf_config.usual_kind(trained.shape)
            for line in hf_config.kind_problems(trained.shape, kind=kind):
                yield f"kind: {line}"


def run(config: ExportConfig, stage: Stage) -> Outcome:
    """Exports the newest good checkpoint of this run's training to the stage's model/ folder.

    Raises:
        ExportError: no good checkpoint, or the exported model is not the trained one.
    """
    from corpus.shards import open_shards
    from parallelism import device
    from slurm.files import sha256_files

    device.prepare()
    from parallelism.export import Form, export

    tokenized = stage.root / "tokenize"
    shards = open_shards(tokenized)
    section = cast(PretrainConfig, stage.sections["pretrain"])
    length = min(config.sample_tokens, section.seq_length)
    streams = {name: shards.stream(name, "valid") for name in shards.manifest["streams"]}
    held_out = {name: stream for name, stream in streams.items() if len(stream)}
    done = export(
        _checkpoints(stage),
        expected=stage.parents["pretrain"]["details"]["checkpoint"]["digest"],
        target=stage.folder / "model",
        tokenizer=tokenized / "tokenizer",
        form=Form(kind=config.kind or hf_config.usual_kind(section.shape), experts=config.experts),
        eod_id=shards.eod_id,
        pad_id=shards.manifest["pad_id"],
        samples={name: _samples(stream, count=config.samples, length=length) for name, stream in held_out.items()},
        max_logit_difference=config.max_logit_difference,
    )
    files = sha256_files(stage.folder / "model")
    return _outcome(done, outputs={f"model/{name}": digest for name, digest in files.items()})


def _checkpoints(stage: Stage) -> Path:
    """The folder of this training's checkpoints: where the pretrain record says its last one lies."""
    last = Path(stage.parents["pretrain"]["details"]["checkpoint"]["path"])
    return stage.root / "pretrain" / last.parent


def _samples(stream: Any, *, count: int, length: int) -> Any:
    """Returns the first `count` windows of a stream as rows; one shorter row where the stream is shorter."""
    length = min(length, len(stream))
    rows = min(count, len(stream) // length)
    return stream.tokens(0, rows * length).reshape(rows, length)


def _outcome(done: Any, *, outputs: dict[str, str]) -> Outcome:
    streams = {
        name: {"tokens": item.tokens, "max_logit_difference": item.max_difference, "same_argmax": item.same_argmax}
        for name, item in done.agreement.items()
    }
    tokens = sum(row["tokens"] for row in streams.values())
    return Outcome(
        metrics={
            "parameters": float(done.parameters),
            "max_logit_difference": max(row["max_logit_difference"] for row in streams.values()),
            "same_argmax": sum(row["same_argmax"] * row["tokens"] for row in streams.values()) / tokens,
        },
        outputs=outputs,
        details={
            "checkpoint": {"step": done.checkpoint.step, "digest": done.checkpoint.digest},
            "kind": done.kind,
            "streams": streams,
        },
    )

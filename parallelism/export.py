"""A trained checkpoint as a Hugging Face model, and the proof that both give the same logits.

The weights are read as whole tensors, whatever layout saved them, without a Megatron model. The proof goes the other
way round: Megatron's model is built on one rank, loads the same checkpoint through the trainer's own loader, and its
logits are compared with those of the files just written, loaded by transformers, both in fp32.

Shapes: S sequence, V vocabulary.
"""

import contextlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils.logging import disable_progress_bar

from parallelism import checkpoint, device, groups, hf, hf_config, launch, model
from parallelism.checkpoint import Checkpoint
from parallelism.hf import ExpertLayout
from parallelism.hf_config import Kind
from parallelism.layout import Layout
from parallelism.presets import Experts, LatentAttention, ModelShape
from slurm.files import fsync_file, fsync_folder, read_json

_MAX_FILE = "5GB"


class ExportError(ValueError):
    """There is no model to export, or its export is not the model that was trained."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A verified checkpoint and what its manifest says of the model in it."""

    checkpoint: Checkpoint
    shape: ModelShape
    vocab_size: int
    seq_length: int


@dataclass(frozen=True, kw_only=True)
class Form:
    """As what a model is written: a type of Hugging Face's, and how it holds experts, if it has any."""

    kind: Kind
    experts: ExpertLayout = "per_expert"


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How near the exported model's logits are to Megatron's on the tokens of one stream."""

    tokens: int
    max_difference: float
    same_argmax: float


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written: from which checkpoint, how many parameters, and how near its logits are, by stream."""

    checkpoint: Checkpoint
    parameters: int
    kind: Kind
    agreement: Mapping[str, Agreement]


def export(
    checkpoints: Path,
    *,
    expected: str,
    target: Path,
    tokenizer: Path,
    form: Form | None = None,
    eod_id: int,
    pad_id: int,
    samples: Mapping[str, NDArray[np.int64]],
    max_logit_difference: float,
) -> Exported:
    """Writes the newest good checkpoint as a Hugging Face folder, which appears only when its logits are right.

    Args:
        checkpoints: folder with the step_... folders of one training.
        expected: digest of the checkpoint to export: the one that the training reported.
        target: the folder to write; an older one is replaced.
        tokenizer: folder whose files are copied into it.
        form: the usual one for the model's size, unless given.
        eod_id: the token that ends a document, and generation.
        pad_id: the token that fills batches.
        samples: held-out tokens of each stream, (samples, S), to compare logits on.
        max_logit_difference: what the largest difference of a logit must stay below.

    Raises:
        ExportError: no good checkpoint, or the logits differ.
    """
    disable_progress_bar()  # The stage has its own.
    unfinished = target.with_name(f"tmp-{target.name}-{uuid.uuid4().hex[:12]}")
    with alone():
        trained = _newest(checkpoints, expected=expected)
        wanted = _form(trained.shape, form)
        try:
            shutil.copytree(tokenizer, unfinished)
            _write(trained, unfinished, form=wanted, eod_id=eod_id, pad_id=pad_id)
            _require_same_tokenizer(unfinished)
            found = agreement(trained, unfinished, samples=samples)
            _require_agreement(found, most=max_logit_difference)
            _publish(unfinished, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return Exported(
        checkpoint=trained.checkpoint,
        parameters=trained.shape.parameters(trained.vocab_size),
        kind=wanted.kind,
        agreement=found,
    )


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Returns the model's whole tensors by Megatron's names, layers stacked on axis 0; no optimizer state.

    Torch's reader unpickles the checkpoint's description: verify the folder first.
    """
    reader = FileSystemReader(folder)
    described = reader.read_metadata().state_dict_metadata
    weights = {
        name: torch.empty(item.size, dtype=item.properties.dtype)
        for name, item in described.items()
        if isinstance(item, TensorStorageMetadata) and not name.startswith("optimizer")
    }
    load(weights, storage_reader=reader)
    return weights


@torch.no_grad()
def agreement(trained: Trained, folder: Path, *, samples: Mapping[str, NDArray[np.int64]]) -> dict[str, Agreement]:
    """Compares the logits of Megatron's model and of the exported one, both in fp32, on each stream's samples.

    Needs a process group of this process alone; `export` opens one.
    """
    tokens = {stream: torch.from_numpy(rows).to(device.current()) for stream, rows in samples.items()}
    expected = _megatron_logits(trained, tokens)
    exported: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    exported.to(device.current()).eval()
    return {stream: _compare(expected[stream], exported(rows).logits) for stream, rows in tokens.items()}


def _newest(checkpoints: Path, *, expected: str) -> Trained:
    found = checkpoint.newest(checkpoints)
    if found.checkpoint is None:
        damaged = f"; set aside: {'; '.join(found.refused)}" if found.refused else ""
        raise ExportError(f"{checkpoints} must hold a good checkpoint, but has none{damaged}; run pretrain again")
    if found.checkpoint.digest != expected:
        step = found.checkpoint.step
        raise ExportError(
            f"the newest good checkpoint must be the one that pretrain reported, but is another, of step {step}; "
            "remove pretrain's record.json and run again"
        )
    recipe = read_json(found.checkpoint.path / checkpoint.MANIFEST)["recipe"]
    return Trained(
        checkpoint=found.checkpoint,
        shape=_shape(recipe["shape"]),
        vocab_size=recipe["vocab_size"],
        seq_length=recipe["seq_length"],
    )


def _shape(values: Mapping[str, Any]) -> ModelShape:
    """Returns the model's size as a manifest tells it."""
    latent, experts = values.get("latent"), values.get("experts")
    parts = {
        "latent": LatentAttention(**latent) if latent else None,
        "experts": Experts(**experts) if experts else None,
    }
    return ModelShape(**{**values, **parts})


def _form(shape: ModelShape, form: Form | None) -> Form:
    """Returns the asked form or the usual one, if this model can be written so."""
    wanted = form or Form(kind=hf_config.usual_kind(shape))
    problems = [*hf_config.kind_problems(shape, kind=wanted.kind)]
    if problems:
        raise ExportError(f"the model must have a form of Hugging Face's, but {'; '.join(problems)}")
    return wanted


def _write(trained: Trained, folder: Path, *, form: Form, eod_id: int, pad_id: int) -> None:
    """Writes config and safetensors; the meta model checks every name and shape before anything is written."""
    weights = hf.to_hf(
        read_weights(trained.checkpoint.path), shape=trained.shape, vocab_size=trained.vocab_size, kind=form.kind
    )
    values = hf_config.to_config(
        trained.shape,
        kind=form.kind,
        vocab_size=trained.vocab_size,
        max_tokens=trained.seq_length,  # nothing is known of longer texts
        eod_id=eod_id,
        pad_id=pad_id,
    )
    dtype = weights["model.embed_tokens.weight"].dtype
    with torch.device("meta"):
        written = AutoModelForCausalLM.from_config(AutoConfig.for_model(**values), dtype=dtype)
    written.load_state_dict(weights, strict=True, assign=True)
    written.generation_config = GenerationConfig(eos_token_id=eod_id, pad_token_id=pad_id)
    # The original format is the one from before transformers 5: a tensor for each expert.
    written.save_pretrained(folder, max_shard_size=_MAX_FILE, save_original_format=form.experts == "per_expert")


def _megatron_logits(trained: Trained, tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns (samples, S, V) fp32 logits of each stream by the trainer's model and loader; the model is gone after."""
    longest = max(rows.shape[1] for rows in tokens.values())
    layout = Layout(world_size=1, global_batch_size=1, seq_length=longest)
    (chunk,) = model.build(
        trained.shape, layout=layout, precision="fp32", vocab_size=trained.vocab_size, seq_length=longest, seed=0
    )
    states = {"model0": chunk.sharded_state_dict(metadata=model.sharded_metadata())}
    chunk.load_state_dict(checkpoint.load(trained.checkpoint, states=states)["model0"])
    chunk.eval()
    logits = {}
    for stream, rows in tokens.items():
        positions = torch.arange(rows.shape[1], device=rows.device).expand_as(rows)
        logits[stream] = chunk(rows, positions, None)[..., : trained.vocab_size].float()
    return logits


def _compare(expected: Tensor, found: Tensor) -> Agreement:
    same = expected.argmax(-1) == found.argmax(-1)
    return Agreement(
        tokens=same.numel(),
        max_difference=float((expected - found).abs().max()),
        same_argmax=float(same.double().mean()),
    )


def _require_agreement(found: Mapping[str, Agreement], *, most: float) -> None:
    worst = max(found, key=lambda stream: found[stream].max_difference)
    difference = found[worst].max_difference
    if not difference < most:
        raise ExportError(
            f"the exported model's logits must be within {most:g} of the trained model's, but differ by "
            f"{difference:g} on {worst}; nothing was exported"
        )


def _require_same_tokenizer(folder: Path) -> None:
    """Transformers may rebuild a tokenizer by the kind of model it lies beside; then ids would mean other tokens."""
    found = AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
    if _tokenizer_parts(found) != _tokenizer_parts(Tokenizer.from_file(str(folder / "tokenizer.json"))):
        raise ExportError(
            "transformers must load the tokenizer that made the shards, but it loads another one beside this model; "
            "report it with the version of transformers"
        )


def _tokenizer_parts(tokenizer: Tokenizer) -> tuple[int, dict[str, Any]]:
    """All that decides ids; of the post-processor, which may be spelled in two ways, the tokens that it adds."""
    parts: dict[str, Any] = json.loads(tokenizer.to_str())
    del parts["post_processor"]
    return tokenizer.num_special_tokens_to_add(is_pair=False), parts


def _publish(unfinished: Path, target: Path) -> None:
    """Makes the folder durable and gives it its name; an older one is moved away first and then removed."""
    for path in unfinished.rglob("*"):
        fsync_file(path)
    if target.exists():
        aside = target.with_name(f"tmp-old-{uuid.uuid4().hex[:12]}")
        target.rename(aside)
        shutil.rmtree(aside)
    unfinished.rename(target)
    fsync_folder(target.parent)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One rank and Megatron's parallel state for it, whatever job this process is part of."""
    layout = Layout(world_size=1, global_batch_size=1, seq_length=1)
    with device.stand_in(), launch.joined(launch.place({})), groups.made(layout):
        yield

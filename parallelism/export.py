"""A trained checkpoint as a Hugging Face model, and the proof that both give the same logits.

The weights are read as whole tensors, whatever layout saved them, without a Megatron model. The proof goes the other
way round: Megatron's model is built on one rank, loads the same checkpoint through the trainer's own loader, and its
logits are compared with those of the files just written, loaded by transformers, both in fp32.

Shapes: S sequence, V vocabulary, L layers; G key/value groups, R query heads per group, D head width, H hidden size.
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
from megatron.core import parallel_state
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig
from transformers.utils.logging import disable_progress_bar

from parallelism import checkpoint, device, launch, model
from parallelism.checkpoint import Checkpoint
from parallelism.layout import Layout
from parallelism.presets import ModelShape
from slurm.files import fsync_file, fsync_folder, read_json

_LAYER = "decoder.layers."
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
    agreement: Mapping[str, Agreement]


def export(
    checkpoints: Path,
    *,
    expected: str,
    target: Path,
    tokenizer: Path,
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
        eod_id: the token that ends a document, and generation.
        pad_id: the token that fills batches.
        samples: held-out tokens of each stream, (samples, S), to compare logits on.
        max_logit_difference: what the largest difference of a logit must stay below.

    Raises:
        ExportError: no good checkpoint, or the logits differ.
    """
    disable_progress_bar()  # The stage has its own.
    unfinished = target.with_name(f"tmp-{target.name}-{uuid.uuid4().hex[:12]}")
    with _alone():
        trained = _newest(checkpoints, expected=expected)
        try:
            shutil.copytree(tokenizer, unfinished)
            _write(trained, unfinished, eod_id=eod_id, pad_id=pad_id)
            _require_same_tokenizer(unfinished)
            found = agreement(trained, unfinished, samples=samples)
            _require_agreement(found, most=max_logit_difference)
            _publish(unfinished, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return Exported(
        checkpoint=trained.checkpoint,
        parameters=trained.shape.parameters(trained.vocab_size),
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


def hf_weights(weights: Mapping[str, Tensor], *, shape: ModelShape, vocab_size: int) -> dict[str, Tensor]:
    """Returns the weights by the names of transformers' Llama, the padding of the vocabulary cut off."""
    embedding = weights["embedding.word_embeddings.weight"][:vocab_size]
    tied = shape.share_embeddings_and_output_weights
    named = {
        "model.embed_tokens.weight": embedding,
        "model.norm.weight": weights["decoder.final_layernorm.weight"],
        "lm_head.weight": embedding if tied else weights["output_layer.weight"][:vocab_size],
    }
    for layer in range(shape.num_layers):
        for name, tensor in _layer(weights, layer, shape=shape):
            named[f"model.layers.{layer}.{name}"] = tensor.contiguous()
    return named


def hf_config(shape: ModelShape, *, vocab_size: int, seq_length: int, eod_id: int, pad_id: int) -> LlamaConfig:
    """Returns the description of the model for transformers, where its bias on q, k and v is one on the output too.

    Qwen2 has exactly our biases, but transformers 5 changes the tokenizer of any model that says it is a Qwen2.
    """
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.ffn_hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_query_groups,
        head_dim=shape.kv_channels,
        max_position_embeddings=seq_length,  # nothing is known of longer texts
        rms_norm_eps=shape.layernorm_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": float(shape.rotary_base)},
        attention_bias=shape.add_qkv_bias,
        tie_word_embeddings=shape.share_embeddings_and_output_weights,
        bos_token_id=None,
        eos_token_id=eod_id,
        pad_token_id=pad_id,
    )


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
        shape=ModelShape(**recipe["shape"]),
        vocab_size=recipe["vocab_size"],
        seq_length=recipe["seq_length"],
    )


def _write(trained: Trained, folder: Path, *, eod_id: int, pad_id: int) -> None:
    """Writes config and safetensors; the meta model checks every name and shape before anything is written."""
    weights = hf_weights(read_weights(trained.checkpoint.path), shape=trained.shape, vocab_size=trained.vocab_size)
    config = hf_config(
        trained.shape,
        vocab_size=trained.vocab_size,
        seq_length=trained.seq_length,
        eod_id=eod_id,
        pad_id=pad_id,
    )
    dtype = weights["model.embed_tokens.weight"].dtype
    with torch.device("meta"):
        hf = AutoModelForCausalLM.from_config(config, dtype=dtype)
    hf.load_state_dict(weights, strict=True, assign=True)
    hf.generation_config = GenerationConfig(eos_token_id=eod_id, pad_token_id=pad_id)
    hf.save_pretrained(folder, max_shard_size=_MAX_FILE)


def _layer(weights: Mapping[str, Tensor], layer: int, *, shape: ModelShape) -> Iterator[tuple[str, Tensor]]:
    """Yields one layer's tensors; Megatron keeps q, k and v of each group side by side, and gate above up."""

    def part(name: str) -> Tensor:
        return weights[_LAYER + name][layer]

    for kind in ("weight", "bias") if shape.add_qkv_bias else ("weight",):
        fused = part(f"self_attention.linear_qkv.{kind}")
        grouped_GRDH = fused.view(shape.num_query_groups, -1, shape.kv_channels, *fused.shape[1:])
        pieces = {"q": grouped_GRDH[:, :-2], "k": grouped_GRDH[:, -2], "v": grouped_GRDH[:, -1]}
        for letter, piece in pieces.items():
            yield f"self_attn.{letter}_proj.{kind}", piece.reshape(-1, *fused.shape[1:])
        if kind == "bias":
            yield "self_attn.o_proj.bias", fused.new_zeros(shape.hidden_size)
    gate, up = part("mlp.linear_fc1.weight").chunk(2)
    yield "self_attn.o_proj.weight", part("self_attention.linear_proj.weight")
    yield "mlp.gate_proj.weight", gate
    yield "mlp.up_proj.weight", up
    yield "mlp.down_proj.weight", part("mlp.linear_fc2.weight")
    yield "input_layernorm.weight", part("self_attention.linear_qkv.layer_norm_weight")
    yield "post_attention_layernorm.weight", part("mlp.linear_fc1.layer_norm_weight")


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
def _alone() -> Iterator[None]:
    """One rank and Megatron's parallel state for it, whatever job this process is part of."""
    with device.stand_in(), launch.joined(launch.place({})):
        parallel_state.initialize_model_parallel(create_gloo_process_groups=False)
        model_parallel_cuda_manual_seed(1, force_reset_rng=True)
        try:
            yield
        finally:
            parallel_state.destroy_model_parallel()

"""Export: a checkpoint that four ranks trained tensor and pipeline parallel, as a model that transformers loads."""

import shutil
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from parallelism import device

device.prepare()

from parallelism import export as exporting  # noqa: E402 - prepared above
from parallelism import launch, trainer  # noqa: E402
from parallelism.export import ExportError, export, hf_config, hf_weights, read_weights  # noqa: E402
from parallelism.layout import Layout  # noqa: E402
from parallelism.learner import Recipe  # noqa: E402
from parallelism.presets import ModelShape  # noqa: E402

pytestmark = pytest.mark.filterwarnings(r"ignore:::megatron\.")  # deprecations between its own parts

VOCAB, SEQ = 300, 32  # 300 is padded to 384.
LLAMA = ModelShape(
    num_layers=4,
    hidden_size=32,
    ffn_hidden_size=64,
    num_attention_heads=4,
    num_query_groups=2,
    kv_channels=8,
    max_position_embeddings=64,
)
SHAPES = {
    "LlamaForCausalLM": LLAMA,
    "Qwen2ForCausalLM": replace(LLAMA, add_qkv_bias=True, rotary_base=1_000_000),
    "tied": replace(LLAMA, share_embeddings_and_output_weights=True, num_query_groups=4),
}
LAYOUTS = {
    "TP2xPP2": {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2},
    "DP2xPP2": {"pipeline_model_parallel_size": 2},
}


class Words:
    """A stream of tokens that repeat with noise: something to learn."""

    def __init__(self, seed: int) -> None:
        draws = np.random.default_rng(seed)
        self.all = np.where(draws.random(4000) < 0.2, draws.integers(0, VOCAB, 4000), np.arange(4000) * 7 % 50)

    def __len__(self) -> int:
        return len(self.all)

    def tokens(self, start: int, stop: int) -> NDArray[np.int64]:
        return self.all[start:stop].astype(np.int64)


class Quiet:
    """Nobody watches."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None: ...

    def progress(self, done: int, total: int, note: str) -> None: ...

    def note(self, line: str) -> None: ...


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    words = Tokenizer(WordLevel({f"w{number}": number for number in range(VOCAB)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1", pad_token="w2").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of TP2 x PP2 after three steps, biases and norms no longer 0 and 1."""
    return train(LLAMA, tmp_path_factory.mktemp("trained"), **LAYOUTS["TP2xPP2"])


def train(shape: ModelShape, folder: Path, **sizes: Any) -> Path:
    """Trains on four forked ranks for three steps; returns the folder of the checkpoints."""
    torch.multiprocessing.start_processes(_rank, args=(shape, folder, sizes), nprocs=4, start_method="fork")
    (found,) = (folder / "checkpoints").iterdir()
    return found


def _rank(rank: int, shape: ModelShape, folder: Path, sizes: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # Megatron asks tensors for what they do not have.
    recipe = Recipe(
        shape=shape,
        vocab_size=VOCAB,
        precision="fp32",
        seed=1,
        data_digest="words",
        mixture={"a": 1.0},
        seq_length=SEQ,
        global_batch_size=8,
        lr=0.01,
        min_lr=0.0,
        lr_decay_style="cosine",
        lr_warmup_iters=0,
        lr_decay_iters=100,
        lr_wsd_decay_iters=0,
        weight_decay=0.1,
        adam_beta1=0.9,
        adam_beta2=0.95,
        clip_grad=1.0,
    )
    here = launch.Place(rank=rank, world_size=4, local_rank=rank, rendezvous=f"file://{folder}/meet")
    with launch.joined(here):
        trainer.train(
            recipe,
            layout=Layout(world_size=4, global_batch_size=8, seq_length=SEQ, **sizes),
            schedule=trainer.Schedule(
                train_iters=3, eval_interval=10, eval_samples=2, save_interval=10, keep_checkpoints=2
            ),
            corpus=trainer.Corpus(train={"a": Words(1)}, valid={"a": Words(2)}),
            folder=folder / "checkpoints",
            watcher=Quiet(),
            facts={},
        )


def samples() -> dict[str, NDArray[np.int64]]:
    return {"a": Words(2).tokens(0, 3 * SEQ).reshape(3, SEQ), "b": Words(3).tokens(0, 20).reshape(1, 20)}


def exported(checkpoints: Path, target: Path, tokenizer: Path, *, most: float = 1e-3) -> exporting.Exported:
    return export(
        checkpoints,
        target=target,
        tokenizer=tokenizer,
        eod_id=1,
        pad_id=2,
        samples=samples(),
        max_logit_difference=most,
    )


@pytest.mark.parametrize("name", list(SHAPES))
def test_four_ranks_train_and_transformers_gives_their_logits(name: str, tmp_path: Path, tokenizer: Path) -> None:
    shape, layout = SHAPES[name], "DP2xPP2" if name == "tied" else "TP2xPP2"
    done = exported(train(shape, tmp_path, **LAYOUTS[layout]), tmp_path / "model", tokenizer)
    assert done.architecture == ("LlamaForCausalLM" if name == "tied" else name)
    assert done.checkpoint.step == 3
    assert [item.tokens for item in done.agreement.values()] == [96, 20]
    for item in done.agreement.values():
        assert item.max_difference < 1e-5
        assert item.same_argmax == 1
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert type(loaded).__name__ == done.architecture
    assert loaded.num_parameters() == done.parameters == shape.parameters(VOCAB)
    assert (loaded.config.eos_token_id, loaded.config.pad_token_id) == (1, 2)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "model")) == VOCAB
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "meet", "model"]

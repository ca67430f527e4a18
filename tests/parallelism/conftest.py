"""Real ranks for tests: forked from a process that has imported everything, so that four of them start in a second."""

import gc
import json
import os
import uuid
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from parallelism.presets import ModelShape

os.environ.setdefault("OMP_NUM_THREADS", "1")  # ranks share the cores

SHAPE = ModelShape(
    num_layers=4,
    hidden_size=32,
    ffn_hidden_size=64,
    num_attention_heads=4,
    num_query_groups=2,
    kv_channels=8,
    max_position_embeddings=64,
)
VOCAB_SIZE, SEQ_LENGTH, GLOBAL_BATCH_SIZE = 200, 32, 8


@dataclass(frozen=True)
class Pattern:
    """A stream in which every second token follows from the one before it."""

    length: int
    low: int
    high: int

    def __len__(self) -> int:
        return self.length

    def tokens(self, start: int, stop: int) -> NDArray[np.int64]:
        draws = np.random.default_rng(self.low).integers(self.low, self.high, self.length)
        draws[1::2] = (draws[: self.length // 2 * 2 : 2] * 7 + 3) % self.high
        return draws[start:stop]

    def ids(self, start: int, stop: int) -> NDArray[np.int32]:
        """Documents of 7 tokens in two languages by turns, three to a group."""
        documents = np.arange(start, stop, dtype=np.int32) // 7
        return np.stack([documents, documents // 3, documents % 2])


STREAMS = {"protein": Pattern(5000, 0, 90), "text.ko": Pattern(2500, 60, VOCAB_SIZE)}
HELD_OUT = {"protein": Pattern(700, 1, 90), "text.ko": Pattern(300, 61, VOCAB_SIZE)}


@dataclass(frozen=True)
class Log:
    """A watcher that appends each point to a file at once, so that a killed training leaves what it did."""

    path: Path

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def progress(self, done: int, *, total: int, note: str) -> None: ...

    def saving(self, step: int) -> None:
        there = sorted(path.name for path in self.path.parent.glob("checkpoints/*/step_*"))
        self.note(f"saving {step} after {there}")

    def note(self, line: str) -> None:
        with self.path.with_suffix(".notes").open("a") as file:
            file.write(line + "\n")


@dataclass(frozen=True)
class Attempt:
    """One training by forked ranks: what it logged and, when it ended, its result."""

    log: Path
    pids: list[int]
    join: Callable[[], bool]
    results: Any = field(repr=False)

    def wait(self) -> Any:
        """Waits for the end; returns the result of rank 0, or raises what a rank raised."""
        while not self.join():
            pass
        return self.results.get()

    def values(self, name: str = "train/loss") -> dict[int, float]:
        """Returns one metric so far, by step; the last value of a step counts."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        points = [json.loads(line) for line in lines]
        return {point["step"]: point[name] for point in points if name in point}

    def notes(self) -> str:
        return self.log.with_suffix(".notes").read_text()


def start_ranks(work: Callable[..., Any], count: int, *arguments: Any) -> Any:
    """Forks `count` processes that each call work(rank, *arguments); returns torch's handle."""
    import torch
    from torch.multiprocessing.spawn import start_processes

    def quietly(rank: int) -> None:
        gc.freeze()  # what the parent left is the parent's to end
        warnings.simplefilter("default")  # pytest's "error" is for our own code, not for every engine in a rank
        torch.set_num_threads(1)
        work(rank, *arguments)

    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads; none of these is used by ranks
        return start_processes(quietly, nprocs=count, join=False, start_method="fork")


@pytest.fixture(scope="session")
def small_shape() -> ModelShape:
    return SHAPE


@pytest.fixture(scope="session")
def small_recipe() -> dict[str, Any]:
    return dict(RECIPE)


@pytest.fixture(scope="session")
def start_training() -> Callable[..., Attempt]:
    return starter()


@pytest.fixture(scope="session")
def write_hf() -> Callable[..., None]:
    """Returns a function that writes a random model of a size as transformers does; all in it matters to the logits."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from parallelism import hf_config

    def write(
        folder: Path, shape: ModelShape, *, kind: Any, experts: str = "per_expert", vocab_size: int = VOCAB_SIZE
    ) -> None:
        values = hf_config.to_config(shape, kind=kind, vocab_size=vocab_size, max_tokens=64, eod_id=1, pad_id=2)
        made = AutoModelForCausalLM.from_config(AutoConfig.for_model(**values), dtype=torch.float32)
        draws = torch.Generator().manual_seed(3)
        for name, tensor in [*made.named_parameters(), *made.named_buffers()]:
            if not name.endswith("inv_freq") and not (kind == "llama" and name.endswith("o_proj.bias")):
                drawn = torch.randn(tensor.shape, generator=draws)
                tensor.data = 1 + 0.2 * drawn if "norm" in name else 0.25 * drawn
        made.tie_weights()
        made.save_pretrained(folder, save_original_format=experts == "per_expert")

    return write


def starter() -> Callable[..., Attempt]:
    """Returns a function that starts a small training in `folder`; settings replace those of the recipe or schedule."""
    import torch

    from parallelism import importer, launch, trainer
    from parallelism.layout import Layout
    from parallelism.learner import Recipe

    def start(
        folder: Path,
        *,
        world_size: int = 1,
        shape: ModelShape = SHAPE,
        streams: Mapping[str, Any] = STREAMS,
        start_from: Path | None = None,
        **settings: Any,
    ) -> Attempt:
        folder.mkdir(parents=True, exist_ok=True)
        sizes = {name: settings.pop(name) for name in list(settings) if name in Layout.__dataclass_fields__}
        sizes.setdefault("micro_batch_size", 2)
        batch: dict[str, Any] = {"global_batch_size": GLOBAL_BATCH_SIZE, "seq_length": SEQ_LENGTH}
        layout = Layout(world_size=world_size, **batch, **sizes)
        defaults: dict[str, Any] = {"train_iters": 8, "eval_interval": 100, "eval_samples": 5}
        defaults |= {"save_interval": 100, "keep_checkpoints": 3}
        given = {name: settings.pop(name) for name in list(settings) if name in trainer.Schedule.__dataclass_fields__}
        recipe = Recipe(shape=shape, **batch, **{**RECIPE, **settings})
        log, results = folder / f"{uuid.uuid4().hex}.jsonl", torch.multiprocessing.get_context("fork").SimpleQueue()

        def work(rank: int) -> None:
            here = launch.Place(
                rank=rank, world_size=world_size, local_rank=rank, rendezvous=f"file://{log.with_suffix('.meet')}"
            )
            with launch.joined(here):
                source = importer.find(start_from) if start_from else None
                result = trainer.train(
                    replace(recipe, start_from_digest=source.digest) if source else recipe,
                    layout=layout,
                    schedule=trainer.Schedule(**{**defaults, **given}),
                    corpus=trainer.Corpus(train=streams, valid=HELD_OUT),
                    folder=folder / "checkpoints",
                    watcher=Log(log),
                    facts={"run": "test"},
                    start_from=source,
                )
            if rank == 0:
                results.put(result)

        handle = start_ranks(work, world_size)
        return Attempt(log=log, pids=handle.pids(), join=handle.join, results=results)

    return start


RECIPE: Mapping[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "precision": "fp32",
    "seed": 1,
    "data_digest": "patterns",
    "mixture": {"protein": 0.7, "text.ko": 0.3},
    "lr": 1e-3,
    "min_lr": 1e-4,
    "lr_decay_style": "cosine",
    "lr_warmup_iters": 2,
    "lr_decay_iters": 20,
    "lr_wsd_decay_iters": 0,
    "weight_decay": 0.1,
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "clip_grad": 1.0,
}

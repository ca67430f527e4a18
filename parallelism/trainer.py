"""Training: continues from the last good checkpoint, steps, validates and saves.

The same code runs on 4 CPU processes and on 256 GPUs; what differs by device is in device.py.
"""

import contextlib
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed

from parallelism import checkpoint, data, device, learner, step
from parallelism.checkpoint import Checkpoint, Found
from parallelism.cost.flops import step_flops
from parallelism.data import Order, Sample, TokenStream
from parallelism.launch import StopRequest, stoppable
from parallelism.layout import Layout
from parallelism.learner import Learner, Recipe
from parallelism.step import Losses
from parallelism.throughput import Meter, matmul_peak


class TrainingError(RuntimeError):
    """Training cannot go on with these numbers; nothing was saved after the last good step."""

    permanent = True  # the same steps would give the same numbers


class Watcher(Protocol):
    """Who is told how training goes; only rank 0 tells."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Takes one point of each metric."""
        ...

    def progress(self, done: int, *, total: int, note: str) -> None:
        """Takes the number of steps done."""
        ...

    def note(self, line: str) -> None:
        """Takes a line for people."""
        ...

    def saving(self, step: int) -> None:
        """Makes what it was told durable: the checkpoint of `step` comes next, and no step before it is done again."""
        ...


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long to train and what to do on the way, in steps; none of it changes the losses.

    Attributes:
        eval_samples: validation windows of each stream.
    """

    train_iters: int
    eval_interval: int
    eval_samples: int
    save_interval: int
    keep_checkpoints: int


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The streams to learn from and the held-out ones, by name."""

    train: Mapping[str, TokenStream]
    valid: Mapping[str, TokenStream]


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a training ended.

    Attributes:
        step: optimizer steps done, all attempts together.
        stopped: it was asked to stop, and saved its state before its end.
        resumed_from: the step that this attempt continued from; 0 for none.
        checkpoint: the last one.
        valid: nats per token of each stream at the end; empty when stopped.
        valid_mean: nats per token over all validation tokens; NaN when stopped.
        rates: figures of the median step of this attempt; empty without a step.
        peak_tflops: what all ranks together can do, measured.
        refused: checkpoints that were set aside, and why.
    """

    step: int
    stopped: bool
    resumed_from: int
    checkpoint: Checkpoint
    valid: Mapping[str, float]
    valid_mean: float
    rates: Mapping[str, float]
    peak_tflops: float
    refused: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Training:
    """Everything one attempt works with."""

    recipe: Recipe
    layout: Layout
    schedule: Schedule
    corpus: Corpus
    folder: Path
    facts: Mapping[str, Any]
    order: Order
    held_out: Sequence[Sample]
    learner: Learner
    watcher: Watcher


def train(
    recipe: Recipe,
    *,
    layout: Layout,
    schedule: Schedule,
    corpus: Corpus,
    folder: Path,
    watcher: Watcher,
    facts: Mapping[str, Any],
) -> Result:
    """Trains to the end of `schedule`, or to the step where a rank is asked to stop; every rank must call it.

    Needs a joined process group. Checkpoints lie in folder/<identity of the recipe>; the newest good one is continued.

    Args:
        recipe: what decides the losses.
        layout: how the work is spread.
        schedule: how long, and what on the way.
        corpus: what is read.
        folder: where checkpoints lie.
        watcher: who is told; called on rank 0 only.
        facts: what each checkpoint's manifest tells besides recipe and layout.

    Raises:
        TrainingError: the loss or the gradient is not finite.
        ValueError: the mixture does not fit the streams, or nothing is held out.
    """
    with device.stand_in(), _quiet(), _parallel_state(layout), stoppable() as request:
        training = Training(
            recipe=recipe,
            layout=layout,
            schedule=schedule,
            corpus=corpus,
            folder=folder / recipe.identity[:12],
            facts={**facts, "identity": recipe.identity, "recipe": asdict(recipe), "layout": asdict(layout)},
            order=data.order(corpus.train, mixture=recipe.mixture, seq_length=recipe.seq_length, seed=recipe.seed),
            held_out=data.validation(
                corpus.valid,
                seq_length=recipe.seq_length,
                samples_per_stream=schedule.eval_samples,
                batch_size=recipe.global_batch_size,
            ),
            learner=learner.build(recipe, layout=layout),
            watcher=watcher if dist.get_rank() == 0 else _Silent(),
        )
        return _train(training, request)


def _train(training: Training, request: StopRequest) -> Result:
    found = _resume(training)
    start = found.checkpoint.step if found.checkpoint else 0
    if start > training.schedule.train_iters:
        raise TrainingError(
            f"train_iters must be at least {start}, the step of {training.folder}, but is "
            f"{training.schedule.train_iters}; raise it, or move that folder away"
        )
    if 0 < start < training.schedule.train_iters and start % training.schedule.eval_interval == 0:
        _validate(training, start)  # whoever saved this step may have ended before it was validated
    meter = _meter(training)
    latest, stopped = found.checkpoint, False
    for done in range(start + 1, training.schedule.train_iters + 1):
        losses = _one_step(training, meter, done, stop=request.asked)
        last = done == training.schedule.train_iters
        stopped = losses.stop > 0 and not last
        if last or stopped or done % training.schedule.save_interval == 0:
            latest = _save(training, done)
        if stopped:
            break
        if not last and done % training.schedule.eval_interval == 0:
            _validate(training, done)
    latest = cast(Checkpoint, latest)  # train_iters is at least 1, and the last step is saved.
    valid = None if stopped else _validate(training, latest.step)
    return Result(
        step=latest.step,
        stopped=stopped,
        resumed_from=start,
        checkpoint=latest,
        valid=valid.by_stream(sorted(training.corpus.valid)) if valid else {},
        valid_mean=valid.mean if valid else math.nan,
        rates=meter.typical(),
        peak_tflops=meter.peak / 1e12,
        refused=found.refused,
    )


def _resume(training: Training) -> Found:
    checkpoint.remove_unfinished(training.folder)
    dist.barrier()
    found = checkpoint.newest(training.folder, identity=training.recipe.identity)
    for line in found.refused:
        training.watcher.note(f"checkpoint set aside: {line}")
    if found.checkpoint:
        learner.restore(training.learner, found=found.checkpoint)
        training.watcher.note(f"continuing from {found.checkpoint.path}")
    return found


def _meter(training: Training) -> Meter:
    recipe, layout = training.recipe, training.layout
    dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    return Meter(
        tokens=layout.global_batch_size * layout.seq_length,
        flops=step_flops(recipe.shape, layout=layout, vocab_size=recipe.vocab_size),
        peak=matmul_peak(dtype),
    )


def _one_step(training: Training, meter: Meter, number: int, *, stop: bool) -> Losses:
    """Does optimizer step `number` (from 1) and reports it."""
    started = time.perf_counter()
    size = training.layout.global_batch_size
    samples = [training.order.sample(index) for index in range((number - 1) * size, number * size)]
    names = [name for name, _ in training.order.sizes]
    streams = [training.corpus.train[name] for name in names]
    learner.clear_gradients(training.learner)
    losses = step.run(training.learner.chunks, samples, streams=streams, layout=training.layout, stop=stop)
    _require_finite(losses.mean, what="loss", number=number, folder=training.folder)
    norm, rate = learner.update(training.learner)
    _require_finite(norm, what="gradient norm", number=number, folder=training.folder)
    device.synchronize()
    rates = meter.add(time.perf_counter() - started)
    _report(training, number, losses, {"train/grad_norm": norm, "train/lr": rate, **rates}, names)
    return losses


def _report(
    training: Training, number: int, losses: Losses, figures: Mapping[str, float], names: Sequence[str]
) -> None:
    by_stream = {f"train/loss/{name}": value for name, value in losses.by_stream(names).items()}
    training.watcher.metrics(number, {"train/loss": losses.mean, **by_stream, **figures})
    tokens, mfu = figures["train/tokens_per_s"], figures["train/mfu"]
    note = f"loss {losses.mean:.3f}, {tokens:,.0f} tokens/s, MFU {mfu:.0%}"
    training.watcher.progress(number, total=training.schedule.train_iters, note=note)


def _validate(training: Training, number: int) -> Losses:
    """Measures the held-out loss of every stream after `number` steps and reports it."""
    names = sorted(training.corpus.valid)
    streams = [training.corpus.valid[name] for name in names]
    with torch.no_grad(), learner.gathered(training.learner):
        losses = step.run(
            training.learner.chunks, training.held_out, streams=streams, layout=training.layout, forward_only=True
        )
    _require_finite(losses.mean, what="validation loss", number=number, folder=training.folder)
    values = {f"valid/loss/{name}": value for name, value in losses.by_stream(names).items()}
    training.watcher.metrics(number, {"valid/loss": losses.mean, **values})
    training.watcher.note(f"step {number}: validation loss {losses.mean:.4f} nats per token")
    return losses


def _save(training: Training, number: int) -> Checkpoint:
    started = time.perf_counter()
    training.watcher.saving(number)
    saved = learner.save(training.learner, folder=training.folder, step=number, facts=training.facts)
    checkpoint.prune(training.folder, keep=training.schedule.keep_checkpoints)
    training.watcher.metrics(number, {"train/save_time_s": time.perf_counter() - started})
    return saved


def _require_finite(value: float, *, what: str, number: int, folder: Path) -> None:
    if not math.isfinite(value):
        raise TrainingError(
            f"the {what} must be finite, but is {value} at step {number}; lower lr or raise lr_warmup_iters, and run "
            f"again; the checkpoints in {folder} are from before that step"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leaves the engines' warnings to each other out of the log; on a CPU they come through the frame of the seam."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(megatron|torch|parallelism\.device)\b")
        yield


@contextlib.contextmanager
def _parallel_state(layout: Layout) -> Iterator[None]:
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=layout.tensor_model_parallel_size,
        pipeline_model_parallel_size=layout.pipeline_model_parallel_size,
        virtual_pipeline_model_parallel_size=layout.virtual_pipeline_model_parallel_size,
        context_parallel_size=layout.context_parallel_size,
        expert_model_parallel_size=layout.expert_model_parallel_size,
        expert_tensor_parallel_size=1,
        create_gloo_process_groups=False,
    )
    # Nothing draws from these generators: first weights have their own, there is no dropout. Megatron wants them set.
    model_parallel_cuda_manual_seed(1, force_reset_rng=True)
    try:
        yield
    finally:
        parallel_state.destroy_model_parallel()


class _Silent:
    """The watcher of every rank but 0."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None: ...

    def progress(self, done: int, *, total: int, note: str) -> None: ...

    def note(self, line: str) -> None: ...

    def saving(self, step: int) -> None: ...

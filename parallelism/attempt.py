"""One attempt at a training: what it works with, and what it does in a step, in a validation and after a setback."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from parallelism import checkpoint, device, learner, norms, setbacks, step, straggler
from parallelism.checkpoint import Checkpoint, Found
from parallelism.data import Order, Sample, TokenStream
from parallelism.importer import Source
from parallelism.layout import Layout
from parallelism.learner import Learner, Recipe
from parallelism.loader import Loader
from parallelism.profiling import Profiler
from parallelism.saving import Saver
from parallelism.setbacks import History, Setback
from parallelism.step import Losses
from parallelism.throughput import Meter
from parallelism.watching import Watcher


class TrainingError(RuntimeError):
    """Training cannot go on with these numbers; nothing was saved after the last good step."""

    permanent = True  # the same steps would give the same numbers


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long to train and what to do on the way, in steps; none of it changes the losses while nothing goes back.

    Attributes:
        eval_samples: validation windows of each stream.
        async_save: whether training goes on while a checkpoint is written.
        stats_interval: steps between two reports of norms by layer and of the slowest rank; 0 for none.
        profile_steps: the first and the last step that are profiled, on rank 0.
    """

    train_iters: int
    eval_interval: int
    eval_samples: int
    save_interval: int
    keep_checkpoints: int
    async_save: bool = True
    stats_interval: int = 0
    profile_steps: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The streams to learn from and the held-out ones, by name."""

    train: Mapping[str, TokenStream]
    valid: Mapping[str, TokenStream]


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
    saver: Saver
    profiler: Profiler
    watcher: Watcher
    loader: Loader
    start_from: Source | None = None

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return torch.bfloat16 if self.recipe.precision == "bf16" else torch.float32

    @property
    def may_skip(self) -> bool:
        """Whether a step may have to be undone that has changed more than gradients: the biases of routers."""
        policy = self.recipe.setbacks
        return self.recipe.shape.experts is not None and "skip" in (policy.on_nan, policy.on_spike)


@dataclass(frozen=True, kw_only=True)
class Done:
    """One step that was done: its losses, the history after it, and what was wrong with it, if anything."""

    losses: Losses
    history: History
    setback: Setback | None


def one_step(training: Training, number: int, *, meter: Meter, history: History, stop: bool) -> Done:
    """Does optimizer step `number` (from 1), unless something is wrong with it, and reports it."""
    training.profiler.before(number)
    started = time.perf_counter()
    size, end = training.recipe.batches.size(number), training.recipe.batches.end(number) + history.left_out
    coming = training.recipe.batches.size(number + 1) if number < training.schedule.train_iters else 0
    samples = [training.order.sample(index) for index in range(end - size, end + coming)]
    names = [name for name, _ in training.order.sizes]
    learner.clear_gradients(training.learner)
    biases = learner.router_biases(training.learner) if training.may_skip else []
    losses = step.run(
        training.learner.chunks,
        samples[:size],
        then=samples[size:],
        loader=training.loader,
        streams=training.loader.streams,
        layout=training.layout,
        stop=stop,
        busy=training.saver.busy,
    )
    rate, norm = learner.advance_rate(training.learner), learner.gradient_norm(training.learner)
    figures = {"loss": losses.mean, "gradient norm": norm}
    setback = setbacks.judge(training.recipe.setbacks, history=history, figures=figures)
    stats, paused = _statistics(training, number)
    if setback is None:
        learner.update(training.learner, norm=norm)
        history = setbacks.counted(training.recipe.setbacks, history=history, loss=losses.mean)
    else:
        history = _set_back(training, number, history=history, setback=setback)
        for bias, kept in biases:
            bias.copy_(kept)
    device.synchronize()
    seconds = time.perf_counter() - started - paused
    rates = meter.add(seconds, share=size / training.recipe.global_batch_size)
    _report(training, number, losses, {"train/grad_norm": norm, "train/lr": rate, **rates, **stats}, names)
    profile = training.profiler.after(number)
    if profile:
        training.watcher.note(profile)
    return Done(losses=losses, history=history, setback=setback)


def _set_back(training: Training, number: int, *, history: History, setback: Setback) -> History:
    """Tells of a step that changes no weight, and ends the training where that is the answer."""
    if setback.answer == "stop":
        training.saver.finish()
        raise TrainingError(
            f"{setback.why} at step {number}; lower lr or raise lr_warmup_iters, and run again; "
            f"the checkpoints in {training.folder} are from before that step"
        )
    if setback.answer == "skip":
        history = setbacks.skipped(history, step=number)
        training.watcher.note(f"step {number} left out: {setback.why}")
        training.watcher.metrics(number, {"train/skipped": len(history.skipped)})
    return history


def _statistics(training: Training, number: int) -> tuple[dict[str, float], float]:
    """Measures, at intervals, norms by layer and which rank is slow; returns them and the seconds that it took."""
    interval = training.schedule.stats_interval
    if not interval or number % interval:
        return {}, 0.0
    device.synchronize()
    started = time.perf_counter()
    slow = straggler.slowest(straggler.time_piece(training.dtype))
    training.watcher.note(f"step {number}: {slow}")
    found = norms.measure(training.learner, num_layers=training.recipe.shape.num_layers)
    return {"train/slowest_rank_ratio": slow.ratio, **found}, time.perf_counter() - started


def _report(
    training: Training, number: int, losses: Losses, figures: Mapping[str, float], names: Sequence[str]
) -> None:
    by_stream = {f"train/loss/{name}": value for name, value in losses.by_stream(names).items()}
    training.watcher.metrics(number, {"train/loss": losses.mean, **by_stream, **figures})
    tokens, mfu = figures["train/tokens_per_s"], figures["train/mfu"]
    note = f"loss {losses.mean:.3f}, {tokens:,.0f} tokens/s, MFU {mfu:.0%}"
    training.watcher.progress(number, total=training.schedule.train_iters, note=note)


def validate(training: Training, number: int) -> Losses:
    """Measures the held-out loss of every stream after `number` steps and reports it."""
    names = sorted(training.corpus.valid)
    streams = [training.corpus.valid[name] for name in names]
    reading = replace(training.loader, streams=streams)
    with torch.no_grad(), learner.gathered(training.learner), reading as loader:
        losses = step.run(
            training.learner.chunks,
            training.held_out,
            streams=streams,
            layout=training.layout,
            loader=loader,
            forward_only=True,
        )
    if not math.isfinite(losses.mean):
        training.saver.finish()
        raise TrainingError(
            f"the validation loss must be finite, but is {losses.mean} at step {number}; lower lr or raise "
            "lr_warmup_iters, and run again"
        )
    values = {f"valid/loss/{name}": value for name, value in losses.by_stream(names).items()}
    training.watcher.metrics(number, {"valid/loss": losses.mean, **values})
    training.watcher.note(f"step {number}: validation loss {losses.mean:.4f} nats per token")
    return losses


def restore_newest(training: Training) -> Found:
    """Finds the newest good checkpoint and takes over its state, if there is one."""
    found = checkpoint.newest(training.folder, identity=training.recipe.identity)
    for line in found.refused:
        training.watcher.note(f"checkpoint set aside: {line}")
    if found.checkpoint:
        learner.restore(training.learner, found=found.checkpoint)
        training.watcher.note(f"continuing from {found.checkpoint.path}")
    training.saver.latest = found.checkpoint
    return found


def history_of(found: Checkpoint | None) -> History:
    """Returns what led to a checkpoint; an empty history for the beginning."""
    return History.read(checkpoint.facts(found).get("history", {})) if found else History()


def go_back(training: Training, number: int, *, history: History, why: str) -> tuple[int, History]:
    """Returns to the newest good checkpoint; the samples from there to step `number` are passed over.

    Returns:
        (the step of the checkpoint, the history from now on).

    Raises:
        TrainingError: there is no checkpoint.
    """
    training.saver.finish()
    found = restore_newest(training)
    if found.checkpoint is None:
        raise TrainingError(
            f"a checkpoint must be there to go back to, but {training.folder} has none, and at step {number} {why}; "
            "lower save_interval, or skip instead of rewind"
        )
    back, batches = found.checkpoint.step, training.recipe.batches
    samples = batches.end(number) - batches.end(back)
    history = setbacks.rewound(history, saved=history_of(found.checkpoint), judged=number, back=back, samples=samples)
    training.watcher.note(f"step {number}: {why}; back to step {back}, and on without the {samples} samples since")
    training.watcher.metrics(number, {"train/rewinds": len(history.rewinds)})
    return back, history

"""Training: continues from the last good checkpoint, steps, validates and saves.

The same code runs on 4 CPU processes and on 256 GPUs; what differs by device is in device.py.
"""

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch.distributed as dist

from parallelism import attempt, checkpoint, data, device, groups, importer, learner
from parallelism.attempt import Corpus, Schedule, Training, TrainingError
from parallelism.checkpoint import Checkpoint, Found
from parallelism.cost.flops import step_flops
from parallelism.data import Order
from parallelism.importer import Source
from parallelism.launch import StopRequest, stoppable
from parallelism.layout import Layout
from parallelism.learner import Recipe
from parallelism.loader import Loader
from parallelism.profiling import Profiler
from parallelism.saving import Saver
from parallelism.setbacks import History
from parallelism.throughput import Meter, matmul_peak
from parallelism.watching import Silent, Watcher

__all__ = ["Corpus", "Result", "Schedule", "TrainingError", "train"]


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
        history: the steps that were left out, and the returns.
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
    history: History


def train(
    recipe: Recipe,
    *,
    layout: Layout,
    schedule: Schedule,
    corpus: Corpus,
    folder: Path,
    watcher: Watcher,
    facts: Mapping[str, Any],
    start_from: Source | None = None,
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
        start_from: the Hugging Face folder whose weights are the first ones, where the recipe names its digest.

    Raises:
        HFError: that folder is not the recipe's, is another model, or is damaged.
        TrainingError: the loss or the gradient is not finite.
        ValueError: the mixture does not fit the streams, or nothing is held out.
    """
    importer.require_same(start_from, digest=recipe.start_from_digest)
    with device.stand_in(), groups.quiet(), groups.made(layout), stoppable() as request, ExitStack() as stack:
        told = watcher if dist.get_rank() == 0 else Silent()
        learning = learner.build(recipe, layout=layout)
        place, order = folder / recipe.identity[:12], _order(recipe, corpus)
        loader = stack.enter_context(_loader(recipe, corpus, order))
        training = Training(
            recipe=recipe,
            layout=layout,
            schedule=schedule,
            corpus=corpus,
            folder=place,
            facts={**facts, "identity": recipe.identity, "recipe": asdict(recipe), "layout": asdict(layout)},
            order=order,
            loader=loader,
            held_out=data.validation(
                corpus.valid,
                seq_length=recipe.seq_length,
                samples_per_stream=schedule.eval_samples,
                batch_size=recipe.global_batch_size,
            ),
            learner=learning,
            saver=Saver(
                learner=learning,
                folder=place,
                keep=schedule.keep_checkpoints,
                background=schedule.async_save,
                watcher=told,
            ),
            profiler=Profiler(
                steps=schedule.profile_steps if dist.get_rank() == 0 else None, folder=folder.with_name("profile")
            ),
            watcher=told,
            start_from=start_from,
        )
        return _train(training, request)


def _order(recipe: Recipe, corpus: Corpus) -> Order:
    return data.order(
        corpus.train,
        mixture=recipe.mixture,
        seq_length=recipe.seq_length,
        seed=recipe.seed,
        phases=[(recipe.batches.end(first - 1), mixture) for first, mixture in recipe.phases],
    )


def _loader(recipe: Recipe, corpus: Corpus, order: Order) -> Loader:
    streams = [corpus.train[name] for name, _ in order.sizes]
    return Loader(streams=streams, seq_length=recipe.seq_length, mode=recipe.attention_mask)


def _train(training: Training, request: StopRequest) -> Result:
    found = _resume(training)
    start, total = found.checkpoint.step if found.checkpoint else 0, training.schedule.train_iters
    if start > total:
        raise TrainingError(
            f"train_iters must be at least {start}, the step of {training.folder}, but is {total}; "
            "raise it, or move that folder away"
        )
    if 0 < start < total and start % training.schedule.eval_interval == 0:
        attempt.validate(training, start)  # whoever saved this step may have ended before it was validated
    meter, history = _meter(training), attempt.history_of(found.checkpoint)
    number, stopped = start, False
    while number < total and not stopped:
        number += 1
        done = attempt.one_step(training, number, meter=meter, history=history, stop=request.asked)
        if done.setback and done.setback.answer == "rewind":
            number, history = attempt.go_back(training, number, history=history, why=done.setback.why)
            continue
        history, stopped = done.history, done.losses.stop > 0 and number < total
        _save_or_look(training, number, done=done, stopped=stopped)
        if number < total and not stopped and number % training.schedule.eval_interval == 0:
            attempt.validate(training, number)
    training.saver.finish()
    latest = cast(Checkpoint, training.saver.latest)  # train_iters is at least 1, and the last step is saved.
    valid = None if stopped else attempt.validate(training, latest.step)
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
        history=history,
    )


def _resume(training: Training) -> Found:
    checkpoint.remove_unfinished(training.folder)
    dist.barrier()
    found = attempt.restore_newest(training)
    if found.checkpoint is None and training.start_from:
        learner.start_from(training.learner, source=training.start_from, recipe=training.recipe)
        training.watcher.note(f"starting from {training.start_from.folder}")
    return found


def _meter(training: Training) -> Meter:
    recipe, layout = training.recipe, training.layout
    return Meter(
        tokens=layout.global_batch_size * layout.seq_length,
        flops=step_flops(recipe.shape, layout=layout, vocab_size=recipe.vocab_size),
        peak=matmul_peak(training.dtype),
    )


def _save_or_look(training: Training, number: int, *, done: attempt.Done, stopped: bool) -> None:
    """Begins a checkpoint where one is due, or else commits one that all ranks have written meanwhile."""
    training.saver.look(busy=done.losses.busy)
    schedule = training.schedule
    if stopped or number == schedule.train_iters or number % schedule.save_interval == 0:
        training.saver.save(number, facts={**training.facts, "history": done.history.write()})

"""Saving while training goes on: one checkpoint at a time is on its way, and what that costs is measured.

Rank 0's journal is made durable before a checkpoint appears, so that no checkpoint is ahead of what is known of it.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from parallelism import checkpoint, device, learner
from parallelism.checkpoint import Checkpoint, Writing
from parallelism.learner import Learner
from parallelism.watching import Watcher

_POLL_S = 0.05


@dataclass(kw_only=True)
class Saver:
    """Saves what a learner has learnt; every rank must make the same calls.

    Attributes:
        folder: where the checkpoints of this training lie.
        keep: how many of the newest stay.
        background: whether training goes on while files are written.
        latest: the newest checkpoint that is whole.
    """

    learner: Learner
    folder: Path
    keep: int
    background: bool
    watcher: Watcher
    latest: Checkpoint | None = None
    _writing: Writing | None = None
    _facts: Mapping[str, Any] | None = None
    _began: float = 0.0
    _stalled: float = 0.0

    @property
    def busy(self) -> bool:
        """Whether this rank still writes."""
        return self._writing is not None and not self._writing.files.done()

    def save(self, step: int, *, facts: Mapping[str, Any]) -> None:
        """Begins the checkpoint of `step`; one that is still on its way is waited for first."""
        self.finish()
        self._began, self._facts = time.perf_counter(), facts
        self._writing = learner.begin_save(self.learner, folder=self.folder, step=step, background=self.background)
        self._stalled = time.perf_counter() - self._began
        if not self.background:
            self.finish()

    def look(self, *, busy: int) -> None:
        """Commits the checkpoint that is on its way when no rank is `busy` with it."""
        if busy == 0:
            self.finish()

    def finish(self) -> None:
        """Waits for the checkpoint that is on its way, if one is, and commits it."""
        if self._writing is None:
            return
        started, writing = time.perf_counter(), self._writing
        while _number(busy=self.busy):  # no rank may wait in one collective longer than the group's timeout
            time.sleep(_POLL_S)
        self._writing = None
        self.watcher.saving(writing.step)
        self.latest = checkpoint.commit(writing, facts=self._facts or {})
        checkpoint.prune(self.folder, keep=self.keep)
        ended = time.perf_counter()
        self.watcher.metrics(
            writing.step,
            {"train/save_stall_s": self._stalled + ended - started, "train/save_time_s": ended - self._began},
        )


def _number(*, busy: bool) -> int:
    """Returns how many ranks are busy; every rank must call it."""
    ranks = torch.tensor(float(busy), device=device.current())
    dist.all_reduce(ranks)
    return int(ranks)

"""What a stage is: its config, what run() is given, and what run() returns."""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from jobs._journal import Journal
from slurm.resources import Resources, Spread
from slurm.site import Purpose, Site

STOPPED = 85  # exit status of a stage that was asked to stop, saved its state and can go on


class StageConfig(BaseModel):
    """One section of a run file. Every setting is typed, bounded and named in full; an unknown one is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spread: ClassVar[Spread] = "one"
    """How the stage is started: as one process, one on each node, or as ranks."""
    purpose: ClassVar[Purpose] = "cpu"
    """Which of a site's partitions the stage is for."""
    resumable: ClassVar[bool] = False
    """Whether the stage keeps what it has done when it is asked to stop, and goes on from there."""
    reads: ClassVar[tuple[str, ...]] = ()
    """Other sections that the stage's result depends on, and the size of the site."""
    shows: ClassVar[bool] = False
    """Whether the stage shows the figures of the stages before it, not only their files."""

    resources: Resources = Resources()

    def problems(self, context: "Context") -> Iterable[str]:  # noqa: ARG002 - for sections that override it
        """Yields what only shows when sections and files are seen together: 'setting: what must hold ...'."""
        return ()

    def files(self, root: Path) -> Iterable[Path]:  # noqa: ARG002 - for sections that override it
        """Yields the files outside the run that the stage reads; when one changes, the stage runs again."""
        return ()


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a section may look at while planning: the sections that are sound in themselves, and where paths start."""

    sections: Mapping[str, StageConfig]
    root: Path


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Tells people how far a stage is: a small file that the waiting command draws as a bar."""

    path: Path
    interval_s: float = 0.5
    _last: list[float] = field(default_factory=lambda: [0.0])

    def __call__(self, done: float, total: float, note: str = "") -> None:
        """Reports `done` of `total` units; calls within `interval_s` of the last are dropped, except the final one."""
        now = time.monotonic()
        if now - self._last[0] < self.interval_s and done < total:
            return
        self._last[0] = now
        # Renamed but not fsynced: a training step must not wait for a disk so that a bar moves.
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({"done": done, "total": total, "note": note}))
        new.replace(self.path)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What run() is given. All that a stage writes lies under `folder`.

    `meeting` is a private folder of this execution alone, seen by all its processes; none where there is only one.
    """

    name: str
    run: str
    site: Site
    folder: Path
    root: Path
    parents: Mapping[str, Mapping[str, Any]]
    sections: Mapping[str, StageConfig]
    journal: Journal
    progress: Progress
    seed: int
    rank: int = 0
    world_size: int = 1
    meeting: Path = Path()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What run() returns; the record is made of it.

    Attributes:
        metrics: headline figures, by name.
        inputs: name or path of what was read from outside the run -> SHA-256.
        outputs: path relative to the stage's folder -> SHA-256.
        details: JSON values for the report.
    """

    metrics: Mapping[str, float]
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

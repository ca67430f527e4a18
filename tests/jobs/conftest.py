"""Fixtures of the jobs' tests: a results folder as batch scripts, ranks and waiting commands leave it."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs._journal import Journal
from jobs._record import history_path
from jobs._run import ROOT, Run, load
from slurm.events import Event, add
from slurm.files import write_json
from slurm.queue import Job
from slurm.requeue import remember
from slurm.site import Site
from slurm.submit import Submission

REQUEST = "f" * 64


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The folder of one stage, to leave files in; every time is in seconds before now."""

    folder: Path
    run: Run
    site: Site

    def attempt(self, *, job: str | None = "12", request: str = REQUEST) -> Path:
        """Leaves what a submission does; `job` None: the id was never written down."""
        number = len(list((self.folder / "attempts").glob("*"))) + 1
        path = self.folder / "attempts" / f"{number:04d}"
        section = self.run.sections[self.folder.name]
        submission = Submission(
            module="jobs._task",
            attempt=path,
            name=f"{self.run.name}.{self.folder.name}",
            token=f"{self.folder.name}-{number}",
            digest=request,
            done=history_path(self.folder, request),
            held=self.folder / "held.json",
            results=self.folder.parents[1],
            resources=section.resources,
            site=self.site,
            purpose=section.purpose,
            spread=section.spread,
        )
        write_json(path / "request.json", {"request": request, "resources": section.resources.model_dump()})
        write_json(path / "spec.json", submission.spec())
        if job is not None and self.site.executor == "slurm":
            remember(path, job)
        return path

    def begin(self, path: Path, *, ago: float, job: str = "12", restart: int = 0, step: float = 0) -> None:
        """Leaves the begin of an execution on two nodes with eight GPUs in all."""
        event = Event(event="begin", job_id=job, restart=restart, step=step, nodes=["n1", "n2"], gpus=8, tasks=8)
        add(path, event.told(time=time.time() - ago))

    def end(self, path: Path, *, ago: float, job: str = "12", restart: int = 0, step: float = 0, **told: Any) -> None:
        """Leaves the end of an execution."""
        event = Event(event="end", job_id=job, restart=restart, step=step, **told)
        add(path, event.told(time=time.time() - ago))

    def progress(self, path: Path, *, done: float, total: float = 420) -> None:
        """Leaves how far the stage is."""
        write_json(path / "progress.json", {"done": done, "total": total, "note": "loss 2.3, 12,345 tokens/s"})

    def steps(self, first: int, last: int, *, ago: float, each_s: float, wall_s: float) -> None:
        """Journals an execution: steps of `each_s`, one every `wall_s`, the last of them `ago`."""
        path = self.folder / "journal.jsonl"
        journal = Journal(path)
        journal.start(experiment="e", name="n", identity=REQUEST, params={}, tags={})
        journal.close()
        lines = path.read_text()
        for step in range(first, last + 1):
            moment = int((time.time() - ago - (last - step) * wall_s) * 1000)
            values = f'{{"train/loss":{5 / step},"train/tokens_per_s":12345.6,"train/step_time_s":{each_s}}}'
            lines += f'{{"kind":"metrics","time":{moment},"step":{step},"values":{values}}}\n'
        path.write_text(lines)

    def result(self, *, seconds: float = 60, request: str = REQUEST) -> None:
        """Leaves a result as the job itself does: not yet the record of whoever waits for it."""
        now = time.time()
        write_json(history_path(self.folder, request), {"started": now - seconds, "finished": now})


@dataclass(frozen=True, kw_only=True)
class Results:
    """A run, a site, and a folder of results."""

    run: Run
    site: Site
    root: Path

    def stage(self, name: str) -> Stage:
        """Returns the folder of a stage."""
        return Stage(folder=self.root / self.run.name / name, run=self.run, site=self.site)

    def job(self, stage: str, *, state: str = "RUNNING", **told: str) -> Job:
        """Returns a job of the stage as Slurm shows it."""
        comment = f"medscale run={self.run.name} stage={stage} attempt={stage}-1 digest={REQUEST[:12]}"
        known = {"id": "12", "reason": "None", "nodes": "n[1-2]", "start": "N/A", "end": "N/A", "comment": comment}
        return Job(**{**known, "name": f"{self.run.name}.{stage}", "state": state, **told})


def _load(folder: Path, site: str, **changes: Any) -> tuple[Run, Site]:
    text = yaml.safe_load((ROOT / "workflows/runs/demo.yaml").read_text())
    (folder / "few.csv").write_text("smiles\nCCO\n")
    source = {"name": "few", "modality": "molecule", "path": str(folder / "few.csv"), "license": "CC0-1.0"}
    text |= {"prepare": {"sources": [source]}, "evaluate": {"benchmarks": ["molecule_solubility"]}, **changes}
    (folder / "small.yaml").write_text(yaml.safe_dump(text))
    return load(str(folder / "small.yaml"), site)


@pytest.fixture
def slurm(tmp_path: Path) -> Results:
    """A small run at a site with Slurm, nothing started yet."""
    run, site = _load(tmp_path, "cluster-test")
    return Results(run=run, site=site, root=tmp_path / "results")


@pytest.fixture
def laptop(tmp_path: Path) -> Results:
    """A small run at a site without Slurm, nothing started yet."""
    run, site = _load(tmp_path, "laptop")
    return Results(run=run, site=site, root=tmp_path / "results")

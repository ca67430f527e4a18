"""Ray on the nodes of one job, here two processes of one machine: what it costs when one dies, and what stays behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from evaluation import meeting, nodes
from evaluation.meeting import Nodes, announce, following, head_of, leading

ITEMS = 200
SCRIPT = """
import os, signal, sys, threading
from pathlib import Path
from evaluation import nodes, score
from evaluation.cluster import cluster
from evaluation.items import make_item
from evaluation.meeting import Nodes, leading

rank, count, base, model, items, event, victim = sys.argv[1:]
base = Path(base)
nodes._FOLDERS = base / "node"
job = Nodes(count=int(count), meeting=base / "meeting", cpus=1, gpus=0, interface="lo", patience_s=60)

def stop(*_):
    sys.exit(85)

def progress(done, total):
    (base / "done").write_text(f"{done} {total}")
    if event == "kill" and done < 100:
        os.kill(int(victim) or os.getpid(), signal.SIGKILL)
    if event == "stop":  # as Slurm does: every process of the step is told
        everyone = [int(each.name) for each in Path("/proc").glob("[0-9]*") if mine(each)]
        threading.Timer(0.05, lambda: [os.kill(each, signal.SIGTERM) for each in everyone]).start()

def mine(process):
    try:
        return str(base).encode() in (process / "environ").read_bytes()
    except OSError:
        return False

if rank != "0":
    nodes.serve(job)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
questions = [
    make_item(group=str(n), stream="s", prompt="C" * (n % 60) + str(n), choices=(" a", " b"), answer=0, guess=None)
    for n in range(int(items))
]
with leading(job):
    score.score_chunks(
        score.make_chunks(questions, model_digest="m"),
        model=Path(model),
        journal=base / "journal.jsonl",
        workers=2,
        cluster=cluster(workers=2, nodes=job if job.count > 1 else None),
        progress=progress,
    )
"""


@dataclass(kw_only=True)
class Job:
    """The processes of one job in a folder of its own, by whose name all that they start is found."""

    base: Path
    model: Path
    ranks: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self, rank: int, *, count: int = 2, event: str = "", victim: int = 0) -> "subprocess.Popen[bytes]":
        words = (rank, count, self.base, self.model, ITEMS, event, victim)
        with (self.base / f"log{rank}").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", SCRIPT, *map(str, words)],
                env={**os.environ, "MEDSCALE_JOB": str(self.base)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.ranks.append(process)
        return process

    def scored(self) -> list[str]:
        lines = [json.loads(line) for line in (self.base / "journal.jsonl").read_text().splitlines()]
        return [item for line in lines for item in line["scores"]]

    def processes(self) -> list[str]:
        """The command lines of all that runs of this job."""
        found = []
        for each in psutil.process_iter():
            try:
                if each.environ().get("MEDSCALE_JOB") == str(self.base):
                    found.append(" ".join(each.cmdline()))
            except psutil.Error:
                continue
        return found

    def left(self) -> list[str]:
        return self.processes() + [str(each) for each in (self.base / "node").iterdir()]

    def log(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.base.glob("log*")))


@pytest.fixture
def job(model_folder: Path) -> Iterator[Job]:
    base = Path("/tmp") / f"{os.getpid()}"  # a socket's path must stay short
    base.mkdir(mode=0o700)
    for name in ("meeting", "node"):
        (base / name).mkdir(mode=0o700)
    made = Job(base=base, model=model_folder)
    yield made
    for process in made.ranks:
        process.kill()
        process.wait()
    assert within(10, lambda: not made.left()), made.left()
    shutil.rmtree(base)


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def test_a_node_that_dies_costs_only_what_it_had_begun(job: Job) -> None:
    other = job.start(1)
    first = job.start(0, event="kill", victim=other.pid)
    assert first.wait(120) == 0, job.log()
    assert other.wait(5) == -signal.SIGKILL
    assert json.loads((job.base / "meeting" / "complete.json").read_text())["nodes"] == [os.uname().nodename] * 2
    assert len(job.scored()) == len(set(job.scored())) == ITEMS
    assert within(5, lambda: not job.left()), job.left()


def test_the_nodes_leave_when_rank_0_is_killed(job: Job) -> None:
    other = job.start(1)
    first = job.start(0, event="kill")
    assert first.wait(120) == -signal.SIGKILL, job.log()
    assert other.wait(5) == 0, job.log()
    assert within(5, lambda: not job.left()), job.left()


def test_a_stop_signal_to_all_processes_ends_the_stage_not_ray(job: Job) -> None:
    first = job.start(0, count=1, event="stop")
    assert within(60, lambda: (job.base / "done").exists()), job.log()
    begun = time.monotonic()
    assert first.wait(5) == 85, job.log()
    assert not job.left()
    assert time.monotonic() - begun < 5
    assert 0 < len(job.scored()) < ITEMS

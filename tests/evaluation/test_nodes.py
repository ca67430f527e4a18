"""Ray on the nodes of one job: what it costs when one dies, who may not join, what is said, and that nothing stays."""

import contextlib
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
from typing import Any

import psutil
import pytest
import ray

from evaluation import nodes
from evaluation.cluster import _gather, _joined
from evaluation.cluster import cluster as ray_cluster
from evaluation.meeting import Nodes, leading

ITEMS = 400
HOST = os.uname().nodename
RANK = """
import contextlib, json, os, signal, sys, threading, time
from pathlib import Path

import grpc
import psutil

from evaluation import nodes, score
from evaluation.cluster import cluster
from evaluation.items import make_item
from evaluation.meeting import Nodes, leading, wait_for_head
from parallelism.question import Scored

task = json.loads(sys.argv[1])
base = Path(task["base"])
nodes._FOLDERS = base / "node"
job = Nodes(count=task["count"], meeting=base / "meeting", cpus=1, gpus=0, interface=task["interface"])


def stop(*_):
    sys.exit(85)


def progress(done, total):
    first = not (base / "done").exists()
    (base / "done").touch()
    if task["event"] == "kill" and (first or done == total):
        os.kill(task["victim"] if first else os.getpid(), signal.SIGKILL)
    if task["event"] == "stop" and first:
        tell_all(signal.SIGTERM)
    if task["event"] == "ask" and first:
        (base / "answers").write_text(json.dumps([ask(token) for token in ("", "f" * 64, job.token.read_text())]))


def tell_all(number):  # as Slurm may do with every process of a step
    for each in psutil.Process().children(recursive=True):
        each.send_signal(number)
    threading.Timer(0.05, os.kill, (os.getpid(), number)).start()


def ask(token):
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(wait_for_head(job.meeting)) as channel:
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")(b"", timeout=9, metadata=metadata)
        except grpc.RpcError as error:
            return error.code().name
    return "OK"


class Quick:  # starts without torch
    def load(self, model):
        pass

    def score(self, questions):
        time.sleep(0.1)
        return [Scored(logprobs=(-1.0, -2.0), truncated=False) for _ in questions]


if task["model"] is None:
    score._Worker = Quick
if task.get("rank", int(os.environ.get("SLURM_PROCID", "0"))):
    nodes.serve(job)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
questions = [
    make_item(group=str(n), stream="s", prompt="C" * (n % 60) + str(n), choices=(" a", " b"), answer=0, guess=None)
    for n in range(task["items"])
]
with leading(job):
    score.score_chunks(
        score.make_chunks(questions, model_digest="m"),
        model=Path(task["model"] or "none"),
        journal=base / "journal.jsonl",
        workers=3,
        cluster=cluster(workers=2, nodes=job if job.count > 1 else None),
        progress=progress,
    )
"""


@dataclass(kw_only=True)
class Job:
    """The ranks of one job and their folder."""

    base: Path
    model: Path | None = None
    interface: str = "lo"
    ranks: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self, rank: int, *, count: int, event: str = "", victim: int = 0) -> "subprocess.Popen[bytes]":
        with (self.base / f"log{rank}").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", RANK, self.task(rank=rank, count=count, event=event, victim=victim)],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.ranks.append(process)
        return process

    def task(self, **more: Any) -> str:
        model = self.model and str(self.model)
        same = {"base": str(self.base), "model": model, "items": ITEMS, "interface": self.interface}
        return json.dumps({**same, **more})

    def scored(self) -> list[str]:
        lines = [json.loads(line) for line in (self.base / "journal.jsonl").read_text().splitlines()]
        return [item for line in lines for item in line["scores"]]

    def left(self) -> list[str]:
        """The folders of the job's nodes, and the command lines of all that still runs of it: their logs lie there."""
        found = [str(each) for each in (self.base / "node").iterdir()]
        for each in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                files = [str(file.readlink()) for file in Path(f"/proc/{each.pid}/fd").iterdir()]
                if any(file.startswith(f"{self.base}/") for file in files) and each.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(each.cmdline()))
        return found

    def log(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.base.glob("log*")))


@pytest.fixture
def job() -> Iterator[Job]:
    base = Path(f"/tmp/{os.getpid()}")  # noqa: S108 - short, as the path of a socket must be
    for folder in (base, base / "meeting", base / "node"):
        folder.mkdir(mode=0o700)
    made = Job(base=base)
    yield made
    for process in made.ranks:
        process.kill()
        process.wait()
    assert within(10, lambda: not made.left()), made.left()
    shutil.rmtree(base)


@pytest.fixture
def two(tmp_path: Path) -> Nodes:
    (tmp_path / "meeting").mkdir(mode=0o700)
    return Nodes(count=2, meeting=tmp_path / "meeting", cpus=1, interface="lo", patience_s=0.1)


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def instead_of_ray(monkeypatch: pytest.MonkeyPatch, *command: str) -> None:
    monkeypatch.setattr(nodes, "_command", lambda *_: lambda _: list(command))


def test_a_node_that_dies_costs_only_what_it_had_begun_and_all_leave_when_rank_0_is_killed(job: Job) -> None:
    victim, other = job.start(1, count=3), job.start(2, count=3)
    first = job.start(0, count=3, event="kill", victim=victim.pid)
    assert first.wait(200) == -signal.SIGKILL, job.log()
    assert victim.wait(10) == -signal.SIGKILL
    assert other.wait(10) == 0, job.log()
    assert json.loads((job.base / "meeting" / "complete.json").read_text()) == {"nodes": [HOST] * 3}
    assert len(job.scored()) == len(set(job.scored())) == ITEMS
    assert within(5, lambda: not job.left()), job.left()


def test_a_stop_signal_to_all_processes_ends_the_stage_and_not_ray_before_it(job: Job) -> None:
    first = job.start(0, count=1, event="stop")
    assert within(200, (job.base / "done").exists), job.log()
    assert first.wait(10) == 85, job.log()  # 1.2 s where nothing else runs
    assert not job.left()
    assert 0 < len(job.scored()) < ITEMS


def test_on_slurm_the_nodes_join_with_the_token_alone_and_leave_at_once(
    job: Job, model_folder: Path, cluster: Any
) -> None:
    job.interface, job.model = "eth0", model_folder
    options = ("--nodes=2", "--ntasks-per-node=1", "--mem=4000", "--kill-on-bad-exit=1")
    done = subprocess.run(
        ["srun", *options, sys.executable, "-c", RANK, job.task(count=2, event="ask")],
        env={**os.environ, **cluster.env},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    ended = time.time()
    assert done.returncode == 0, done.stdout + done.stderr
    assert not job.left()
    came = job.base / "meeting" / "complete.json"
    assert len(set(json.loads(came.read_text())["nodes"])) == (2 if cluster.own_machines else 1)
    assert json.loads((job.base / "answers").read_text()) == ["UNAUTHENTICATED", "UNAUTHENTICATED", "OK"]
    assert len(job.scored()) == len(set(job.scored())) == ITEMS
    start = came.stat().st_mtime - (job.base / "meeting" / "driver.json").stat().st_mtime
    stop = ended - (job.base / "journal.jsonl").stat().st_mtime
    print(f"from the first process to all nodes {start:.1f} s, from the last score to the end {stop:.1f} s")  # noqa: T201
    assert stop < 20


def test_a_rank_whose_ray_does_not_join_says_so_to_rank_0(two: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    instead_of_ray(monkeypatch, "sh", "-c", "echo no such; echo token")
    message = f"node {HOST} must take part in the Ray cluster of node {HOST}, but Ray ended; its last word: token$"
    with leading(two), pytest.raises(RuntimeError, match=message):
        nodes.serve(two)
    monkeypatch.setattr(ray, "nodes", list)
    with pytest.raises(RuntimeError, match=message):
        _gather(two, "10.0.0.1:6379")


def test_a_rank_whose_ray_dies_later_stays_until_rank_0_ends(
    two: Nodes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    instead_of_ray(monkeypatch, "echo", "killed")
    two.note_complete(["n1", "n2"])
    looks = iter([True, True, True, False])

    def lives(_: Any) -> bool:
        time.sleep(0.2)
        return next(looks)

    monkeypatch.setattr("evaluation.meeting.Driver.lives", lives)
    with leading(two):
        nodes.serve(two)
    assert next(looks, None) is None
    assert caplog.messages[0].endswith("but Ray ended; its last word: killed; the other nodes score on")


def test_says_how_many_nodes_came(two: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [{"NodeManagerHostname": "n1", "Alive": True}, {"NodeManagerHostname": "n2", "Alive": False}]
    monkeypatch.setattr(ray, "nodes", lambda: found)
    with pytest.raises(RuntimeError, match=r"2 nodes must join Ray's head at n1:6 within 0.1 s, but 1 came: n1; see"):
        _gather(two, "n1:6")
    assert not two.complete


def test_a_head_that_does_not_start_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    instead_of_ray(monkeypatch, "echo", "no space left")
    must = f"node {HOST} must start Ray's head"
    with (
        pytest.raises(RuntimeError, match=f"{must}, but Ray ended; its last word: no space left"),
        ray_cluster(workers=1),
    ):
        pass
    instead_of_ray(monkeypatch, "sleep", "60")
    monkeypatch.setattr(nodes, "START_S", 0.1)
    with pytest.raises(TimeoutError, match=f"{must} within 0.1 s, but it did not; see whether"), ray_cluster(workers=1):
        pass


def test_folders_of_dead_keepers_are_removed_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "_FOLDERS", tmp_path)
    dead, lock = nodes._own_folder()
    os.close(lock)
    living, lock = nodes._own_folder()
    nodes._sweep()
    assert (dead.exists(), living.exists()) == (False, True)
    os.close(lock)


@pytest.mark.parametrize("during", [True, False])
def test_rays_handler_of_sigterm_does_not_replace_the_stages(during: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
        if during:
            signal.raise_signal(signal.SIGTERM)

    def stop(*_: Any) -> None:
        sys.exit(85)

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(SystemExit, match="85"), _joined(address="n1:6"):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)

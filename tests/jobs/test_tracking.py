"""Delivery to a real MLflow: every point once, whatever is killed, hangs or is missing; and the dashboard."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from statistics import quantiles
from typing import Any

import pytest

from jobs._journal import Journal
from jobs._shipper import Shipper, default_uri, redact, ship_command, start_shipper

PARAMS = {"lr": 1e-3, "model": {"layers": 2}}
TAGS = {"run": "demo", "site": "laptop", "git_commit": "c0ffee"}


@pytest.fixture(scope="module", autouse=True)
def _impatient() -> Iterator[None]:
    """Waits two seconds for an answer instead of thirty, so that an outage is over soon."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Starts processes that have MLflow loaded already: it takes seconds to load."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["jobs._tracking"])
    return context


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes MLflow's tables once; they take seconds to make, and a moment to copy."""
    root = tmp_path_factory.mktemp("empty")
    stage(root, "prepare").end("FINISHED")
    assert Shipper(root, tracking_uri=default_uri(root)).ship(deadline_s=60)
    with sqlite3.connect(root / "mlflow.db") as database:
        for table in ("tags", "params", "latest_metrics", "metrics", "runs", "experiment_tags"):
            database.execute(f"DELETE FROM {table}")  # noqa: S608 - names written above
        database.execute("DELETE FROM experiments WHERE experiment_id != 0")
    database.close()
    return root / "mlflow.db"


@pytest.fixture
def root(tmp_path: Path, empty_database: Path) -> Path:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return tmp_path


class Server:
    """The dashboard: MLflow's own server application, in a process that can be stopped in every way."""

    def __init__(self, root: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.root = root
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.get("/health")[0] == 200:
            return
        code = "import sys; from pathlib import Path; from jobs._tracking import dashboard; "
        code += "sys.exit(dashboard(Path(sys.argv[1]), port=int(sys.argv[2])))"
        self._process = subprocess.Popen([sys.executable, "-c", code, str(self.root), str(self.port)])
        wait_for(lambda: self.get("/health")[0] == 200, seconds=90)

    def signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
        if self._process is not None and number == signal.SIGKILL:
            self._process.wait()

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(self.uri + path, timeout=20) as answer:  # noqa: S310 - http, written above
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError:
            return 0, b""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, root / "mlflow.db")
    server = Server(root)
    yield server  # not started: whoever asks for it starts it, once
    server.signal(signal.SIGKILL)


def stage(root: Path, name: str, *, run: str = "demo", identity: str = "work") -> Journal:
    journal = Journal(root / run / name / "journal.jsonl")
    journal.start(experiment=f"medscale/{name}", name=f"{run}@laptop", identity=identity, params=PARAMS, tags=TAGS)
    return journal


def train(journal: Journal, first: int, last: int, *, metrics: int = 2) -> None:
    for step in range(first, last + 1):
        journal.metrics(step, {f"train/metric{number}": 1 / (step + number) for number in range(metrics)})


def points(root: Path) -> list[tuple[str, str, int]]:
    """Returns (run name, metric, step) of every point in the database, from MLflow's own table."""
    database = sqlite3.connect(root / "mlflow.db")
    rows = database.execute(
        "SELECT runs.name, key, step FROM metrics JOIN runs USING (run_uuid) WHERE lifecycle_stage = 'active'"
    ).fetchall()
    database.close()
    return sorted(rows)


def statuses(root: Path) -> list[str]:
    database = sqlite3.connect(root / "mlflow.db")
    rows = database.execute("SELECT status FROM runs WHERE lifecycle_stage = 'active' ORDER BY status").fetchall()
    database.close()
    return [status for (status,) in rows]


def expected(last: int, *, metrics: int = 2, run: str = "demo") -> list[tuple[str, str, int]]:
    return sorted((f"{run}@laptop", f"train/metric{n}", step) for n in range(metrics) for step in range(1, last + 1))


def runs(root: Path) -> list[dict[str, Any]]:
    """Returns the runs of a database as MLflow's client gives them."""
    from mlflow import MlflowClient

    client = MlflowClient(default_uri(root))
    experiments = {experiment.experiment_id: experiment.name for experiment in client.search_experiments()}
    found = client.search_runs(list(experiments), order_by=["attributes.start_time ASC"])
    return [
        {
            "id": run.info.run_id,
            "experiment": experiments[run.info.experiment_id],
            "name": run.info.run_name,
            "status": run.info.status,
            "params": run.data.params,
            "tags": run.data.tags,
            "metrics": run.data.metrics,
            "datasets": [given.dataset for given in run.inputs.dataset_inputs] if run.inputs else [],
        }
        for run in found
    ]


def wait_for(condition: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def deliver(root: Path, uri: str | None = None) -> None:
    assert Shipper(root, tracking_uri=uri or default_uri(root)).ship(deadline_s=60)


def test_each_stage_is_a_flat_run_with_all_that_it_observed(root: Path) -> None:
    for name in ("prepare", "pretrain", "evaluate"):
        journal = stage(root, name)
        train(journal, 1, 5)
        journal.metrics(6, {"odd name/../of #1": 1.0, "never": float("nan")})
        journal.dataset(name="omics", digest="ab" * 32, source="cells.h5ad", context="training")
        for file in ("record.json", "plots/loss.svg"):
            (journal.path.parent / file).parent.mkdir(exist_ok=True)
            (journal.path.parent / file).write_text("{}")
            journal.artifact(journal.path.parent / file)
        journal.tag("record_digest", "beef")
        journal.end("FINISHED")
    deliver(root)
    found = runs(root)
    assert sorted(run["experiment"] for run in found) == ["medscale/evaluate", "medscale/prepare", "medscale/pretrain"]
    for run in found:
        assert run["name"] == "demo@laptop"
        assert run["status"] == "FINISHED"
        assert run["params"] == {"lr": "0.001", "model.layers": "2"}
        assert (
            run["tags"].items() >= {"run": "demo", "site": "laptop", "record_digest": "beef", "executions": "1"}.items()
        )
        assert run["tags"]["mlflow.source.git.commit"] == "c0ffee"
        assert "mlflow.parentRunId" not in run["tags"]
        assert set(run["metrics"]) == {"train/metric0", "train/metric1", "odd name/_/of _1", "never"}
        assert run["datasets"][0].digest == ("ab" * 32)[:36]
        assert json.loads(run["datasets"][0].profile) == {"sha256": "ab" * 32}
        kept = root / "mlartifacts" / run["experiment"] / run["id"] / "artifacts"
        assert sorted(str(file.relative_to(kept)) for file in kept.rglob("*.*")) == ["plots/loss.svg", "record.json"]


def test_a_shipper_killed_at_any_moment_leaves_every_point_once(root: Path, processes: ForkServerContext) -> None:
    journal = stage(root, "pretrain")
    train(journal, 1, 1000, metrics=8)
    journal.end("FINISHED")
    chance = random.Random(0)
    killed = 0
    for _ in range(5):
        shipper = ship_in(processes, root)
        wait_for(shipper.is_alive, seconds=20)
        time.sleep(chance.uniform(0.3, 1.2))
        killed += shipper.is_alive()
        shipper.kill()
        shipper.join()
    deliver(root)
    assert killed > 0
    assert points(root) == expected(1000, metrics=8)
    assert statuses(root) == ["FINISHED"]


def test_two_shippers_at_once_deliver_every_point_once(root: Path, processes: ForkServerContext) -> None:
    for name in ("demo", "second", "third"):
        journal = stage(root, "pretrain", run=name)
        train(journal, 1, 300)
        journal.end("FINISHED")
    both = [ship_in(processes, root) for _ in range(2)]
    for shipper in both:
        shipper.join(60)
    assert [shipper.exitcode for shipper in both] == [0, 0]
    assert points(root) == sorted(point for run in ("demo", "second", "third") for point in expected(300, run=run))


def ship_in(processes: ForkServerContext, root: Path) -> ForkServerProcess:
    process = processes.Process(target=deliver, args=(root, default_uri(root)))
    process.start()
    return process


class Training:
    """A loop at 50 steps a second that measures how long it waits for its journal."""

    def __init__(self, journal: Journal) -> None:
        self.journal, self.step = journal, 0
        self.waited_s: list[float] = []

    def go(self, *, seconds: float) -> None:
        for _ in range(int(seconds * 50)):
            self.step += 1
            began = time.perf_counter()
            train(self.journal, self.step, self.step)
            self.waited_s.append(time.perf_counter() - began)
            time.sleep(0.02)


def test_an_outage_of_any_kind_stalls_nothing_and_loses_nothing(
    tmp_path: Path, server: Server, processes: ForkServerContext
) -> None:
    """The server is absent at first, then hangs, then is killed, while a loop trains."""
    training = Training(stage(tmp_path, "pretrain"))
    shipper = processes.Process(target=_follow, args=(tmp_path, server.uri))
    shipper.start()
    try:
        training.go(seconds=1)
        server.start()
        wait_for(lambda: len(points(server.root)) > 0, seconds=60)
        server.signal(signal.SIGSTOP)
        training.go(seconds=4)
        server.signal(signal.SIGCONT)
        training.go(seconds=1)
        server.signal(signal.SIGKILL)
        training.go(seconds=1)
        training.journal.end("FINISHED")
        server.start()
        wait_for(lambda: statuses(server.root) == ["FINISHED"], seconds=90)
    finally:
        shipper.kill()
        shipper.join()
    assert points(server.root) == expected(training.step)
    assert quantiles(training.waited_s, n=100)[98] < 0.02
    assert max(training.waited_s) < 0.5


def _follow(results: Path, uri: str) -> None:
    Shipper(results, tracking_uri=uri).follow()


def test_a_resumed_stage_continues_its_run_and_repeats_no_step(root: Path) -> None:
    journal = stage(root, "pretrain")
    train(journal, 1, 30)
    deliver(root)
    assert statuses(root) == ["RUNNING"]
    journal = stage(root, "pretrain")
    train(journal, 20, 50)
    journal.end("FINISHED")
    deliver(root)
    (run,) = runs(root)
    assert run["status"] == "FINISHED"
    assert run["tags"]["executions"] == "2"
    assert points(root) == expected(50)
    assert json.loads((journal.path.parent / "mlflow.json").read_text())["replayed"] == 22


def test_a_changed_stage_begins_a_run_and_ends_the_one_it_leaves(root: Path) -> None:
    train(stage(root, "pretrain"), 1, 3)
    train(stage(root, "pretrain", identity="other settings"), 1, 2)
    deliver(root)
    assert sorted((run["status"], run["metrics"]["train/metric0"]) for run in runs(root)) == [
        ("KILLED", 1 / 3),
        ("RUNNING", 1 / 2),
    ]
    assert len(points(root)) == 10


def test_a_stage_that_falls_silent_is_shown_as_killed_until_it_speaks(root: Path) -> None:
    journal = stage(root, "pretrain")
    train(journal, 1, 3)
    long_ago = time.time() - 3600
    os.utime(journal.path, (long_ago, long_ago))
    deliver(root)
    assert statuses(root) == ["KILLED"]
    train(journal, 4, 4)
    deliver(root)
    assert statuses(root) == ["RUNNING"]
    assert points(root) == expected(4)


def test_a_run_that_a_hung_server_made_twice_is_left_once(root: Path) -> None:
    from mlflow import MlflowClient

    from jobs._tracking import TRACKING_ID

    journal = stage(root, "pretrain")
    deliver(root)
    (run,) = runs(root)
    client = MlflowClient(default_uri(root))
    experiment = client.get_experiment_by_name("medscale/pretrain")
    assert experiment is not None
    client.create_run(experiment.experiment_id, tags={TRACKING_ID: run["tags"][TRACKING_ID]})
    train(journal, 1, 2)
    journal.end("FINISHED")
    deliver(root)
    assert [left["id"] for left in runs(root)] == [run["id"]]
    assert points(root) == expected(2)


def test_a_lost_note_and_a_torn_line_cost_nothing(root: Path) -> None:
    journal = stage(root, "pretrain")
    train(journal, 1, 3)
    deliver(root)
    (journal.path.parent / "mlflow.json").unlink()
    with journal.path.open("ab") as file:
        file.write(b'{"kind":"metr')
    deliver(root)
    again = Journal(journal.path)
    train(again, 4, 5)
    again.end("FINISHED")
    deliver(root)
    assert points(root) == expected(5)


def test_a_tree_goes_to_a_second_server_as_a_whole(root: Path, server: Server) -> None:
    journal = stage(root, "tokenize", run="moved")
    train(journal, 1, 3)
    (journal.path.parent / "log.txt").write_text("done")
    journal.artifact(journal.path.parent / "log.txt")
    journal.end("FINISHED")
    deliver(root)
    server.start()
    deliver(root, server.uri)
    assert points(root) == expected(3, run="moved")
    assert [point for point in points(server.root) if point[0] == "moved@laptop"] == points(root)
    (run,) = (run for run in runs(server.root) if run["name"] == "moved@laptop")
    status, content = server.get(f"/get-artifact?path=log.txt&run_id={run['id']}")
    assert (status, content) == (200, b"done")
    deliver(root)  # back to the first: the same points again, and still once
    assert points(root) == expected(3, run="moved")


def test_shipping_tells_what_is_delivered_and_fails_only_when_asked(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = stage(root, "pretrain")
    train(journal, 1, 700)
    journal.artifact(journal.path.parent / "gone.png")
    journal.end("FINISHED")
    nobody = "http://operator:hunter2@127.0.0.1:9"
    assert ship_command(root, tracking_uri=nobody, strict=True, deadline_s=0.5) == 1
    assert ship_command(root, tracking_uri=nobody, deadline_s=0.5) == 0
    told = capsys.readouterr()
    assert "0 of     1,400 points delivered  WAITING" in told.out
    assert "tracking server: " in told.err
    assert "hunter2" not in told.out + told.err
    assert ship_command(root, strict=True) == 0
    told = capsys.readouterr()
    assert "demo/pretrain                        1,400 of     1,400 points delivered  FINISHED" in told.out
    assert "gone.png: must still be there to be copied to MLflow, but is gone; the run goes without it" in told.err


def test_no_password_is_ever_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    assert redact("at https://me:p@ss@host:5000/x with t0ken") == "at https://***@host:5000/x with ***"
    assert redact("postgresql+psycopg://me:word@db/mlflow") == "postgresql+psycopg://***@db/mlflow"
    assert redact("sqlite:////results/mlflow.db") == "sqlite:////results/mlflow.db"


def test_one_detached_shipper_serves_all_stages(root: Path) -> None:
    journal = stage(root, "pretrain")
    train(journal, 1, 3)
    for _ in range(3):
        start_shipper(root)
    wait_for(lambda: points(root) == expected(3), seconds=60)
    train(journal, 4, 6)
    journal.end("FINISHED")
    wait_for(lambda: points(root) == expected(6), seconds=60)
    (pid,) = shippers(root)
    assert os.getsid(pid) != os.getsid(0)
    assert os.getpriority(os.PRIO_PROCESS, pid) >= 10
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not shippers(root), seconds=10)


def shippers(root: Path) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"jobs._shipper" in command and str(root).encode() in command:
            found.append(int(entry.parent.name))
    return found


def test_the_dashboard_shows_the_runs_and_leaves_the_assistant_out(server: Server) -> None:
    server.start()
    assert server.get("/")[0] == 200
    assert b'location.replace("/#/experiments")' in server.get("/medscale")[1]
    assert server.get("/ajax-api/2.0/mlflow/experiments/search?max_results=5")[0] == 200
    assert server.get("/ajax-api/3.0/mlflow/assistant/config") == (403, b"medscale leaves MLflow's assistant out")


def test_the_dashboard_says_why_it_cannot_start(root: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    from jobs._tracking import dashboard

    server.start()
    assert dashboard(root, port=server.port) == 1
    assert f"port: must be free, but {server.port} is in use; choose another" in capsys.readouterr().err
    assert dashboard(root, tracking_uri="https://me:word@host") == 0
    assert "shows them itself: open https://***@host" in capsys.readouterr().out

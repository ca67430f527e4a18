"""The judge of all nodes' answers, on pretended nodes and on a real cluster."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from slurm import preflight
from slurm.files import read_json, write_json
from tests.slurm.node import ROOT, SPEC, ask, namespaces, new_attempt, told


@pytest.fixture(autouse=True)
def _without_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(preflight, "LATE_S", 0.3)


def judged(attempt: Path, nodes: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("SLURM_JOB_NODELIST", nodes)
    status = preflight.main(["--judge", str(attempt)])
    verdict: dict[str, Any] = read_json(attempt / "preflight" / "verdict.json")
    assert status == (0 if verdict["ok"] else 1)
    return verdict


def test_the_judge_is_content_when_all_nodes_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    attempt = new_attempt(tmp_path, scratch=str(tmp_path), nodes=2, tasks=2)
    for name in ("n1", "n2"):
        ask(attempt, name=name)
    verdict = judged(attempt, "n[1-2]", monkeypatch)
    assert (verdict["ok"], verdict["lines"], verdict["bad_nodes"], verdict["notes"]) == (True, [], [], [])
    assert capsys.readouterr().out == verdict["summary"] + "\n"
    assert verdict["summary"].startswith("preflight: 2 nodes answered, slowest write on results ")


@namespaces
def test_the_judge_names_each_node_that_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    attempt = new_attempt(tmp_path, nodes=5, tasks=5)
    other = tmp_path / "other.json"
    write_json(other, {**read_json(attempt / "spec.json"), "tasks": 6})
    old = tmp_path / "old" / "torch-0.4.1.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 0.4.1\n")
    for name in ("n1", "n2"):
        ask(attempt, name=name)
    ask(attempt, name="n3", variables={"PYTHONPATH": f"{tmp_path / 'old'}:{ROOT}"})
    ask(attempt, name="n4", alone=True, before=f"mount --bind {other} {attempt}/spec.json; ip link set lo up")
    verdict = judged(attempt, "n[1-5]", monkeypatch)
    assert verdict["bad_nodes"] == ["n3", "n4", "n5"]
    torch = told(attempt)["facts"]["versions"]["torch"]
    assert verdict["lines"] == [
        (
            "n5: node must answer the checks, but did not; it died, has no Python, or does not see the results: "
            "search the log for n5"
        ),
        (
            f"n4: {attempt}/spec.json must be the file that the batch host wrote, but is another; "
            "results must lie on a disk that all nodes share"
        ),
        f"n3: torch must be {torch} as on n1, but is 0.4.1; give every node the same environment",
    ]
    assert capsys.readouterr().out.splitlines()[:3] == verdict["lines"]


def test_an_answer_of_an_earlier_start_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = new_attempt(tmp_path)
    ask(attempt, variables={"SLURM_JOB_ID": "7"})
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert judged(attempt, "n1", monkeypatch)["ok"]
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert judged(attempt, "n1", monkeypatch)["bad_nodes"] == ["n1"]


def test_a_fault_that_all_nodes_have_is_one_line_and_no_nodes_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = new_attempt(tmp_path, nodes=6, tasks=6, scratch="/no/such/folder")
    ask(attempt)
    for name in ("n2", "n3", "n4", "n5", "n6"):
        write_json(attempt / "preflight" / f"{name}.json", {**told(attempt), "node": name})
    verdict = judged(attempt, "n[1-6]", monkeypatch)
    assert verdict["bad_nodes"] == []
    assert [line.partition(" must")[0] for line in verdict["lines"]] == ["all 6 nodes: /no/such/folder"]
    verdict = judged(attempt, "n1", monkeypatch)
    assert verdict["bad_nodes"] == ["n1"], "of one node nobody can say that all have it"


def test_a_full_disk_of_results_is_no_nodes_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = new_attempt(tmp_path, policies={**SPEC["policies"], "min_free_gb": 1e9})
    ask(attempt)
    verdict = judged(attempt, "n1", monkeypatch)
    assert (verdict["ok"], verdict["bad_nodes"]) == (False, [])
    assert verdict["lines"][0].startswith(f"n1: free space on {tmp_path} must be at least 1e+09 GB, but is ")


def test_a_judge_that_cannot_read_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    attempt = new_attempt(tmp_path)
    ask(attempt)
    (attempt / "spec.json").unlink()
    verdict = judged(attempt, "n1", monkeypatch)
    (line,) = verdict["lines"]
    assert f"{attempt} must be readable, but [Errno 2]" in line
    assert line.endswith("; mend the disk of results")
    assert capsys.readouterr().out == line + "\n"


class _Answer(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Answer) as served:
        threading.Thread(target=served.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://***@127.0.0.1:{served.server_port}/"
        served.shutdown()


@pytest.mark.parametrize(("status", "there"), [(200, True), (401, True), (503, False)])
def test_an_mlflow_server_is_there_when_it_answers_itself(
    server: str, status: int, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Answer, "status", status)
    attempt = new_attempt(tmp_path, mlflow_tracking_uri=server)
    ask(attempt)
    verdict = judged(attempt, "n1", monkeypatch)
    assert verdict["ok"]
    assert (verdict["notes"] == []) == there


def test_a_server_that_is_silent_means_journal_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "SERVER_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        uri = f"http://127.0.0.1:{listening.getsockname()[1]}"
        attempt = new_attempt(tmp_path, mlflow_tracking_uri=uri)
        ask(attempt)
        verdict = judged(attempt, "n1", monkeypatch)
    assert verdict["ok"]
    assert verdict["notes"][0].startswith(f"MLflow at {uri} must answer within 0.3 s, but ")
    assert verdict["notes"][0].endswith("; journal mode: points are kept and delivered later")


def test_a_wrong_command_line_shows_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert preflight.main(["--judge"]) == 2
    assert capsys.readouterr().err == "usage: python -m slurm.preflight [--judge] ATTEMPT\n"


CHECKED = """#!/bin/bash
cd {root}
srun --ntasks-per-node=1 --ntasks=4 sh -c '{spoil}; exec "$@"' sh \\
  {python} -m slurm.preflight {attempt}
{python} -m slurm.preflight --judge {attempt}
echo "judged: $?"
"""


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (":", {}),
        (
            "case $SLURMD_NODENAME in n3) ulimit -n 256 ;; n4) exit 1 ;; esac",
            {
                "n3": "open files must be at least 1024, but are 256; ",
                "n4": "node must answer the checks, but did not; ",
            },
        ),
    ],
    ids=["sound", "spoiled"],
)
def test_a_real_job_checks_its_nodes(cluster: Any, tmp_path: Path, spoil: str, found: dict[str, str]) -> None:
    attempt = new_attempt(tmp_path, nodes=4, tasks=32, gpus_per_node=8, network_interface="eth0")
    script = tmp_path / "job.sh"
    script.write_text(CHECKED.format(root=ROOT, spoil=spoil, python=sys.executable, attempt=attempt))
    options = ["--nodes=4", "--ntasks-per-node=8", "--gpus-per-node=8", f"--output={tmp_path}/log"]
    environment = {**os.environ, **cluster.env}
    subprocess.run(["sbatch", *options, str(script)], env=environment, check=True, capture_output=True)
    log, until = tmp_path / "log", time.monotonic() + 60
    while not log.exists() or "judged: " not in log.read_text():
        assert time.monotonic() < until, "the job must end within a minute"
        time.sleep(0.1)
    verdict = read_json(attempt / "preflight" / "verdict.json")
    assert verdict["ok"] == (not found), verdict["lines"]
    assert f"judged: {1 if found else 0}\n" in log.read_text()
    assert verdict["bad_nodes"] == list(found)
    assert all(any(line.startswith(f"{name}: {says}") for line in verdict["lines"]) for name, says in found.items())
    assert all(line in log.read_text() for line in verdict["lines"])
    assert {told(attempt, name)["facts"]["gpus"] for name in ("n1", "n2")} == {8}

"""Checks before the first step: each failure made for real where Linux lets a test do so, and what the judge says."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from slurm import checks, preflight
from slurm.checks import Node
from slurm.files import read_json, write_json

ROOT = Path(__file__).resolve().parents[2]
SPEC: Mapping[str, Any] = {
    "tasks": 1,
    "nodes": 1,
    "gpus_per_node": 0,
    "cpus_per_task": 1,
    "policies": {"min_free_gb": 0.001, "min_write_mb_per_s": 0.001, "max_clock_skew_s": 5.0},
    "environment": {},
    "network_interface": "lo",
    "scratch": None,
    "mlflow_tracking_uri": None,
}
OWN = ["unshare", "--map-root-user", "--mount", "--net", "--uts"]
namespaces = pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run([*OWN, "true"], capture_output=True, check=False).returncode != 0,
    reason="a machine of its own for one process needs user namespaces, which this machine forbids",
)


@pytest.fixture(autouse=True)
def _without_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("SLURM", "CUDA_VISIBLE"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(preflight, "LATE_S", 0.3)


def new_attempt(folder: Path, **settings: Any) -> Path:
    attempt = folder / "attempts" / "0001"
    attempt.mkdir(parents=True)
    write_json(attempt / "spec.json", {**SPEC, "results": str(folder), **settings})
    return attempt


def ask(
    attempt: Path,
    *,
    name: str = "n1",
    before: str = "",
    alone: bool = False,
    within_s: float = 60.0,
    variables: Mapping[str, str] | None = None,
) -> str:
    """Runs the checks as node `name` and returns what it printed.

    Args:
        attempt: the job's folder.
        name: of the node.
        before: shell commands that spoil the process first.
        alone: whether it gets mounts, a host name and a network (loopback, down) of its own.
        within_s: the time limit of all checks.
        variables: of its environment.
    """
    code = f"import sys; from slurm import preflight as p; p.WITHIN_S = {within_s}; sys.exit(p.main(sys.argv[1:]))"
    command = ["sh", "-c", f'{before}\nexec "$@"', "sh", sys.executable, "-c", code, str(attempt)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SLURMD_NODENAME": name, **(variables or {})}
    done = subprocess.run(
        [*(OWN if alone else ()), *command], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout + done.stderr


def told(attempt: Path, name: str = "n1") -> dict[str, Any]:
    found: dict[str, Any] = read_json(attempt / "preflight" / f"{name}.json")
    return found


def lines(attempt: Path, name: str = "n1") -> list[str]:
    return [problem["line"] for problem in told(attempt, name)["problems"]]


def judged(attempt: Path, nodes: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("SLURM_JOB_NODELIST", nodes)
    status = preflight.main(["--judge", str(attempt)])
    verdict: dict[str, Any] = read_json(attempt / "preflight" / "verdict.json")
    assert status == (0 if verdict["ok"] else 1)
    return verdict


def nvidia_smi(folder: Path, body: str) -> str:
    folder.mkdir()
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{body}\n")
    (folder / "nvidia-smi").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_a_sound_node_has_nothing_to_say_but_its_figures(tmp_path: Path) -> None:
    attempt = new_attempt(tmp_path, gpus_per_node=2, scratch=str(tmp_path), max_clock_skew_s=1)
    path = nvidia_smi(tmp_path / "bin", "printf 'GPU 0: a\\nGPU 1: b\\n'")
    assert ask(attempt, variables={"PATH": path, "CUDA_VISIBLE_DEVICES": "0,1"}) == ""
    answer = told(attempt)
    assert (answer["node"], answer["problems"], answer["start"]) == ("n1", [], "0.0")
    facts = answer["facts"]
    assert facts["gpus"] == 2
    assert facts["addresses"][0] == "127.0.0.1"
    assert facts["results_free_gb"] > 0.001
    assert facts["results_write_mb_per_s"] > 0.001
    assert facts["scratch_write_mb_per_s"] > 0.001
    assert abs(facts["clock_ahead_s"]) < 1
    assert facts["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["versions"]["torch"][0].isdigit()
    assert sorted(path.name for path in attempt.iterdir()) == ["preflight", "spec.json"], "no probe file may stay"


def test_nothing_heavy_is_imported() -> None:
    code = "import slurm.preflight, sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    heavy = {"torch", "pydantic", "numpy", "yaml", "submitit", "mlflow", "ray", "asyncio", "http", "email"}
    assert not heavy & set(done.stdout.split())


GPU_ADVICE = "correct gpus_per_node or gpu_request, or leave the node out"


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0,1,2"}, "Slurm gives 3"),
        ({"CUDA_VISIBLE_DEVICES": ""}, "Slurm gives 0"),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, "Slurm gives 0"),
        ({"SLURM_JOB_GPUS": "0-3,6"}, "Slurm gives 5"),
    ],
    ids=["fewer", "none", "no device files", "ranges"],
)
def test_gpus_that_were_not_given_are_missed(tmp_path: Path, variables: dict[str, str], found: str) -> None:
    attempt = new_attempt(tmp_path, gpus_per_node=8)
    ask(attempt, variables={"PATH": "/usr/bin:/bin", **variables})
    assert lines(attempt)[0].startswith(f"GPUs must be 8, but {found}")
    assert lines(attempt)[0].endswith(GPU_ADVICE)


def test_a_gpu_that_fell_off_its_bus_is_missed(tmp_path: Path) -> None:
    attempt = new_attempt(tmp_path, gpus_per_node=4)
    path = nvidia_smi(tmp_path / "bin", 'for i in 0 1 3; do echo "GPU $i: NVIDIA H100 (UUID: GPU-$i)"; done; exit 1')
    ask(attempt, variables={"PATH": path, "CUDA_VISIBLE_DEVICES": "0,1,2,3"})
    assert lines(attempt) == [f"GPUs must be 4, but Slurm gives 4 and the driver sees 3; {GPU_ADVICE}"]


def test_gpus_of_a_site_that_hands_out_whole_nodes_are_what_the_driver_sees(tmp_path: Path) -> None:
    attempt = new_attempt(tmp_path, gpus_per_node=2)
    ask(attempt, variables={"PATH": nvidia_smi(tmp_path / "bin", "printf 'GPU 0: a\\nGPU 1: b\\n'")})
    assert lines(attempt) == []


def test_a_driver_that_hangs_is_left_behind_and_named(tmp_path: Path) -> None:
    attempt = new_attempt(tmp_path, gpus_per_node=4)
    path = nvidia_smi(tmp_path / "bin", "exec sleep 20")
    started = time.monotonic()
    ask(attempt, within_s=1.0, variables={"PATH": path, "CUDA_VISIBLE_DEVICES": "0,1,2,3"})
    assert time.monotonic() - started < 15
    assert lines(attempt) == [
        "the GPUs must be known within 1 s, but the check still waits; a disk or a driver hangs: drain the node"
    ]


def test_a_folder_that_hangs_is_named(tmp_path: Path) -> None:
    attempt = new_attempt(tmp_path)
    (attempt / "spec.json").unlink()
    os.mkfifo(attempt / "spec.json")
    ask(attempt, within_s=1.0)
    assert lines(attempt) == [
        (
            f"{attempt}/spec.json must be readable on every node, but the check still waits; "
            "results must lie on a disk that all nodes share"
        )
    ]


def test_a_check_that_breaks_is_one_line_and_the_others_still_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = new_attempt(tmp_path, policies={})
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    preflight.answer(attempt)
    assert lines(attempt) == [
        "free space on results must be known, but KeyError: 'min_free_gb'; mend the node, or leave it out",
        "write speed on results must be known, but KeyError: 'min_write_mb_per_s'; mend the node, or leave it out",
        "the clock must be known, but KeyError: 'max_clock_skew_s'; mend the node, or leave it out",
    ]


def test_a_wrong_binding_is_told_from_a_small_machine(tmp_path: Path) -> None:
    there = os.cpu_count() or 1
    attempt = new_attempt(tmp_path, cpus_per_task=there + 1)
    ask(attempt)
    assert lines(attempt) == []
    assert told(attempt)["notes"] == [
        f"{there + 1} CPUs were asked for, but the machine has {there}: processes share them"
    ]
    if there > 1:
        ask(attempt, before=f"taskset -p -c {min(os.sched_getaffinity(0))} $$ >/dev/null")
        assert lines(attempt) == [
            (
                f"CPUs must be at least {there + 1} for the tasks of a node, but are 1 of the machine's {there}; "
                "correct how srun binds them (--cpu-bind), or cpus_per_task"
            )
        ]


@pytest.mark.parametrize(("tasks", "least"), [(1, 1024), (256, 2048)], ids=["small", "256 ranks"])
def test_too_few_open_files_are_found(tmp_path: Path, tasks: int, least: int) -> None:
    attempt = new_attempt(tmp_path, tasks=tasks, nodes=tasks)
    ask(attempt, before=f"ulimit -n {least - 1}")
    assert lines(attempt) == [
        f"open files must be at least {least}, but are {least - 1}; raise ulimit -n, where the job is submitted too"
    ]


@namespaces
def test_shared_memory_of_a_bare_container_is_too_small(tmp_path: Path) -> None:
    attempt = new_attempt(tmp_path, network_interface=None)
    ask(attempt, alone=True, before="mount -t tmpfs -o size=64m tmpfs /dev/shm")
    assert lines(attempt)[0] == (
        "free space on /dev/shm must be at least 1 GB, but is 0.067 GB; "
        "remove what earlier jobs left, or make it larger"
    )


@namespaces
@pytest.mark.parametrize(
    ("wanted", "line"),
    [
        ("eth7", "network interface eth7 must exist, but there is only lo; correct network_interface of the site"),
        ("=l", "network interface =l must exist, but there is only lo; correct network_interface of the site"),
        ("^lo", "network interface ^lo must exist, but there is only lo; correct network_interface of the site"),
        ("lo", "network interface lo must be up with an address, but is not; mend it, or drain the node"),
    ],
)
def test_a_network_that_is_not_there_is_found(tmp_path: Path, wanted: str, line: str) -> None:
    attempt = new_attempt(tmp_path, network_interface=wanted)
    ask(attempt, alone=True)
    assert line in lines(attempt)


@namespaces
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere-7", "host name nowhere-7 must lead to an address, but "),
        ("localhost", "host name localhost must lead to an address that other nodes reach, but leads to "),
    ],
)
def test_a_host_name_that_leads_nowhere_is_found(tmp_path: Path, name: str, says: str) -> None:
    attempt = new_attempt(tmp_path, network_interface=None, nodes=2, tasks=2)
    ask(attempt, alone=True, before=f"echo {name} > /proc/sys/kernel/hostname")
    assert [line for line in lines(attempt) if line.startswith(says)]


@namespaces
def test_a_full_scratch_is_found(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    attempt = new_attempt(tmp_path, scratch=f"{tmp_path}/scratch", policies={**SPEC["policies"], "min_free_gb": 0.01})
    ask(attempt, alone=True, before=f"mount -t tmpfs -o size=4m tmpfs {tmp_path}/scratch; ip link set lo up")
    assert lines(attempt)[:2] == [
        f"free space on {tmp_path}/scratch must be at least 0.01 GB, but is 0.0042 GB; free some, or use another disk",
        (
            f"{tmp_path}/scratch must be a folder that takes 16 MB, but No space left on device; "
            "mend it, or change scratch of the site"
        ),
    ]


@namespaces
def test_a_scratch_that_cannot_be_written_is_found(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    attempt = new_attempt(tmp_path, scratch=f"{tmp_path}/scratch")
    ask(attempt, alone=True, before=f"mount -t tmpfs -o ro tmpfs {tmp_path}/scratch; ip link set lo up")
    assert lines(attempt) == [
        (
            f"{tmp_path}/scratch must be a folder that takes 16 MB, but Read-only file system; "
            "mend it, or change scratch of the site"
        )
    ]


def test_a_scratch_that_is_not_there_is_told_once(tmp_path: Path) -> None:
    attempt = new_attempt(tmp_path, scratch="/no/such/folder")
    ask(attempt)
    assert lines(attempt) == [
        (
            "/no/such/folder must be a folder that takes 16 MB, but No such file or directory; "
            "mend it, or change scratch of the site"
        )
    ]


def test_results_must_have_room_and_be_fast(tmp_path: Path) -> None:
    policies = {"min_free_gb": 1e9, "min_write_mb_per_s": 1e9, "max_clock_skew_s": 5.0}
    attempt = new_attempt(tmp_path, policies=policies)
    ask(attempt)
    room, speed = lines(attempt)
    assert room.startswith(f"free space on {tmp_path} must be at least 1e+09 GB, but is ")
    assert room.endswith(" GB; free some, or use another disk")
    assert speed.startswith(f"write speed on {tmp_path} must be at least 1e+09 MB/s, but is ")
    assert speed.endswith(" MB/s; look at the disk, or lower min_write_mb_per_s of the site")


@pytest.mark.parametrize(("off_s", "way"), [(62.0, "62.0 s ahead"), (-62.0, "62.0 s behind")])
def test_a_clock_that_is_off_is_found(tmp_path: Path, off_s: float, way: str) -> None:
    node = Node(name="n1", attempt=tmp_path, spec=SPEC)
    (line,) = checks.clock(node, now=lambda: time.time() + off_s)
    assert line.startswith("clock must be within 5 s of the file system's, but is 6")
    assert line.endswith(f"{way[4:]}; run chrony or ntpd on the node")
    assert node.facts["clock_ahead_s"] == pytest.approx(off_s, abs=1)


def test_a_node_without_the_results_says_so_and_makes_no_folder(tmp_path: Path) -> None:
    said = ask(tmp_path / "elsewhere")
    assert "spec.json must be readable on every node, but [Errno 2]" in said
    assert f"n1: its answer must be written to {tmp_path}/elsewhere, but [Errno 2]" in said
    assert not (tmp_path / "elsewhere").exists()


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

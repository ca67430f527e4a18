"""What one node is asked before the first step: each failure made for real where Linux lets a test do so."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slurm import checks, preflight
from slurm.checks import Node
from tests.slurm.node import ROOT, SPEC, ask, lines, namespaces, new_attempt, told


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


def test_the_drivers_version_is_read_from_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_DRIVER", tmp_path / "version")
    assert checks._driver_version() == "none"
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release\n")
    assert checks._driver_version() == "570.86.15"


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

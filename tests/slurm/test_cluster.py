"""The test cluster: what it promises to the tests that stand on it, and that nothing of it is ever left."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.slurm.cluster import Cluster

SCRIPT = Path(__file__).with_name("cluster.py")
Start = Callable[..., "Cluster"]


def wait_for(condition: Callable[[], object], *, timeout: float = 60) -> float:
    """Returns the seconds until the condition held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + timeout
        time.sleep(0.1)
    return time.monotonic() - began


def submit(cluster: "Cluster", output: Path, script: str, *options: str) -> str:
    """Submits as from a login machine, outside the cluster, and returns the job id."""
    command = ["sbatch", "--parsable", f"--output={output}", "--open-mode=append", *options, f"--wrap={script}"]
    environment = {**os.environ, **cluster.env}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def field(cluster: "Cluster", job: str, name: str) -> str:
    """Returns one field of `scontrol show job`."""
    words = cluster.run("scontrol", "show", "job", job).stdout.split()
    return dict(word.split("=", 1) for word in words if "=" in word)[name]


def lines(output: Path) -> int:
    return len(output.read_text().splitlines()) if output.exists() else 0


def finish(cluster: "Cluster", job: str) -> None:
    wait_for(lambda: field(cluster, job, "JobState") == "COMPLETED")


def remains(base: str) -> list[str]:
    """Returns the processes that name the cluster's folder, have it among their mounts or have a file of it open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            told = (process / "cmdline").read_text() + (process / "mountinfo").read_text()
            if base in told or any(str(link.readlink()).startswith(base) for link in (process / "fd").iterdir()):
                found.append(process.name)
    return found


def tell(figure: str) -> None:
    """Prints a measured figure, which pytest shows with -s or -rP."""
    print(figure)  # noqa: T201 - what a person who measures reads


def links() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


@pytest.fixture
def whole(cluster: "Cluster") -> "Iterator[Cluster]":
    """The cluster with all nodes idle, before and after."""
    cluster.wait_idle(timeout=30)
    yield cluster
    cluster.wait_idle(timeout=30)


def test_it_is_up_in_seconds(whole: "Cluster") -> None:
    tell(f"4 nodes idle after {whole.seconds:.1f} s")
    assert whole.seconds < 60
    nodes = whole.run("sinfo", "--noheader", "--partition=train", "--format=%D %T %G").stdout.split()
    assert nodes == ["4", "idle", "gpu:8"]


def test_tasks_get_their_hosts_and_gpus_and_accounts_are_kept(whole: "Cluster", tmp_path: Path) -> None:
    script = "srun bash -c 'echo $SLURM_PROCID $(hostname) $CUDA_VISIBLE_DEVICES $(pwd)'"
    output = tmp_path / "output"
    options = ("--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=2", f"--chdir={tmp_path}")
    job = submit(whole, output, script, *options)
    finish(whole, job)
    first, second = ("n1", "n2") if whole.own_machines else (os.uname().nodename, os.uname().nodename)
    tasks = [f"{rank} {node} 0,1 {tmp_path}" for rank, node in enumerate([first, first, second, second])]
    assert sorted(output.read_text().splitlines()) == tasks
    accounts = ("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}", "--format=State,AllocTRES")
    wait_for(lambda: "COMPLETED" in whole.run(*accounts).stdout, timeout=15)
    assert "gres/gpu=4" in whole.run(*accounts).stdout


def test_a_job_uses_the_same_commands(whole: "Cluster", tmp_path: Path) -> None:
    output, inner = tmp_path / "output", tmp_path / "inner"
    script = (
        f"command -v sbatch; sbatch --wait --output={inner} --wrap=hostname; squeue --me --noheader --format=%i; sacct"
    )
    job = submit(whole, output, script)
    finish(whole, job)
    told = output.read_text()
    assert told.startswith(f"{whole.base}/bin/sbatch\nSubmitted batch job {int(job) + 1}\n{job}\n")
    assert "JobName" in told
    assert inner.read_text()


def test_a_request_beyond_the_partition_is_refused(whole: "Cluster") -> None:
    with pytest.raises(RuntimeError, match=r"must end with 0, but ended with 1: .*Node count specification invalid"):
        whole.run("sbatch", "--nodes=9", "--wrap=true")


def test_daemons_die_and_come_back_and_jobs_go_on(start_cluster: Start, tmp_path: Path) -> None:
    own = start_cluster(tmp_path / "own")  # what it does to a controller must not reach other tests
    try:
        _daemons_die(own, tmp_path)
    finally:
        own.stop()


def _daemons_die(whole: "Cluster", tmp_path: Path) -> None:
    job = submit(whole, tmp_path / "output", f"while [ ! -e {tmp_path}/go ]; do sleep 0.1; done; echo went on")
    wait_for(lambda: field(whole, job, "JobState") == "RUNNING")
    running = time.time()
    whole.run("scontrol", "update", f"JobId={job}", "Comment=kept")  # a change, so that the controller saves the job
    wait_for(lambda: (whole.base / "state/job_state").stat().st_mtime > running, timeout=60)
    whole.kill_dbd()
    assert "Connection refused" in whole.run("sacct", check=False).stderr
    assert whole.run("squeue", "--noheader", "--format=%i").stdout.split() == [job]
    whole.kill_slurmd(int(field(whole, job, "BatchHost").removeprefix("n")))
    whole.kill_controller()
    with pytest.raises(RuntimeError, match=r"slurmctld must run, but has ended: .*slurmdbd and/or database must be up"):
        whole.start_controller()
    whole.start_dbd()
    whole.start_controller()
    whole.start_slurmd(int(field(whole, job, "BatchHost").removeprefix("n")))
    (tmp_path / "go").touch()
    finish(whole, job)
    assert (tmp_path / "output").read_text() == "went on\n"
    assert field(whole, job, "Restarts") == "0"


def test_slurm_requeues_the_job_of_a_node_without_power(whole: "Cluster", tmp_path: Path) -> None:
    script = 'srun hostname; [ "$SLURM_RESTART_COUNT" ] || srun sleep 300'
    job = submit(whole, tmp_path / "output", script, "--nodes=2")
    wait_for(lambda: lines(tmp_path / "output") == 2)
    lost = int(field(whole, job, "BatchHost").removeprefix("n"))
    whole.power_cut(lost)
    if whole.own_machines:
        with pytest.raises(RuntimeError, match=f"n{lost} must run, but has no power; start it first"):
            whole.power_cut(lost)
    seconds = wait_for(lambda: field(whole, job, "Reason") == "BeginTime")
    tell(f"requeued {seconds:.1f} s after the power cut")
    whole.run("scontrol", "update", f"JobId={job}", "StartTime=now")
    finish(whole, job)
    assert field(whole, job, "Restarts") == "1"
    assert f"n{lost}" not in (tmp_path / "output").read_text().split()[2:]
    whole.start_node(lost)
    if whole.own_machines:
        with pytest.raises(
            RuntimeError, match=f"n{lost} must have no power to be started, but runs; cut its power first"
        ):
            whole.start_node(lost)


def test_the_small_file_system_is_the_clusters_alone(whole: "Cluster", tmp_path: Path) -> None:
    if not whole.own_machines:
        pytest.skip("the small file system needs machines of its own, which this machine forbids")
    small = whole.base / "small"
    filled = whole.run("dd", "if=/dev/zero", f"of={small}/filled", "bs=1M", "count=100", check=False)
    assert "No space left on device" in filled.stderr
    job = submit(
        whole,
        tmp_path / "output",
        f"stat --format=%s {small}/filled; head --bytes=1 /dev/zero >{small}/more; rm {small}/filled",
    )
    finish(whole, job)
    size, refused = (tmp_path / "output").read_text().splitlines()
    assert int(size) == 48 * 2**20
    assert refused.endswith("No space left on device")
    assert not list(small.iterdir())


@pytest.mark.parametrize("kind", [[], ["--shared"]], ids=["own machines", "shared machine"])
def test_a_killed_owner_leaves_nothing(whole: "Cluster", kind: list[str]) -> None:
    before = links()
    command = [sys.executable, str(SCRIPT), *kind, "--nodes", "2", "--"]
    job = 'dirname "$(dirname "$SLURM_CONF")"; exec srun --nodes=2 sleep 300'
    owner = subprocess.Popen([*command, "sh", "-c", job], stdout=subprocess.PIPE, text=True)
    assert owner.stdout
    base = owner.stdout.readline().strip()
    environment = {**os.environ, "PATH": f"{base}/bin:{os.environ['PATH']}"}
    queue = ["squeue", "--noheader", "--states=RUNNING"]
    wait_for(lambda: subprocess.run(queue, env=environment, capture_output=True, check=True).stdout)
    owner.send_signal(signal.SIGKILL)
    seconds = wait_for(lambda: not remains(base) and not Path(base).exists(), timeout=20)
    tell(f"nothing left {seconds:.1f} s after kill -9")
    assert links() == before
    assert owner.wait() == -signal.SIGKILL
    owner.stdout.close()


def test_the_command_line_gives_the_commands_exit_code(whole: "Cluster") -> None:
    command = [sys.executable, str(SCRIPT), "--nodes", "1", "--", "sh", "-c", "srun --gpus=1 env; exit 7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 7, done.stderr
    assert "CUDA_VISIBLE_DEVICES=0\n" in done.stdout


def test_32_nodes_with_256_gpus(start_cluster: Start, tmp_path: Path) -> None:
    big = start_cluster(tmp_path / "big", nodes=32, preempt_signal=True)
    try:
        assert "preempt_send_user_signal" in big.run("scontrol", "show", "config").stdout
        tell(f"32 nodes idle after {big.seconds:.1f} s")
        assert big.seconds < 90
        options = ("--nodes=32", "--ntasks-per-node=8", "--gpus-per-node=8", "--wait")
        job = submit(big, tmp_path / "output", "srun printenv SLURM_PROCID", *options)
        assert sorted(map(int, (tmp_path / "output").read_text().split())) == list(range(256))
        accounts = ("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}", "--format=AllocTRES")
        wait_for(lambda: "gres/gpu=256" in big.run(*accounts).stdout, timeout=15)
    finally:
        big.stop()
    assert remains(str(tmp_path / "big")) == []


def test_nodes_that_share_this_machine(cluster_module: ModuleType, start_cluster: Start, tmp_path: Path) -> None:
    shared = start_cluster(tmp_path / "shared", nodes=2, gpus=2, accounting=False, own_machines=False)
    try:
        assert not shared.own_machines
        output = tmp_path / "output"
        submit(shared, output, "srun bash -c 'echo $SLURMD_NODENAME $$; sleep 300'", "--nodes=2")
        wait_for(lambda: lines(output) == 2)
        tasks = dict(line.split() for line in output.read_text().splitlines())
        shared.power_cut(2)
        alive = {name: cluster_module.machines.runs(int(pid)) for name, pid in tasks.items()}
        assert alive == {"n1": True, "n2": False}
    finally:
        shared.stop()
    assert remains(f"{tmp_path}/shared") == []


def test_without_slurm_tests_are_skipped_but_never_in_continuous_integration(
    cluster_module: ModuleType, start_cluster: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module.machines, "PLACES", "/nowhere")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="these are missing: sbatch, squeue"):
        start_cluster(tmp_path)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(RuntimeError, match="these are missing: sbatch, squeue"):
        start_cluster(tmp_path)


def test_a_forbidden_namespace_is_named(
    cluster_module: ModuleType, start_cluster: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr(cluster_module.machines, "NAMESPACES", ["--no-such-namespace"])
    reason = "namespaces must be allowed for machines of their own, but are not: "
    with pytest.raises(RuntimeError, match=reason):
        start_cluster(tmp_path / "own", own_machines=True)
    monkeypatch.setattr(cluster_module.config, "munged", lambda _: ["false"])
    monkeypatch.setattr(cluster_module.machines.wait_for, "__kwdefaults__", {"log": None, "timeout": 0.2})
    with pytest.raises(RuntimeError, match=f"{reason}.*; nor do nodes that share it start: munged listens: must be so"):
        start_cluster(tmp_path / "shared")


def test_what_is_missing_is_named(cluster_module: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(
        RuntimeError, match=r"must have its programs .* missing: nosuch1, nosuch2; run: make slurm-pack"
    ):
        cluster_module.machines.find_programs(["sh", "nosuch1", "nosuch2"])
    (tmp_path / "file").touch()
    with pytest.raises(RuntimeError, match=r"base: must be an empty folder, but .* has files; take a new one"):
        cluster_module.make_folders(tmp_path)
    with pytest.raises(RuntimeError, match="base: must be 80 letters at most, none of them special, but is"):
        cluster_module.make_folders(tmp_path / "with space")
    (tmp_path / "log").write_text("told why\n")
    with pytest.raises(RuntimeError, match="this: must be so within 0 s, but is not: told why"):
        cluster_module.machines.wait_for(lambda: False, "this", log=tmp_path / "log", timeout=0)

"""One pretended node, for the tests of what is checked before the first step."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

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
    outside = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "CUDA_VISIBLE"))}
    environment = {**outside, "PYTHONPATH": str(ROOT), "SLURMD_NODENAME": name, **(variables or {})}
    done = subprocess.run(
        [*(OWN if alone else ()), *command], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout + done.stderr


def told(attempt: Path, name: str = "n1") -> dict[str, Any]:
    found: dict[str, Any] = read_json(attempt / "preflight" / f"{name}.json")
    return found


def lines(attempt: Path, name: str = "n1") -> list[str]:
    return [problem["line"] for problem in told(attempt, name)["problems"]]

"""What the Slurm benchmarks stand on: clusters, and the commands of medscale and of those it is compared with."""

import importlib.util
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = "snakemake-executor-plugin-slurm==2.8.0"
WORK = "medscale_benchmark=1"
"""What the jobs of others run with python -c; found again by this text."""
RUN = """base: demo
prepare:
  sources: [{name: care, modality: text, path: corpus/samples/care.jsonl, license: Apache-2.0}]
evaluate: {benchmarks: [text_continuation]}
"""


@contextmanager
def clusters(base: Path) -> Iterator[Callable[[], Any]]:
    """Yields a function that starts a new cluster, the last one having ended, and points Slurm's commands to it."""
    module: Any = _by_path("cluster", ROOT / "tests/slurm/cluster.py")
    before, running = dict(os.environ), list[Any]()

    def stop() -> None:
        for one in running:
            one.stop()
        running.clear()
        os.environ.update(before)

    def start() -> Any:
        stop()
        running.append(module.Cluster.start(Path(tempfile.mkdtemp(prefix="cluster-", dir=base))))
        os.environ.update(running[0].env)
        return running[0]

    try:
        yield start
    finally:
        stop()


def _by_path(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path}: must be a Python file, but is none; restore it")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_peer(folder: Path) -> Path:
    """Makes a virtual environment with this Snakemake and its Slurm plugin, and returns its Python."""
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    wanted = [f"snakemake=={version('snakemake')}", PLUGIN]
    subprocess.run([uv, "pip", "install", "--quiet", "--python", str(folder / "bin/python"), *wanted], check=True)
    return folder / "bin/python"


def work(python: str | Path) -> str:
    """Returns a shell command whose Python does nothing."""
    return shlex.join([str(python), "-c", WORK])


def sbatch(command: str, *, wait: bool = True) -> list[str]:
    """Returns sbatch of a shell command."""
    size = ["--partition=train", "--time=5", "--mem=1000", "--output=/dev/null"]
    return ["sbatch", *(["--wait"] if wait else []), *size, f"--wrap={command}"]


def workflow(folder: Path, command: str, *, jobs: int = 1) -> list[str]:
    """Writes a workflow of `jobs` jobs that run `command`, and returns Snakemake's options for it."""
    done = [f"{number}.done" for number in range(jobs)]
    probe = f'rule probe:\n    output: "{{number}}.done"\n    shell: {command + " && touch {output}"!r}\n'
    (folder / "Snakefile").write_text(probe)
    return ["--snakefile", str(folder / "Snakefile"), "--directory", str(folder), *done]


def plugin_options(*, jobs: int, init_s: int | None = None) -> list[str]:
    """Returns Snakemake's options for its Slurm plugin; account and partition are given, not looked for."""
    size = ["slurm_partition=train", "slurm_account=medscale", "runtime=5", "mem_mb=1000"]
    soon = [] if init_s is None else ["--slurm-init-seconds-before-status-checks", str(init_s)]
    return ["--executor", "slurm", "--jobs", str(jobs), "--default-resources", *size, *soon]


def write_run(folder: Path, name: str) -> Path:
    """Writes a run whose stage prepare reads one small file."""
    path = folder / f"{name}.yaml"
    path.write_text(RUN)
    return path


def write_site(folder: Path, *, poll_s: float) -> Path:
    """Writes a site that is the test cluster asked every `poll_s` seconds."""
    path = folder / "overhead-site.yaml"
    site = yaml.safe_load((ROOT / "slurm/sites/cluster-test.yaml").read_text())
    path.write_text(yaml.safe_dump({**site, "poll_s": poll_s}))
    return path


def stage_command(run: Path, *, site: str, results: Path) -> list[str]:
    """Returns the command that a rule calls for the stage prepare of `run`."""
    where = ["--run", str(run), "--site", site, "--results", str(results)]
    return [sys.executable, "-m", "jobs", "prepare", *where]


def stage_options(folder: Path, run: Path, *, site: str, results: Path) -> list[str]:
    """Returns Snakemake's options that make the stage prepare of `run` by the real workflow, and nothing after it."""
    real = ["--snakefile", str(ROOT / "Snakefile"), "--workflow-profile", str(ROOT / "workflows/profiles/local")]
    config = [f"run={run}", f"site={site}", f"results={results}"]
    return [*real, "--directory", str(folder), f"{results}/{run.stem}/prepare/record.json", "--config", *config]


def snakemake_command(python: str | Path, options: Sequence[str]) -> list[str]:
    """Returns the command that starts an environment's Snakemake."""
    return [str(python), "-m", "snakemake", *options]

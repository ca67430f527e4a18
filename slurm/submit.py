"""Starting a job through submitit: one code path for a laptop and for Slurm.

submitit writes the batch script, and the logs' names; what its script runs is slurm/rank.py, so the pickle that
submitit leaves beside it is never read (docs/decisions/0009-no-pickle-in-a-job.md).
"""

import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from slurm.files import write_json
from slurm.resources import Resources, Spread
from slurm.site import Purpose, Site

ROOT = Path(__file__).resolve().parents[1]
_PRIVATE = 0o700
_SRUN = {
    "one": (),
    "nodes": ("--kill-on-bad-exit=0", "--wait=0"),  # the others score on when a node is lost
    "ranks": ("--kill-on-bad-exit=1", "--wait=1800"),  # one rank's death ends the job
}
_UNREACHABLE = re.compile(r"contact|timed out|connect|communication|temporar|try again|not responding", re.IGNORECASE)
_OWN = ("nodes", "time", "job-name", "ntasks-per-node")  # submitit computes with these


class SubmitError(Exception):
    """sbatch refused the job: what it said, in one line."""


class UnreachableError(SubmitError):
    """sbatch did not reach the controller, or got no answer: the job may be queued or not."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One job to start.

    Attributes:
        module: the module that each process runs, with `attempt` as its only argument.
        attempt: a folder of this submission alone; it is made private, and the processes' logs go there.
        name: the job's name, `<run>.<stage>`.
        token: what tells this submission from all others; it travels in the job's comment.
        digest: of what is asked for.
        done: a file that is there when the work is done, whoever did it.
        held: a file that is there when the stage is cancelled.
        results: the folder that all nodes must see.
    """

    module: str
    attempt: Path
    name: str
    token: str
    digest: str
    done: Path
    held: Path
    results: Path
    resources: Resources
    site: Site
    purpose: Purpose
    spread: Spread

    @property
    def comment(self) -> str:
        """What people and medscale know the job by."""
        run, _, stage = self.name.rpartition(".")
        return f"medscale run={run} stage={stage} attempt={self.token} digest={self.digest[:12]}"

    def spec(self) -> dict[str, Any]:
        """Returns what the processes of the job must know, as JSON values."""
        site, asked = self.site, self.resources
        return {
            "name": self.name,
            "module": self.module,
            "token": self.token,
            "digest": self.digest,
            "done": str(self.done.resolve()),
            "held": str(self.held.resolve()),
            "results": str(self.results.resolve()),
            "root": str(ROOT),
            "tasks": asked.world_size,
            "nodes": asked.nodes,
            "gpus_per_node": asked.gpus_per_node,
            "cpus_per_task": asked.cpus_per_task,
            "timeout_min": asked.timeout_min,
            "purpose": self.purpose,
            "partition": site.options(self.purpose).partition,
            "executor": site.executor,
            "meet": _free_address() if site.executor == "local" else None,
            "continuation": site.continuation,
            "signal_lead_s": site.signal_lead_s,
            "accounting": site.accounting,
            "max_tries": site.policies.max_tries,
            "policies": site.policies.model_dump(mode="json"),
            "environment": environment(site),
            "network_interface": site.network_interface,
            "scratch": site.scratch,
            "mlflow_tracking_uri": site.mlflow_tracking_uri,
        }


def submit(asked: Submission) -> "submitit.Job[None]":
    """Starts `python -m module attempt` as `resources.world_size` processes and returns at once.

    Raises:
        UnreachableError: the controller did not answer; look for the token before trying again.
        SubmitError: sbatch refused the job.
    """
    asked.attempt.mkdir(parents=True, exist_ok=True, mode=_PRIVATE)
    asked.attempt.chmod(_PRIVATE)
    write_json(asked.attempt / "spec.json", asked.spec())
    kind = submitit.SlurmExecutor if asked.site.executor == "slurm" else submitit.LocalExecutor
    rank = shlex.join([*_inside(asked.site), "-u", "-m", "slurm.rank", asked.module, str(asked.attempt)])
    executor = kind(asked.attempt / "submitit", python=rank)
    executor.update_parameters(**(_slurm(asked) if asked.site.executor == "slurm" else _local(asked)))
    try:
        return executor.submit(_never_called)
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        said = _said(str(error))
        raise (UnreachableError if _UNREACHABLE.search(said) else SubmitError)(said) from error


def environment(site: Site) -> dict[str, str]:
    """Returns the variables of every process: the site's own, and those that its other settings mean."""
    interface = {"NCCL_SOCKET_IFNAME": site.network_interface, "GLOO_SOCKET_IFNAME": site.network_interface}
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
    derived = {name: value for name, value in interface.items() if value} | (offline if site.offline else {})
    return {**derived, **site.environment}


def log_paths(attempt: Path) -> list[Path]:
    """Returns the log files of an attempt's processes, rank 0 first."""
    found = [*attempt.glob("submitit/*_log.out"), *attempt.glob("submitit/*_log.err")]
    return sorted(
        found, key=lambda path: (path.suffix == ".err", [int(part) for part in re.findall(r"\d+", path.name)])
    )


def refusal(asked: Submission) -> str | None:
    """Asks the controller whether it could ever run this job (sbatch --test-only); returns what it refuses, or None.

    A controller that does not answer refuses nothing.
    """
    options = asked.resources.sbatch_options(asked.site, name=asked.name, purpose=asked.purpose)
    command = ["sbatch", "--test-only", *flags(options), "--wrap=true"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=15)
    except (OSError, subprocess.SubprocessError):
        return None
    said = _said(done.stderr)
    return None if done.returncode == 0 or _UNREACHABLE.search(said) else said


def flags(options: dict[str, Any]) -> list[str]:
    """Returns sbatch options as people type them."""
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()]


def _slurm(asked: Submission) -> dict[str, Any]:
    site = asked.site
    options = asked.resources.sbatch_options(asked.site, name=asked.name, purpose=asked.purpose, comment=asked.comment)
    return {
        "job_name": asked.name,
        "nodes": asked.resources.nodes,
        "ntasks_per_node": asked.resources.tasks_per_node,
        "time": asked.resources.timeout_min,
        "signal_delay_s": asked.site.signal_lead_s,
        "wckey": None,
        "stderr_to_stdout": True,
        "additional_parameters": {name: value for name, value in options.items() if name not in _OWN},
        "setup": _setup(asked),
        "srun_args": [
            *_SRUN[asked.spread],
            f"--cpus-per-task={asked.resources.cpus_per_task}",
            *site.srun,
            *_pyxis(site),
        ],
        "teardown": ["status=$?", f'exec {_batch(asked, "end")} "$status"'],
    }


def _setup(asked: Submission) -> list[str]:
    """Returns the lines before the ranks start: whether they may, and whether every node can."""
    lines = ["trap : TERM USR2 # for the ranks; this script lives on to requeue", f"cd {shlex.quote(str(ROOT))}"]
    lines += [_loaded(asked, name) for name in asked.site.modules]
    lines.append(f'{_batch(asked, "begin")} "$0" || exit $(($? % 100)) # 100: nothing is left to do')
    if asked.spread != "one" and (asked.resources.world_size > 1 or asked.resources.gpus_per_node):
        judge = shlex.join([_python(asked.site), "-m", "slurm.preflight", "--judge", str(asked.attempt)])
        lines += [shlex.join(_checks(asked)), f"{judge} || exec {_batch(asked, 'end')} preflight"]
    return lines


def _loaded(asked: Submission, module: str) -> str:
    """Returns the line that loads an environment module, or ends the attempt with that reason."""
    load = shlex.join(["module", "load", module])
    return f"{load} || exec {_batch(asked, 'end')} {shlex.quote(load)}"


def _checks(asked: Submission) -> list[str]:
    """Returns the command that looks at each node, with one process that may use all that the node's tasks have."""
    size, site = asked.resources, asked.site
    per_task = site.gpu_request == "gpus-per-task" and size.gpus_per_node
    gpus = [f"--gpus-per-node={size.gpus_per_node}"] if per_task else []
    cpus = [f"--cpus-per-task={size.tasks_per_node * size.cpus_per_task}", "--cpu-bind=none"]
    nodes = ["--ntasks-per-node=1", f"--ntasks={size.nodes}"]
    limit = ["timeout", "--kill-after=30", "600"]  # a node whose disk hangs must not hold all the others
    check = [*_inside(site), "-m", "slurm.preflight", str(asked.attempt)]
    return [*limit, "srun", *nodes, *cpus, *gpus, *_pyxis(site), *check]


def _batch(asked: Submission, step: str) -> str:
    return shlex.join([_python(asked.site), "-m", "slurm.requeue", step, str(asked.attempt)])


def _python(site: Site) -> str:
    return site.python or sys.executable


def _inside(site: Site) -> Sequence[str]:
    """Returns the command that runs Python where ranks run: in the site's image, if it has one."""
    image = site.container
    if image is None:
        return [_python(site)]
    if image.runtime == "pyxis":
        return [image.python]
    mounts = [word for mount in image.mounts for word in ("--bind", mount)]
    return ["apptainer", "exec", "--nv", *mounts, image.image, image.python]


def _pyxis(site: Site) -> list[str]:
    image = site.container
    if image is None or image.runtime != "pyxis":
        return []
    mounts = [f"--container-mounts={','.join(image.mounts)}"] if image.mounts else []
    return [f"--container-image={image.image}", *mounts, f"--container-workdir={ROOT}"]


def _local(asked: Submission) -> dict[str, Any]:
    names = ("nodes", "tasks_per_node", "gpus_per_node", "timeout_min")
    return {name: getattr(asked.resources, name) for name in names}


def _free_address() -> list[str]:
    """Chooses where the ranks of this machine meet; on Slurm the job itself knows its first node."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return ["127.0.0.1", str(probe.getsockname()[1])]


def _said(text: str) -> str:
    """Returns the last thing that sbatch said, in one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("sbatch:")] or lines[-1:]
    return " ".join(line.removeprefix("sbatch: ").removeprefix("error: ") for line in told)


def _never_called() -> None:
    """Stands where submitit expects a function; slurm/rank.py runs in its place."""

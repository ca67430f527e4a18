"""Starting a job through submitit: one code path for a laptop and for Slurm.

submitit pickles only the name of a module and a path; results travel as JSON that the job writes itself,
because a result pickle in a shared folder is code that anyone who can write there could plant.
"""

import os
import runpy
import socket
import sys
from pathlib import Path
from typing import Any

import submitit

from slurm.resources import Resources
from slurm.site import Site

_PRIVATE = 0o700


def submit(module: str, attempt: Path, *, name: str, resources: Resources, site: Site) -> "submitit.Job[None]":
    """Starts `python -m module attempt` as `resources.world_size` processes and returns at once.

    Args:
        module: the module each process runs, with `attempt` as its only argument.
        attempt: a folder of this attempt alone; it is made private, and the processes' logs go there.
        name: the job's name, `<run>.<stage>`.
        resources: nodes, tasks, GPUs and time.
        site: where to run.
    """
    attempt.mkdir(parents=True, exist_ok=True, mode=_PRIVATE)
    attempt.chmod(_PRIVATE)
    executor = submitit.AutoExecutor(folder=attempt / "submitit", cluster=site.executor)
    executor.update_parameters(**_parameters(name, resources=resources, site=site))
    environment, address = dict(site.environment), _local_address(site)
    return executor.submit(enter, module, str(attempt), environment=environment, address=address)


def enter(module: str, attempt: str, *, environment: dict[str, str], address: dict[str, str]) -> None:
    """Runs inside each process of the job: names the rank in torch's own variables and runs `module`."""
    job = submitit.JobEnvironment()
    os.environ.update(environment)
    os.environ.update(
        RANK=str(job.global_rank),
        WORLD_SIZE=str(job.num_tasks),
        LOCAL_RANK=str(job.local_rank),
        LOCAL_WORLD_SIZE=str(job.num_tasks // job.num_nodes),
        **(address or _slurm_address(job)),
    )
    sys.argv = [module, attempt]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def log_paths(attempt: Path) -> list[Path]:
    """Returns the log files of an attempt's processes, rank 0 first."""
    return sorted(attempt.glob("submitit/*_log.out")) + sorted(attempt.glob("submitit/*_log.err"))


def _parameters(name: str, *, resources: Resources, site: Site) -> dict[str, Any]:
    common = {
        "nodes": resources.nodes,
        "tasks_per_node": resources.tasks_per_node,
        "gpus_per_node": resources.gpus_per_node,
        "timeout_min": resources.timeout_min,
    }
    if site.executor == "local":
        return common
    options = {key: getattr(site, key) for key in ("partition", "account", "qos", "constraint")}
    chosen = {f"slurm_{key}": value for key, value in options.items() if value is not None}
    memory = {} if resources.mem_gb is None else {"mem_gb": resources.mem_gb}
    return {**common, **chosen, **memory, "name": name, "cpus_per_task": resources.cpus_per_task}


def _local_address(site: Site) -> dict[str, str]:
    """Chooses a free port of this machine; on Slurm the job itself knows its first node."""
    if site.executor != "local":
        return {}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}


def _slurm_address(job: submitit.JobEnvironment) -> dict[str, str]:
    """Derives the rendezvous from the job id, so that all ranks agree without talking."""
    return {"MASTER_ADDR": job.hostnames[0], "MASTER_PORT": str(10_000 + int(job.job_id) % 20_000)}

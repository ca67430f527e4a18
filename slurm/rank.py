"""One process of a job: named in torch's own variables, then the module that it is here for runs in it.

`python -m slurm.rank MODULE ATTEMPT ...`: what follows is submitit's own command line, which this stands in front of.
"""

import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from slurm.files import read_json


def main(module: str, attempt: Path) -> None:
    """Runs `module` as this rank of the job."""
    spec = read_json(attempt / "spec.json")
    os.environ.update(spec["environment"])
    here = _slurm() if spec["executor"] == "slurm" else _local(spec["meet"])
    os.environ.update(here)
    if spec["scratch"]:
        os.environ.update(_caches(Path(spec["scratch"]), here["RANK"]))
    sys.argv = [module, str(attempt)]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _slurm(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Names the rank from Slurm's variables; the meeting point follows from the job, so ranks agree without talking."""
    from slurm import queue

    job = int(environment["SLURM_JOB_ID"])
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_NTASKS"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": environment["SLURM_STEP_TASKS_PER_NODE"].split("(")[0],
        "MASTER_ADDR": queue.hosts(environment["SLURM_STEP_NODELIST"])[0],
        "MASTER_PORT": str(10_000 + job % 20_000),
    }


def _local(meet: Sequence[str], environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    return {
        "RANK": environment["SUBMITIT_LOCAL_GLOBALID"],
        "WORLD_SIZE": environment["SUBMITIT_LOCAL_NTASKS"],
        "LOCAL_RANK": environment["SUBMITIT_LOCAL_LOCALID"],
        "LOCAL_WORLD_SIZE": environment["SUBMITIT_LOCAL_NTASKS"],
        "MASTER_ADDR": meet[0],
        "MASTER_PORT": meet[1],
    }


def _caches(scratch: Path, rank: str) -> dict[str, str]:
    """Keeps temporary files on the node's own disk, and each rank's compiler caches apart."""
    folder = scratch / f"medscale-{os.environ.get('SLURM_JOB_ID', os.getpid())}"
    names = {"TORCHINDUCTOR_CACHE_DIR": f"inductor{rank}", "TRITON_CACHE_DIR": f"triton{rank}"}
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {"TMPDIR": str(folder), **{name: str(folder / value) for name, value in names.items()}}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

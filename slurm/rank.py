"""One process of a job: named in torch's own variables, then the module that it is here for runs in it.

`python -m slurm.rank MODULE ATTEMPT ...`: what follows is submitit's own command line, which this stands in front of.
"""

import os
import runpy
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from slurm.files import read_json


def main(module: str, attempt: Path) -> None:
    """Runs `module` as this rank of the job."""
    spec = read_json(attempt / "spec.json")
    os.environ.update(spec["environment"])
    here = _slurm() if spec["executor"] == "slurm" else _local(spec["meet"])
    os.environ.update(here)
    sys.argv = [module, str(attempt)]
    with _temporary_files(spec["scratch"], here):
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


@contextmanager
def _temporary_files(scratch: str | None, here: Mapping[str, str]) -> Iterator[None]:
    """Keeps temporary files on the node's own disk, where a site names one, and each rank's compiler caches apart."""
    if scratch is None:
        yield
        return
    folder = Path(scratch) / f"medscale-{os.environ.get('SLURM_JOB_ID', os.getppid())}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    names = {"TORCHINDUCTOR_CACHE_DIR": f"inductor{here['RANK']}", "TRITON_CACHE_DIR": f"triton{here['RANK']}"}
    os.environ.update({"TMPDIR": str(folder), **{name: str(folder / value) for name, value in names.items()}})
    try:
        yield
    finally:
        if here["LOCAL_RANK"] == "0":
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

"""What Slurm says of jobs, and what it is asked to do with them: squeue first, sacct only for how a job ended.

Every call has a time limit. A controller that does not answer gives None: then nothing is known, and a caller that does
not know changes nothing.
"""

import getpass
import json
import os
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from slurm.files import write_atomic

_LIVE = (
    "PENDING CONFIGURING RUNNING COMPLETING SUSPENDED STOPPED REQUEUED REQUEUE_FED REQUEUE_HOLD RESIZING SIGNALING "
    "SPECIAL_EXIT STAGE_OUT RESV_DEL_HOLD"
)
LIVE = frozenset(_LIVE.split())
"""States of a job that runs or may still run."""
Standing = Literal["runs", "cancelled", "out of time", "replaced"]
"""Of one execution: it is the job's own; the job was cancelled, or ended by its limit; or Slurm has ended it (the job
is COMPLETING, and why shows later) and perhaps begun another."""
_TIMEOUT_S = 15.0
_FIELDS = ("%i", "%T", "%r", "%N", "%j", "%S", "%e", "%k")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job of this user, as squeue shows it.

    Attributes:
        state: Slurm's word, such as PENDING or RUNNING; ended jobs stay in view for some minutes.
        reason: why it waits, or how it ended.
        nodes: as Slurm writes them, n[1-4].
        start: when it started, or is expected to; "N/A" when unknown.
        end: when it ends at the latest.
        comment: what it was submitted with; names run, stage and attempt.
    """

    id: str
    state: str
    reason: str
    nodes: str
    name: str
    start: str
    end: str
    comment: str

    @property
    def live(self) -> bool:
        """Whether it runs or may still run."""
        return self.state in LIVE


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a job ended: Slurm's state without what follows it, and who cancelled it where it was cancelled."""

    state: str
    by: str = ""


def ask(*command: str, timeout_s: float = _TIMEOUT_S) -> str | None:
    """Returns what a command of Slurm prints; None when it fails, hangs or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=timeout_s)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def jobs(*, max_age_s: float = 0.0, cache: Path | None = None) -> list[Job] | None:
    """Returns this user's jobs in squeue, ended ones included as long as Slurm shows them; None without an answer.

    Args:
        max_age_s: how old an answer may be.
        cache: a file that commands of one results folder share, so that many waiting ones ask once.
    """
    if cache is None:
        return _asked()
    found = _cached(cache, max_age_s)
    if found is None:
        found = _asked()
        if found is not None:
            write_atomic(cache, json.dumps({"time": time.time(), "jobs": [asdict(job) for job in found]}))
    return found


def _asked() -> list[Job] | None:
    text = ask("squeue", "--noheader", "--states=all", f"--user={getpass.getuser()}", "--format=" + "|".join(_FIELDS))
    return None if text is None else [_job(line) for line in text.splitlines() if line.count("|") >= len(_FIELDS) - 1]


def _job(line: str) -> Job:
    names = ("id", "state", "reason", "nodes", "name", "start", "end", "comment")
    return Job(**dict(zip(names, line.split("|", maxsplit=len(names) - 1), strict=True)))


def _cached(cache: Path, max_age_s: float) -> list[Job] | None:
    try:
        known = json.loads(cache.read_bytes())
        fresh = 0 <= time.time() - known["time"] <= max_age_s
        return [Job(**job) for job in known["jobs"]] if fresh else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def ending(job_id: str, *, accounting: bool = True) -> Ending | None:
    """Returns how a job ended, from squeue or scontrol while Slurm remembers it, else from sacct; None if neither says.

    A job that runs again gives the state of its newest execution.
    """
    shown = ask("scontrol", "show", "job", job_id, "--oneliner")
    state = re.search(r"\bJobState=(\S+)", shown or "")
    found = Ending(state=state[1]) if state else None
    if accounting and (found is None or found.state == "CANCELLED"):
        found = _accounted(job_id) or found
    return found


def _accounted(job_id: str) -> Ending | None:
    columns = ("--noheader", "--parsable2", "--allocations", "--format=JobID,State%40")
    text = ask("sacct", "--jobs", job_id, *columns) or ""
    states = [line.split("|")[1] for line in text.splitlines() if line.startswith(f"{job_id}|")]
    if not states:
        return None
    word, _, rest = states[-1].partition(" ")
    return Ending(state=word, by=rest.removeprefix("by ").strip())


def standing(job_id: str, *, restart: int) -> Standing | None:
    """Returns what the controller thinks of an execution of a job; None without an answer.

    Args:
        job_id: the job.
        restart: how often it had been requeued when this execution began.
    """
    shown = ask("scontrol", "show", "job", job_id, "--oneliner")
    if shown is None:
        return None
    known = dict(re.findall(r"\b(JobState|Restarts)=(\w+)", shown))
    if known.get("JobState") == "CANCELLED":
        return "cancelled"
    if known.get("Restarts") != str(restart):
        return "replaced"
    return (
        "runs"
        if known.get("JobState") == "RUNNING"
        else "out of time"
        if known["JobState"] == "TIMEOUT"
        else "replaced"
    )


def requeue(job_id: str, *, ended: bool = False) -> bool:
    """Puts a running job back into the queue under the same id; never one that has been cancelled.

    Args:
        job_id: the job.
        ended: whether it is one that Slurm has ended, by its time limit.
    """
    which = [] if ended else ["Incomplete"]
    return ask("scontrol", "requeue", *which, job_id) is not None


def update(job_id: str, *settings: str) -> bool:
    """Changes settings of a job, such as StartTime=now; tells whether the controller took it."""
    return ask("scontrol", "update", f"JobId={job_id}", *settings) is not None


def cancel(*job_ids: str) -> bool:
    """Cancels jobs; tells whether the controller took it. One that has ended is no error."""
    return ask("scancel", *job_ids) is not None


def submit_again(script: Path, *options: str) -> str | None:
    """Submits a batch script once more and returns the new job's id; None when it was not taken."""
    text = ask("sbatch", "--parsable", *options, str(script), timeout_s=60)
    return text.strip().split(";")[0] if text else None


def hosts(nodes: str) -> list[str]:
    """Returns the names in a list of nodes as Slurm writes it; the text itself when the controller is silent."""
    text = ask("scontrol", "show", "hostnames", nodes) if "[" in nodes or "," in nodes else nodes
    return (text or nodes).split()


def allocation() -> list[str]:
    """Returns the nodes of the job that this process runs in."""
    return hosts(os.environ.get("SLURM_JOB_NODELIST", ""))


def spare_nodes(partition: str | None, *, without: Sequence[str]) -> int:
    """Returns how many nodes of a partition can work, those of `without` left out; 0 when the controller is silent."""
    where = [f"--partition={partition}"] if partition else []
    shown = ask("sinfo", "--noheader", "--Node", "--responding", *where, "--format=%N %t") or ""
    able = {line.split()[0] for line in shown.splitlines() if re.match(r"idle|mix|alloc|comp", line.split()[1])}
    return len(able - set(without))

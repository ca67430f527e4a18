"""`python -m jobs cancel` and `release`: a cancelled stage stays so, whoever starts the workflow, until it is released.

The marks come first, then jobs are ended: one that is requeued or started in between finds its mark and leaves. A run
is known by its name alone: one whose files do not plan any more can still be cancelled.
"""

import getpass
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from jobs import _processes
from jobs._run import stages as all_stages
from jobs._states import live, needs_slurm, of_attempt
from slurm import ledger, queue
from slurm.files import write_json
from slurm.ledger import Attempt
from slurm.queue import Job

_GRACE_S = 5.0  # how long a process of this machine is watched after it was asked to end


@dataclass(frozen=True, kw_only=True)
class _Target:
    """A stage to cancel: the ids that are ended are those it keeps and those that Slurm shows."""

    stage: str
    folder: Path
    attempt: Attempt | None
    job_ids: tuple[str, ...]
    processes: int

    @property
    def goes_on(self) -> bool:
        """Whether it is unfinished and something of it runs or may still run."""
        over = self.attempt is None or self.attempt.verdict is not None
        return not over and bool(self.job_ids or self.processes)

    @property
    def what(self) -> str:
        """Returns what ends, in a few words."""
        if self.job_ids:
            return f"job {', '.join(self.job_ids)}"
        return f"its {self.processes} processes" if self.processes else "no job"


def cancel(
    run: str,
    *,
    results: Path,
    stages: Sequence[str] = (),
    yes: bool = False,
    ask: Callable[[], list[Job] | None] = queue.jobs,
    end: Callable[..., bool] = queue.cancel,
) -> int:
    """Cancels stages and ends their jobs; prints a line for each.

    Args:
        run: the run's name.
        results: the folder of results.
        stages: which; those with a live job unless given.
        yes: do not ask.
        ask: asks Slurm for this user's jobs.
        end: ends jobs of Slurm by their ids; tells whether the controller took it.

    Returns:
        The exit status: 0 done or nothing to do, 1 a job may go on or the person said no, 2 no such run or stage.
    """
    if _unknown(results / run, stages):
        return 2
    answer = ask() if needs_slurm(results / run, all_stages()) else []
    found = [_target(results / run / name, answer) for name in stages or all_stages()]
    targets = [target for target in found if stages or target.goes_on]
    if not targets:
        print(f"{run}: nothing to cancel; no stage has a job")
        return 0
    told = "; ".join(f"{target.stage} ({target.what})" for target in targets)
    if not yes and not _agrees(f"cancel {told}? [y/N] "):
        print("nothing was cancelled")
        return 1
    for target in targets:
        _hold(run, target)
    ended = [_end(target, end, silent=answer is None) for target in targets]
    return 0 if all(ended) else 1


def release(run: str, *, results: Path, stages: Sequence[str] = ()) -> int:
    """Lets cancelled stages start again, all of them unless some are named; prints a line for each.

    Returns:
        The exit status: 0, or 2 when there is no such run or stage.
    """
    if _unknown(results / run, stages):
        return 2
    held = [name for name in stages or all_stages() if (results / run / name / "held.json").exists()]
    for name in held:
        (results / run / name / "held.json").unlink(missing_ok=True)
        print(f"{name}: released; start the workflow again to go on")
    for name in set(stages) - set(held):
        print(f"{name}: was not held")
    if not held and not stages:
        print(f"{run}: no stage is held")
    return 0


def _target(folder: Path, answer: Sequence[Job] | None) -> _Target:
    """Returns the jobs of a stage that are live; while the controller is silent, those that may be."""
    attempt = ledger.latest(folder)
    shown = of_attempt(attempt, answer)
    local = attempt is not None and attempt.executor == "local"
    may_live = attempt.job_ids if attempt and shown is None and attempt.verdict is None else ()
    return _Target(
        stage=folder.name,
        folder=folder,
        attempt=attempt,
        job_ids=tuple(job.id for job in live(shown)) or may_live,
        processes=len(_processes.find(attempt.path)) if attempt and local else 0,
    )


def _end(target: _Target, end: Callable[..., bool], *, silent: bool) -> bool:
    """Ends what runs of a stage and says how that went; tells whether nothing of it goes on."""
    ended = f"{target.stage}: held; {target.what}"
    if target.job_ids:
        taken = end(*target.job_ids)
        print(f"{ended} {'cancelled' if taken else 'NOT cancelled: Slurm did not answer; run this command again'}")
        return taken
    if silent and target.attempt is not None and target.attempt.verdict is None:
        print(f"{ended} is known, and Slurm did not answer; run this command again")
        return False
    if target.attempt is not None and target.processes:
        left = _terminate(target.attempt.path)
        print(f"{ended} {'ended' if not left else f'asked to end; {left} still save their state'}")
        return True
    print(f"{ended} to end")
    return True


def _hold(run: str, target: _Target) -> None:
    """Marks a stage as cancelled; one that is marked keeps its mark."""
    path = target.folder / "held.json"
    if path.exists():
        return
    who, ids = _user(), ", ".join(target.job_ids)
    reason = f"cancelled by {who} with python -m jobs cancel {run}"
    write_json(path, {"by": "operator", "time": time.time(), "job_id": ids, "reason": reason})


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        return "an operator"


def _terminate(attempt: Path) -> int:
    """Asks the processes of an attempt on this machine to end; returns how many are still at it a little later."""
    import psutil

    asked = _processes.find(attempt)
    for process in asked:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
    return len(psutil.wait_procs(asked, timeout=_GRACE_S)[1])


def _agrees(question: str) -> bool:
    """Asks the person at the terminal; where there is none, the command itself is the answer."""
    if not sys.stdin.isatty():
        return True
    print(question, end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _unknown(root: Path, stages: Iterable[str]) -> bool:
    """Says that a run was never started, or which names are no stages; tells whether that is so."""
    if not root.is_dir():
        print(f"run: must have been started, but {root} is not there; mend the name or --results", file=sys.stderr)
        return True
    known = all_stages()
    wrong = [name for name in stages if name not in known]
    for name in wrong:
        close = get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(known)}"
        print(f"--stage: must be a stage, but is {name!r}; {hint}", file=sys.stderr)
    return bool(wrong)

"""Records: what a stage did, from what, made how; the chain from any figure back to raw data."""

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jobs._run import ROOT, Run
from jobs._stage import Outcome
from slurm.files import digest, read_json, sha256_file, write_json
from slurm.site import Site


def request_digest(stage: str, run: Run, *, site: Site, parents: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns what a result is found by: the stage, what is asked of it and the results it stands on."""
    seen = ("digest", "metrics", "details", "tracking_id") if run.sections[stage].shows else ("digest",)
    standing_on = {name: {key: record[key] for key in seen} for name, record in parents.items()}
    return digest({"stage": stage, "asked": run.asked(stage, site=site), "parents": standing_on})


def build(
    request: Mapping[str, Any], outcome: Outcome, *, tracking_id: str, started: float, finished: float
) -> dict[str, Any]:
    """Builds the record of a finished stage; times are seconds since 1970.

    `digest` covers what the stage produced and from what, not how, when or where, so that a stage done again with the
    same result leaves everything after it valid.
    """
    content = {"stage": request["stage"], "inputs": dict(outcome.inputs), "outputs": dict(outcome.outputs)}
    return {
        **content,
        "digest": digest(content),
        "request": request["request"],
        "run": request["run"],
        "site": request["site"],
        "seed": request["seed"],
        "config": request["config"],
        "parents": {name: record["digest"] for name, record in request["parents"].items()},
        "metrics": dict(outcome.metrics),
        "details": dict(outcome.details),
        "started": started,
        "finished": finished,
        "resources": request["resources"],
        "tracking_id": tracking_id,
        "workflow_id": request["workflow_id"],
        "code": request["code"],
        "host": {"name": platform.node(), "machine": platform.machine(), "cpus": os.cpu_count()},
    }


def code_version() -> dict[str, str | None]:
    """Returns what code runs: version, git commit (with + when there are changes) and digest of the lock."""
    lock = ROOT / "requirements.lock"
    return {
        "version": version("medscale"),
        "commit": _commit(),
        "lock": sha256_file(lock) if lock.is_file() else None,
        "python": platform.python_version(),
    }


def history_path(folder: Path, request: str) -> Path:
    """Returns where the result of `request` is kept: outside what the workflow engine may delete."""
    return folder / "history" / f"{request[:16]}.json"


def find(folder: Path, request: str) -> dict[str, Any] | None:
    """Returns the record of a finished `request` whose outputs are all still there and unchanged, else None."""
    path = history_path(folder, request)
    if not path.is_file():
        return None
    record: dict[str, Any] = read_json(path)
    intact = all(_matches(folder / name, sha256) for name, sha256 in record["outputs"].items())
    return record if record["request"] == request and intact else None


def drop_damaged(folder: Path, request: str) -> None:
    """Removes the kept record of a result whose files are missing or changed: a job would take it for the result."""
    path = history_path(folder, request)
    if path.is_file() and find(folder, request) is None:
        path.unlink()


def require_unchanged(parent: Mapping[str, Any], folder: Path) -> None:
    """Checks that the files of a parent are those that its record tells of.

    Raises:
        ValueError: one is missing or has changed.
    """
    for name, sha256 in parent["outputs"].items():
        if not _matches(folder / name, sha256):
            raise ValueError(
                f"{folder / name}: must be as its record says, but is missing or changed; "
                f"remove {folder / 'record.json'} and run again"
            )


def keep(folder: Path, record: Mapping[str, Any]) -> None:
    """Keeps a finished stage's record where `find` looks for it."""
    write_json(history_path(folder, record["request"]), record)


def _matches(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256


def _commit() -> str | None:
    shown = _git("rev-parse", "HEAD")
    return shown and shown + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()

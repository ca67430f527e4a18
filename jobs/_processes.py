"""The processes of an attempt on this machine, found by their command line: where there is no Slurm to ask."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

_STARTERS = ("slurm.rank", "jobs._task")


def find(attempt: Path) -> list[Any]:
    """Returns this machine's processes (psutil.Process) that are ranks of `attempt`; who reads its files is not."""
    import psutil

    return [process for process in psutil.process_iter(["cmdline", "cwd"]) if _is_rank(process.info, attempt.resolve())]


def _is_rank(told: dict[str, Any], attempt: Path) -> bool:
    words = told["cmdline"] or []
    return any(starter in words for starter in _STARTERS) and attempt in _paths(words, told["cwd"])


def _paths(words: list[str], cwd: str | None) -> Iterator[Path]:
    return (Path(cwd or "/", word).resolve() for word in words if "/" in word)

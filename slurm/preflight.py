"""Checks before the first step: every node of a job answers for itself, then the batch host judges all the answers.

    srun --ntasks-per-node=1 ... python -m slurm.preflight ATTEMPT      writes ATTEMPT/preflight/<node>.json
    python -m slurm.preflight --judge ATTEMPT                           writes ATTEMPT/preflight/verdict.json

What is checked, and where each limit is set, is told in docs/preflight.md. Nothing here imports an engine, and nothing
waits for ever: a check that hangs on a disk or a driver is left behind, and named.
"""

import os
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from slurm import network
from slurm.checks import CHECKS, Node, node_name
from slurm.files import read_json, sha256_file, write_json

FOLDER, VERDICT = "preflight", "verdict.json"
WITHIN_S = 60.0  # for all checks of a node, and for the judge
LATE_S = 5.0  # a shared disk may show a file to other nodes later than it was written
SERVER_S = 3.0
_NOT_THERE = (502, 503, 504)  # what a proxy answers for a server that does not
_UNBLAMED = ("free space on results",)  # what no node can help


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What must hold on a node and does not; problems of one `check` are alike, whatever their figures."""

    node: str
    check: str
    line: str


def main(arguments: Sequence[str]) -> int:
    """Runs one of the two commands; returns its exit status."""
    if arguments[:1] == ["--judge"] and len(arguments) == 2:
        return judge(Path(arguments[1]))
    if len(arguments) == 1 and not arguments[0].startswith("-"):
        return answer(Path(arguments[0]))
    print("usage: python -m slurm.preflight [--judge] ATTEMPT", file=sys.stderr)
    return 2


def answer(attempt: Path) -> int:
    """Checks this node and writes what it found; returns 1 only where that cannot be written."""
    started, name = time.monotonic(), node_name()
    node, problems = _found(attempt, name)
    told = {
        "node": name,
        "start": _start(),
        "seconds": round(time.monotonic() - started, 2),
        "facts": dict(node.facts),
        "notes": list(node.notes),
        "problems": [{"check": problem.check, "line": problem.line} for problem in problems],
    }
    _, why = _limited(partial(_write, attempt, name, told), within_s=LATE_S)
    if why:
        line = f"{name}: its answer must be written to {attempt}, but {why}; mend the disk of results"
        lines = [*_folded(problems, [name]), line]
        print(*lines, sep="\n", file=sys.stderr, flush=True)
    return 1 if why else 0


def judge(attempt: Path) -> int:
    """Judges the answers of all nodes of this job and prints a line for each failure; returns 0 when there is none."""
    verdict, why = _limited(partial(_judged, attempt), within_s=WITHIN_S)
    if why or verdict is None:
        line = f"{node_name()}: {attempt} must be readable, but {why}; mend the disk of results"
        print(line, flush=True)
        verdict = {"ok": False, "lines": [line], "bad_nodes": [], "notes": [], "summary": "", "start": _start()}
        _limited(partial(write_json, attempt / FOLDER / VERDICT, verdict), within_s=LATE_S)
        return 1
    print(*verdict["lines"], *verdict["notes"], verdict["summary"], sep="\n", flush=True)
    return 0 if verdict["ok"] else 1


def _write(attempt: Path, name: str, told: Mapping[str, Any]) -> None:
    """Writes one node's answer; never makes the attempt's folder, which is there where the results are shared."""
    (attempt / FOLDER).mkdir(exist_ok=True)
    write_json(attempt / FOLDER / f"{name}.json", told)


def _found(attempt: Path, name: str) -> tuple[Node, list[Problem]]:
    """Runs all checks beside this thread; those that come after one that hangs are not reached."""
    path, until = attempt / "spec.json", time.monotonic() + WITHIN_S
    spec, why = _limited(partial(read_json, path), within_s=WITHIN_S)
    node, problems, at_work = Node(name=name, attempt=attempt, spec=spec or {}), list[Problem](), [path.name]
    if why:
        line = f"{path} must be readable on every node, but {why}; results must lie on a disk that all nodes share"
        return node, [Problem(node=name, check=path.name, line=line)]
    _, why = _limited(partial(_check, node, problems, at_work), within_s=until - time.monotonic())
    if why:
        line = f"{at_work[0]} must be known within {WITHIN_S:g} s, but {why}; a disk or a driver hangs: drain the node"
        problems.append(Problem(node=name, check=at_work[0], line=line))
    return node, problems


def _check(node: Node, problems: list[Problem], at_work: list[str]) -> None:
    for title, check in CHECKS.items():
        at_work[0] = title
        try:
            lines = list(check(node))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told in one line and the others still run
            lines = [f"{title} must be known, but {type(error).__name__}: {error}; mend the node, or leave it out"]
        problems += [Problem(node=node.name, check=title, line=line) for line in lines]


def _limited[T](work: Callable[[], T], *, within_s: float) -> tuple[T | None, str | None]:
    """Returns what `work` returns, or why it did not. What hangs cannot be stopped, only left to its own thread."""
    done: list[T] = []
    why = ["the check still waits"]

    def run() -> None:
        try:
            done.append(work())
        except Exception as error:  # noqa: BLE001 - the caller tells it
            why[0] = str(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(max(0.0, within_s))
    return (done[0], None) if done else (None, why[0])


def _judged(attempt: Path) -> dict[str, Any]:
    started, folder = time.monotonic(), attempt / FOLDER
    nodes = network.expand(os.environ.get("SLURM_JOB_NODELIST", "")) or [node_name()]
    answers = _collected(folder, nodes)
    problems = [*_told(answers), *_silent(answers, nodes), *_apart(answers, attempt), *_unequal(answers)]
    spec = read_json(attempt / "spec.json")
    notes = [Problem(node=name, check="", line=line) for name, told in answers.items() for line in told["notes"]]
    verdict = {
        "ok": not problems,
        "lines": _folded(problems, nodes),
        "bad_nodes": _bad(problems, nodes),
        "notes": [*_folded(notes, nodes), *_server(spec.get("mlflow_tracking_uri"))],
        "summary": _summary(answers),
        "start": _start(),
        "seconds": round(time.monotonic() - started, 2),
    }
    write_json(folder / VERDICT, verdict)
    return verdict


def _collected(folder: Path, nodes: Sequence[str]) -> dict[str, Any]:
    """Reads the nodes' answers of this start; an answer of an earlier start of the job is none."""
    until = time.monotonic() + LATE_S
    while True:
        found = {name: _read(folder / f"{name}.json") for name in nodes}
        answers = {name: told for name, told in found.items() if told and told["start"] == _start()}
        if len(answers) == len(nodes) or time.monotonic() > until:
            return answers
        folder.mkdir(exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()  # after a change of its own, NFS asks the server for the folder
        time.sleep(0.2)


def _read(path: Path) -> Any:
    with suppress(FileNotFoundError):
        return read_json(path)
    return None


def _told(answers: Mapping[str, Any]) -> Iterator[Problem]:
    for name, told in answers.items():
        yield from (Problem(node=name, **problem) for problem in told["problems"])


def _silent(answers: Mapping[str, Any], nodes: Iterable[str]) -> Iterator[Problem]:
    for name in nodes:
        if name not in answers:
            line = "node must answer the checks, but did not; it died, has no Python, or does not see the results: "
            yield Problem(node=name, check="answer", line=f"{line}search the log for {name}")


def _apart(answers: Mapping[str, Any], attempt: Path) -> Iterator[Problem]:
    digest = sha256_file(attempt / "spec.json")
    for name, told in answers.items():
        if told["facts"].get("spec", digest) != digest:
            line = f"{attempt / 'spec.json'} must be the file that the batch host wrote, but is another; "
            yield Problem(node=name, check="spec.json", line=f"{line}results must lie on a disk that all nodes share")


def _unequal(answers: Mapping[str, Any]) -> Iterator[Problem]:
    """Compares versions with what most nodes have; of equal numbers, with the first node's."""
    found = {name: told["facts"].get("versions", {}) for name, told in answers.items()}
    for what in dict.fromkeys(what for versions in found.values() for what in versions):
        values = {name: versions[what] for name, versions in found.items() if what in versions}
        usual, _ = Counter(values.values()).most_common(1)[0]
        where = next(name for name, value in values.items() if value == usual)
        for name, value in values.items():
            if value != usual:
                line = f"{what} must be {usual} as on {where}, but is {value}; give every node the same environment"
                yield Problem(node=name, check=what, line=line)


def _folded(problems: Iterable[Problem], nodes: Sequence[str]) -> list[str]:
    """Returns a line for each different problem, with the nodes that have it."""
    where: dict[str, list[str]] = {}
    for problem in problems:
        where.setdefault(problem.line, []).append(problem.node)
    return [f"{_names(names, nodes)}: {line}" for line, names in where.items()]


def _names(names: Sequence[str], nodes: Sequence[str]) -> str:
    return f"all {len(nodes)} nodes" if len(names) == len(nodes) > 4 else ", ".join(names)


def _bad(problems: Sequence[Problem], nodes: Sequence[str]) -> list[str]:
    """Returns the nodes to leave out next time: not for what all nodes have, and others would have too."""
    having = {problem.check: {other.node for other in problems if other.check == problem.check} for problem in problems}
    common = {check for check, names in having.items() if len(names) == len(nodes) > 1}
    blamed = {problem.node for problem in problems if problem.check not in common.union(_UNBLAMED)}
    return [name for name in nodes if name in blamed]


def _server(uri: str | None) -> list[str]:
    """Asks whether the MLflow server answers. A job runs without it."""
    if not uri or not uri.startswith(("http://", "https://")):
        return []
    _, why = _limited(partial(_ask, uri), within_s=SERVER_S)
    told = f"MLflow at {uri} must answer within {SERVER_S:g} s, but {why}"
    return [f"{told}; journal mode: points are kept and delivered later"] if why else []


def _ask(uri: str) -> None:
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    address = re.sub(r"//[^/@]*@", "//", uri).rstrip("/")
    try:
        urlopen(f"{address}/health", timeout=SERVER_S).close()  # noqa: S310 - begins with http
    except HTTPError as answer:
        if answer.code in _NOT_THERE:
            raise  # any other refusal is the server's own
    except URLError as error:
        raise ConnectionError(str(error.reason)) from error


def _summary(answers: Mapping[str, Any]) -> str:
    """Returns a line about what was measured: the slowest of all nodes."""
    parts = [f"preflight: {len(answers)} nodes answered"]
    for title, fact in (("results", "results_write_mb_per_s"), ("scratch", "scratch_write_mb_per_s")):
        speeds = {name: told["facts"][fact] for name, told in answers.items() if fact in told["facts"]}
        if speeds:
            slowest = min(speeds, key=speeds.__getitem__)
            parts.append(f"slowest write on {title} {speeds[slowest]:g} MB/s ({slowest})")
    seconds = max((told["seconds"] for told in answers.values()), default=0.0)
    return ", ".join([*parts, f"{seconds:g} s at most"])


def _start() -> str:
    """Names this start of this job: a requeued job keeps its id."""
    return f"{os.environ.get('SLURM_JOB_ID', '0')}.{os.environ.get('SLURM_RESTART_COUNT', '0')}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

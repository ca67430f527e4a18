"""One corpus made by 1, 2 and 4 workers, and by a run that is killed ten times: are the bytes the same?

    MEDSCALE_DATA=../shared/data .venv/bin/python -m benchmarks.corpus_resume seven_scales --update-docs

Each time prepare and tokenize of the run write to a folder of their own. SIGKILL goes to the whole process group of
each stage at times that are drawn; then the same command is given again. Compared are the digests of all files that a
later stage reads: records, what was set aside, tokenizer, shards and the manifest.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from slurm.files import digest, read_json, sha256_file

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks" / "corpus-resume.md"
WRITTEN = (
    *("prepare/records/*", "prepare/*.jsonl", "tokenize/manifest.json", "tokenize/shards/**/*", "tokenize/tokenizer/*"),
)
NOT_COMPARED = ("journal.jsonl",)  # it tells when things happened


def commands(run: Path) -> list[list[str]]:
    """Returns the commands of both stages; the second names the first one's record."""
    common = [sys.executable, "-m", "jobs"]
    given = ["--run", str(run), "--site", "laptop"]
    record = str(ROOT / "results" / run.stem / "prepare" / "record.json")
    return [[*common, "prepare", *given], [*common, "tokenize", *given, "--after", record]]


def finish(run: Path) -> float:
    """Runs both stages to their end; returns the seconds."""
    began = time.perf_counter()
    for command in commands(run):
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, start_new_session=True)
    return time.perf_counter() - began


def kill(run: Path, draw: random.Random, *, kills: int, longest_s: float) -> list[str]:
    """Kills each stage so often, then lets it finish; returns where each kill met it."""
    met = []
    for command in commands(run):
        for _ in range(kills):
            child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
            wait = draw.uniform(3, longest_s)
            try:
                child.wait(timeout=wait)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
                met.append(f"{command[3]} after {wait:.0f} s")
                print("killed in", met[-1], flush=True)
            time.sleep(1)  # workers end with their parent
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, start_new_session=True)
    return met


def found(run: Path) -> dict[str, str]:
    """Returns the digest of every file that is compared."""
    folder = ROOT / "results" / run.stem
    files = {file for pattern in WRITTEN for file in folder.glob(pattern) if file.is_file()}
    return {str(file.relative_to(folder)): sha256_file(file) for file in sorted(files) if file.name not in NOT_COMPARED}


def variant(base: str, workers: int, folder: Path, *, name: str) -> Path:
    """Writes a run that differs from `base` in its workers alone."""
    run = yaml.safe_load((ROOT / "workflows" / "runs" / f"{base}.yaml").read_text())
    for stage in ("prepare", "tokenize"):
        run.setdefault(stage, {})["resources"] = {"cpus_per_task": workers}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(run))
    return path


def table(run: Path) -> str:
    """Returns records, tokens and seconds by modality."""
    folder = ROOT / "results" / run.stem
    prepare, tokenize = (read_json(folder / stage / "record.json")["details"] for stage in ("prepare", "tokenize"))
    rows: dict[str, list[float]] = {}
    for source in prepare["sources"]:
        row = rows.setdefault(f"{source['scale']} {source['modality']}", [0, 0, 0, 0])
        row[0] += source["records"]
        row[1] += source["seconds"] or 0
    for name, stream in tokenize["streams"].items():
        row = next(row for key, row in rows.items() if key.endswith(" " + name.partition(".")[0]))
        row[2] += stream["train_tokens"] + stream["valid_tokens"]
        row[3] += stream["seconds"]
    lines = [
        f"| {name} | {int(records):,} | {read:.1f} | {int(tokens):,} | {written:.1f} |"
        for name, (records, read, tokens, written) in sorted(rows.items())
    ]
    head = "| modality | records | reading, CPU-s | tokens | writing, CPU-s |\n|---|---|---|---|---|\n"
    return head + "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 1, 4])
    parser.add_argument("--kills", type=int, default=5, help="of each stage")
    parser.add_argument("--longest-s", type=float, default=25)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--update-docs", action="store_true")
    options = parser.parse_args()
    folder = ROOT / "results"
    folder.mkdir(exist_ok=True)
    lines, reference = [], dict[str, str]()
    for workers in options.workers:
        run = variant(options.run, workers, folder, name=f"resume-{workers}")
        seconds = finish(run)
        reference = reference or found(run)
        lines.append(_line(f"{workers} workers", seconds, found(run), reference))
    run = variant(options.run, options.workers[0], folder, name="resume-killed")
    began = time.perf_counter()
    met = kill(run, random.Random(options.seed), kills=options.kills, longest_s=options.longest_s)
    seconds = time.perf_counter() - began
    lines.append(_line(f"killed {len(met)} times, then finished", seconds, found(run), reference))
    text = "| | s | files | digest of all |\n|---|---|---|---|\n" + "\n".join(lines)
    text = f"{text}\n\nKilled in {'; '.join(met)}.\n\n{table(folder / f'resume-{options.workers[0]}.yaml')}\n"
    print(text)
    if options.update_docs:
        first, command, rest = (__doc__ or "").split("\n\n")
        PAGE.write_text(f"# The same bytes\n\n{first}\n\n```\n{command.strip()}\n```\n\n{rest.strip()}\n\n{text}")


def _line(what: str, seconds: float, files: dict[str, str], reference: dict[str, Any]) -> str:
    other = sorted(name for name in files.keys() | reference.keys() if files.get(name) != reference.get(name))
    told = "the same" if not other else f"**{len(other)} differ**, {other[0]} first"
    print(what, f"{seconds:.0f} s", told, *other[:5], flush=True)
    return f"| {what} | {seconds:.0f} | {len(files)} | {digest(files)[:16]}: {told} |"


if __name__ == "__main__":
    main()

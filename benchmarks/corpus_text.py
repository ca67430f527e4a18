"""Text to token shards beside Megatron-LM's preprocess_data.py and datatrove, on this machine, one after the other.

    python -m benchmarks.corpus_text --megatron /tmp/Megatron-LM --datatrove /tmp/peers/bin/python [--update-docs]

`--megatron` is a checkout (its tools/preprocess_data.py is run with this Python); `--datatrove` is the Python of an
environment that has it; `--gigatoken CHECKOUT PYTHON` names a checkout with tools/preprocess_data_fast.py and a Python
with all it needs. Each reads the same documents with the same tokenizer, a core for each worker, and ends a document
with the same token. Ours also writes the tags of a text, 2 tokens a document, and decodes what it wrote.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import corpus_documents
from jobs._run import ROOT

DOC = ROOT / "docs" / "benchmarks" / "corpus-text.md"
MARK = "<!-- table -->"
_UNCHECKED = "medscale, nothing decoded"
_DATATROVE = """
import sys
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
texts, tokenizer, out, workers = sys.argv[1:]
write = DocumentTokenizer(out + "/ds", tokenizer_name_or_path=tokenizer, eos_token="<|eod|>", shuffle_documents=False)
steps = [JsonlReader(texts), write]
if __name__ == "__main__":
    LocalPipelineExecutor(steps, tasks=int(workers), workers=int(workers), logging_dir=out + "/logs").run()
"""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one run took, and the tokens of text it wrote (without tags and end tokens)."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    tokens: int


Run = Callable[[Path, Path, int], Figures]
"""Runs a tool on (documents, output folder, workers)."""


def measured(command: Sequence[str], tokens: Callable[[], int], *, env: Mapping[str, str] | None = None) -> Figures:
    """Runs a command, one core for each of its processes; memory is that of all of them (shared pages once)."""
    one = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", **(env or {})}
    started = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **one}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    peaks, used = [0.0], dict[int, float]()
    watch = threading.Thread(target=_watch, args=(process, peaks, used), daemon=True)
    watch.start()
    _, errors = process.communicate()
    seconds = time.perf_counter() - started
    watch.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)[:200]} must end well, but says {errors[-2000:]}")
    return Figures(seconds=seconds, cpu_seconds=sum(used.values()), peak_mb=max(peaks), tokens=tokens())


def _watch(process: "subprocess.Popen[str]", peaks: list[float], used: dict[int, float]) -> None:
    """Notes the memory and the CPU time of a process and all below it, until it ends; what ends between is missed."""
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            found = psutil.Process(process.pid)
            everyone = (found, *found.children(recursive=True))
            peaks.append(sum(_proportional(each.pid) for each in everyone))
            for each in everyone:
                times = each.cpu_times()
                used[each.pid] = times.user + times.system
        time.sleep(0.1)


def _proportional(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (OSError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def ours(tokenizer: Path, *, checked: bool = True) -> Run:
    """Returns the run of write_shards, with its round trip of every record or without."""

    def run(documents: Path, out: Path, workers: int) -> Figures:
        command = [sys.executable, "-m", "benchmarks.corpus_text", "--write", str(documents), str(out), str(tokenizer)]

        def tokens() -> int:
            entries = json.loads((out / "manifest.json").read_text())["streams"].values()
            found = [entry for splits in entries for entry in splits.values()]
            return int(sum(entry["tokens"] - 3 * entry["documents"] for entry in found))

        return measured([*command, "--workers", str(workers), *([] if checked else ["--unchecked"])], tokens)

    return run


def megatron(tokenizer: Path, checkout: Path, *, python: str = sys.executable) -> Run:
    """Returns the run of Megatron-LM's tools/preprocess_data.py."""

    def run(documents: Path, out: Path, workers: int) -> Figures:
        command = [python, str(checkout / "tools" / "preprocess_data.py"), "--input", str(documents / "text.jsonl")]
        command += ["--output-prefix", str(out / "text"), "--tokenizer-type", "HuggingFaceTokenizer", "--append-eod"]
        command += ["--tokenizer-model", str(tokenizer), "--workers", str(workers), "--log-interval", "100000"]
        written = out / "text_text_document.bin"
        return measured(command, lambda: written.stat().st_size // 2 - _count(documents))

    return run


def gigatoken(tokenizer: Path, checkout: Path, python: str) -> Run:
    """Returns the run of Megatron-LM's tools/preprocess_data_fast.py, whose threads are our workers."""

    def run(documents: Path, out: Path, workers: int) -> Figures:
        command = [python, str(checkout / "tools" / "preprocess_data_fast.py"), "--use-gigatoken", "--append-eod"]
        command += ["--input", str(documents / "text.jsonl"), "--output-prefix", str(out / "text")]
        command += ["--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", str(tokenizer)]
        written = out / "text_text_document.bin"
        env = {"RAYON_NUM_THREADS": str(workers), "PYTHONPATH": str(checkout)}
        return measured(command, lambda: written.stat().st_size // 2 - _count(documents), env=env)

    return run


def datatrove(tokenizer: Path, python: str) -> Run:
    """Returns the run of datatrove's JsonlReader and DocumentTokenizer, without its second pass that shuffles."""

    def run(documents: Path, out: Path, workers: int) -> Figures:
        texts = documents / ("halves" if workers == 2 else "whole")
        script = out / "run.py"
        script.write_text(_DATATROVE)
        command = [python, str(script), str(texts), str(tokenizer / "tokenizer.json"), str(out), str(workers)]
        return measured(
            command, lambda: sum(path.stat().st_size for path in out.rglob("*.ds")) // 2 - _count(documents)
        )

    return run


def _count(documents: Path) -> int:
    return int(json.loads((documents / "counts.json").read_text())["documents"])


def write(documents: Path, out: Path, tokenizer: Path, *, workers: int, checked: bool) -> None:
    """Writes our shards; the process that is measured."""
    from corpus import shardwork
    from corpus import tokenizer as tokenizers
    from corpus.encoding import Shaping, write_shards
    from corpus.workers import Crew

    if not checked:  # a lone worker works in this process
        setattr(shardwork.Encode, "_require_round_trip", lambda *_: None)  # noqa: B010 - a method, for this run alone
    crew = Crew(workers=workers, isolate=False)
    write_shards(documents, out, tokenizer=tokenizers.load(tokenizer), shaping=Shaping(), crew=crew)


def prepared(folder: Path, megabytes: int, *, only_records: bool = False) -> Path:
    """Writes the documents of a size."""
    counts = corpus_documents.write(folder, megabytes * 1_000_000, only_records=only_records)
    (folder / "counts.json").write_text(json.dumps(counts))
    (folder / "whole").mkdir()
    (folder / "whole" / "text.jsonl").symlink_to(folder / "text.jsonl")
    return folder


def trained(folder: Path, vocab_size: int) -> Path:
    """Trains the tokenizer that all use, on the texts as they are."""
    from corpus import tokenizer as tokenizers
    from corpus.vocabulary import declared

    symbols, texts = declared(), corpus_documents.texts("en") + 4 * corpus_documents.texts("ko")
    made = tokenizers.train(texts, vocab_size=tokenizers.room_for_text(symbols, vocab_size=vocab_size))
    tokenizers.save(tokenizers.add_symbols(made, symbols, vocab_size=vocab_size), folder)
    return folder


def extended(folder: Path) -> Path:
    """Writes GPT-2's tokenizer with our symbols."""
    from corpus import tokenizer as tokenizers
    from corpus.vocabulary import declared

    base = tokenizers.load(corpus_documents.DATA / "tokenizers" / "gpt2")
    tokenizers.save(tokenizers.add_symbols(base, declared(), vocab_size=None), folder)
    return folder


def compare(tools: Mapping[str, Run], documents: Path, *, workers: int, rounds: int) -> dict[str, list[Figures]]:
    """Runs every tool `rounds` times in turns.

    Raises:
        RuntimeError: they do not write the same tokens.
    """
    found: dict[str, list[Figures]] = {name: [] for name in tools}
    for _ in range(rounds):
        for name, run in tools.items():
            with tempfile.TemporaryDirectory(dir=documents) as out:
                found[name].append(run(documents, Path(out), workers))
                print(documents.name, workers, name, found[name][-1], flush=True)
    counts = {figures.tokens for each in found.values() for figures in each}
    if len(counts) > 1:
        raise RuntimeError(f"all tools must write the same tokens, but wrote {sorted(counts)}; compare their ids")
    return found


def row(name: str, size: int, workers: int, found: Sequence[Figures], *, best: tuple[float, float]) -> str:
    """Returns a line of the table; `best` is (seconds, CPU seconds) of ours."""
    seconds, used = middle(found)
    peak, tokens = max(each.peak_mb for each in found), found[0].tokens
    cells = [f"{size / 1e6:,.0f}", str(workers), name, f"{seconds:,.1f}", f"{size / 1e6 / seconds:,.1f}"]
    cells += [f"{tokens / seconds / 1e6:,.2f}", f"{used:,.1f}", f"{peak:,.0f}"]
    cells += ["", ""] if best == (seconds, used) else [f"{seconds / best[0]:,.1f}x", f"{used / best[1]:,.1f}x"]
    return f"| {' | '.join(cells)} |"


def middle(found: Sequence[Figures]) -> tuple[float, float]:
    """Returns the medians of seconds and CPU seconds."""
    return statistics.median(each.seconds for each in found), statistics.median(each.cpu_seconds for each in found)


def main() -> None:
    given = _arguments()
    if given.write:
        write(*given.write, workers=given.workers, checked=not given.unchecked)
        return
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
        folders = {size: prepared(Path(scratch) / f"{size}", size) for size in (given.megabytes, 10 * given.megabytes)}
        parts = [_alone(given, Path(scratch))] if given.alone else []
        for title, tools in _contests(given, Path(scratch)):
            lines = [f"{title}\n", _HEAD]
            for megabytes, documents in folders.items():
                rounds = given.rounds if megabytes == given.megabytes else 1
                lines += _rows(tools, documents, rounds=rounds, numbers=given.numbers)
            parts.append("\n".join(lines))
    tables = "\n\n".join(parts)
    print(tables)
    if given.update_docs:
        DOC.write_text(f"{DOC.read_text().partition(MARK)[0]}{MARK}\n\n{tables}\n")


def _contests(given: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, dict[str, Run]]]:
    own = trained(scratch / "own", given.vocab_size)
    tools = {"medscale": ours(own), _UNCHECKED: ours(own, checked=False)}
    if given.megatron:
        tools["Megatron-LM preprocess_data.py"] = megatron(own, given.megatron)
    if given.datatrove:
        tools["datatrove"] = datatrove(own, given.datatrove)
    yield f"A tokenizer trained here, {given.vocab_size:,} ids:", tools
    if given.gigatoken:
        other = extended(scratch / "gpt2")
        fast = gigatoken(other, Path(given.gigatoken[0]), given.gigatoken[1])
        yield "GPT-2's tokenizer and our symbols:", {"medscale": ours(other), "preprocess_data_fast.py": fast}


def _alone(given: argparse.Namespace, scratch: Path) -> str:
    documents = prepared(scratch / "alone", given.alone, only_records=True)
    tools = {"medscale": ours(trained(scratch / "large", given.vocab_size))}
    lines = _rows(tools, documents, rounds=1, numbers=given.numbers)
    shutil.rmtree(documents)
    return "\n".join(["Ours alone, with more:\n", _HEAD, *lines])


def _rows(tools: Mapping[str, Run], documents: Path, *, rounds: int, numbers: Sequence[int]) -> list[str]:
    size = json.loads((documents / "counts.json").read_text())["bytes"]
    lines = []
    for workers in numbers:
        alone = {name: run for name, run in tools.items() if workers == 1 or name != _UNCHECKED}
        found = compare(alone, documents, workers=workers, rounds=rounds)
        best = middle(found["medscale"])
        lines += [row(name, size, workers, each, best=best) for name, each in found.items()]
    return lines


_HEAD = (
    "| MB of text | workers | | s | MB/s | M tokens/s | CPU s | peak MB | its time / ours | CPU time |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megatron", type=Path)
    parser.add_argument("--datatrove", metavar="PYTHON")
    parser.add_argument("--gigatoken", nargs=2, metavar=("CHECKOUT", "PYTHON"))
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--vocab-size", type=int, default=32_000)
    parser.add_argument("--megabytes", type=int, default=20, help="of text; ten times as much is done too")
    parser.add_argument("--alone", type=int, help="megabytes that only ours reads, to show that memory stays flat")
    parser.add_argument("--rounds", type=int, default=3, help="of the small size; the large is done once")
    parser.add_argument("--numbers", type=int, nargs="+", default=[1, 2], help="of workers")
    parser.add_argument("--update-docs", action="store_true")
    parser.add_argument("--write", type=Path, nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--unchecked", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()

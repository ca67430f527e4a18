"""How fast training gets its batches, beside Megatron-LM's GPTDataset, from the same tokens.

`OMP_NUM_THREADS=1 python benchmarks/corpus_loader.py --tokens 100` writes 100 million tokens of made-up documents for
both, ten times as many after that, and reads batches of 8 in random order. Every run is a fresh process, ours and
theirs in turn, so that a busy moment meets both; the best of each counts. A busy machine changes CPU time least.
"""

import argparse
import importlib
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

VOCAB_SIZE, EOD, PAD, BATCH, STEP = 60_000, 0, 1, 8, 64
PIECE = 1 << 24  # tokens written at a time, and in one of our shards


def main() -> None:
    """Writes the tokens, measures, prints tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=100, help="million tokens of the smaller corpus")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=8192)
    parser.add_argument("--measure", nargs=4, help="what a child does: peer, folder, seq_length, way")
    options = parser.parse_args()
    if options.measure:
        peer, folder, seq_length, way = options.measure
        print(json.dumps(measure(peer, Path(folder), int(seq_length), way=way, samples=options.samples)))
        return
    with tempfile.TemporaryDirectory() as name:
        for times, ways in ((1, ("inline", "ahead", "documents", "unread")), (10, ("inline",))):
            folder = Path(name) / str(times)
            write(folder, tokens=options.tokens * times * 1_000_000)
            report(folder, options, tokens=options.tokens * times, ways=ways)


def report(folder: Path, options: argparse.Namespace, *, tokens: int, ways: Sequence[str]) -> None:
    print(f"\n## {tokens:,} million tokens\n", flush=True)
    print("| | seq | ours, samples/s | GPTDataset | ratio | ours, Mtokens/s | GPTDataset | ours, CPU us | GPTDataset |")
    print("|---|---|---|---|---|---|---|---|---|")
    found: dict[tuple[str, str], dict[str, float]] = {}
    for way in ways:
        for seq_length in (2048, 4096):
            runs: dict[str, list[dict[str, float]]] = {"ours": [], "megatron": []}
            for _ in range(options.rounds):
                for peer, kept in runs.items():
                    kept.append(child(peer, folder, seq_length, way=way, samples=options.samples))
            top = {peer: best(kept) for peer, kept in runs.items()}
            found |= {(peer, f"{way} {seq_length}"): figures for peer, figures in top.items()}
            ours, theirs = top["ours"]["samples_s"], top["megatron"]["samples_s"]
            print(
                f"| {way} | {seq_length} | {ours:,.0f} | {theirs:,.0f} | {ours / theirs:.2f} | "
                f"{ours * seq_length / 1e6:.0f} | {theirs * seq_length / 1e6:.0f} | "
                f"{top['ours']['cpu_us']:.0f} | {top['megatron']['cpu_us']:.0f} |",
                flush=True,
            )
    print("\n| | ours | GPTDataset |\n|---|---|---|")
    for name, what in (
        ("cold_s", "start, nothing prepared: hash all files, or build the index, s"),
        ("warm_s", "start again: hash all files, or load the index, s"),
        ("mapped_s", "start without hashing, as one of 256 ranks, s"),
        ("anonymous_mb", "memory that is no file's, beyond the imports, MB"),
        ("peak_mb", "peak of the whole process, mapped files too, MB"),
        ("index_mb", "index kept beside the tokens, MB"),
    ):
        cells = " | ".join(f"{found[peer, 'inline 2048'][name]:.3g}" for peer in ("ours", "megatron"))
        print(f"| {what} | {cells} |", flush=True)


def child(peer: str, folder: Path, seq_length: int, *, way: str, samples: int) -> dict[str, float]:
    command = [
        sys.executable,
        __file__,
        "--samples",
        str(samples),
        "--measure",
        peer,
        str(folder),
        str(seq_length),
        way,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def best(runs: list[dict[str, float]]) -> dict[str, float]:
    return {
        name: max(run[name] for run in runs) if name == "samples_s" else min(run[name] for run in runs)
        for name in runs[0]
    }


def write(folder: Path, *, tokens: int) -> None:
    """Writes the same documents for both; lengths are log-normal, 500 tokens in the mean."""
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    from corpus.shards import Content, commit, write_shard
    from slurm.files import write_atomic

    (folder / "megatron").mkdir(parents=True)
    builder = IndexedDatasetBuilder(str(folder / "megatron/tokens.bin"), dtype=np.uint16)
    draws, shards = np.random.default_rng(1), []
    for number in range(-(-tokens // PIECE)):
        lengths = np.clip(draws.lognormal(5.7, 1.0, PIECE // 500).astype(np.int64), 2, 100_000)
        lengths = lengths[np.cumsum(lengths) <= PIECE]
        offsets = np.append(0, np.cumsum(lengths))
        part = draws.integers(2, VOCAB_SIZE, offsets[-1], dtype=np.uint16)
        part[offsets[1:] - 1] = EOD
        builder.add_document(part, lengths.tolist())
        records = np.zeros((len(lengths), 12), np.uint8)
        path = f"shards/train/text/{number:05d}"
        entry = write_shard(folder / "ours" / path, Content(tokens=part, offsets=offsets, records=records))
        shards.append({"path": path, **entry})
    builder.finalize(str(folder / "megatron/tokens.idx"))
    write_atomic(folder / "ours/tokenizer/tokenizer.json", "{}")
    entry = {"tokens": sum(shard["tokens"] for shard in shards), "padding": 0, "shards": shards}
    told = {"vocab_size": VOCAB_SIZE, "eod_id": EOD, "pad_id": PAD, "pack_length": None, "phases": {}}
    commit(folder / "ours", {**told, "streams": {"text": {"train": entry}}, "mixture": {"text": 1.0}})


def measure(peer: str, folder: Path, seq_length: int, *, way: str, samples: int) -> dict[str, float]:
    """Starts once with nothing prepared and once again, then reads; where `way` is unread, from the disk."""
    logging.disable(logging.WARNING)
    start = _ours if peer == "ours" else _megatron
    for module in ("torch.utils.data", "megatron.core.datasets.gpt_dataset" if peer == "megatron" else "zarr"):
        importlib.import_module(module)
    place, before, times = folder / peer, _anonymous_mb(), {}
    for old in place.glob("cache*"):
        shutil.rmtree(old)
    for path in _files(place):  # into the page cache, which our hashing would do for us alone
        with path.open("rb") as file:
            while file.read(1 << 20):
                pass
    for name in ("cold_s", "warm_s"):
        began = time.perf_counter()
        batches = start(place, seq_length, way, samples=samples)
        times[name] = time.perf_counter() - began
    began = time.perf_counter()
    if peer == "ours":
        _ours(place, seq_length, way, samples=samples, share=(0, 256))
    mapped = time.perf_counter() - began if peer == "ours" else times["warm_s"]
    if way == "unread":
        _forget(place)
    rates = _rates(batches)
    index = sum(path.stat().st_size for path in _files(place) if path.suffix in (".idx", ".npy"))
    index += sum(path.stat().st_size for path in _files(place) if path.parent.parent.name.startswith("doc_"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    figures = {"anonymous_mb": _anonymous_mb() - before, "peak_mb": peak, "index_mb": index / 1e6}
    return {**times, "mapped_s": mapped, **rates, **figures}


def _rates(batches: Callable[[], Iterator[Any]]) -> dict[str, float]:
    """Returns samples per second and CPU time a sample (of this process) from the second batch on.

    The first batch waits for threads and processes to start.
    """
    running = batches()
    next(running)
    began, used = time.perf_counter(), time.process_time()
    count = sum(1 for _ in running) * BATCH
    return {
        "samples_s": count / (time.perf_counter() - began),
        "cpu_us": (time.process_time() - used) / count * 1e6,
    }


def _ours(
    place: Path, seq_length: int, way: str, *, samples: int, share: tuple[int, int] = (0, 1)
) -> Callable[[], Iterator[Any]]:
    import torch

    from corpus.shards import open_shards
    from parallelism import data
    from parallelism.loader import Loader

    streams = {"text": open_shards(place, share=share).stream("text", "train")}
    order = data.order(streams, mixture={"text": 1.0}, seq_length=seq_length, seed=1)
    mode: data.AttentionMask = "document" if way == "documents" else "causal"

    def batches() -> Iterator[Any]:
        depth = 4 if way == "ahead" else 0
        with Loader(streams=list(streams.values()), seq_length=seq_length, mode=mode, depth=depth) as loader:
            for first in range(0, samples, STEP):  # as the trainer does: a step, and what comes after it
                places = range(first, min(first + STEP + BATCH, samples), BATCH)
                micro = [[order.sample(place + number) for number in range(BATCH)] for place in places]
                loader.expect(micro)
                for each in micro[: STEP // BATCH]:
                    batch = loader.take(each)
                    yield [torch.from_numpy(part) for part in (batch.tokens, batch.labels, batch.mask)]

    return batches


def _megatron(place: Path, seq_length: int, way: str, *, samples: int) -> Callable[[], Iterator[Any]]:
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.utils import Split
    from torch.utils.data import DataLoader

    tokenizer: Any = SimpleNamespace(
        vocab_size=VOCAB_SIZE, eod=EOD, pad=PAD, special_tokens_dict={}, unique_identifiers={"name": "made up"}
    )
    config = GPTDatasetConfig(
        random_seed=1,
        sequence_length=seq_length,
        blend=([str(place / "tokens")], None),
        split="100,0,0",
        path_to_cache=str(place / f"cache{seq_length}"),
        tokenizer=tokenizer,
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
        inter_document_masking=way == "documents",
    )
    stored = GPTDataset.build_low_level_dataset(str(place / "tokens"), config)
    indices = np.arange(len(stored), dtype=np.int32)
    dataset = GPTDataset(stored, str(place / "tokens"), indices, None, Split.train, config)
    chosen = [list(range(first, first + BATCH)) for first in range(0, samples, BATCH)]
    workers = 2 if way == "ahead" else 0
    return lambda: iter(DataLoader(dataset, batch_sampler=chosen, num_workers=workers))


def _forget(place: Path) -> None:
    """Makes the system read the tokens from the disk again."""
    for path in _files(place):
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def _files(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if path.is_file()]


def _anonymous_mb() -> float:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("Anonymous")) / 1e3


if __name__ == "__main__":
    main()

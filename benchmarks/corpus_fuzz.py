"""What readers do with damaged files: mutated inputs of every format, none of which may crash, hang or slip through.

    .venv/bin/python -m benchmarks.corpus_fuzz seven_scales --inputs 200000 --update-docs

Seeds are the run's own sources made small, and smallest files of formats that it lacks (benchmarks/fuzz_seeds.py). Each
input is a seed with some mutations: bits flipped, bytes cut, doubled or put in, numbers made extreme, another seed's
bytes, another encoding, rules broken on purpose (control characters, NaN, negative counts, deep nesting, entities, keys
written twice). A reader may yield records and rejects or refuse the file. Everything else is a failure: another
exception, a dead process, silence for 20 s, or an accepted record that breaks a rule (`broken_rule` below checks each
one by itself, with RDKit where it holds a molecule).
"""

import argparse
import gzip
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import fuzz_seeds
from benchmarks.fuzz_seeds import Seed
from corpus.modality import Record, Reject, SourceError, modality
from corpus.source import Source

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks" / "corpus-fuzz.md"
SILENCE_S = 20
_DATE = re.compile(r"\d{4}(-\d\d(-\d\d)?)?")
_SYMBOL = re.compile(r"<\|[^\s<>|]{1,64}\|>")
_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffd\ud800-\udfff]")
_NUMBER = re.compile(rb"-?\d+(\.\d+)?")
TOKENS = [
    *(b"NaN", b"-1", b"1e999", b"99999999999999999999", b"-0", b"0x41", b"null", b'""', b"[]", b"{}", b"true"),
    *(
        b"\x00",
        b"\x1f",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xa1",
        b"\xc7\xd1",
        b"\r",
        b"\n\n",
        b"\t",
        b'"',
        b"'",
        b",",
        b";",
    ),
    *(b"<|eod|>", b"<|/cell|>", b"<|section|>", "\ud55c\uae00".encode(), "e\u0301".encode(), "\u200b".encode()),
    *(
        b"C\xf0\x9f\x98\x80",
        b"[C+9999999]",
        b"C1CC",
        b"CCO |c|",
        b"CC>>O",
        b"[9999C]",
        b"(" * 200,
        b"[" * 3000,
        b'{"a":' * 2000,
    ),
    *(
        b'<!DOCTYPE a [<!ENTITY x "y">]>',
        b"&x;",
        b"<![CDATA[",
        b"-->",
        b"../../etc/passwd",
        b"%00",
        b"9999-99-99",
        b"2031-01-01",
    ),
]


@dataclass
class Tally:
    """What happened to the inputs of one kind of file."""

    inputs: int = 0
    refused: int = 0
    records: int = 0
    rejects: int = 0
    failures: list[str] = field(default_factory=list)


def mutated(seed: Seed, others: list[Seed], draw: random.Random) -> bytes:
    """Returns the seed's bytes with one to four mutations; a gzipped file is mutated inside half of the time."""
    if seed.name.endswith(".gz") and draw.random() < 0.5:
        return gzip.compress(_mutated(gzip.decompress(seed.data), others, draw), mtime=0)
    return _mutated(seed.data, others, draw)


def _mutated(data: bytes, others: list[Seed], draw: random.Random) -> bytes:
    for _ in range(draw.choice([1, 1, 2, 4])):
        data = draw.choice(_MUTATIONS)(data, others, draw)
    return data


def _flip(data: bytes, others: list[Seed], draw: random.Random) -> bytes:  # noqa: ARG001 - all are called alike
    changed = bytearray(data or b"\0")
    for _ in range(draw.choice([1, 1, 8])):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _cut(data: bytes, others: list[Seed], draw: random.Random) -> bytes:  # noqa: ARG001
    start, stop = _span(data, draw)
    return data[:start] + data[stop:]


def _double(data: bytes, others: list[Seed], draw: random.Random) -> bytes:  # noqa: ARG001
    start, stop = _span(data, draw)
    return data[:stop] + data[start:stop] * draw.choice([1, 1, 40]) + data[stop:]


def _truncate(data: bytes, others: list[Seed], draw: random.Random) -> bytes:  # noqa: ARG001
    return data[: draw.randrange(len(data) + 1)]


def _insert(data: bytes, others: list[Seed], draw: random.Random) -> bytes:  # noqa: ARG001
    place = draw.randrange(len(data) + 1)
    return data[:place] + draw.choice(TOKENS) + data[place:]


def _number(data: bytes, others: list[Seed], draw: random.Random) -> bytes:  # noqa: ARG001
    found = list(_NUMBER.finditer(data[:20_000]))
    if not found:
        return data
    one = draw.choice(found)
    return data[: one.start()] + draw.choice(TOKENS[:11]) + data[one.end() :]


def _splice(data: bytes, others: list[Seed], draw: random.Random) -> bytes:
    other = draw.choice(others).data
    start, stop = _span(other, draw)
    place = draw.randrange(len(data) + 1)
    return data[:place] + other[start:stop] + data[place:]


def _recode(data: bytes, others: list[Seed], draw: random.Random) -> bytes:  # noqa: ARG001
    try:
        return data.decode().encode(draw.choice(["utf-16", "cp949", "latin-1", "utf-8-sig", "utf-32"]))
    except UnicodeError:
        return data


_MUTATIONS = [_flip, _flip, _cut, _double, _truncate, _insert, _insert, _number, _splice, _recode]


def _span(data: bytes, draw: random.Random) -> tuple[int, int]:
    start = draw.randrange(len(data) + 1)
    return start, min(len(data), start + draw.choice([1, 4, 40, 400]))


def broken_rule(record: Record, reader: Any, name: str) -> str | None:
    """Returns the rule that an accepted record breaks, or None."""
    if reader.parse(reader.render(record.content)) != record.content:
        return "does not come back from its text"
    for text in _texts(record.content):
        if _FORBIDDEN.search(text) or _SYMBOL.search(text):
            return f"holds {text[:60]!a}"
        if not unicodedata.is_normalized("NFC", text):
            return f"is not NFC: {text[:60]!a}"
    if record.date is not None and not _DATE.fullmatch(record.date):
        return f"has the date {record.date!r}"
    if not record.where:
        return "does not say where it was"
    return _broken_entity(record.content, name)


def _broken_entity(content: Any, name: str) -> str | None:
    if name == "molecule":
        from rdkit import Chem

        molecule = Chem.MolFromSmiles(content["smiles"])
        if molecule is None or not 0 < molecule.GetNumAtoms() <= 500:
            return f"holds the molecule {content['smiles'][:60]!r}"
    if name == "omics" and not content["genes"]:
        return "holds no gene"
    return None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from (key, *_texts(item))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def try_input(seed: Seed, path: Path, tally: Tally) -> str | None:
    """Reads one input; returns what must not happen, or None."""
    reader = modality(seed.modality)
    options = reader.Options.model_validate(seed.options)
    try:
        for item in reader.read(path, options):
            if isinstance(item, Record):
                tally.records += 1
                broken = broken_rule(item, reader, seed.modality)
                if broken:
                    return f"an accepted record {broken}"
            elif isinstance(item, Reject):
                tally.rejects += 1
    except SourceError:
        tally.refused += 1
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return f"{type(error).__name__}: {str(error)[:200]}"
    return None


def work(seeds: list[Seed], numbers: range, *, seed: int, folder: Path) -> None:
    """Tries inputs `numbers`, and prints a line for each: its number before, then what happened."""
    for number in numbers:
        print("try", number, flush=True)
        one, data = made(seeds, number, seed=seed)
        path = folder / f"{number % 2}-{one.name}"
        path.write_bytes(data)
        tally = Tally()
        failure = try_input(one, path, tally)
        print("did", number, tally.refused, tally.records, tally.rejects, failure or "", sep="\t", flush=True)


def made(seeds: list[Seed], number: int, *, seed: int) -> tuple[Seed, bytes]:
    """Returns input number `number`: a pure function of it and the seed."""
    draw = random.Random(f"{seed}/{number}")
    one = seeds[number % len(seeds)]
    return one, mutated(one, seeds, draw)


def supervise(command: list[str], numbers: range, seeds: list[Seed], tallies: dict[str, Tally]) -> None:
    """Runs a worker over `numbers`; one that dies or is silent costs its input alone."""
    current = numbers.start
    while current < numbers.stop:
        child = subprocess.Popen(
            [*command, str(current), str(numbers.stop), str(numbers.step)], stdout=subprocess.PIPE, text=True
        )
        current, ended = _follow(child, current, seeds, tallies)
        child.kill()
        child.wait()
        if ended:
            return
        failure = "silent for 20 s" if child.returncode == -9 else f"the process died with code {child.returncode}"
        tallies[seeds[current % len(seeds)].kind].failures.append(f"input {current}: {failure}")
        tallies[seeds[current % len(seeds)].kind].inputs += 1
        current += numbers.step


def _follow(
    child: "subprocess.Popen[str]", current: int, seeds: list[Seed], tallies: dict[str, Tally]
) -> tuple[int, bool]:
    import select

    while child.stdout is not None:
        if not select.select([child.stdout], [], [], SILENCE_S)[0]:
            return current, False
        line = child.stdout.readline()
        if not line:
            return current, child.wait() == 0
        word, _, rest = line.rstrip("\n").replace("\t", " ", 1).partition(" ")
        if word == "try":
            current = int(rest)
        elif word == "did":
            number, refused, records, rejects, failure = rest.split("\t", 4)
            tally = tallies[seeds[int(number) % len(seeds)].kind]
            tally.inputs += 1
            tally.refused += int(refused)
            tally.records += int(records)
            tally.rejects += int(rejects)
            if failure:
                tally.failures.append(f"input {number}: {failure}")
    return current, False


def _seeds(run: str, folder: Path) -> tuple[list[Seed], list[Seed]]:
    """Returns the seeds of files that are read in this process, and of cell matrices, read in a process each."""
    from jobs._run import load

    loaded, _ = load(str(run), "laptop", only=("prepare",))
    sources: list[Any] = list(loaded.given["prepare"]["sources"])
    plain = [
        *fuzz_seeds.of_sources([Source.model_validate(source) for source in sources], ROOT),
        *fuzz_seeds.korean(),
        *fuzz_seeds.small(),
    ]
    cells = [seed for seed in plain if seed.modality == "omics"]
    return [seed for seed in plain if seed.modality != "omics"], [*cells, *fuzz_seeds.matrices(folder)]


def _share(which: str, numbers: range, seeds: list[Seed], tallies: dict[str, Tally], *, options: Any) -> None:
    command = [sys.executable, "-m", "benchmarks.corpus_fuzz", str(options.run), "--seed", str(options.seed)]
    supervise([*command, "--worker", which], numbers, seeds, tallies)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run file whose sources are the seeds")
    parser.add_argument("--inputs", type=int, default=200_000)
    parser.add_argument("--matrices", type=int, default=2_000, help="of these, inputs of cell matrices")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--update-docs", action="store_true")
    parser.add_argument("--worker", nargs=4, metavar=("WHICH", "START", "STOP", "STEP"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        plain, cells = _seeds(options.run, Path(name))
        if options.worker:
            which, *numbers = options.worker
            seeds = cells if which == "cells" else plain
            return work(seeds, range(*map(int, numbers)), seed=options.seed, folder=Path(name))
    return _run(plain, cells, options)


def _run(plain: list[Seed], cells: list[Seed], options: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    began = time.perf_counter()
    tallies = {kind: Tally() for kind in dict.fromkeys(seed.kind for seed in [*plain, *cells])}
    jobs = [("plain", plain, options.inputs - options.matrices), ("cells", cells, options.matrices)]
    with ThreadPoolExecutor(options.workers) as pool:
        for which, seeds, total in jobs:
            shares = [range(first, total, options.workers) for first in range(options.workers)]
            waiting = [pool.submit(_share, which, share, seeds, tallies, options=options) for share in shares]
            for each in waiting:
                each.result()
    text = _table(tallies, seconds=time.perf_counter() - began)
    failures = [f"{kind}: {failure}" for kind, tally in tallies.items() for failure in tally.failures]
    print(text, *failures, sep="\n")
    if options.update_docs:
        first, command, rest = (__doc__ or "").split("\n\n")
        head = f"# Damaged input files\n\n{first}\n\n```\n{command.strip()}\n```\n\n{rest.strip()}"
        PAGE.write_text(f"{head}\n\n{text}")
    raise SystemExit(bool(failures))


def _table(tallies: dict[str, Tally], *, seconds: float) -> str:
    rows = [
        f"| {kind} | {tally.inputs:,} | {tally.refused:,} | {tally.records:,} | {tally.rejects:,} "
        f"| {len(tally.failures)} |"
        for kind, tally in sorted(tallies.items())
    ]
    inputs = sum(tally.inputs for tally in tallies.values())
    failed = sum(len(tally.failures) for tally in tallies.values())
    head = "| format | inputs | files refused | records | rejects | failures |\n|---|---|---|---|---|---|"
    return f"{inputs:,} inputs, {failed} failures, {seconds:.0f} s.\n\n{head}\n" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()

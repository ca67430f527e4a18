"""How many damages to a store are refused on reading: bytes flipped, cut, deleted, half written, swapped, planted.

    .venv/bin/python -m benchmarks.corpus_damages results/demo/tokenize --damages 5000 --update-docs

Each damage is done to a copy of what tokenize committed (token shards, and cell stores where there are any). A damage
counts as refused when opening the copy, or reading every token of it, raises; as silent when all tokens come back.
"""

import argparse
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from corpus.shards import open_shards

PLANTED = "c9.bin"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks" / "corpus-damages.md"


def flip(file: Path, draw: random.Random) -> None:
    data = bytearray(file.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    _replace(file, bytes(data))


def zero(file: Path, draw: random.Random) -> None:
    """A block that was never written, as a crashed machine leaves it."""
    data = bytearray(file.read_bytes())
    start = draw.randrange(len(data))
    stop = min(len(data), start + draw.choice([1, 512, 4096]))
    if not any(data[start:stop]):
        data[start] ^= 1
    else:
        data[start:stop] = bytes(stop - start)
    _replace(file, bytes(data))


def truncate(file: Path, draw: random.Random) -> None:
    _replace(file, file.read_bytes()[: draw.randrange(file.stat().st_size)])


def lengthen(file: Path, draw: random.Random) -> None:
    _replace(file, file.read_bytes() + draw.randbytes(draw.randint(1, 64)))


def delete(file: Path, draw: random.Random) -> None:  # noqa: ARG001 - all damages are called alike
    file.unlink()


def plant(file: Path, draw: random.Random) -> None:
    (file.parent / PLANTED).write_bytes(draw.randbytes(64))


def swap(file: Path, draw: random.Random) -> None:
    """Another file of the same store in its place."""
    others = [other for other in file.parents[1].rglob("*") if other.is_file() and other != file]
    different = [other for other in others if other.read_bytes() != file.read_bytes()]
    if different:
        _replace(file, draw.choice(different).read_bytes())
    else:
        file.unlink()


KINDS: dict[str, Callable[[Path, random.Random], None]] = {
    "a bit flipped": flip,
    "a block zeroed": zero,
    "cut short": truncate,
    "made longer": lengthen,
    "deleted": delete,
    "a file planted": plant,
    "another file in its place": swap,
}


def trial(committed: Path, copy: Path, *, kind: str, draw: random.Random) -> tuple[str, bool]:
    """Damages one file of a copy, and mends it; returns its name and whether reading refused the copy."""
    files = [file for file in sorted(copy.rglob("*")) if file.is_file() and file.stat().st_size]
    below = [file for file in files if file.parent != copy]  # beside the manifest lie the stage's other files
    file = draw.choice(below if kind == "a file planted" else files)
    KINDS[kind](file, draw)
    found = refused(copy)
    file.unlink(missing_ok=True)
    (file.parent / PLANTED).unlink(missing_ok=True)
    file.hardlink_to(committed / file.relative_to(copy))
    return str(file.relative_to(copy)), found


def refused(folder: Path) -> bool:
    """Says whether the store refuses to be opened or read to its end; any other error than ValueError is a crash."""
    try:
        shards = open_shards(folder)
        for name, splits in shards.manifest["streams"].items():
            for split in splits:
                stream = shards.stream(name, split)
                stream.tokens(0, len(stream))
    except ValueError:
        return True
    return False


def run(options: argparse.Namespace) -> tuple[Counter[tuple[str, bool]], list[str]]:
    """Does all damages; returns how many of each kind were refused or not, and those that were not."""
    draw = random.Random(options.seed)
    counts: Counter[tuple[str, bool]] = Counter()
    silent: list[str] = []
    with tempfile.TemporaryDirectory(dir=options.folder.parent) as folder:
        committed = Path(folder) / "committed"
        shutil.copytree(options.folder, committed, copy_function=_link, ignore=_only_the_store)
        if refused(committed):
            raise SystemExit(f"{options.folder}: must open before it is damaged, but does not; run tokenize again")
        copy = Path(folder) / "copy"
        shutil.copytree(committed, copy, copy_function=_link)
        for number in range(options.damages):
            kind = list(KINDS)[number % len(KINDS)]
            name, found = trial(committed, copy, kind=kind, draw=draw)
            counts[kind, found] += 1
            if not found:
                silent.append(f"{kind}: {name}")
                print("silent:", silent[-1], flush=True)
            if number % 500 == 499:
                print(f"{number + 1} damages, {len(silent)} silent", flush=True)
    return counts, silent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what tokenize committed")
    parser.add_argument("--damages", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--update-docs", action="store_true")
    options = parser.parse_args()
    began = time.perf_counter()
    counts, silent = run(options)
    table = "\n".join(
        f"| {kind} | {counts[kind, True] + counts[kind, False]} | {counts[kind, True]} |" for kind in KINDS
    )
    text = (
        f"{options.damages} damages, {options.damages - len(silent)} refused, {len(silent)} silent, "
        f"{time.perf_counter() - began:.0f} s.\n\n| damage | done | refused |\n|---|---|---|\n{table}\n"
    )
    print(text, *silent, sep="\n")
    if options.update_docs:
        PAGE.write_text(f"# Damages to stores\n\n{_about()}\n\n{text}")
    raise SystemExit(bool(silent))


def _about() -> str:
    first, command, rest = (__doc__ or "").split("\n\n")
    return f"{first.split(chr(10))[0]}\n\n```\n{command.strip()}\n```\n\n{rest.strip()}"


def _only_the_store(folder: str, names: list[str]) -> set[str]:
    top = {"manifest.json", "tokenizer", "shards", "cells"}
    return set(names) - top if (Path(folder) / "manifest.json").is_file() and "shards" in names else set()


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def _replace(file: Path, data: bytes) -> None:
    """Writes a new file: the old one is shared by all copies."""
    file.unlink()
    file.write_bytes(data)


if __name__ == "__main__":
    main()

"""The survey: all records read once, in parallel, before there is a tokenizer: their symbols, and text to train on."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from corpus import tokenizer as tokenizers
from corpus.claims import Nodes
from corpus.modality import modality
from corpus.ranges import Range, lines, records_file
from corpus.records import SPLITS, streams
from corpus.symbols import SYMBOL
from corpus.vocabulary import all_symbols
from corpus.workers import Crew, beat, run_units
from slurm.files import digest, read_json, sha256_file, write_json

ALONE = Crew(isolate=False)
"""One worker in this process."""

RANGE_BYTES = 1 << 25
_TEXT_PER_STREAM = 20_000_000  # characters for training the BPE: more changes little and takes memory
_BEAT = 256

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A range of records of one stream and split.

    Attributes:
        texts: characters of it that the BPE is trained on.
    """

    stream: str
    split: str
    number: int
    within: Range
    texts: int = 0

    @property
    def name(self) -> str:
        """Of the file or folder of what is made of it."""
        return f"{self.split}/{self.stream}/{self.number:05d}"


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Reads a range of records and writes what it found below `folder`."""

    folder: Path

    def __call__(self, unit: Unit) -> None:
        """Writes the unit's symbols, and the text between them up to the unit's share."""
        symbols: set[str] = set()
        texts: list[str] = []
        size = 0
        for number, record in enumerate(records_of(unit.within)):
            text = modality(record["modality"]).render(record["content"])
            symbols.update(SYMBOL.findall(text))
            if size < unit.texts:
                texts += filter(None, SYMBOL.split(text[: unit.texts]))
                size += len(text)
            if number % _BEAT == 0:
                beat(_BEAT)
        write_json(self.file(unit), {"symbols": sorted(symbols), "texts": texts})

    def done(self, unit: Unit) -> bool:
        """Returns whether the unit was read."""
        return self.file(unit).is_file()

    def file(self, unit: Unit) -> Path:
        """Returns where what was found lies."""
        return self.folder / f"{unit.name}.json"


def make_tokenizer(
    records: Path,
    *,
    base: Path | None,
    vocab_size: int | None,
    genes: Path | None = None,
    work: Path | None = None,
    crew: Crew = ALONE,
    progress: Progress = lambda *_: None,
) -> Tokenizer:
    """Returns the tokenizer of a run: trained on the train split, or loaded from `base`, with all symbols.

    A stream with a quarter of another's text is read twice as often, so that a small one (Korean) gets its merges.

    Args:
        records: prepare's folder.
        base: a tokenizer to extend, instead of training one.
        vocab_size: ids in all.
        genes: a table of genes that get an id, whatever the records hold.
        work: keeps what was read, so that a later start need not read it again; on a disk that all nodes see.
        crew: who reads.
        progress: is told what is done.

    Raises:
        ValueError: the symbols do not fit in `vocab_size`, or `base` or `genes` cannot be read.
    """
    with ExitStack() as stack:
        folder = work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        nodes = Nodes(rank=crew.rank, world_size=crew.world_size, meeting=crew.meeting)
        stack.enter_context(nodes.together())
        asked = {"base": None if base is None else str(base), "vocab_size": vocab_size, "texts": _TEXT_PER_STREAM}
        asked["genes"] = None if genes is None else sha256_file(genes)
        read = {"records": state_of(records), "of_base": {} if base is None else _digests(base)}
        begin(folder, {**asked, **read}, nodes=nodes)
        units, survey = _units(records, texts=base is None), Survey(folder=folder)
        told = _told(progress, "records read")
        refuse_dead(run_units(units, survey, committed=survey.done, crew=crew, progress=told, name="survey"), units)
        made = folder / "made"
        if crew.rank == 0 and not (made / "tokenizer.json").is_file():
            tokenizers.save(_made(survey, units, base=base, vocab_size=vocab_size, genes=genes), made)
        if crew.rank:
            nodes.wait_for(made / "tokenizer.json")
        return tokenizers.load(made)


def begin(folder: Path, asked: Mapping[str, Any], *, nodes: Nodes, clear: Sequence[Path] = ()) -> None:
    """Makes `folder` ready for work that is asked for in this way: what was done for another request is removed.

    Args:
        folder: where the work is done.
        asked: all that decides its result; a change of this package is one too.
        nodes: those who work; the first makes the folder ready.
        clear: what is removed with it.
    """
    request, begun = folder / "asked.json", nodes.meeting / f"begun-{folder.name}"
    if nodes.rank == 0:
        told = {**asked, "code": _code()}
        if not request.is_file() or read_json(request) != told:
            for path in (folder, *clear):
                shutil.rmtree(path, ignore_errors=True)
            write_json(request, told)
        if nodes.many:
            begun.touch()
    elif nodes.many:
        nodes.wait_for(begun)


def state_of(records: Path) -> dict[str, list[int]]:
    """Returns the size and time of every file of records: another where prepare ran again."""
    files = sorted((records / "records").glob("*.jsonl"))
    return {path.name: [(found := path.stat()).st_size, found.st_mtime_ns] for path in files}


def records_of(within: Range) -> Iterator[dict[str, Any]]:
    """Yields the records of a range."""
    return (json.loads(line) for _, line in lines(within))


def refuse_dead(died: Mapping[int, str], units: Sequence[Unit]) -> None:
    """Raises ValueError where a unit of work could not be done."""
    for number, why in died.items():
        unit = units[number]
        place = f"{unit.within.file.name}, bytes {unit.within.start} to {unit.within.stop}"
        told = f"must be read by a worker, but {why}, twice"
        raise ValueError(f"{place}: {told}; give the stage more memory, or find the record that does it")


def _units(records: Path, *, texts: bool) -> list[Unit]:
    units = []
    for stream in streams(records):
        for split in SPLITS:
            found = Range.of(records_file(records, stream=stream, split=split), size=RANGE_BYTES)
            share = _TEXT_PER_STREAM // len(found) if texts and split == "train" else 0
            units += [
                Unit(stream=stream, split=split, number=number, within=within, texts=share)
                for number, within in enumerate(found)
            ]
    return units


def _made(
    survey: Survey, units: Sequence[Unit], *, base: Path | None, vocab_size: int | None, genes: Path | None
) -> Tokenizer:
    found = {symbol for unit in units for symbol in read_json(survey.file(unit))["symbols"]}
    symbols = all_symbols(genes=genes, found=found)
    if base is not None:
        return tokenizers.add_symbols(tokenizers.load(base), symbols, vocab_size=vocab_size)
    if vocab_size is None:
        raise ValueError("tokenize.vocab_size: must be given where no tokenizer is loaded, but is not; add it")
    room = tokenizers.room_for_text(symbols, vocab_size=vocab_size)
    return tokenizers.add_symbols(
        tokenizers.train(_balanced(survey, units), vocab_size=room), symbols, vocab_size=vocab_size
    )


def _balanced(survey: Survey, units: Sequence[Unit]) -> Iterator[str]:
    """Yields the texts, of one range at a time, those of small streams more than once."""
    sizes: dict[str, int] = {}
    for unit in units:
        sizes[unit.stream] = sizes.get(unit.stream, 0) + sum(map(len, read_json(survey.file(unit))["texts"]))
    for unit in units:
        texts = read_json(survey.file(unit))["texts"] if sizes[unit.stream] else []
        for _ in range(round((max(sizes.values()) / sizes[unit.stream]) ** 0.5) if texts else 0):
            yield from texts


def _digests(base: Path) -> dict[str, str]:
    """Returns the digest of each file of a tokenizer; one that is not there is told when it is loaded."""
    return {path.name: sha256_file(path) for path in tokenizers.files(base)}


def _code() -> str:
    """Returns what works: this package's files, and the versions of what encodes and writes."""
    folder = Path(__file__).parent
    files = {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*.py"))}
    return digest({**files, **{name: version(name) for name in ("numpy", "tokenizers", "zarr")}})


def _told(progress: Progress, what: str) -> Callable[[int, int, int], None]:
    return lambda done, total, items: progress(done, total, f"{items:,} {what}")

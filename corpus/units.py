"""Units: the files of all sources in pieces that one worker reads, each known by all that its result depends on."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from corpus.formats import archive
from corpus.gates.config import GatesConfig
from corpus.modality import SourceError
from corpus.pulse import beat
from corpus.source import Source
from slurm.files import digest, sha256_file

_FORMAT = 1  # of a part; raised when parts of before cannot be used
_UNIT_BYTES, _UNIT_FILES = 32 << 20, 256  # small files are read together: each unit is a commit
_READERS = (
    *("anndata", "biopython", "datasketch", "fhir.resources", "h5py", "ijson", "lxml", "numpy", "pandas", "pyarrow"),
    *("rdkit", "scipy", "zarr"),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the records of all sources depend on besides the sources."""

    root: Path
    seed: int
    valid_fraction: float
    gates: GatesConfig = field(default_factory=GatesConfig)


@dataclass(frozen=True, kw_only=True)
class File:
    """What is read at once, and what records call it.

    Attributes:
        path: a file, or a folder that is read as one.
        members: of a zip, those that are meant.
        beside: whether its reader also looks at what lies beside it, such as the other tables of a patient.
    """

    path: Path
    label: str
    members: tuple[str, ...] = ()
    beside: bool = False

    def stamp(self) -> list[int]:
        """Returns what shows cheaply whether it was changed: bytes, time, number of files; nothing without it."""
        if not self.path.exists():
            return []
        stats = [path.stat() for path in _files(self.folder)]
        return [sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0), len(stats)]

    def sha256(self) -> str:
        """Returns the digest of its bytes; of a folder, of its files' digests."""
        if not self.folder.is_dir():
            return _sha256(self.path)
        return digest([[str(path.relative_to(self.folder)), _sha256(path)] for path in _files(self.folder)])

    @property
    def folder(self) -> Path:
        """All that its reader looks at."""
        return self.path.parent if self.beside else self.path


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What one worker reads at once: some files of a source, into the part of that number below a folder.

    Attributes:
        whole: whether these are all files of the source.
        digest: of all that the part depends on besides the files' bytes.
    """

    source: Source
    number: int
    files: tuple[File, ...]
    whole: bool
    folder: Path
    digest: str

    @property
    def part(self) -> Path:
        """Where the part lies."""
        return self.folder / self.source.name / f"{self.number:06d}"


def plan(sources: Iterable[Source], folder: Path, *, settings: Settings) -> list[Unit]:
    """Returns the units of all sources, in the order of their records; the same on every node."""
    read = {str(path): sha256_file(path) for path in settings.gates.files(settings.root) if path.is_file()}
    return [unit for source in sources for unit in _of_source(source, folder, settings, read)]


def split_of(group: str, *, seed: int, valid_fraction: float) -> str:
    """Returns a group's split: a pure function of the group and the seed, equal on every machine."""
    drawn = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return "valid" if int.from_bytes(drawn[:8]) < valid_fraction * 2**64 else "train"


def inputs_digest(found: Sequence[tuple[str, str]]) -> str:
    """Returns what a source's `sha256:` is held against: the digest of its only file, or of the list of its files."""
    return found[0][1] if len(found) == 1 else digest([list(item) for item in found])


def _of_source(source: Source, folder: Path, settings: Settings, read: Mapping[str, str], /) -> Iterator[Unit]:
    files = [
        File(path=path, label=source.label(path, settings.root), members=members, beside=source.reads_beside(path))
        for path in source.files(settings.root)
        for members in _members(source, path)
    ]
    groups = [files] if source.max_records is not None else list(_groups(files))
    for number, group in enumerate(groups):
        yield Unit(
            source=source,
            number=number,
            files=tuple(group),
            whole=len(groups) == 1,
            folder=folder,
            digest=_digest(source, group, settings, read),
        )


def _members(source: Source, path: Path) -> Iterator[tuple[str, ...]]:
    """Yields the members of a zip that are read at once; one empty group for everything else.

    A tar has no table of contents: it is read in one go. What is wrong with a zip is found again by who reads it.
    """
    if source.member is None or path.suffix.lower() != ".zip" or not path.is_file():
        yield ()
        return
    wanted = archive.matching(source.member)
    try:
        found = [member for member in archive.members(path) if wanted(member.name) and source.reads(member.name)]
    except SourceError:
        yield ()
        return
    sizes = {member.name: member.bytes for member in found}
    groups = [list(sizes)] if source.max_records is not None else _grouped(sizes)
    yield from (tuple(group) for group in groups)
    if not found:
        yield ()


def _groups(files: Sequence[File]) -> Iterator[list[File]]:
    """Groups small files; members of a zip are a group by themselves."""
    run: dict[File, int] = {}
    for file in files:
        if file.members or file.path.is_dir():
            yield from _grouped(run)
            run = {}
            yield [file]
        else:
            run[file] = file.path.stat().st_size if file.path.is_file() else 0
    yield from _grouped(run)


def _grouped[Kind](sizes: dict[Kind, int]) -> Iterator[list[Kind]]:
    group, bytes_ = list[Kind](), 0
    for item, size in sizes.items():
        if group and (bytes_ + size > _UNIT_BYTES or len(group) >= _UNIT_FILES):
            yield group
            group, bytes_ = [], 0
        group.append(item)
        bytes_ += size
    if group:
        yield group


def _digest(source: Source, files: Sequence[File], settings: Settings, read: Mapping[str, str], /) -> str:
    named = source.option_files(settings.root, [file.path for file in files])
    return digest(
        {
            "format": _FORMAT,
            "code": _code(),
            "source": json.loads(source.model_dump_json()),
            "files": [[file.label, list(file.members)] for file in files],
            "options": {str(path): sha256_file(path) for path in named},
            "seed": settings.seed,
            "valid_fraction": settings.valid_fraction,
            "gates": json.loads(settings.gates.model_dump_json()),
            "read": dict(read),
        }
    )


@cache
def _code() -> dict[str, Any]:
    """Returns what reads: this package's files and the libraries' versions."""
    package = Path(__file__).parent
    files = {str(path.relative_to(package)): sha256_file(path) for path in sorted(package.rglob("*.py"))}
    return {"files": files, "libraries": {name: _version(name) for name in _READERS}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _sha256(path: Path) -> str:
    """Returns a file's digest; a huge one on a slow disk is no silence."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            found.update(block)
            beat()
    return found.hexdigest()


def _files(path: Path) -> list[Path]:
    return sorted(found for found in path.rglob("*") if found.is_file()) if path.is_dir() else [path]

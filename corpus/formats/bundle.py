"""Bundles: files that belong together, in a folder, a zip or a tar; read in place, nothing is written out."""

import gzip
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Self, cast

from corpus.modality import SourceError

_MOST = 1_000_000  # files: a zarr store has one for each chunk
_MATRIX = "matrix.mtx"
_ENDINGS = (".mtx", ".mtx.gz")
_TARS = (".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """The names of some files, and a way to open each; a gzipped one comes back unzipped."""

    names: tuple[str, ...]
    open_raw: Callable[[str], BinaryIO]

    def read(self, name: str) -> BinaryIO:
        """Opens a member for reading."""
        file = self.open_raw(name)
        return cast("BinaryIO", gzip.GzipFile(fileobj=file)) if name.endswith(".gz") else file

    @classmethod
    def open(cls, path: Path) -> Self:
        """Opens a folder, a zip, a tar, or a matrix.mtx with the files beside it.

        Raises:
            SourceError: it is none of these, or an archive holds what harms, though nothing is written out.
        """
        name = path.name.lower()
        if path.is_dir():
            names = (str(file.relative_to(path)) for file in sorted(path.rglob("*")) if file.is_file())
            return cls(names=_safe(tuple(names)), open_raw=lambda name: (path / name).open("rb"))
        if name.endswith(_ENDINGS):
            return cls(names=_beside(path), open_raw=lambda name: (path.parent / name).open("rb"))
        if name.endswith(".zip") or name.endswith(_TARS):
            return cls._of_zip(path) if name.endswith(".zip") else cls._of_tar(path)
        raise SourceError("damaged", "must be a folder, a zip or a tar of cell data, but is none; fetch it again")

    @classmethod
    def _of_zip(cls, path: Path) -> Self:
        archive = zipfile.ZipFile(path)
        names = tuple(entry.filename for entry in archive.infolist() if not entry.is_dir())
        return cls(names=_safe(names), open_raw=lambda name: cast("BinaryIO", archive.open(name)))

    @classmethod
    def _of_tar(cls, path: Path) -> Self:
        archive = tarfile.open(path)  # noqa: SIM115 - members are read later
        names = tuple(entry.name for entry in archive if entry.isfile())
        return cls(names=_safe(names), open_raw=lambda name: cast("BinaryIO", archive.extractfile(name)))


def _beside(path: Path) -> tuple[str, ...]:
    """Returns a matrix and the files of its folder whose names begin as its own: GSM1_matrix.mtx, GSM1_genes.tsv."""
    place = path.name.lower().find(_MATRIX)
    names = sorted(file.name for file in path.parent.iterdir() if file.name.startswith(path.name[: max(0, place)]))
    return tuple(name for name in names if name == path.name or not name.lower().endswith(_ENDINGS))


def _safe(names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names of an archive; zarr's own zips hold some twice, and the last one counts, as for zipfile.

    What macOS puts beside each file (._matrix.mtx, in zips below __MACOSX) is left out.
    """
    if len(names) > _MOST:
        raise SourceError("archive_bomb", f"must hold {_MOST:,} files or less, but holds {len(names):,}; split it")
    for name in names:
        where = PurePosixPath(name.replace("\\", "/"))
        if where.is_absolute() or ".." in where.parts:
            told = f"must hold names below one folder, but holds {name[:80]!r}; do not trust it"
            raise SourceError("archive_path", told)
    return tuple(dict.fromkeys(name for name in names if not PurePosixPath(name).name.startswith("._")))

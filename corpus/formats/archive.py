"""Archives: .zip, .tar and .tar.gz listed and extracted; what could write elsewhere or explode is refused."""

import errno
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO

from corpus.formats.lines import RATIO, RATIO_FROM, open_bytes
from corpus.modality import SourceError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
_BLOCK = 1 << 20
_DRIVE = re.compile(r"^[A-Za-z]:")
_NAME_ERRORS = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EILSEQ)
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    struct.error,
    EOFError,
    UnicodeError,
    OverflowError,
    NotImplementedError,  # a compression that Python does not know
    RuntimeError,  # zipfile's word for encrypted
    ValueError,
    LookupError,
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an archive may hold: members, bytes in all when unpacked, and bytes for each byte that is packed."""

    members: int = 200_000
    bytes: int = 64 << 30
    ratio: float = RATIO


DEFAULT = Limits()


@dataclass(frozen=True, kw_only=True)
class Member:
    """One file of an archive: its name within, with / between folders, and its size when unpacked."""

    name: str
    bytes: int


def is_archive(path: Path) -> bool:
    """Says whether a file's name is that of an archive."""
    return path.name.lower().endswith(SUFFIXES)


def members(path: Path, *, limits: Limits = DEFAULT) -> list[Member]:
    """Returns the files of an archive, in their order; a .tar.gz is read to its end for that.

    Raises:
        SourceError: it is damaged or encrypted, holds a name or a kind that could write elsewhere (archive_path), or
            more than the limits allow (archive_bomb).
    """
    with _explained(path):
        return [member for member, _ in _walk(path, limits)]


@contextmanager
def extracted(
    path: Path, *, limits: Limits = DEFAULT, wanted: Callable[[str], bool] = lambda _: True, into: Path | None = None
) -> Iterator[Path]:
    """Extracts an archive to a temporary folder that is removed behind the `with`; archives within are left packed.

    Args:
        path: the archive.
        limits: what it may hold.
        wanted: says of a member's name whether it is extracted.
        into: where the temporary folder is made.

    Raises:
        SourceError: as `members`; nothing is written outside the folder, nor beyond the limits.
    """
    with tempfile.TemporaryDirectory(dir=into, prefix="archive-") as temporary:
        folder = Path(temporary)
        with _explained(path):
            for member, file in _walk(path, limits):
                if wanted(member.name):
                    _write(folder / member.name, file(), member)
        yield folder


def matching(pattern: str) -> Callable[[str], bool]:
    """Returns what says whether a member's name fits a pattern: as in a shell, and * crosses folders."""
    normal = unicodedata.normalize("NFC", pattern)
    return lambda name: fnmatchcase(name, normal)


def _walk(path: Path, limits: Limits) -> Iterator[tuple[Member, Callable[[], IO[bytes]]]]:
    """Yields the files, each with what opens it; only then, in their order, as a stream cannot go back."""
    found = _zipped(path, limits) if path.name.lower().endswith(".zip") else _tarred(path, limits)
    names: set[str] = set()
    size, packed = 0, max(1, path.stat().st_size)
    for member, file in found:
        size += member.bytes
        if member.name in names:
            raise SourceError(
                "archive_path", f"must hold each name once, but holds {member.name!r} twice; pack it again"
            )
        names.add(member.name)
        if len(names) > limits.members:
            raise _bomb(f"at most {limits.members:,} files, but has more")
        if size > limits.bytes:
            raise _bomb(f"at most {limits.bytes:,} bytes when unpacked, but has more")
        if size > RATIO_FROM and size / packed > limits.ratio:
            raise _bomb(f"at most {limits.ratio:g} bytes for each packed byte, but has {size / packed:.0f}")
        yield member, file


def _zipped(path: Path, limits: Limits) -> Iterator[tuple[Member, Callable[[], IO[bytes]]]]:
    with zipfile.ZipFile(path) as file:
        for info in file.infolist():
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _odd(info.filename)
            if info.flag_bits & 1:
                raise SourceError("encrypted", f"must be readable, but {info.filename!r} is encrypted; decrypt it")
            name = _safe(_decoded(info))
            if info.file_size > RATIO_FROM and info.file_size > limits.ratio * max(1, info.compress_size):
                ratio = info.file_size / max(1, info.compress_size)
                raise _bomb(f"at most {limits.ratio:g} bytes for each packed byte, but has {ratio:.0f} in {name!r}")
            if not info.is_dir():
                yield Member(name=name, bytes=info.file_size), lambda info=info: file.open(info)  # type: ignore[misc]


def _tarred(path: Path, limits: Limits) -> Iterator[tuple[Member, Callable[[], IO[bytes]]]]:
    with open_bytes(path) as packed, tarfile.open(fileobj=packed, mode="r|", errorlevel=1) as file:
        for number, info in enumerate(file, start=1):
            if number > 2 * limits.members:
                raise _bomb(f"at most {limits.members:,} files, but has more")
            if not (info.isreg() or info.isdir()) or info.issparse():
                raise _odd(info.name)
            name = _safe(info.name)
            if info.isreg():
                yield Member(name=name, bytes=info.size), lambda info=info: _opened(file, info)  # type: ignore[misc]
            file.members.clear()  # type: ignore[attr-defined] # tarfile would keep all that it has passed


def _opened(file: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    opened = file.extractfile(info)
    if opened is None:
        raise _odd(info.name)
    return opened


def _write(path: Path, file: IO[bytes], member: Member) -> None:
    """Writes one member, never more than it said that it holds."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with file, path.open("xb") as written:
            shutil.copyfileobj(file, written, _BLOCK)
            found = written.tell()
    except OSError as error:
        if error.errno not in _NAME_ERRORS:
            raise
        told = f"must hold names that can be written, but holds {member.name[:200]!r}; pack it again"
        raise SourceError("archive_path", told) from error
    if found != member.bytes:
        told = f"{member.name!r} must hold {member.bytes:,} bytes, but holds {found:,}; fetch it again"
        raise SourceError("damaged", told)


def _decoded(info: zipfile.ZipInfo) -> str:
    """Returns a member's name. Without a mark for UTF-8, zipfile reads CP437, where Korean Windows writes CP949."""
    name = info.orig_filename
    if info.flag_bits & 0x800 or name.isascii():
        return name
    try:
        raw = name.encode("cp437")
    except UnicodeEncodeError:
        return name
    for encoding in ("utf-8", "cp949"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return name


def _safe(name: str) -> str:
    """Returns a member's name in NFC.

    Raises:
        SourceError: it could lead out of the folder, or is none.
    """
    parts = re.split(r"[/\\]", name)
    if "\0" in name or not name.strip("/\\ ") or name[0] in "/\\" or _DRIVE.match(name) or ".." in parts:
        told = f"must hold names below one folder, but holds {name[:200]!r}; do not trust it"
        raise SourceError("archive_path", told)
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise SourceError(
            "archive_path", f"must hold names in Unicode, but holds {name[:200]!a}; pack it again"
        ) from error
    return unicodedata.normalize("NFC", str(PurePosixPath(name)))


def _odd(name: str) -> SourceError:
    told = f"must hold files and folders only, but {name[:200]!r} is a link, a device or sparse; do not trust it"
    return SourceError("archive_path", told)


def _bomb(rule: str) -> SourceError:
    return SourceError("archive_bomb", f"must hold {rule}; do not trust it")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except SourceError:
        raise
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: a place before the file's beginning
            raise
        told = f"{path.name} must be a whole archive, but {str(error)[:200] or type(error).__name__}; fetch it again"
        raise SourceError("damaged", told) from error

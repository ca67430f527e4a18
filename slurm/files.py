"""Files on shared storage: atomic writes, strict JSON and digests, used by every layer above."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def write_atomic(path: Path, data: bytes | str) -> None:
    """Writes `data` so that a reader sees the old file or the new one, never a part of it.

    The bytes go to a temporary file in the same folder, are fsynced and renamed, and the folder is fsynced.
    """
    payload = data.encode() if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically. NaN and infinity are refused."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads strict JSON: a duplicate key, NaN or infinity is an error that names the file.

    Raises:
        ValueError: the file is not strict JSON.
    """
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: must be strict JSON, but {error}; restore it or make it again") from error


def sha256_file(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_files(folder: Path) -> dict[str, str]:
    """Returns {path relative to `folder`: SHA-256} of every file below `folder`, sorted by path."""
    return {str(path.relative_to(folder)): sha256_file(path) for path in _files(folder)}


def digest(value: Any) -> str:
    """Returns the SHA-256 of `value` as canonical JSON: equal values have equal digests on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def fsync_file(path: Path) -> None:
    """Makes a file's content survive a power cut."""
    _fsync(path, os.O_RDONLY)


def fsync_folder(path: Path) -> None:
    """Makes the names in a folder survive a power cut."""
    _fsync(path, os.O_RDONLY | os.O_DIRECTORY)


def _fsync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} occurs twice")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")

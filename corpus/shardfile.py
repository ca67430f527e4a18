"""One array of a shard: a zarr v3 array in a single file of checksummed, uncompressed chunks, read without a copy.

zarr writes it, and anything that reads zarr can read it. Training maps the file instead: a chunk lies in it as numpy
holds it, so that a window costs no decompression and no work that grows with the data. A chunk's CRC-32C is compared
the first time a process touches it.

The file is chunks of equal size, each followed by its CRC-32C, then the index (offset and size of each chunk, uint64)
and the CRC-32C of the index: zarr's sharding codec, index at the end.
"""

import resource
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from slurm.files import read_json

CHUNK = 1 << 16
"""Tokens in a chunk: 128 KiB of uint16."""

ROWS = 1 << 13
"""Rows in a chunk of an array with a row for each document."""

_CRC = 4
_MAPPED = 1 << 14  # of the 65,530 mappings that Linux gives a process


def write_array(group: Any, name: str, *, values: NDArray[Any], chunk: int) -> None:
    """Writes `values` below a zarr group as one file; they are chunked along their first axis."""
    from zarr.codecs import Crc32cCodec

    rows, rest = len(values), values.shape[1:]
    stored = group.create_array(
        name,
        shape=values.shape,
        chunks=(chunk, *rest),
        shards=(max(1, -(-rows // chunk)) * chunk, *rest),
        dtype=values.dtype,
        compressors=[Crc32cCodec()],
        fill_value=0,
        config={"write_empty_chunks": True},  # a chunk of zeros is data; one that is missing is damage
    )
    if rows:
        stored[:] = values


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An array that `open_array` mapped; usable after a fork.

    Attributes:
        path: its folder.
        shape: its rows, and what each holds.
        dtype: of a value.
        rows_per_chunk: the last chunk is filled up with zeros.
        chunk_bytes: size of a chunk without its CRC-32C.
        starts: where each chunk begins in the file.
        data: the file.
        checked: which chunks were compared with their CRC-32C.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows_per_chunk: int
    chunk_bytes: int
    starts: list[int]
    data: NDArray[np.uint8]
    checked: bytearray

    def __len__(self) -> int:
        return self.shape[0]

    def chunk(self, number: int) -> NDArray[Any]:
        """Returns a chunk, read-only and without a copy; it is checked the first time.

        Raises:
            ValueError: it is damaged.
        """
        start = self.starts[number]
        stop = start + self.chunk_bytes
        found = self.data[start:stop]
        if not self.checked[number]:
            if google_crc32c.value(found) != int.from_bytes(self.data[stop : stop + _CRC], "little"):
                raise _damaged(self.path, f"chunk {number} must match its CRC-32C")
            self.checked[number] = 1
        return found.view(self.dtype) if len(self.shape) == 1 else found.view(self.dtype).reshape(-1, *self.shape[1:])

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Returns rows start to stop: a view where they lie in one chunk.

        Raises:
            ValueError: a chunk is damaged.
        """
        size = self.rows_per_chunk
        first, last = start // size, (stop - 1) // size
        if start >= stop:
            return np.empty((0, *self.shape[1:]), self.dtype)
        if first == last:
            return self.chunk(first)[start - first * size : stop - first * size]
        parts = [self.chunk(number) for number in range(first, last + 1)]
        return np.concatenate(parts)[start - first * size : stop - first * size]

    def copy_into(self, out: NDArray[Any], start: int) -> None:
        """Copies the rows from `start` on into `out`, each value once, and as `out` holds values.

        Raises:
            ValueError: a chunk is damaged.
        """
        size, filled, wanted = self.rows_per_chunk, 0, len(out)
        while filled < wanted:
            number, offset = divmod(start + filled, size)
            part = self.chunk(number)[offset : offset + wanted - filled]
            out[filled : filled + len(part)] = part
            filled += len(part)

    def position(self, value: int) -> int:
        """Returns how many of these ascending values are at most `value`; looks at one value of a few chunks only.

        Raises:
            ValueError: a chunk is damaged.
        """
        low, high = 0, len(self.starts)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.chunk(middle)[0] <= value else (low, middle)
        first = low * self.rows_per_chunk
        found = self.rows(first, min(len(self), first + self.rows_per_chunk))
        return first + int(np.searchsorted(found, value, side="right"))


class Opened[Key, Kind](dict[Key, Kind]):
    """Arrays that are mapped. Each holds a file open, so a process holds no more than it may, and drops the oldest."""

    def of(self, key: Key, opening: Callable[[], Kind]) -> Kind:
        """Returns an array, mapped anew where it was dropped."""
        found = self.get(key)
        if found is None:
            most = min(_MAPPED, max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2))
            while len(_held) >= most:
                others, other = _held.popleft()
                (others() or {}).pop(other, None)
            found = self[key] = opening()
            _held.append((weakref.ref(self), key))
        return found


_held: deque[tuple[Callable[[], dict[Any, Any] | None], Any]] = deque()


def open_array(path: Path) -> Stored:
    """Maps an array that `write_array` wrote.

    Raises:
        ValueError: it is damaged, or was written in another form.
    """
    shape, dtype, rows = _form(path)
    chunks = -(-shape[0] // rows)
    size = rows * int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
    file = path.joinpath("c", *("0" for _ in shape))
    expected = chunks * (size + _CRC + 16) + _CRC if chunks else 0
    found = file.stat().st_size if file.is_file() else 0
    if found != expected:
        raise _damaged(path, f"its file must have {expected} bytes, but has {found}")
    data = np.memmap(file, np.uint8, mode="r") if chunks else np.empty(0, np.uint8)
    return Stored(
        path=path,
        shape=shape,
        dtype=dtype,
        rows_per_chunk=rows,
        chunk_bytes=size,
        starts=_starts(path, data, chunks=chunks, size=size),
        data=data.view(np.ndarray),
        checked=bytearray(chunks),
    )


def _starts(path: Path, data: NDArray[np.uint8], *, chunks: int, size: int) -> list[int]:
    """Returns where the chunks begin, from the index at the file's end."""
    if not chunks:
        return []
    index = data[-chunks * 16 - _CRC : -_CRC]
    if google_crc32c.value(index.tobytes()) != int.from_bytes(data[-_CRC:], "little"):
        raise _damaged(path, "its index must match its CRC-32C")
    starts, sizes = index.view("<u8").reshape(-1, 2).T
    if (sizes != size + _CRC).any() or (starts > len(data) - 16 * chunks - 2 * _CRC - size).any():
        raise _damaged(path, "its index must tell where chunks of equal size lie")
    return [int(start) for start in starts]


def _form(path: Path) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Returns shape, type and rows of a chunk."""
    told = read_json(path / "zarr.json")
    try:
        (codec,) = told["codecs"]
        inner = [each["name"] for each in codec["configuration"]["codecs"]]
        at_end = codec["configuration"]["index_location"] == "end"
        form = tuple(told["shape"]), np.dtype(told["data_type"]), int(codec["configuration"]["chunk_shape"][0])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise _damaged(path, f"its zarr.json must describe a sharded array ({error!r})") from error
    if inner != ["bytes", "crc32c"] or not at_end or form[2] < 1:
        raise _damaged(path, f"its chunks must be bytes and crc32c, with the index at the end, but are {inner}")
    return form


def _damaged(path: Path, holds: str) -> ValueError:
    told = "" if ", but " in holds else ", but does not"
    return ValueError(f"{path}: {holds}{told}; run tokenize again")

"""Text files as bytes and lines: gunzipped within limits, in UTF-8, UTF-16 or CP949, with the place of every line."""

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from corpus.modality import SourceError
from corpus.pulse import beat

RATIO = 200.0  # bytes for each packed byte; real tables reach 50, deflate can reach 1,032
RATIO_FROM = 8 << 20  # bytes, below which a bomb does no harm
LONGEST = 32 << 20  # bytes of a line
_BLOCK = 1 << 20
_ENOUGH = 4 << 20  # bytes that are not all ASCII and tell an encoding
_PAIR = re.compile(rb"([\xa1-\xfe]{2})|[\x80-\xff].", re.DOTALL)  # a letter of CP949; usual ones are in the group
_ODD = re.compile(
    r"utf_?-?(7|16|32)|iso2022|hz|unicode|raw|idna|punycode|rot|hex|base64|uu|quopri|bz2|zip|zlib|charmap"
)


class Line(NamedTuple):
    r"""A line with its \n; `text` is None where it is longer than any may be.

    `start` and `stop` are its first byte and the one behind its last; None in an encoding where they are not known.
    """

    number: int
    text: str | None
    start: int | None
    stop: int | None

    @property
    def offsets(self) -> tuple[int, int] | None:
        """Both places, or None."""
        return None if self.start is None or self.stop is None else (self.start, self.stop)


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for reading, gunzipped when its first bytes say that it is gzipped.

    Raises:
        SourceError: the file is empty, its compression is damaged, or it unpacks to far more than it is
            (archive_bomb).
    """
    with path.open("rb") as file:
        start = file.read(2)
        if not start:
            raise SourceError("empty_file", "must hold data, but is empty; fetch it again")
        file.seek(0)
        try:
            yield cast("BinaryIO", io.BufferedReader(_Gunzipped(file), _BLOCK)) if start == b"\x1f\x8b" else file
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise SourceError("damaged", f"must be a whole gzip file, but {error}; fetch it again") from error


class _Gunzipped(io.RawIOBase):
    """A gzip file that stops when it unpacks to far more than was read of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._packed, self._file = file, gzip.GzipFile(fileobj=file)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: "memoryview[int] | bytearray") -> int:  # type: ignore[override]
        read = self._file.readinto(buffer)
        size = self._file.tell()
        if size > RATIO_FROM and size > RATIO * max(1, self._packed.tell()):
            told = f"must unpack to at most {RATIO:g} bytes for each of its own, but does to more; do not trust it"
            raise SourceError("archive_bomb", told)
        return read


def lines(path: Path, *, encoding: str | None = None) -> Iterator[str]:
    r"""Yields the lines of a text file with their \n, decoded strictly.

    Raises:
        SourceError: the file is empty, is in no encoding we know, its compression is damaged, or a line is too long.
    """
    for line in placed_lines(path, encoding=encoding):
        if line.text is None:
            raise SourceError(
                "too_large", f"line {line.number}: must have at most {LONGEST:,} bytes, but has more; cut it"
            )
        yield line.text


def placed_lines(path: Path, *, encoding: str | None = None) -> Iterator[Line]:
    """Yields the lines of a text file with their places, decoded strictly; one that is too long comes without text.

    Lines end as in any text: with a line feed, a carriage return or both. Without `encoding` it is found at the first
    line that is not ASCII.

    Raises:
        SourceError: the file is empty, is in no encoding we know, or its compression is damaged.
    """
    marked = _mark(path)
    given = None if encoding is None else codecs.lookup(encoding).name
    if (given is None and marked == "utf-16") or (given is not None and not _splits_in_bytes(given)):
        yield from _wide_lines(path, given or "utf-16")
        return
    utf_8 = given in ("utf-8", "utf-8-sig") or (given is None and marked == "utf-8")
    skipped = len(codecs.BOM_UTF8) if utf_8 and marked == "utf-8" else 0
    decode = _Decoder(path, "utf-8" if utf_8 else given)
    with open_bytes(path) as file:
        file.read(skipped)
        for number, (start, stop, raw) in enumerate(_raw_lines(file, skipped), start=1):
            yield Line(number, None if raw is None else decode(raw, start), start, stop)


def find_encoding(path: Path, *, start: int = 0) -> str:
    """Returns the first of utf-16 (with a mark), utf-8-sig and cp949 that decodes the file from a place on.

    A file is read until 4 MB held other letters than ASCII. Latin-1 is never tried: it decodes everything, wrongly.

    Raises:
        SourceError: none does, or the compression is damaged.
    """
    candidates = ("utf-16",) if not start and _mark(path) == "utf-16" else ("utf-8-sig", "cp949")
    for encoding in candidates:
        if _decodes(path, encoding, start):
            return encoding
    raise SourceError("encoding", f"must be in {' or '.join(candidates)}, but is in neither; give its encoding")


def is_korean(raw: bytes) -> bool:
    """Says whether what CP949 decodes is Korean: the two bytes of ’s in Windows-1252 are a rare syllable there."""
    pairs = _PAIR.findall(raw)
    return 2 * sum(map(bool, pairs)) >= len(pairs)


class _Decoder:
    """Decodes lines strictly; an encoding that was not given is found at the first line that is not ASCII."""

    def __init__(self, path: Path, encoding: str | None) -> None:
        self._path, self._encoding = path, encoding

    def __call__(self, raw: bytes, start: int) -> str:
        if self._encoding is None:
            if raw.isascii():
                return raw.decode("ascii")
            self._encoding = find_encoding(self._path, start=start).removesuffix("-sig")
        try:
            return raw.decode(self._encoding)
        except UnicodeDecodeError as error:
            raise _not_in(self._encoding, error) from error


def _raw_lines(file: BinaryIO, start: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Yields first byte, the one behind the last, and the bytes of each line; None for one that is too long."""
    rest, dropped = b"", 0  # the beginning of a line, and how much of it was let go
    while block := _block(file):
        found = (rest + block).splitlines(keepends=True)
        rest = b"" if found[-1].endswith((b"\n", b"\r")) else found.pop()
        for line in found:
            stop = start + dropped + len(line)
            yield start, stop, None if dropped or len(line) > LONGEST else line
            start, dropped = stop, 0
        if len(rest) > LONGEST:
            rest, dropped = b"", dropped + len(rest)
    if rest or dropped:
        yield start, start + dropped + len(rest), None if dropped else rest


def _block(file: BinaryIO) -> bytes:
    """Returns the next bytes; a carriage return is never parted from its line feed."""
    beat()
    block = file.read(_BLOCK)
    return block + file.read(1) if block.endswith(b"\r") else block


def _wide_lines(path: Path, encoding: str) -> Iterator[Line]:
    """Lines of encodings in which the byte of a line feed may be a part of a letter: without places."""
    with open_bytes(path) as file, io.TextIOWrapper(file, encoding=encoding, newline="") as text:
        number, long = 0, False
        try:
            while part := text.readline(LONGEST):
                whole = part.endswith(("\n", "\r")) or len(part) < LONGEST
                if whole:
                    number += 1
                    yield Line(number, None if long else part, None, None)
                long = not whole
        except UnicodeError as error:
            raise _not_in(encoding, error) from error


def _mark(path: Path) -> str | None:
    """Returns the encoding that a file's first bytes name."""
    with open_bytes(path) as file:
        start = file.read(3)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8" if start == codecs.BOM_UTF8 else None


def _splits_in_bytes(encoding: str) -> bool:
    """Says whether the byte of a line feed is always one, and each line can be decoded by itself."""
    return not _ODD.search(encoding) and "\r\n".encode(encoding) == b"\r\n"


def _decodes(path: Path, encoding: str, start: int) -> bool:
    decoder, told, korean = codecs.getincrementaldecoder(encoding)(), 0, encoding != "cp949"
    with open_bytes(path) as file:
        file.seek(start)
        try:
            while told < _ENOUGH and (block := file.read(_BLOCK)):
                decoder.decode(block)
                told += 0 if block.isascii() else len(block)
                korean = korean or (not block.isascii() and is_korean(block))
            decoder.decode(b"", final=told < _ENOUGH)
        except UnicodeDecodeError:
            return False
    return korean or not told


def _not_in(encoding: str, error: Exception) -> SourceError:
    return SourceError("encoding", f"must be in {encoding}, but {error}; give the right encoding")

"""JSON, strictly: each key once, nothing nested too deep, NaN a missing value; a file of any size item by item."""

import codecs
import json
import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from corpus.formats.lines import find_encoding, open_bytes, placed_lines
from corpus.modality import SourceError, UnusableError, reject

DEEPEST = 100  # objects and lists within each other; FHIR and ClinicalTrials.gov need 30
LARGEST = 64 << 20  # characters of one item
_BLOCK = 1 << 20
_BLANK = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One element of a list (its key is its number, from 0) or one value of an object, or the reject of it."""

    key: str | int
    value: Any
    where: str
    offsets: tuple[int, int] | None


def loads(text: str) -> Any:
    """Reads strict JSON: each key once, in NFC; NaN and Infinity are missing values.

    Raises:
        UnusableError: it is no such JSON, or nested too deep.
    """
    try:
        value = _STRICT.decode(text)
    except UnusableError:
        raise
    except ValueError as error:  # also a number of more than 4,300 digits
        raise _not_json(str(error)) from error
    except RecursionError as error:
        raise _too_deep() from error
    _require_shallow(value, text)
    return value


def items(path: Path, *, encoding: str | None = None, within: Collection[str] = ()) -> Iterator[Item]:
    """Yields the items of a file that is one list or one object; of any other value, nothing.

    Of an object, the elements of a list under one of the keys `within` are yielded in its place, one by one.
    A file that holds one object a line is read as a list of them, whatever it is called.

    Raises:
        SourceError: the file cannot be decoded, is no JSON, or has a key of the whole twice.
    """
    chosen = codecs.lookup(encoding or find_encoding(path)).name
    chosen = "utf-8-sig" if chosen == "utf-8" else chosen
    with open_bytes(path) as file:
        text = _Text(file, chosen)
        try:
            lined = text.peek() == "{" and _are_lines(path, encoding)
            yield from _lined(path, encoding) if lined else _items(text, within)
        except UnicodeError as error:
            raise SourceError("encoding", f"must be in {chosen}, but {error}; give the right encoding") from error
        except SourceError:
            raise
        except UnusableError as error:
            raise SourceError("damaged", error.reason) from error


def _are_lines(path: Path, encoding: str | None) -> bool:
    """Says whether a file holds one object a line: the first line is a whole one, the next begins another."""
    told = (line.text or "" for line in placed_lines(path, encoding=encoding))
    start = list(islice((text for text in told if text.strip()), 2))
    if len(start) < 2 or not start[1].lstrip().startswith("{"):
        return False
    try:
        return isinstance(loads(start[0]), dict)
    except UnusableError:
        return False


def _lined(path: Path, encoding: str | None) -> Iterator[Item]:
    filled = (line for line in placed_lines(path, encoding=encoding) if line.text is None or line.text.strip())
    for number, line in enumerate(filled):
        where = f"line {line.number}"
        try:
            if line.text is None:
                raise UnusableError("too_large", "must have shorter lines, but has one that is too long; cut it")  # noqa: TRY301
            value = loads(line.text)
        except UnusableError as error:
            value = reject(error, where=where, excerpt=line.text or "")
        yield Item(key=number, value=value, where=where, offsets=line.offsets)


def _items(text: "_Text", within: Collection[str]) -> Iterator[Item]:
    opening = text.peek()
    if opening not in ("[", "{"):
        text.value()
    else:
        text.skip(opening)
        yield from _numbered(text) if opening == "[" else _keyed(text, within)
    if text.peek():
        raise _not_json(f"it goes on after its end with {text.here()}")


def _numbered(text: "_Text") -> Iterator[Item]:
    number, closing = 0, text.peek()
    while closing != "]":
        yield _item(text, number)
        closing, number = text.skip(",]"), number + 1
    if not number:
        text.skip("]")


def _keyed(text: "_Text", within: Collection[str]) -> Iterator[Item]:
    keys, closing = set[str](), text.peek()
    while closing != "}":
        key = text.value()
        if not isinstance(key, str):
            raise _not_json(f"has a key that is no text: {key!r:.40}")
        key = unicodedata.normalize("NFC", key)
        if key in keys:
            raise UnusableError("bad_json", "must have each key once, but has one twice")
        keys.add(key)
        text.skip(":")
        if key in within and text.peek() == "[":
            text.skip("[")
            yield from _numbered(text)
        else:
            yield _item(text, key)
        closing = text.skip(",}")
    if not keys:
        text.skip("}")


def _item(text: "_Text", key: str | int) -> Item:
    text.peek()
    where, start = f"item {key}", text.place()
    try:
        value = text.value()
    except _ItemError as error:
        value = reject(error, where=where, excerpt=error.excerpt)
    stop = text.place()
    return Item(key=key, value=value, where=where, offsets=None if start is None or stop is None else (start, stop))


class _ItemError(UnusableError):
    """One item cannot be used, but where it ends is known."""

    excerpt = ""


class _Text:
    """The text of a file, of which little more than one item is held."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._file, self._decoder = file, codecs.getincrementaldecoder(encoding)()
        self._held, self._at, self._ended = "", 0, False
        self._counts = encoding in ("utf-8-sig", "ascii")
        self._bytes = len(codecs.BOM_UTF8) if self._counts and _starts_with_mark(file) else 0
        self._counted = 0  # characters held whose bytes are counted

    def peek(self) -> str:
        """Returns the next character that is not blank, without taking it; nothing at the end."""
        while True:
            blank = _BLANK.match(self._held, self._at)
            self._at = blank.end() if blank else self._at
            if self._at < len(self._held):
                return self._held[self._at]
            if not self._more(_BLOCK):
                return ""

    def skip(self, wanted: str) -> str:
        """Takes and returns the next character, which must be one of `wanted`."""
        found = self.peek()
        if not found or found not in wanted:
            raise _not_json(f"must have {' or '.join(wanted)} at {self.here()}")
        self._at += 1
        return found

    def value(self) -> Any:
        """Takes and returns the next value.

        Raises:
            _ItemError: it cannot be used, and what follows can.
            UnusableError: it is no JSON, or too large.
        """
        self.peek()
        size = _BLOCK
        while True:
            try:
                value, end = self._decoded()
                break
            except json.JSONDecodeError as error:
                if len(self._held) - self._at > LARGEST:
                    told = f"must have items of at most {LARGEST:,} characters, but one is larger or never ends"
                    raise UnusableError("too_large", told) from error
                if not self._more(size):
                    raise _not_json(f"{error.msg} at {self.here()}") from error
            size *= 2
        text, self._at = self._held[self._at : self._at + 200], end
        if isinstance(value, _ItemError):
            value.excerpt = text
            raise value
        return value

    def place(self) -> int | None:
        """Returns how many bytes of the file lie before what comes next; None in an encoding that is not UTF-8."""
        if not self._counts:
            return None
        self._bytes += len(self._held[self._counted : self._at].encode())
        self._counted = self._at
        return self._bytes

    def here(self) -> str:
        """Returns the beginning of what comes next, for people."""
        return repr(self._held[self._at : self._at + 20]) if self._at < len(self._held) else "the end"

    def _decoded(self) -> tuple[Any, int]:
        """Returns the next value, or its _ItemError, and where it ends; JSONDecodeError may ask for more."""
        try:
            value, end = _STRICT.raw_decode(self._held, self._at)
            _require_shallow(value, self._held[self._at : end])
        except RecursionError as error:
            raise _too_deep() from error
        except json.JSONDecodeError:
            raise
        except ValueError as error:  # an UnusableError, or a number of more than 4,300 digits
            value = _ItemError("bad_json", getattr(error, "reason", f"must be JSON, but {error}"))
            _, end = _LAX.raw_decode(self._held, self._at)
        if end == len(self._held) and not self._ended:
            raise json.JSONDecodeError("a number may go on", "", 0)
        return value, end

    def _more(self, size: int) -> bool:
        """Reads on; what was taken is let go. Returns whether there was something."""
        if self._ended:
            return False
        raw = self._file.read(size)
        self._ended = not raw
        self.place()
        self._held, self._at, self._counted = self._held[self._at :] + self._decoder.decode(raw, not raw), 0, 0
        return True


def _starts_with_mark(file: BinaryIO) -> bool:
    start = file.read(len(codecs.BOM_UTF8))
    file.seek(0)
    return start == codecs.BOM_UTF8


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if not "".join(value).isascii():
        value = {unicodedata.normalize("NFC", key): item for key, item in pairs}
    if len(value) != len(pairs):
        raise UnusableError("bad_json", "must have each key once, but has one twice")
    return value


def _require_shallow(value: Any, text: str) -> None:
    """Refuses what is nested deeper than any format needs, before it exhausts whoever walks it."""
    if text.count("[") + text.count("{") <= DEEPEST:
        return
    level = [value]
    for _ in range(DEEPEST):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return
    raise _too_deep()


def _not_json(found: str) -> UnusableError:
    return UnusableError("bad_json", f"must be JSON, but {found}")


def _too_deep() -> UnusableError:
    return UnusableError("bad_json", f"must be nested at most {DEEPEST} levels deep, but is deeper")


_STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=lambda _: None)  # NaN is a missing value
_LAX = json.JSONDecoder(parse_int=str)

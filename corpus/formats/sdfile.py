"""SD files cut into entries: a mol block, V2000 or V3000, and its properties, also of several lines."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from corpus.formats.lines import Line
from corpus.modality import UnusableError

TITLE = "title"  # the first line of a mol block, where no property has this name
_PROPERTY = re.compile(r"^>.*?<([^>]+)>")
_MAX_LINES = 50_000


@dataclass(kw_only=True)
class Entry:
    """One entry: its mol block and properties, or what is wrong with it; and its bytes in the file where known."""

    block: str = ""
    properties: dict[str, str] = field(default_factory=dict)
    error: UnusableError | None = None
    offsets: tuple[int, int] | None = None


def entries(lines: Iterator[Line]) -> Iterator[Entry]:
    """Yields every entry; the last one may lack its $$$$."""
    held: list[str] = []
    start, stop = None, None
    first, long = True, False
    for line in lines:
        start, first = (line.start, False) if first else (start, False)
        stop, text = line.stop, line.text
        if text is not None and text.startswith("$$$$"):
            yield _entry(held, long=long, offsets=_offsets(start, stop))
            held, first, long = [], True, False
        elif text is None or len(held) >= _MAX_LINES:
            long = True
        else:
            held.append(text.rstrip("\r\n"))
    if long or any(line.strip() for line in held):
        yield _entry(held, long=long, offsets=_offsets(start, stop))


def _offsets(start: int | None, stop: int | None) -> tuple[int, int] | None:
    return None if start is None or stop is None else (start, stop)


def _entry(lines: list[str], *, long: bool, offsets: tuple[int, int] | None) -> Entry:
    end = next((number for number, line in enumerate(lines) if line.startswith("M  END")), len(lines) - 1)
    try:
        if long:
            raise UnusableError("too_large", f"must have at most {_MAX_LINES} lines of some MB, but has more")  # noqa: TRY301
        properties = _properties(lines[end + 1 :])
    except UnusableError as error:
        return Entry(error=error, offsets=offsets)
    if lines and lines[0].strip():
        properties.setdefault(TITLE, lines[0].strip())
    return Entry(block="\n".join(lines[: end + 1]), properties=properties, offsets=offsets)


def _properties(lines: list[str]) -> dict[str, str]:
    properties: dict[str, list[str]] = {}
    name = ""
    for line in lines:
        found = _PROPERTY.match(line)
        if found:
            name = found.group(1)
            if name in properties:
                raise UnusableError("property_twice", f"must have each property once, but has {name[:60]!r} twice")
            properties[name] = []
        elif name and line.strip():
            properties[name].append(line.strip())
    return {name: " ".join(values) for name, values in properties.items()}

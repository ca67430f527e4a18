"""Values of JSON whose shape nobody promised: what was asked for where it is there, something empty where it is not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corpus.formats.jsonfile import items, loads
from corpus.formats.lines import placed_lines
from corpus.modality import Reject, SourceError, UnusableError, reject


def load(path: Path, *, encoding: str | None = None) -> dict[str, Any] | list[Any]:
    """Returns the one object or list of a JSON file.

    Raises:
        SourceError: it is damaged, has a key twice in one object, is nested too deep, or a part of it is too large.
    """
    keyed: dict[str, Any] = {}
    listed: list[Any] = []
    for item in items(path, encoding=encoding):
        if isinstance(item.value, Reject):
            raise SourceError("damaged", f"{item.where}: {item.value.reason}; fetch it again")
        if isinstance(item.key, str):
            keyed[item.key] = item.value
        else:
            listed.append(item.value)
    return keyed or listed


def each(path: Path, *, encoding: str | None = None) -> Iterator[tuple[str, Any] | Reject]:
    """Yields ("line 3", value) of JSON lines; a line that is no JSON becomes a Reject."""
    for line in placed_lines(path, encoding=encoding):
        if line.text is not None and not line.text.strip():
            continue
        try:
            if line.text is None:
                raise UnusableError("too_large", "must have shorter lines, but has one that is too long; cut it")  # noqa: TRY301
            yield f"line {line.number}", loads(line.text)
        except UnusableError as error:
            yield reject(error, where=f"line {line.number}", excerpt=line.text or "")


def as_dict(value: Any) -> dict[str, Any]:
    """Returns a value that is an object; an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """Returns a list, one value as a list of it, and nothing for a missing value."""
    return value if isinstance(value, list) else [] if value is None else [value]


def dicts(value: Any) -> list[dict[str, Any]]:
    """Returns the objects of a list, or of one object; everything else is left out."""
    return [item for item in as_list(value) if isinstance(item, dict)]


def text(value: Any) -> str:
    """Returns a text or a number as text; an empty one in place of anything else."""
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""

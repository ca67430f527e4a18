"""What a modality is: a format read into records, and records written as tagged text and back."""

import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """How to read one source: what a person may write under `options:`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One usable item of a source.

    Attributes:
        content: the modality's own fields, JSON values.
        group: records of one group are always in the same split.
        language: ISO 639-1 code of text; None for everything else.
        pair: what translations of each other have in common; None for what has none.
        where: the item within its file, for people: "line 12", "item 4", "cell AAAC-1".
        offsets: first byte and the one behind the last in the (uncompressed) file; None where the format has none.
        date: of the item itself, ISO 8601 as exact as it is known: "2021", "2021-03", "2021-03-04".
        license: SPDX identifier of this item, where it is not the source's.
        ids: names the world knows it by, such as "pmid:22663011", "nct:NCT02576665"; held-out ones are refused.
    """

    content: Mapping[str, Any]
    group: str
    language: str | None = None
    pair: str | None = None
    where: str = ""
    offsets: tuple[int, int] | None = None
    date: str | None = None
    license: str | None = None
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reject:
    """One item that is left out, and why: `code` is stable and counted, `reason` is for people."""

    where: str
    code: str
    reason: str
    excerpt: str


@dataclass(frozen=True)
class Note:
    """What a reader decided by itself and a person should know."""

    text: str


Item = Record | Reject | Note

_CUT = re.compile(r"[\d\W]+$")


class UnusableError(ValueError):
    """One item cannot be used; the reader turns it into a Reject."""

    def __init__(self, code: str, reason: str) -> None:
        self.code, self.reason = code, reason
        super().__init__(f"{code}: {reason}")


class SourceError(UnusableError):
    """A whole source cannot be used: nothing of it may be trusted."""


class Modality(Protocol):
    """What every file of corpus/modalities offers."""

    @property
    def SUFFIXES(self) -> tuple[str, ...]:  # noqa: N802 - a module's constant, seen as an attribute
        """File names that can be read end so, before an optional .gz."""
        ...

    @property
    def SCALE(self) -> str:  # noqa: N802 - likewise
        """From L1, language, to L7, patients and populations."""
        ...

    @property
    def SYMBOLS(self) -> tuple[str, ...]:  # noqa: N802 - likewise
        """The symbols a record may hold; genes and the like, found in records, are left out."""
        ...

    @property
    def Options(self) -> type[Options]:  # noqa: N802 - likewise
        """The type of `options:`."""
        ...

    def read(self, path: Path, options: Any, /) -> Iterator[Item]:
        """Yields the records, rejects and notes of a file; raises SourceError when the whole file is unusable."""
        ...

    def render(self, content: Mapping[str, Any], /) -> str:
        """Writes a record's content as tagged text."""
        ...

    def parse(self, rendered: str, /) -> dict[str, Any]:
        """Reads back what `render` wrote; the content comes back as it was."""
        ...


def modalities() -> tuple[str, ...]:
    """Returns the modalities: the files of corpus/modalities."""
    package = importlib.import_module("corpus.modalities")
    return tuple(sorted(module.name for module in pkgutil.iter_modules(package.__path__)))


def modality(name: str) -> Modality:
    """Returns a modality by name; the name must be one of `modalities()`."""
    return cast("Modality", importlib.import_module(f"corpus.modalities.{name}"))


def reject(error: UnusableError, *, where: str, excerpt: object) -> Reject:
    """Returns the Reject of one unusable item.

    The excerpt is cut to 120 characters, and never within a number: half of one is hidden from a search for personal
    data.
    """
    shown = repr(excerpt)
    return Reject(
        where=where,
        code=error.code,
        reason=error.reason,
        excerpt=shown if len(shown) <= 120 else f"{_CUT.sub('', shown[:117])}...",
    )

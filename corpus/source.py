"""Sources: where raw data lies, whose it is and how to read it; checked without reading it."""

import datetime as dt
import glob
import os
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from corpus import modality
from corpus.formats.tables import suffix
from corpus.gates.config import LicencePolicy
from corpus.gates.licences import Decision, decide
from corpus.gates.terms import Terms
from corpus.modality import Modality, Options, modalities

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SOME = re.compile(r"[*?\[]")
_LONGEST = 255  # bytes of a file's name


class Source(BaseModel):
    """Raw data of one kind: a file, the files of a folder or of a pattern, or members of archives.

    Attributes:
        name: what records and reports call it.
        modality: a file of corpus/modalities.
        path: may hold ${VARIABLE}; a relative one starts at the repository. With *, ?, [...] or ** it is a pattern; a
            folder means all that can be read below it.
        member: of archives: a pattern of the members to read; * crosses folders.
        license: SPDX expression, such as CC-BY-4.0, or LicenseRef-... with `terms:`.
        terms: what a licence that no table knows allows, and what that rests on.
        date: of its items, where they have none of their own: 2021, 2021-03 or 2021-03-04.
        options: of the modality.
        max_records: reading stops after so many different records; the source is read by one worker then.
        sha256: of the file, or of the list of its files; one with another digest is refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    modality: str
    path: Annotated[str, Field(min_length=1)]
    member: Annotated[str, Field(min_length=1)] | None = None
    license: str | None = None
    terms: Terms | None = None
    date: Annotated[str, Field(pattern=r"^\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?$")] | None = None
    options: dict[str, Any] = {}
    max_records: Annotated[int, Field(ge=1)] | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _fits_modality(self) -> "Source":
        known = modalities()
        if self.modality not in known:
            raise ValueError(f"modality: must be one of {', '.join(known)}, but is {self.modality!r}; change it")
        if self.member is not None and not self.path.lower().endswith(_ARCHIVES):
            raise ValueError(f"path: must end in {', '.join(_ARCHIVES)} for member:, but is {self.path!r}; change one")
        given, setting = (self.path, "path") if self.member is None else (self.member, "member")
        if not self._may_read(given):
            suffixes = ", ".join(self.reader().SUFFIXES)
            raise ValueError(f"{setting}: must end in {suffixes}, but is {given!r}; convert it")
        self.read_options()
        return self

    def reader(self) -> Modality:
        """Returns the modality's module."""
        return modality.modality(self.modality)

    def read_options(self) -> Options:
        """Returns the typed options.

        Raises:
            ValueError: an option does not exist, is missing or has a wrong value; one line.
        """
        kind = self.reader().Options
        try:
            return kind.model_validate(self.options)
        except ValidationError as error:
            raise ValueError("; ".join(_explain(item, sorted(kind.model_fields)) for item in error.errors())) from error

    def locate(self, root: Path) -> Path:
        """Returns where the file is; an unset ${VARIABLE} stays as it is written."""
        return root / os.path.expandvars(self.path)

    def files(self, root: Path) -> list[Path]:
        """Returns what is read, in its order: files, and folders that are read as one (a zarr store)."""
        located = self.locate(root)
        if not located.exists() and _SOME.search(self.path):
            found = sorted(Path(name) for name in glob.glob(str(located), recursive=True))  # noqa: PTH207 - absolute
        elif located.is_dir() and not self._is_one(located):
            found = [path for path in sorted(located.rglob("*")) if not _is_hidden(path, located)]
        else:
            return [located]
        whole = {path for path in found if path.is_dir() and self._is_one(path)}
        return [path for path in found if self._is_one(path) and not whole.intersection(path.parents)]

    def option_files(self, root: Path, files: Iterable[Path]) -> list[Path]:
        """Returns what options name, such as a protein's wild type: files of the repository, or beside what is read."""
        texts = [value for value in self.options.values() if isinstance(value, str) and len(value) < _LONGEST]
        folders = {root, *(path.parent for path in files)} if texts else ()
        found = {folder / os.path.expandvars(text) for text in texts for folder in folders}
        return sorted(path for path in found if path.is_file())

    def label(self, path: Path, root: Path) -> str:
        """Returns what records call a file: as the run file writes it."""
        located = self.locate(root)
        if path == located:
            return self.path
        fixed = self.path[: found.start()].rpartition("/")[0] if (found := _SOME.search(self.path)) else self.path
        below = path.relative_to(root / os.path.expandvars(fixed))
        return str(PurePosixPath(fixed) / below).encode("utf-8", "backslashreplace").decode()

    def reads(self, name: str) -> bool:
        """Says whether a file of that name can be read."""
        return suffix(Path(name)) in self.reader().SUFFIXES

    def reads_beside(self, path: Path) -> bool:
        """Says whether a file is read together with what lies beside it."""
        return suffix(path) in getattr(self.reader(), "BESIDE", ()) and not path.is_dir()

    def problems(self, root: Path) -> Iterator[str]:
        """Yields what stands in the way of reading the files, one line each."""
        unset = [name for name in _VARIABLE.findall(self.path) if name not in os.environ]
        for name in unset:
            yield f"path: must name set variables, but ${{{name}}} is not set; export it or write the path"
        located = self.locate(root)
        if unset or located.is_file():
            return
        if not located.exists() and not _SOME.search(self.path):
            yield f"path: must be a file, but {located} is not there; fetch it or mend the path"
        elif not self.files(root):
            wanted = f"hold or match a file that {self.modality} reads ({', '.join(self.reader().SUFFIXES)})"
            yield f"path: must {wanted}, but {located} does not; mend it"

    def decision(self, policy: LicencePolicy, *, today: dt.date) -> Decision:
        """Returns what the licence gate says about the source."""
        return decide(self.license, self.terms, policy=policy, today=today)

    @property
    def commercial(self) -> bool:
        """Whether the licence is known to allow commercial use."""
        terms = self.decision(LicencePolicy(), today=dt.date.min).terms
        return terms is not None and terms.commercial

    def _may_read(self, given: str) -> bool:
        """Says whether what a path or pattern names may be read; of folders that is seen on disk."""
        found = suffix(Path(given))
        return not found or given.endswith("/") or bool(_SOME.search(found)) or found in self.reader().SUFFIXES

    def _is_one(self, path: Path) -> bool:
        """Says whether a path is read as one: a file that can be read, or a folder that is a store."""
        if self.member is not None:
            return path.is_file() and path.name.lower().endswith(_ARCHIVES)
        if path.is_dir():
            marks = getattr(self.reader(), "FOLDERS", ())
            return (bool(suffix(path)) and self.reads(path.name)) or any((path / mark).exists() for mark in marks)
        return self.reads(path.name)


def _is_hidden(path: Path, below: Path) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in path.relative_to(below).parts)


def _explain(item: Any, known: list[str]) -> str:
    place = ".".join(["options", *(str(part) for part in item["loc"])])
    if item["type"] == "extra_forbidden" and len(item["loc"]) == 1:
        close = get_close_matches(str(item["loc"][0]), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(known)}"
        return f"{place}: no such option; {hint}"
    if item["type"] == "missing":
        return f"{place}: must be given, but is not there; add it"
    message = item["msg"].removeprefix("Value error, ").removeprefix("Input should ")
    stated = message if message.startswith("must") else f"must {message[0].lower()}{message[1:]}"
    return f"{place}: {stated}" if "; " in stated else f"{place}: {stated}, but is {item['input']!r:.60}; change it"

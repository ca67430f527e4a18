"""Sources: where raw data lies, whose it is and how to read it; checked without reading it."""

import os
import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from corpus import modality
from corpus.modality import Modality, Options, modalities
from corpus.tables import suffix

_SPDX = r"^[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*$"
_NOT_COMMERCIAL = re.compile(r"-NC\b|NonCommercial|DrugBank|KEGG|OMIM|UMLS|SNOMED|MIMIC", re.IGNORECASE)
_VARIABLE = re.compile(r"\$\{(\w+)\}")


class Source(BaseModel):
    """One file of raw data.

    Attributes:
        name: what records and reports call it.
        modality: a file of corpus/modalities.
        path: may hold ${VARIABLE}; a relative one starts at the repository.
        license: SPDX identifier, such as CC-BY-4.0, or LicenseRef-... with a name of your own.
        options: of the modality.
        max_records: reading stops after so many.
        sha256: of the file; a file with another digest is refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    modality: str
    path: Annotated[str, Field(min_length=1)]
    license: Annotated[str, Field(pattern=_SPDX)]
    options: dict[str, Any] = {}
    max_records: Annotated[int, Field(ge=1)] | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _fits_modality(self) -> "Source":
        known = modalities()
        if self.modality not in known:
            raise ValueError(f"modality: must be one of {', '.join(known)}, but is {self.modality!r}; change it")
        suffixes, found = self.reader().SUFFIXES, suffix(Path(self.path))
        if found not in suffixes:
            raise ValueError(f"path: must end in {', '.join(suffixes)}, but is {self.path!r}; convert it")
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

    def problems(self, root: Path) -> Iterator[str]:
        """Yields what stands in the way of reading the file, one line each."""
        unset = [name for name in _VARIABLE.findall(self.path) if name not in os.environ]
        for name in unset:
            yield f"path: must name set variables, but ${{{name}}} is not set; export it or write the path"
        if not unset and not self.locate(root).is_file():
            yield f"path: must be a file, but {self.locate(root)} is not there; fetch it or mend the path"

    @property
    def commercial(self) -> bool:
        """Whether nothing known forbids commercial use; a False needs a person's decision."""
        return not _NOT_COMMERCIAL.search(self.license)


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

"""Patients: histories from FHIR, OMOP CDM and SMART tables, in time order, without what names a person."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from corpus import document
from corpus.formats import archive, fhir_patients, omop, smart, tables
from corpus.formats.timeline import PatientOptions
from corpus.modality import Item, SourceError
from corpus.symbols import tags

SUFFIXES = (".json", ".ndjson", ".jsonl", ".zip", ".tar", ".tgz", ".csv", ".tsv", ".txt", ".parquet")
FOLDERS = (  # a folder that holds one of these is read as one source
    "Patient.ndjson",
    "Patient.ndjson.gz",
    *(
        f"{name}{suffix}{packed}"
        for name in ("PERSON", "person", "Person", "patients")
        for suffix in (".csv", ".tsv", ".txt", ".parquet")
        for packed in ("", ".gz")
    ),
)
BESIDE = (".csv", ".tsv", ".txt", ".parquet")  # a table is read with those beside it
SCALE = "L7"
SYMBOLS = (*tags("patient"), *document.SYMBOLS)
Options = PatientOptions
_LAYOUTS = {"fhir": fhir_patients.read, "omop": omop.read, "smart": smart.read}


def read(path: Path, options: PatientOptions, /) -> Iterator[Item]:
    """Yields the records of each patient of a file, a folder or a zip; a table is read with those beside it."""
    if not path.is_dir() and archive.is_archive(path):
        with archive.extracted(path, wanted=_is_wanted) as folder:
            yield from _read(_files(folder), options)
    elif path.is_dir() or tables.suffix(path) not in fhir_patients.ENDINGS:
        yield from _read(_files(path if path.is_dir() else path.parent), options)
    else:
        yield from fhir_patients.read([path], options)


def render(content: Mapping[str, Any], /) -> str:
    """Writes <|patient|>, who it is, each encounter with what happened, and <|/patient|>."""
    return document.write("patient", content)


def parse(rendered: str, /) -> dict[str, Any]:
    """Reads back what `render` wrote."""
    return document.read("patient", rendered)


def _is_wanted(name: str) -> bool:
    """Says whether a file is read: not what macOS puts between others, nor a vocabulary's huge relations."""
    parts = name.split("/")
    if "__MACOSX" in parts or parts[-1].startswith("."):
        return False
    path = Path(name)
    known = {*omop.NAMES, "patients", *smart.TABLES}
    return omop.table_name(path) in known or tables.suffix(path) in fhir_patients.ENDINGS


def _files(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if _is_wanted(path.relative_to(folder).as_posix()))


def _read(files: list[Path], options: PatientOptions) -> Iterator[Item]:
    layout = options.layout or _layout(files)
    chosen = [path for path in files if layout != "fhir" or tables.suffix(path) in fhir_patients.ENDINGS]
    yield from _LAYOUTS[layout](chosen, options)


def _layout(files: list[Path]) -> str:
    found = {omop.table_name(path) for path in files}
    if "person" in found:
        return "omop"
    if "patients" in found and found & set(smart.TABLES):
        return "smart"
    if any(tables.suffix(path) in fhir_patients.ENDINGS for path in files):
        return "fhir"
    shown = ", ".join(path.name for path in files[:8]) or "nothing"
    raise SourceError(
        "unknown_layout", f"must hold FHIR files, an OMOP PERSON table or SMART's patients.txt, but holds {shown}"
    )

"""ICD-10-CM: the tabular list (XML) as one English text per three-character category."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from xml.parsers import expat

from corpus.formats.tables import open_bytes
from corpus.modality import SourceError

_NOTES = {
    "inclusionTerm": "Also called",
    "includes": "Includes",
    "excludes1": "Never together with",
    "excludes2": "Not included here",
    "codeFirst": "Code first",
    "useAdditionalCode": "Use an additional code",
    "codeAlso": "Code also",
}


def categories(path: Path) -> Iterator[tuple[str, str]]:
    """Yields (code, text) of every category: its name, its notes, and one line per code directly below it.

    Raises:
        SourceError: the file is not an ICD-10-CM tabular list, declares a document type or entities (which can
            expand without bound or read other files), or is damaged.
    """
    try:
        _refuse_doctype(path)
        yield from _categories(path)
    except (ET.ParseError, expat.ExpatError) as error:
        raise SourceError("damaged", f"must be XML, but {error}; fetch it again") from error


def _refuse_doctype(path: Path) -> None:
    """Reads up to the first element: a document type can stand only before it."""
    parser, seen = expat.ParserCreate(), list[str]()
    parser.StartDoctypeDeclHandler = lambda *_: seen.append("!DOCTYPE")
    parser.StartElementHandler = lambda name, _: seen.append(name)
    with open_bytes(path) as file:
        while not seen and (block := file.read(4096)):
            parser.Parse(block)
    if not seen or seen[0] == "!DOCTYPE":
        raise SourceError("doctype", "must be XML without a document type, but declares one; take it out")
    if seen[0] != "ICD10CM.tabular":
        raise SourceError("unknown_xml", f"must be an ICD-10-CM tabular list, but is <{seen[0]}>; use another format")


def _categories(path: Path) -> Iterator[tuple[str, str]]:
    depth = 0
    with open_bytes(path) as file:
        for event, element in ET.iterparse(file, events=("start", "end")):  # noqa: S314 - _refuse_doctype has left nothing to expand
            if element.tag != "diag":
                continue
            depth += 1 if event == "start" else -1
            if event == "end" and depth == 0:
                yield _name(element)[0], "\n".join(_lines(element))
                element.clear()


def _lines(category: ET.Element) -> Iterator[str]:
    yield " ".join(_name(category))
    yield from _notes(category)
    for code in category.findall("diag"):
        yield " ".join(_name(code))
        yield from _notes(code)


def _name(code: ET.Element) -> tuple[str, str]:
    return (code.findtext("name") or "").strip(), (code.findtext("desc") or "").strip()


def _notes(code: ET.Element) -> Iterator[str]:
    for tag, title in _NOTES.items():
        notes = [" ".join((note.text or "").split()) for note in code.findall(f"{tag}/note")]
        if notes:
            yield f"{title}: {'; '.join(notes)}"

"""XML of any size, element by element, safely: no entities, no outside files, no element without bound."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from corpus.formats.tables import open_bytes
from corpus.modality import SourceError, UnusableError

_BLOCK = 1 << 16
_FIRST_BLOCKS = 16
MOST_BYTES = 128 << 20  # of one element's XML; the longest articles of PubMed Central have about 20 MB
_SPACE = "{http://www.w3.org/XML/1998/namespace}"


def root(path: Path) -> str:
    """Returns the name of the first element, without its namespace; a document type may stand before it.

    Raises:
        SourceError: the file is no XML, is HTML, or declares entities, which can expand without bound or read
            other files.
    """
    from lxml import etree

    first = _first(path, etree)
    declared = first.getroottree().docinfo.internalDTD
    if declared is not None and (entities := [entity.name for entity in declared.iterentities()]):
        raise SourceError(
            "entities", f"must be XML that declares no entities, but declares {entities[0]!r}; write it out"
        )
    if name(first).casefold() == "html":
        raise SourceError("html", "must be data or plain text, but is a web page (HTML); convert it to text")
    return name(first)


def elements(path: Path, names: tuple[str, ...]) -> Iterator[Any]:
    """Yields every element of one of these names (in any namespace) once it is complete, and then forgets it.

    One within another is part of the outer one.

    Raises:
        SourceError: the file is damaged, is nested deeper than 256 levels or has an element beyond MOST_BYTES.
    """
    from lxml import etree

    pulled = etree.XMLPullParser(
        events=("start", "end"),
        tag=_tags(names),
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
    )
    depth, since = 0, 0
    try:
        for size in _fed(path, pulled):
            since += size
            if since > MOST_BYTES:
                told = f"must have elements of at most {MOST_BYTES} bytes, but has a larger one; split it"
                raise SourceError("too_large", told)
            for event, element in pulled.read_events():
                depth += 1 if event == "start" else -1
                if event == "end" and not depth:
                    yield element
                    since = 0
                    _forget(element)
    except etree.XMLSyntaxError as error:
        raise SourceError("damaged", f"must be XML, but {str(error)[:200]}; fetch it again") from error


def name(element: Any) -> str:
    """Returns an element's name without its namespace; empty for comments and instructions."""
    return _local(element.tag) if isinstance(element.tag, str) else ""


def attribute(element: Any, wanted: str) -> str:
    """Returns an attribute by its name without namespace, or an empty text."""
    value = element.get(wanted)
    if value is None:
        value = next((held for key, held in element.attrib.items() if key.endswith("}" + wanted)), "")
    return str(value)


def children(element: Any, *names: str) -> list[Any]:
    """Returns the children of these names, or all elements among them; none of None."""
    return [] if element is None else list(element.iterchildren(*(_tags(names) or "*")))


def child(element: Any, *path: str) -> Any:
    """Returns the first element down a path of names, or None."""
    for step in path:
        element = None if element is None else next(element.iterchildren(*_tags((step,))), None)
    return element


def within(element: Any, *names: str) -> list[Any]:
    """Returns the elements of these names at any depth, itself among them; none of None."""
    return [] if element is None else list(element.iter(*_tags(names)))


def plain(element: Any) -> str:
    """Returns all text within an element on one line; empty for None.

    Raises:
        UnusableError: it holds an entity, whose text nobody can know.
    """
    if element is None:
        return ""
    return " ".join("".join(pieces(element)).split())


def pieces(element: Any) -> Iterator[str]:
    """Yields the texts within an element, in order.

    Raises:
        UnusableError: as in `plain`.
    """
    yield element.text or ""
    for part in element:
        if isinstance(part.tag, str):
            yield from pieces(part)
        else:
            refuse_entity(part)
        yield part.tail or ""


def refuse_entity(part: Any) -> None:
    """Refuses a reference to an entity; comments and instructions pass.

    Raises:
        UnusableError: it is one.
    """
    from lxml import etree

    if part.tag is etree.Entity:
        raise UnusableError("entity", f"must hold no named entity, but has {part.text!r}; write the character")


def language(element: Any) -> str:
    """Returns xml:lang, or an empty text."""
    return str(element.get(f"{_SPACE}lang") or element.get("lang") or "")


def _fed(path: Path, pulled: Any) -> Iterator[int]:
    with open_bytes(path) as file:
        while block := file.read(_BLOCK):
            pulled.feed(block)
            yield len(block)
        pulled.close()
        yield 0


def _forget(element: Any) -> None:
    """Empties an element and lets go of what stands before it, at every level: else a long file fills memory."""
    element.clear()
    for node in (element, *element.iterancestors()):
        parent = node.getparent()
        while parent is not None and node.getprevious() is not None:
            del parent[0]


@lru_cache(maxsize=4096)
def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


@lru_cache(maxsize=1024)
def _tags(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{{*}}{name}" for name in names)


def _first(path: Path, etree: Any) -> Any:
    pulled = etree.XMLPullParser(events=("start",), resolve_entities=False, no_network=True, load_dtd=False)
    try:
        with open_bytes(path) as file:
            for _ in range(_FIRST_BLOCKS):
                pulled.feed(file.read(_BLOCK))
                for _, element in pulled.read_events():
                    return element
    except etree.XMLSyntaxError as error:
        raise SourceError("damaged", f"must be XML, but {str(error)[:200]}; fetch it again") from error
    raise SourceError("damaged", "must be XML, but has no element in its first MB; fetch it again")

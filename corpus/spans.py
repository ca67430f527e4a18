"""Spans: molecules and proteins within a document of a drug, each with its own tags and symbols."""

from collections.abc import Mapping, Sequence
from typing import Any

from corpus import document
from corpus.formats import sequences
from corpus.modalities import molecule
from corpus.symbols import tags

_OPENINGS = (tags("molecule")[0], *(tags(alphabet)[0] for alphabet in sequences.LETTERS))


def write(name: str, content: Mapping[str, Any]) -> str:
    """Writes a document; its spans, one a line, stand behind its sections."""
    spans = "".join(_span(span) for span in content.get("spans", ()))
    return document.write(name, content, spans=spans)


def read(name: str, rendered: str) -> dict[str, Any]:
    """Reads back what `write` wrote.

    Raises:
        ValueError: the tags are not there.
    """
    starts = [place for opening in _OPENINGS if (place := rendered.find(opening)) >= 0]
    if not starts:
        return document.read(name, rendered)
    start, closing = min(starts), tags(name)[1]
    spans, end, _ = rendered[start:].rpartition(closing)
    return {**document.read(name, rendered[:start] + end), "spans": _parsed(spans)}


def _span(span: Sequence[str]) -> str:
    kind, written = span
    if kind == "molecule":
        return molecule.render({"smiles": written, "properties": {}})
    return sequences.write(written, alphabet="protein")


def _parsed(spans: str) -> list[list[str]]:
    found: list[list[str]] = []
    closings = {tags("molecule")[0]: tags("molecule")[1], tags("protein")[0]: tags("protein")[1]}
    while spans:
        opening = next(opening for opening in closings if spans.startswith(opening))
        body, closing, spans = spans.partition(closings[opening])
        kind = "molecule" if opening == tags("molecule")[0] else "protein"
        one = body + closing
        found.append([kind, molecule.parse(one)["smiles"] if kind == "molecule" else sequences.read(one)[0]])
    return found

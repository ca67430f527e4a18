"""The narrative of drug labels as plain text: paragraphs, lists, tables row by row, footnotes."""

import re
from collections.abc import Iterator
from typing import Any

from corpus.formats.xmlfile import children, name, refuse_entity

_BLANKS = re.compile(r"\s+")
_BLOCKS = frozenset({"paragraph", "caption", "list", "text", "table", "thead", "tbody", "tfoot", "colgroup"})
_NOT_READ = frozenset({"renderMultiMedia", "observationMedia", "col"})
_RAISED = re.compile(r"[-−+]?\d+")


def narrative(element: Any) -> str:
    """Returns the text within an element, a line for each paragraph, item and row of a table; empty for None.

    Raises:
        UnusableError: it holds an entity, whose text nobody can know.
    """
    if element is None:
        return ""
    lines = [" ".join(line.split()) for line in "".join(_pieces(element)).split("\n")]
    joined, mark = list[str](), ""
    for line in lines:
        if line == "-":
            mark = "- "  # an item whose text stands in paragraphs of its own
        elif line:
            joined.append(mark + line)
            mark = ""
    return "\n".join(joined)


def one_line(element: Any) -> str:
    """Returns the same on one line."""
    return " ".join(narrative(element).split())


def _pieces(element: Any) -> Iterator[str]:
    yield _BLANKS.sub(" ", element.text or "")
    before = element.text or ""
    for part in element:
        if not isinstance(part.tag, str):
            refuse_entity(part)
        else:
            yield from _part(part, before)
        yield _BLANKS.sub(" ", part.tail or "")
        before = part.tail or ""


def _part(part: Any, before: str) -> Iterator[str]:
    kind = name(part)
    if kind == "br":
        yield "\n"
    elif kind == "item":
        yield "\n- "
        yield from _pieces(part)
        yield "\n"
    elif kind == "tr":
        yield f"\n{' | '.join(one_line(cell) for cell in children(part, 'td', 'th'))}\n"
    elif kind == "footnote":
        yield f" ({one_line(part)})"
    elif kind in _BLOCKS:
        yield "\n"
        yield from _pieces(part)
        yield "\n"
    elif kind not in _NOT_READ:
        if kind == "sup" and before[-1:].isdigit() and _RAISED.fullmatch((part.text or "").strip()):
            yield "^"  # 10 to the 9th is not 109
        yield from _pieces(part)

"""The text of JATS articles: paragraphs, lists, tables, formulas and captions as people would write them by hand."""

import re
from collections.abc import Iterator
from typing import Any

from corpus.formats.xmlfile import attribute, child, children, name, refuse_entity, within

FLOATS = ("fig", "table-wrap", "boxed-text")
_GROUPS = ("fig-group", "table-wrap-group")
_LEFT_OUT = {
    *(*FLOATS, *_GROUPS, "supplementary-material", "inline-supplementary-material", "fn", "media", "graphic"),
    *("inline-graphic", "object-id", "ref-list", "index-term", "label", "email", "private-char", "alt-text"),
    *("permissions", "floats-group"),
}
_BLOCKS = {
    *("p", "title", "list", "def-list", "def-item", "disp-quote", "verse-group", "verse-line", "statement", "speech"),
    *("preformat", "code", "attrib", "disp-formula", "disp-formula-group", "question", "answer", "sec"),
}
_FORMULAS = ("inline-formula", "alternatives", "tex-math", "math")
_NOTES = {"fn", "table-fn", "aff", "corresp", "author-notes"}
_GONE = "\0"  # where a reference stood: XML cannot hold it, so that no text is mistaken for it
_NUMBERS = re.compile(r"[\s\d,;–—\u2012\-\[\]()*†‡§¶#\0]*[a-z]?")
_EMPTIED = re.compile(r"\s?[\[(\uff08][\s,;–—\u2012-]*\0[\s,;–—\u2012\0-]*[\])\uff09]")
_RUN = re.compile(r" ?\0(?: ?[,;–—\u2012-]? ?\0)*")
_RAISED = str.maketrans("0123456789+-−=()n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿ")
_DOCUMENT = re.compile(r"\\begin\{document\}(.*?)\\end\{document\}", re.DOTALL)
_NAMES_ONLY = re.compile(r"acknowledge?ments?|authors?['’]?s? contributions?|감사의 글", re.IGNORECASE)
_MOST_CELLS = 200  # that one cell of a table may span


def flow(element: Any) -> str:
    """Returns an element's text: one line a paragraph, list item or displayed formula.

    References to the list of literature by number, notes and floating figures and tables are left out.

    Raises:
        UnusableError: it holds a named entity.
    """
    if element is None:
        return ""
    text = "".join(_parts(element))
    text = _RUN.sub("", _EMPTIED.sub("", text)) if _GONE in text else text
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def line(element: Any) -> str:
    """Returns an element's text on one line.

    Raises:
        UnusableError: as in `flow`.
    """
    return " ".join(flow(element).split())


def sections(element: Any, *, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Yields (title, text) of an element and of the sections within, in order; their titles hold those above.

    Figures and tables follow the section that they stand in.
    """
    paragraphs, floating = list[str](), list[Any]()
    below = []
    for part in children(element):
        if name(part) in ("sec", "app"):
            below.append(part)
        elif name(part) not in ("title", "label", "sec-meta"):
            paragraphs.append("" if name(part) in _LEFT_OUT else flow(part))
            floating.extend(_floats(part))
    text = "\n".join(paragraph for paragraph in paragraphs if paragraph)
    if text:
        yield ": ".join(path), text
    for found in floating:
        yield from float_sections(found)
    for part in below:
        title = line(child(part, "title")).rstrip(".: ")
        if _NAMES_ONLY.fullmatch(title):
            continue
        yield from sections(part, path=(*path, title) if title else path)


def float_sections(element: Any) -> Iterator[tuple[str, str]]:
    """Yields (label, text) of a figure (its caption), a table (caption, rows, notes) or a box (its sections)."""
    label = line(child(element, "label")).rstrip(".:")
    if name(element) == "boxed-text":
        titled = label or line(child(element, "caption", "title")) or "Box"
        yield from sections(element, path=(titled,))
        return
    rows = [row for table in within(element, "table", "tgroup") for row in _rows(table)]
    if within(element, "tgroup"):
        rows = list(dict.fromkeys(rows))  # a CALS table stands in a table of its own
    texts = [flow(child(element, "caption")), *rows, flow(child(element, "table-wrap-foot"))]
    notes = [flow(note) for note in within(element, "fn")]
    text = "\n".join(part for part in (*texts, *notes) if part)
    if text:
        yield label or ("Figure" if name(element) == "fig" else "Table"), text


def formula(element: Any) -> str:
    """Returns a formula: its TeX, else its MathML in words of one line, else its plain text."""
    tex = next(iter(within(element, "tex-math")), None)
    if tex is not None:
        return _tex(tex)
    math = next(iter(within(element, "math")), None)
    return _math(math) if math is not None else "".join(_parts(element))


def _parts(element: Any) -> Iterator[str]:
    yield _blanks(element.text)
    for part in element:
        if isinstance(part.tag, str):
            yield _part(part)
        else:
            refuse_entity(part)
        yield _blanks(part.tail)


def _part(part: Any) -> str:
    kind = name(part)
    if kind in _LEFT_OUT or kind in _FORMULAS:
        return "" if kind in _LEFT_OUT else formula(part)
    text = " " if kind == "break" else formula(part) if kind == "disp-formula" else "".join(_parts(part))
    if kind == "list-item":
        return f"\n- {text.strip()}\n"
    if kind in _BLOCKS:
        return f"\n{text}\n"
    if kind == "xref" and _is_reference(part, text):
        return _GONE
    return _raised(text) if kind == "sup" else text


def _is_reference(part: Any, text: str) -> bool:
    kind = attribute(part, "ref-type")
    return kind in _NOTES or (kind == "bibr" and bool(_NUMBERS.fullmatch(text)))


def _raised(text: str) -> str:
    bare = text.strip()
    if _GONE in bare and _NUMBERS.fullmatch(bare):
        return _GONE
    raised = bare.translate(_RAISED)
    if not set(raised) & set(bare):
        return raised
    if bare in ("st", "nd", "rd", "th") or (len(bare) == 1 and not bare.isascii()):
        return text  # an ordinal, a trademark
    return f"^{bare}" if bare.isalnum() else f"^({bare})"


def _blanks(text: str | None) -> str:
    return text.replace("\n", " ").replace("\r", " ") if text else ""


def _floats(element: Any) -> Iterator[Any]:
    if name(element) in FLOATS:
        yield element
        return
    for part in children(element):
        yield from _floats(part)


def _rows(table: Any) -> Iterator[str]:
    """Rows as cells with | between; a cell over many columns or rows leaves the others empty."""
    waiting: dict[int, int] = {}  # column: rows in which it is still taken from above
    for row in within(table, "tr", "row"):
        cells, column = list[str](), 0
        for cell in children(row, "td", "th", "entry"):
            while waiting.get(column):
                waiting[column] -= 1
                cells.append("")
                column += 1
            width, height = _span(cell, "colspan"), _span(cell, "rowspan")
            cells.extend([line(cell), *[""] * (width - 1)])
            waiting.update(dict.fromkeys(range(column, column + width), height - 1))
            column += width
        written = " | ".join(cells).rstrip(" |").lstrip()
        if written:
            yield written


def _span(cell: Any, wanted: str) -> int:
    given = attribute(cell, wanted)
    return max(1, min(_MOST_CELLS, int(given))) if given.isascii() and given.isdigit() and len(given) < 6 else 1


def _tex(element: Any) -> str:
    text = "".join(element.itertext())
    found = _DOCUMENT.search(text)
    return " ".join((found[1] if found else text).replace("$$", "").split())


_OVER = {
    "mfrac": "({})/({})",
    "msup": "{}^({})",
    "msub": "{}_({})",
    "msubsup": "{}_({})^({})",
    "mroot": "root({}; {})",
}


def _math(element: Any) -> str:
    kind = name(element)
    if kind in ("annotation", "annotation-xml"):
        return ""
    if kind in ("mi", "mn", "mo", "mtext", "ms"):
        return "".join(element.itertext()).strip()
    parts = [_math(part) for part in children(element)]
    form = _OVER.get(kind)
    if form and len(parts) == form.count("{}"):
        return form.format(*parts)
    text = "".join(parts)
    return f"sqrt({text})" if kind == "msqrt" else f"({','.join(parts)})" if kind == "mfenced" else text

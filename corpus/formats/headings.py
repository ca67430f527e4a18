"""Headings: text and markdown cut into titled sections; numbered, Korean and underlined headings are found too."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_MARKED = re.compile(r"(#{1,6})\s+(.+?)\s*#*\s*$")
_UNDERLINE = re.compile(r"(=|-){3,}\s*$")
_FENCE = re.compile(r"\s*(```|~~~)")
_NUMBERED = re.compile(
    r"(\d{1,2}(\.\d{1,2}){0,3}[.)]?|[IVX]{1,5}\.|[ⅠⅡⅢⅣⅤⅥⅦⅧⅨⅩ]+\.?|[A-Z][.)]|[가나다라마바사아자차카타파하][.)])\s+\S"
)
_NAMED = re.compile(
    r"(제\s*\d+\s*[장절조항부편]|[<\[【(]?\s*(핵심\s*)?(권고(안|사항)?|질문|부록|표)\s*\d|"
    r"(chapter|section|part|appendix|recommendation|key question|statement)\s+[\dA-Z][\d.A-Z]{0,5}\b)",
    re.IGNORECASE,
)
_CAPITALS = re.compile(r"[A-Z][A-Z0-9 ,&/()-]{3,70}")
_LONGEST = 120  # characters of a heading that is not marked as one


@dataclass(kw_only=True)
class _Section:
    title: str
    lines: list[str] = field(default_factory=list)


def sections(text: str) -> list[tuple[str, str]]:
    """Returns [(title, text)] of a document; what comes before the first heading has no title.

    A heading is a markdown heading, or a short line alone that is numbered, named a chapter or a recommendation,
    or in capitals. A heading without text of its own stays, as the first line of what follows it.
    """
    found = [_Section(title="")]
    lines = text.split("\n")
    fenced = False
    skip = False
    for number, line in enumerate(lines):
        fenced ^= _FENCE.match(line) is not None
        if skip:
            skip = False
            continue
        title = None if fenced else _heading(lines, number)
        if title is None:
            found[-1].lines.append(line)
        else:
            skip = _is_underlined(lines, number)
            found.append(_Section(title=title))
    return _joined([(section.title, "\n".join(section.lines).strip("\n")) for section in found])


def _heading(lines: Sequence[str], number: int) -> str | None:
    line = lines[number].strip()
    marked = _MARKED.match(line)
    if marked:
        return marked[2].strip("*_ ") or None
    if not line or len(line) > _LONGEST or not _is_blank(lines, number - 1):
        return None
    if _is_underlined(lines, number):
        return line
    if line[-1] in ".;,:。" or not _stands_alone(lines, number):
        return None
    plain = line.strip("*_ ")
    is_heading = _NUMBERED.match(plain) or _NAMED.match(plain) or _CAPITALS.fullmatch(plain)
    return plain if is_heading else None


def _stands_alone(lines: Sequence[str], number: int) -> bool:
    """Says whether a line is followed by a blank one, or by text that does not go on as a list."""
    if _is_blank(lines, number + 1):
        return True
    return not _NUMBERED.match(lines[number + 1].strip()) and len(lines[number].strip()) <= 60


def _is_underlined(lines: Sequence[str], number: int) -> bool:
    following = lines[number + 1].strip() if number + 1 < len(lines) else ""
    return bool(lines[number].strip()) and not lines[number].startswith("#") and bool(_UNDERLINE.fullmatch(following))


def _is_blank(lines: Sequence[str], number: int) -> bool:
    return not 0 <= number < len(lines) or not lines[number].strip()


def _joined(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Joins headings without text with the next: 'Part 1' and '1.1 Aims' become 'Part 1 / 1.1 Aims'."""
    kept: list[tuple[str, str]] = []
    above: list[str] = []
    for title, text in found:
        if text.strip():
            kept.append((" / ".join([*above, title] if title else above), text))
            above = []
        elif title:
            above.append(title)
    return [*kept, *((title, title) for title in above)]

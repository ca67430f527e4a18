"""Words with IOB tags, one a line: sentences as text, the tagged spans as facts."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from corpus.formats import papers
from corpus.formats.dates import is_korean
from corpus.formats.lines import Line, placed_lines
from corpus.modality import Item, Record, UnusableError

_TAG = re.compile(r"(O|[BIESLU](?:[-_](\S+))?)")
_BEGINS = "BSU"
_ENDS = "ESL"
_NO_BLANK_BEFORE = set(".,;:!?%)]}'’”")
_NO_BLANK_AFTER = set("([{\u2018“")
_GLUED = set("-/")
_MOST_WORDS = 100_000


def is_iob(lines: list[str]) -> bool:
    """Says whether all of a file's first lines are a word, a tag and perhaps columns between; blank ones aside."""
    rows = [_cells(line) for line in lines if line.strip() and not line.startswith(("-DOCSTART-", "#"))]
    return (
        bool(rows)
        and all(len(row) > 1 and _TAG.fullmatch(row[-1]) for row in rows)
        and any(row[-1] == "O" or len(row[-1]) > 1 for row in rows)
    )


@dataclass(kw_only=True)
class _Sentence:
    lines: list[Line]
    group: str | None

    def offsets(self) -> tuple[int, int] | None:
        first, last = self.lines[0].offsets, self.lines[-1].offsets
        return None if first is None or last is None else (first[0], last[1])


def sentences(path: Path, *, language: str, encoding: str | None) -> Iterator[Item]:
    """Yields one record per sentence; those of one document (after -DOCSTART-) share a group.

    Raises:
        SourceError: the file cannot be decoded.
    """
    found = ((f"line {each.lines[0].number}", each) for each in _sentences(path, encoding))
    yield from papers.records(found, lambda each, where: _record(each, where, language), excerpt=_excerpt)


def _excerpt(found: _Sentence) -> str:
    return " ".join((line.text or "").strip() for line in found.lines[:12])


def _sentences(path: Path, encoding: str | None) -> Iterator[_Sentence]:
    document, held, group = 0, list[Line](), None
    for line in placed_lines(path, encoding=encoding):
        starts_document = line.text is not None and line.text.startswith("-DOCSTART-")
        if line.text is None or (line.text.strip() and not starts_document):
            held.append(line if len(held) < _MOST_WORDS else line._replace(text=None))
        elif held:
            yield _Sentence(lines=held, group=group)
            held = []
        document += starts_document
        group = f"{path.stem}:{document}" if document else None
    if held:
        yield _Sentence(lines=held, group=group)


def _record(found: _Sentence, where: str, language: str) -> Iterator[Record]:
    words, tags = _words(found.lines)
    text, places = _joined(words)
    entities: dict[str, list[str]] = {}
    for kind, first, last in _spans(tags):
        entities.setdefault(kind.replace(":", " "), []).append(text[places[first][0] : places[last][1]])
    facts = {kind: papers.joined(spans) for kind, spans in sorted(entities.items())}
    spoken = "ko" if is_korean(text) else language
    offsets = found.offsets()
    yield papers.record(facts, [("", text)], where=where, offsets=offsets, language=spoken, group=found.group)


def _words(lines: list[Line]) -> tuple[list[str], list[str]]:
    words, tags = [], []
    for line in lines:
        if line.text is None:
            raise UnusableError("too_large", f"a sentence must have at most {_MOST_WORDS} words, but has more")
        cells = _cells(line.text)
        if len(cells) < 2 or not cells[0]:
            raise UnusableError("ragged_row", f"must have a word and a tag a line, but has {line.text.strip()!r:.60}")
        if not _TAG.fullmatch(cells[-1]):
            raise UnusableError("unknown_tag", f"a tag must be O, or B-, I- and so on, but is {cells[-1]!r:.60}")
        words.append(cells[0])
        tags.append(cells[-1])
    return words, tags


def _cells(line: str) -> list[str]:
    bare = line.strip("\r\n")
    return [cell.strip() for cell in bare.split("\t")] if "\t" in bare else bare.split()


def _spans(tags: list[str]) -> Iterator[tuple[str, int, int]]:
    """Yields (kind, first word, last word); an I- after another kind or after O begins a span too."""
    kind, first = "", 0
    for number, tag in enumerate([*tags, "O"]):
        found = _TAG.fullmatch(tag)
        mark, now = tag[0], (found[2] if found and found[2] else "entity")
        if kind and (mark == "O" or mark in _BEGINS or now != kind):
            yield kind, first, number - 1
            kind = ""
        if mark != "O" and not kind:
            kind, first = now, number
        if kind and mark in _ENDS + "U":
            yield kind, first, number
            kind = ""


def _joined(words: list[str]) -> tuple[str, list[tuple[int, int]]]:
    """Joins words as people write them; returns the text and where each word stands in it."""
    parts, places, end = list[str](), list[tuple[int, int]](), 0
    for number, word in enumerate(words):
        blank = "" if number == 0 or _is_glued(words, number) else " "
        parts.append(blank + word)
        places.append((end + len(blank), end + len(blank) + len(word)))
        end = places[-1][1]
    return "".join(parts), places


def _is_glued(words: list[str], number: int) -> bool:
    before, word = words[number - 1], words[number]
    if before in _GLUED or word in _GLUED:
        return True
    if before == "." and word.isdigit() and number > 1 and words[number - 2].isdigit():
        return True  # 2 . 5
    return word in _NO_BLANK_BEFORE or before in _NO_BLANK_AFTER

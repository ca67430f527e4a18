"""What a search for personal data says, and what its searches share."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from corpus.gates.config import Kind

HANGUL = re.compile(r"[가-힣]")
_NUMBER_BEFORE = re.compile(r"[\d%][.,]?[ \t\"]*[,;|\t\n ][ \t\r\"]*$")
_NUMBER_BEHIND = re.compile(r"[ \t\"]*[,;|\t\n\r ][ \t\n\"]*[-+]?[\d.]*\d")
_LONGEST = 60  # longer runs and gaps are alike
_LENGTH = 64  # lengths are letters from here on, gaps letters before


@dataclass(frozen=True, slots=True)
class Hit:
    """Where personal data stands in a text: never what it is."""

    kind: Kind
    start: int
    end: int


@dataclass(frozen=True)
class Page:
    """A text, as every search sees it.

    Attributes:
        text: with one form for digits, dashes and blanks.
        lower: the same in small letters.
    """

    text: str
    lower: str

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """Where runs of digits start."""
        return self._edges[::2]

    @cached_property
    def _edges(self) -> NDArray[np.int64]:
        if self.text.isascii():
            codes = np.frombuffer(self.text.encode("ascii"), dtype=np.uint8)
        else:
            codes = np.frombuffer(self.text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        digits = np.zeros(len(codes) + 2, dtype=np.int8)
        digits[1:-1] = codes - codes.dtype.type(48) < 10
        edges: NDArray[np.int64] = np.flatnonzero(digits[1:] != digits[:-1])
        return edges

    @cached_property
    def _shape(self) -> str:
        """The lengths of the runs and what lies between them, a letter each: what `like` looks through."""
        sizes = np.minimum(np.diff(self._edges), _LONGEST).astype(np.uint8)
        sizes[::2] += _LENGTH
        return sizes.tobytes().decode("latin-1")

    @property
    def numbered(self) -> bool:
        """Whether digits stand so close that they could be somebody's number, which has 7 at least."""
        return bool(_numbered().search(self._shape))

    def like(self, *lengths: tuple[int, int], gap: int = 3) -> list[int]:
        """Returns where runs of digits start whose lengths lie in these bounds, each at most `gap` from the last."""
        found = [match.start() // 2 for match in _pattern(lengths, gap).finditer(self._shape)]
        places: list[int] = self._starts[found].tolist() if found else []
        return places

    def cued(self, start: int, *, words: re.Pattern[str], within: int = 40) -> bool:
        """Says whether a cue word stands shortly before a place."""
        return bool(words.search(self.lower, max(0, start - within), start))

    def after(self, cue: str, pattern: re.Pattern[str], *, lower: bool = True) -> Iterator[re.Match[str]]:
        """Yields where a pattern matches right behind a cue: many times faster than a pattern that holds the cue."""
        text = self.lower if lower else self.text
        place = text.find(cue) if cue in text else -1
        while place >= 0:
            match = pattern.match(text, place + len(cue))
            if match:
                yield match
            place = text.find(cue, place + len(cue))

    def near_hangul(self, start: int, end: int) -> bool:
        """Says whether Hangul stands close to a place."""
        return bool(HANGUL.search(self.text, max(0, start - 30), min(len(self.text), end + 30)))

    def among_numbers(self, start: int, end: int) -> bool:
        """Says whether a number stands right before or behind a place, as in a table."""
        before = self.text[max(0, start - 12) : start]
        behind = min(len(self.text), end + 12)
        return bool(_NUMBER_BEFORE.search(before) or _NUMBER_BEHIND.match(self.text, end, behind))

    def fraction(self, start: int) -> bool:
        """Says whether the digits at a place follow a decimal point."""
        return self.text[max(0, start - 1) : start] == "." and self.text[max(0, start - 2) : start - 1].isdigit()

    def joined(self, start: int, end: int) -> bool:
        """Says whether a place is part of a longer name or number."""
        before, behind = self.text[max(0, start - 2) : start], self.text[end : end + 2]
        return bool(re.search(r"[A-Za-z_=/]$|\d[.-]$", before) or re.match(r"[A-Za-z_]|[-.]\d", behind))


@cache
def _pattern(lengths: tuple[tuple[int, int], ...], gap: int) -> re.Pattern[str]:
    first, *rest = [rf"[\x{_LENGTH + least:02x}-\x{_LENGTH + most:02x}]" for least, most in lengths]
    ahead = "".join(rf"[\x01-\x{gap:02x}]{part}" for part in rest)
    return re.compile(f"{first}(?={ahead})" if rest else first)


@cache
def _numbered() -> re.Pattern[str]:
    """Returns what finds seven digits in one run, or in runs that are not far apart."""

    def size(least: int, most: int = _LONGEST) -> str:
        return rf"[\x{_LENGTH + least:02x}-\x{_LENGTH + most:02x}]"

    near = r"[\x01-\x0c]"
    sides = [f"{size(least, 6)}{near}{size(7 - least)}" for least in range(1, 7)]
    return re.compile("|".join([size(7), *sides, f"(?:{size(1, 6)}{near}){{2}}{size(1)}"]))


def luhn(digits: str) -> bool:
    """Says whether the last digit is the check digit of ISO/IEC 7812."""
    doubled = [int(digit) * (1 if place % 2 else 2) for place, digit in enumerate(digits[::-1], start=1)]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0

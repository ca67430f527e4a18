"""Symbols: the tokens that are not text, written <|name|> or <|kind:name|>, and never found in text."""

import re

END = "<|eod|>"
PAD = "<|pad|>"
SECTION = "<|section|>"
SYMBOL = re.compile(r"<\|[^\s<>|]{1,64}\|>")
VALUES = tuple(f"<|value:{number}|>" for number in range(51))
"""Binned numbers: 0 for nothing, then quantiles from the lowest."""

_NAME = re.compile(r"[!-;=?-{}~]{1,50}")  # printable ASCII: byte-level BPE would take é for a byte
_NAMED = re.compile(r"<\|[a-z]+:([^\s<>|]+)\|>")


def tags(name: str) -> tuple[str, str]:
    """Returns the opening and the closing tag of a modality."""
    return f"<|{name}|>", f"<|/{name}|>"


def symbol(kind: str, name: str) -> str:
    """Returns the symbol of one letter, glyph or gene.

    Raises:
        ValueError: the name cannot be written as a symbol.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"a symbol's name must be 1-50 ASCII characters without blanks, <, > and |, but is {name!r}")
    return f"<|{kind}:{name}|>"


def names(symbols: str) -> list[str]:
    """Returns the names in a run of symbols of one kind: '<|aa:M|><|aa:K|>' -> ['M', 'K']."""
    return _NAMED.findall(symbols)


def plain(rendered: str) -> str:
    """Returns a rendered record as people would write it: every symbol by its name, a section on its own line."""
    return SYMBOL.sub("", _NAMED.sub(r"\1", rendered.replace(SECTION, "\n")))


def inside(rendered: str, name: str) -> tuple[str, str]:
    """Splits a rendered record in what its tags enclose and what follows.

    Raises:
        ValueError: the tags are not there.
    """
    opening, closing = tags(name)
    body, found, rest = rendered.removeprefix(opening).partition(closing)
    if not rendered.startswith(opening) or not found:
        raise ValueError(f"a record must be written {opening}...{closing}, but is {rendered[:60]!r}")
    return body, rest

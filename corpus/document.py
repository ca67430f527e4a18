"""Documents: named facts and titled sections, written between the tags of a modality and read back exactly.

<|drug|> name: Viagra
label: 64f8040f<|section|>Indications
VIAGRA is ...<|/drug|>
"""

from collections.abc import Iterable, Mapping
from typing import Any

from corpus import annotations
from corpus.clean import clean_line, clean_text, is_missing
from corpus.modality import UnusableError
from corpus.symbols import SECTION, inside, tags

SYMBOLS = (SECTION,)


def make(facts: Mapping[str, Any], sections: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Returns the content of a document: cleaned facts by name and [title, text] sections; empty ones are left out.

    Raises:
        UnusableError: a text cannot be written (corpus/clean.py), or nothing is left.
    """
    kept = {clean_line(name): clean_line(str(value)) for name, value in facts.items() if not is_missing(value)}
    written = [
        [clean_line(title) if title.strip() else "", clean_text(text)] for title, text in sections if text.strip()
    ]
    if not kept and not written:
        raise UnusableError("empty", "must hold a fact or a section, but has none")
    for name in kept:
        if ": " in name:
            raise UnusableError("fact_name", f"a fact must be named without a colon, but is {name!r}")
    return {"facts": kept, "sections": written}


def write(name: str, content: Mapping[str, Any], *, spans: str = "") -> str:
    """Writes a document between the tags of `name`; `spans`, already tagged, stand before the closing tag."""
    opening, closing = tags(name)
    sections = "".join(f"{SECTION}{title}\n{text}" for title, text in content["sections"])
    return f"{opening}{annotations.write(content['facts'])}{sections}{spans}{closing}"


def read(name: str, rendered: str) -> dict[str, Any]:
    """Reads back what `write` wrote, without spans."""
    facts, *sections = inside(rendered, name)[0].split(SECTION)
    pairs = (section.partition("\n") for section in sections)
    return {"facts": annotations.read(facts), "sections": [[title, text] for title, _, text in pairs]}

"""The licence that an article states about itself, as an SPDX identifier."""

from collections.abc import Iterator
from typing import Any

from corpus.formats.xmlfile import attribute, child, name, plain, within
from corpus.gates.spellings import normalised

UNKNOWN = "LicenseRef-PMC-OA-Other"  # it states something that no rule can decide on, so not what its source allows
_LONGEST = 4000  # characters of a statement


def stated(text: str) -> str | None:
    """Returns the licence that a record's own words mean; UNKNOWN where that is not certain, None without words."""
    return (normalised(text[:_LONGEST]) or UNKNOWN) if text.strip() else None


def licence_of(meta: Any) -> str | None:
    """Returns the licence of JATS' <article-meta>: by its address, else by its words; None where it states none.

    Old articles have no <permissions>, but say it beside the copyright.
    """
    if meta is None:
        return None
    held = child(meta, "permissions")
    held = meta if held is None else held
    licences = within(held, "license", "licence", "license_ref")
    found = (normalised(text[:_LONGEST]) for text in _statements(held, licences) if text.strip())
    return next((licence for licence in found if licence), UNKNOWN if licences else None)


def _statements(held: Any, licences: list[Any]) -> Iterator[str]:
    """Yields what may name the licence, the surest first: addresses, whose words often name that of the data too."""
    for part in licences:
        yield attribute(part, "href")
        yield plain(part) if name(part) == "license_ref" else ""
    yield from (attribute(link, "href") for part in licences for link in within(part, "ext-link"))
    for part in licences:
        yield attribute(part, "license-type")
        yield plain(part)
    yield from (plain(part) for part in within(held, "copyright-statement"))

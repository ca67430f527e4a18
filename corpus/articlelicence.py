"""The licence that an article states about itself, as an SPDX identifier."""

import re
from typing import Any

from corpus.xmlfile import attribute, name, plain

UNKNOWN = "LicenseRef-PMC-OA-Other"  # it states something, but nothing that a rule can decide on
_CREATIVE = re.compile(r"creativecommons\.org/licen[cs]es/([a-z-]+)/(\d\.\d)", re.IGNORECASE)
_ZERO = re.compile(r"creativecommons\.org/publicdomain/zero/1\.0", re.IGNORECASE)
_MARK = re.compile(r"creativecommons\.org/(?:publicdomain/mark/1\.0|licenses/publicdomain)", re.IGNORECASE)
_SHORT = re.compile(r"\bCC[ -]?(BY(?:[ -]NC)?(?:[ -](?:ND|SA))?)(?:[ -](\d\.\d))?\b", re.IGNORECASE)
_KINDS = {"by", "by-nc", "by-sa", "by-nd", "by-nc-sa", "by-nc-nd"}


def spdx(stated: str) -> str | None:
    """Returns the SPDX identifier of a licence's address or short name; None where it is none that we know."""
    found = _CREATIVE.search(stated)
    if found and found[1].lower() in _KINDS:
        return f"CC-{found[1].upper()}-{found[2]}"
    if _ZERO.search(stated) or re.search(r"\bCC0\b", stated):
        return "CC0-1.0"
    if _MARK.search(stated):
        return "CC-PDM-1.0"
    short = _SHORT.search(stated)
    if short:
        kind = short[1].upper().replace(" ", "-")
        return f"CC-{kind}-{short[2]}" if short[2] else f"LicenseRef-CC-{kind}"
    return None


def licence_of(permissions: Any) -> str | None:
    """Returns the licence of JATS' <permissions>: by its address, else by its words; None where it states none."""
    if permissions is None:
        return None
    stated = [part for part in permissions.iter() if name(part) in ("license", "license_ref", "licence")]
    if not stated:
        return None
    addresses = [attribute(link, "href") for part in stated for link in part.iter() if name(link)]
    words = [attribute(part, "license-type") for part in stated] + [plain(part) for part in stated]
    found = [spdx(text) for text in (*addresses, *words) if text]
    return next((licence for licence in found if licence), UNKNOWN)

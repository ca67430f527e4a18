"""Spellings: licences as records and web pages write them, read as SPDX identifiers."""

import re
from functools import cache

from corpus.gates.terms import canonical, terms_of

_URL = re.compile(
    r"creativecommons\.org/(?:licen[sc]es/(?P<kind>by(?:-nc)?(?:-nd|-sa)?|by-nd-nc)/(?P<version>\d\.\d)(?:/(?P<port>[a-z]{2,3})\b)?"
    r"|publicdomain/(?P<public>zero|mark)/1\.0)"
)
_CC0 = re.compile(r"\bcc[ -]?(?:0|zero)\b|creative commons (?:cc0|zero)|\bpublicdomain/zero")
_SHORT = re.compile(r"\bcc[ :_-]*by(?P<rest>(?:[ _-]*(?:nc|nd|sa))*)(?P<after>.*)")
_LONG = re.compile(r"(?:creative commons|\bcc)\b.*?\battribution(?P<rest>.*)|^attribution[ -](?P<bare>.*)")
_VERSION = re.compile(r"\b(?:v|version )?(1\.0|2\.0|2\.1|2\.5|3\.0|4\.0)\b")
_PORT = re.compile(r"\b(igo|au|at|de|fr|jp|kr|nl|uk|us)\b")
_PORTS = {"intergovernmental": "igo", "korea": "kr", "japan": "jp", "germany": "de", "united states": "us"}
_KOGL = re.compile(r"(?:kogl|공공누리|korea open government licen[sc]e)[^0-9]{0,24}?([1-4])")
_OTHERS: tuple[tuple[str, str], ...] = (
    (r"apache(?: software)?(?: licen[sc]e)?[ ,-]*(?:v|version )?2(?:\.0)?|apache\.org/licenses/license-2\.0", "Apache-2.0"),
    (r"\bmit\b(?: licen[sc]e)?|opensource\.org/licenses/mit", "MIT"),
    (r"bsd[ -]3|3-clause bsd|new bsd|modified bsd", "BSD-3-Clause"),
    (r"bsd[ -]2|2-clause bsd|simplified bsd|freebsd", "BSD-2-Clause"),
    (r"odc[ -]by|open data commons attribution", "ODC-By-1.0"),
    (r"odbl|open database licen[sc]e", "ODbL-1.0"),
    (r"pddl|public domain dedication and licen[sc]e", "PDDL-1.0"),
    (r"affero|agpl", "AGPL-3.0-only"),
    (r"lesser general public|lgpl[ -]*(?:v|version )?3", "LGPL-3.0-only"),
    (r"(?:gpl|general public licen[sc]e)[ ,-]*(?:v|version )?3", "GPL-3.0-only"),
    (r"(?:gpl|general public licen[sc]e)[ ,-]*(?:v|version )?2", "GPL-2.0-only"),
    (r"mozilla|mpl[ -]*2", "MPL-2.0"),
    (r"open government licen[sc]e[ ,-]*(?:v|version )?3|ogl[ -]*(?:uk[ -]*)?3", "OGL-UK-3.0"),
    (r"public domain mark", "CC-PDM-1.0"),
    (r"(?:u\.?s\.?|united states)[ -](?:gov(?:ernment|t)?\b.*|federal .*)?(?:public domain|works?\b)", "LicenseRef-US-Public-Domain"),
    (r"public domain in the (?:usa|us|united states)|work of the u\.?s\.? government", "LicenseRef-US-Public-Domain"),
    (r"all rights reserved", "LicenseRef-All-Rights-Reserved"),
    (r"no-cc code", "LicenseRef-PMC-OA-Other"),
)


@cache
def normalised(text: str) -> str | None:
    """Returns the SPDX identifier that a spelling means, or None where it is not certain.

    A Creative Commons licence without its version is LicenseRef-CC-BY and the like: all versions have the same terms.
    """
    stripped = " ".join(text.split()).strip(" .;,")
    exact = canonical(stripped)
    if exact and " " not in exact and terms_of(exact) is not None:
        return exact
    plain = stripped.casefold().replace("–", "-").replace("‑", "-").replace("noncommercial", "nc")
    return _address(plain) or _kogl(plain) or _commons(plain) or _other(plain)


def _address(plain: str) -> str | None:
    found = _URL.search(plain)
    if not found:
        return None
    if found["public"]:
        return "CC0-1.0" if found["public"] == "zero" else "CC-PDM-1.0"
    kind = "by-nc-nd" if found["kind"] == "by-nd-nc" else found["kind"]
    return _named(kind.split("-")[1:], found["version"], found["port"])


def _kogl(plain: str) -> str | None:
    found = _KOGL.search(plain)
    return f"LicenseRef-KOGL-{found[1]}" if found else None


def _commons(plain: str) -> str | None:
    if _CC0.search(plain):
        return "CC0-1.0"
    short = _SHORT.search(plain)
    if short:
        return _from_words(f"{short['rest']} {short['after']}")
    long = _LONG.search(plain)
    return _from_words(long["rest"] or long["bare"] or "") if long else None


def _from_words(rest: str) -> str | None:
    words = rest.replace("non-commercial", "nc").replace("non commercial", "nc")
    words = re.sub(r"no[ -]?deriv\w*", "nd", words)
    words = re.sub(r"share[ -]?alike", "sa", words)
    for long, port in _PORTS.items():
        words = words.replace(long, port)
    parts = [part for part in ("nc", "nd", "sa") if re.search(rf"\b{part}\b", words.replace("_", " "))]
    version, port = _VERSION.search(words), _PORT.search(words)
    return _named(parts, version[1] if version else None, port[1] if port else None)


def _named(parts: list[str], version: str | None, port: str | None) -> str | None:
    if {"nd", "sa"} <= set(parts):
        return None  # there is no such licence
    family = "-".join(["CC-BY", *(part.upper() for part in ("nc", "nd", "sa") if part in parts)])
    if version is None:
        return f"LicenseRef-{family}"
    return f"{family}-{version}" + (f"-{port.upper()}" if port else "")


def _other(plain: str) -> str | None:
    found = [name for pattern, name in _OTHERS if re.search(pattern, plain)]
    return found[0] if found else None

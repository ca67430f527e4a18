"""Spellings: licences as records and web pages write them, read as SPDX identifiers."""

import re
from functools import lru_cache

from corpus.gates.terms import canonical, terms_of

_URL = re.compile(
    r"creativecommons\.org/(?:licen[sc]es/(?P<kind>by(?:-nc)?(?:-nd|-sa)?|by-nd-nc)/(?P<version>\d\.\d)(?:/(?P<port>[a-z]{2,3})\b)?"
    r"|publicdomain/(?P<public>zero|mark)/1\.0)"
)
_CC0 = re.compile(r"\bcc[ -]?(?:0|zero)\b|creative commons (?:cc0|zero)|\bpublicdomain/zero")
_SHORT = re.compile(r"\bcc[ :_-]*by(?P<rest>(?:[ _-]*(?:nc|nd|sa))*)(?P<after>.*)")
_LONG = re.compile(r"(?:creative commons|\bcc)\b.*?\battribution(?P<rest>.*)|^attribution[ -](?P<bare>.*)")
_VERSION = re.compile(r"\b(?:v|version )?(1\.0|2\.0|2\.1|2\.5|3\.0|4\.0)\b")
_PORT = re.compile(r"\b(igo)\b|\d\.\d[ -]+(au|at|de|fr|jp|kr|nl|uk|us)(?=$|[).,;])")
_PORTS = {"intergovernmental": "igo", "korea": "kr", "japan": "jp", "germany": "de", "united states": "us"}
_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_FILLING = re.compile(r"\b(?:the|licen[sc]ed?|under|terms of|a|an)\b|https?://")
_KOGL = re.compile(r"(?:kogl|공공누리|korea open government licen[sc]e)[^0-9]{0,24}?([1-4])")
_AMERICA = r"(?:u\.?s\.?a?|united states(?: of america)?)"
_VERSIONED = r"[ ,-]*(?:v|version )?"
_OTHERS: tuple[tuple[str, str], ...] = (  # the whole text, but for "the", "license" and what stands in brackets
    (rf"apache(?: software)?{_VERSIONED}2(?:\.0)?|asl ?2(?:\.0)?", "Apache-2.0"),
    (r"mit|expat|mit/x11", "MIT"),
    (r"(?:new |modified |3[- ]clause )?bsd[ -]3(?:[- ]clause)?|(?:new|modified|3[- ]clause) bsd", "BSD-3-Clause"),
    (r"bsd[ -]2(?:[- ]clause)?|(?:simplified|freebsd|2[- ]clause) bsd", "BSD-2-Clause"),
    (rf"odc[ -]by{_VERSIONED}(?:1\.0)?|open data commons attribution{_VERSIONED}(?:1\.0)?", "ODC-By-1.0"),
    (rf"(?:odc[ -])?odbl{_VERSIONED}(?:1\.0)?|(?:open data commons )?open database{_VERSIONED}(?:1\.0)?", "ODbL-1.0"),
    (r"(?:odc[ -])?pddl|(?:open data commons )?public domain dedication and", "PDDL-1.0"),
    (rf"(?:gnu )?(?:agpl|affero general public){_VERSIONED}3(?:\.0)?", "AGPL-3.0-only"),
    (rf"(?:gnu )?(?:lgpl|lesser general public){_VERSIONED}3(?:\.0)?", "LGPL-3.0-only"),
    (rf"(?:gnu )?(?:gpl|general public){_VERSIONED}3(?:\.0)?", "GPL-3.0-only"),
    (rf"(?:gnu )?(?:gpl|general public){_VERSIONED}2(?:\.0)?", "GPL-2.0-only"),
    (rf"(?:mozilla public|mpl){_VERSIONED}2(?:\.0)?", "MPL-2.0"),
    (rf"(?:open government|ogl)(?: uk)?{_VERSIONED}3(?:\.0)?", "OGL-UK-3.0"),
    (rf"academic free{_VERSIONED}3(?:\.0)?|afl{_VERSIONED}3(?:\.0)?", "AFL-3.0"),
    (r"public domain mark(?: 1\.0)?|(?:creative commons )?public domain mark(?: 1\.0)?", "CC-PDM-1.0"),
    (
        (
            rf"(?:work of the )?{_AMERICA}(?: federal)?(?: gov(?:ernment|t)?\.?)?(?: public domain| works?)"
            rf"|(?:work of the )?{_AMERICA} gov(?:ernment|t)?\.?|public domain in the {_AMERICA}"
        ),
        "LicenseRef-US-Public-Domain",
    ),
    (r".*all rights reserved.*", "LicenseRef-All-Rights-Reserved"),
    (r"no-cc code", "LicenseRef-PMC-OA-Other"),
)
_ADDRESSES = (
    (r"opensource\.org/licenses?/mit", "MIT"),
    (r"apache\.org/licenses/license-2\.0", "Apache-2.0"),
    (r"opendatacommons\.org/licenses/by/", "ODC-By-1.0"),
    (r"opendatacommons\.org/licenses/odbl/", "ODbL-1.0"),
    (r"opendatacommons\.org/licenses/pddl/", "PDDL-1.0"),
)
_RESTRICTED = re.compile(
    r"non-?commercial|research (?:use )?only|academic (?:use )?only|not for commercial|비상업|비영리"
)


@lru_cache(maxsize=4096)
def normalised(text: str) -> str | None:
    """Returns the SPDX identifier that a spelling means, or None where it is not certain.

    A Creative Commons licence without its version is LicenseRef-CC-BY and the like: all versions have the same terms.
    Of several of Creative Commons (for an article and its data) the strictest counts; other two licences, or a free
    one and a restriction, are not certain.
    """
    stripped = " ".join(text.split()).strip(" .;,")
    if " " not in stripped and terms_of(stripped) is not None:
        return canonical(stripped)
    plain = (
        stripped.casefold()
        .replace("_", " ")
        .replace("–", "-")
        .replace("\u2011", "-")
        .replace("noncommercial", "non-commercial")
    )
    shared = _commons(plain)
    others = {name for name in (_kogl(plain), _other(_BRACKETS.sub(" ", plain))) if name} - shared
    if len(others) + bool(shared) != 1:
        return None
    name = min(shared or others, key=_leave)
    return None if _leave(name)[0] and _RESTRICTED.search(plain) else name


def _leave(name: str) -> tuple[bool, bool, bool, bool, str]:
    """Orders licences by what they allow: of those of an article and of its data, the first holds for all."""
    held = terms_of(name)
    if held is None:
        return (False, False, False, False, name)
    return (held.commercial, held.derivatives, not held.share_alike, name == "CC0-1.0", name)


def as_expression(text: str) -> str:
    """Returns what a record says of its licence as an SPDX expression where it can be read as one, else as it is."""
    parts = re.split(r"(\bAND\b|\bOR\b|\bWITH\b|[()])", text)
    known = all(part.strip() in ("", "AND", "OR", "WITH", "(", ")") or terms_of(part.strip()) for part in parts)
    return text if known and text.strip() else normalised(text) or text


def _address(found: re.Match[str]) -> str | None:
    if found["public"]:
        return "CC0-1.0" if found["public"] == "zero" else "CC-PDM-1.0"
    kind = "by-nc-nd" if found["kind"] == "by-nd-nc" else found["kind"]
    return _named(kind.split("-")[1:], found["version"], found["port"])


def _kogl(plain: str) -> str | None:
    found = _KOGL.search(plain)
    return f"LicenseRef-KOGL-{found[1]}" if found else None


def _commons(plain: str) -> set[str]:
    """Returns the Creative Commons licences that a text names, by address and by name."""
    named = _URL.sub(" ", plain)
    short, long = _SHORT.search(named), _LONG.search(named)
    found = {_address(match) for match in _URL.finditer(plain)}
    if short:
        found.add(_from_words(f"{short['rest']} {short['after']}"))
    elif long:
        found.add(_from_words(long["rest"] or long["bare"] or ""))
    if _CC0.search(named):
        found.add("CC0-1.0")
    names = {name for name in found if name}
    exact = {match[1] for name in names if (match := re.match(r"CC-(BY[A-Z-]*?)-\d", name))}
    return {name for name in names if name.removeprefix("LicenseRef-CC-") not in exact}  # the address tells the version


def _from_words(rest: str) -> str | None:
    words = _BRACKETS.sub(" ", rest).replace("non-commercial", "nc").replace("non commercial", "nc")
    words = re.sub(r"no[ -]?deriv\w*", "nd", words)
    words = re.sub(r"share[ -]?alike", "sa", words)
    for country, code in _PORTS.items():
        words = words.replace(country, code)
    parts = [part for part in ("nc", "nd", "sa") if re.search(rf"\b{part}\b", words.replace("_", " "))]
    version, port = _VERSION.search(words), _PORT.search(words)
    return _named(parts, version[1] if version else None, (port[1] or port[2]) if port else None)


def _named(parts: list[str], version: str | None, port: str | None) -> str | None:
    if {"nd", "sa"} <= set(parts):
        return None  # there is no such licence
    family = "-".join(["CC-BY", *(part.upper() for part in ("nc", "nd", "sa") if part in parts)])
    if version is None:
        return f"LicenseRef-{family}"
    return f"{family}-{version}" + (f"-{port.upper()}" if port else "")


def _other(plain: str) -> str | None:
    for address, license_id in _ADDRESSES:
        if re.search(address, plain):
            return license_id
    bare = " ".join(_FILLING.sub(" ", plain).split()).strip(" .,;:-")
    return next((name for pattern, name in _OTHERS if bare and re.fullmatch(pattern, bare)), None)

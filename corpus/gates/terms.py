"""Terms: what a licence allows, and the table of those that this field meets, each with what it rests on."""

import re
from datetime import date
from functools import cache

from pydantic import BaseModel, ConfigDict


class Terms(BaseModel):
    """What may be done with data; people write it under a source's `terms:` where a licence does not say it.

    Attributes:
        commercial: whether commercial use is allowed.
        derivatives: whether derived works may be made and passed on.
        share_alike: whether these must be under the same licence.
        dua: the agreement that must have been signed; None where anyone may take the data.
        expires: the day from which the right is gone; None where it lasts.
        basis: what this rests on: the licence's section, a contract and its date.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    commercial: bool
    derivatives: bool
    share_alike: bool = False
    dua: str | None = None
    expires: date | None = None
    basis: str = ""


def _terms(basis: str, *, allows: str = "cd", dua: str | None = None) -> Terms:
    return Terms(commercial="c" in allows, derivatives="d" in allows, share_alike="s" in allows, dua=dua, basis=basis)


_PUBLIC = "dedicated to the public domain"
_PERMISSIVE = "permissive: notices must be kept"
_ATTRIBUTION = "attribution must be given"
_COPYLEFT = "copyleft: derived works under the same licence"

_VERSIONS = (("GPL", "1.0 2.0 3.0"), ("LGPL", "2.0 2.1 3.0"), ("AGPL", "1.0 3.0"), ("GFDL", "1.1 1.2 1.3"))
_GNU = [
    f"{family}-{version}{ending}"
    for family, versions in _VERSIONS
    for version in versions.split()
    for ending in ("", "-only", "-or-later")
]
_FAMILIES: tuple[tuple[str, str, str], ...] = (  # (identifiers, what is allowed, what it rests on)
    ("CC0-1.0 CC-PDDC CC-PDM-1.0 PDDL-1.0 Unlicense 0BSD NIST-PD NIST-PD-fallback WTFPL MIT-0", "cd", _PUBLIC),
    (
        (
            "MIT ISC Zlib Apache-1.1 Apache-2.0 BSD-1-Clause BSD-2-Clause BSD-3-Clause BSD-4-Clause "
            "BSD-2-Clause-Patent BSD-3-Clause-Clear BSD-3-Clause-LBNL AFL-1.1 AFL-1.2 AFL-2.0 AFL-2.1 AFL-3.0 BSL-1.0 "
            "ECL-2.0 UPL-1.0 NCSA PSF-2.0 Python-2.0 Artistic-2.0 PostgreSQL X11 HPND MS-PL W3C W3C-20150513 "
            "BlueOak-1.0.0 MulanPSL-2.0 CECILL-B curl libpng-2.0 Unicode-DFS-2016 Unicode-3.0 "
            "CDLA-Permissive-1.0 CDLA-Permissive-2.0"
        ),
        "cd",
        _PERMISSIVE,
    ),
    (
        (
            "ODC-By-1.0 OGL-UK-1.0 OGL-UK-2.0 OGL-UK-3.0 OGL-Canada-2.0 etalab-2.0 NLOD-1.0 NLOD-2.0 DL-DE-BY-2.0 "
            "DL-DE-ZERO-2.0 LicenseRef-CC-BY"
        ),
        "cd",
        _ATTRIBUTION,
    ),
    (
        (
            "ODbL-1.0 CDLA-Sharing-1.0 MPL-1.1 MPL-2.0 EPL-1.0 EPL-2.0 EUPL-1.1 EUPL-1.2 CDDL-1.0 CDDL-1.1 OSL-3.0 "
            f"LAL-1.3 CECILL-2.1 CECILL-C OFL-1.1 LicenseRef-CC-BY-SA {' '.join(_GNU)}"
        ),
        "cds",
        _COPYLEFT,
    ),
    (
        "PolyForm-Noncommercial-1.0.0 NCGL-UK-2.0 LicenseRef-CC-BY-NC LicenseRef-PMC-OA-NC LicenseRef-COSMIC",
        "d",
        "non-commercial use only",
    ),
    ("LicenseRef-CC-BY-NC-SA", "ds", "non-commercial use only; share-alike"),
    ("LicenseRef-CC-BY-ND", "c", "no derived works"),
    ("LicenseRef-CC-BY-NC-ND", "", "non-commercial use only; no derived works"),
    ("BUSL-1.1 SSPL-1.0 Elastic-2.0", "ds", "commercial use is restricted"),
    ("LicenseRef-KOGL-1", "cd", "공공누리 type 1: the source must be named"),
    ("LicenseRef-KOGL-2", "d", "공공누리 type 2: no commercial use"),
    ("LicenseRef-KOGL-3", "c", "공공누리 type 3: no changes"),
    ("LicenseRef-KOGL-4", "", "공공누리 type 4: no commercial use, no changes"),
    ("LicenseRef-US-Public-Domain", "cd", "17 USC 105: works of the United States government have no copyright"),
    ("LicenseRef-PMC-OA-Other", "", "PMC's subset without a machine-readable licence: all rights reserved"),
    ("LicenseRef-DrugBank", "d", "DrugBank's academic licence: non-commercial use only"),
    ("LicenseRef-WHOCC-ATC", "", "WHOCC: no commercial use and no changes of the ATC/DDD index"),
    ("LicenseRef-WHO-ICD", "", "WHO: ICD is CC BY-ND or under an agreement, by version"),
    ("LicenseRef-PubChem", "", "PubChem: each depositor has terms of its own; give the deposit's licence"),
    ("LicenseRef-Society-Guideline", "", "medical societies reserve all rights unless they say otherwise"),
    ("LicenseRef-All-Rights-Reserved", "", "all rights reserved"),
)

_AGREEMENTS: tuple[tuple[str, str, str], ...] = (  # (identifiers, what is allowed once it is signed, the agreement)
    ("LicenseRef-KEGG", "d", "KEGG licence"),
    ("LicenseRef-OMIM", "d", "OMIM agreement"),
    ("LicenseRef-UMLS", "cd", "UMLS Metathesaurus licence"),
    ("LicenseRef-SNOMED LicenseRef-SNOMED-CT", "cd", "SNOMED CT affiliate licence"),
    ("LicenseRef-MedDRA", "cd", "MedDRA subscription"),
    ("LicenseRef-LOINC", "cd", "LOINC licence"),
    ("LicenseRef-CPT", "", "AMA licence for CPT"),
    ("LicenseRef-HGMD", "d", "HGMD licence"),
    ("LicenseRef-MIMIC-DUA LicenseRef-MIMIC", "d", "PhysioNet credentialed data use agreement"),
    ("LicenseRef-eICU-DUA LicenseRef-PhysioNet-DUA", "d", "PhysioNet credentialed data use agreement"),
    ("LicenseRef-n2c2-DUA LicenseRef-i2b2-DUA", "d", "n2c2 data use agreement"),
    ("LicenseRef-dbGaP", "d", "dbGaP data use certification"),
    ("LicenseRef-UK-Biobank", "d", "UK Biobank material transfer agreement"),
    ("LicenseRef-AIHub", "d", "AI Hub terms of use"),
    ("LicenseRef-HIRA LicenseRef-NHIS", "d", "Korean health insurance data use agreement"),
)

_CC = re.compile(r"CC-BY(-NC)?(?:-(ND|SA))?-(1\.0|2\.0|2\.1|2\.5|3\.0|4\.0)(-[A-Z]{2,3})?")


def terms_of(identifier: str) -> Terms | None:
    """Returns the terms of one identifier, in any case of letters; None where nothing is known."""
    found = _table().get(identifier.removesuffix("+").casefold())
    if found:
        return found
    shared = _CC.fullmatch(identifier.upper())
    if shared:
        commercial, kind = not shared[1], shared[2]
        allows = ("c" if commercial else "") + ("" if kind == "ND" else "d") + ("s" if kind == "SA" else "")
        return _terms(f"Creative Commons {shared[3]}{shared[4] or ''}: {_words(allows)}", allows=allows)
    return None


def known() -> tuple[str, ...]:
    """Returns the identifiers of the table, without the Creative Commons family, which is read by its rule."""
    return tuple(name for identifiers, _, _ in (*_FAMILIES, *_AGREEMENTS) for name in identifiers.split())


def canonical(identifier: str) -> str:
    """Returns an identifier as SPDX writes it."""
    if _CC.fullmatch(identifier.upper()):
        return identifier.upper()
    return _spellings().get(identifier.casefold(), identifier)


@cache
def _spellings() -> dict[str, str]:
    return {name.casefold(): name for name in known()}


@cache
def _table() -> dict[str, Terms]:
    free = {
        name.casefold(): _terms(basis, allows=allows)
        for identifiers, allows, basis in _FAMILIES
        for name in identifiers.split()
    }
    bound = {
        name.casefold(): _terms(f"{agreement}, once it is signed", allows=allows, dua=agreement)
        for identifiers, allows, agreement in _AGREEMENTS
        for name in identifiers.split()
    }
    return {**free, **bound}


def _words(allows: str) -> str:
    parts = [
        _ATTRIBUTION,
        *([] if "c" in allows else ["non-commercial use only"]),
        *([] if "d" in allows else ["no derived works"]),
        *(["share-alike"] if "s" in allows else []),
    ]
    return "; ".join(parts)

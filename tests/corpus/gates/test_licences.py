"""The licence gate: what is refused, what is taken, and what a person is told."""

from datetime import date
from pathlib import Path

import pytest

from corpus.gates.config import GatesConfig, LicencePolicy
from corpus.gates.licences import decide, manifest, refusals
from corpus.gates.screen import Finding, Screen
from corpus.gates.spellings import as_expression, normalised
from corpus.gates.terms import Terms, known, terms_of
from corpus.modality import Record

TODAY = date(2026, 11, 24)
OF_ARTICLE_AND_DATA = (
    "This article is distributed under the terms of the Creative Commons Attribution 4.0 International License "
    "(http://creativecommons.org/licenses/by/4.0/), which permits unrestricted use. The Creative Commons Public Domain "
    "Dedication waiver (http://creativecommons.org/publicdomain/zero/1.0/) applies to the data."
)
WITHOUT_VERSION = (
    "an Open Access article distributed under the Creative Commons Attribution License "
    "(http://creativecommons.org/licenses/by/2.0), which permits use and reproduction in any medium"
)


def _refusals(given: str | None, terms: Terms | None = None, **policy: object) -> list[str]:
    return refusals(given, terms, policy=LicencePolicy.model_validate(policy), today=TODAY)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "license: must be given, but is not"),
        (" ", "license: must be given, but is not"),
        ("CC-BY-NC-4.0", "must allow commercial use, but CC-BY-NC-4.0 does not"),
        ("CC-BY-ND-3.0", "must allow derived works, but CC-BY-ND-3.0 does not"),
        ("CC-BY-NC-SA-3.0-IGO", "must allow commercial use"),
        ("CC-BY-SA-3.0", "must not bind the result, but CC-BY-SA-3.0 is share-alike"),
        ("GPL-2.0+ WITH Classpath-exception-2.0", "must not bind the result"),
        ("LicenseRef-KOGL-2", "must allow commercial use"),
        ("LicenseRef-KOGL-3", "must allow derived works"),
        ("LicenseRef-DrugBank", "must allow commercial use"),
        ("LicenseRef-UMLS", "must need no agreement, but LicenseRef-UMLS needs 'UMLS Metathesaurus licence'"),
        ("LicenseRef-Ours", "LicenseRef-Ours must have terms, but none are known; write them under terms:"),
        ("Beerware", "must be an SPDX identifier whose terms are known, but is Beerware"),
        ("MIT AND CC-BY-NC-4.0", "must allow commercial use, but MIT AND CC-BY-NC-4.0 does not"),
        ("MIT AND", "must be an SPDX expression, but has the end where a licence must stand"),
        ("MIT MIT", "must be an SPDX expression, but 'MIT MIT' goes on after its end"),
        ("(MIT", "must be an SPDX expression, but a bracket is not closed"),
        ("MIT WITH", "must be an SPDX expression, but WITH names no exception"),
        ("MIT; nothing else", "must be an SPDX expression, but is 'MIT; nothing else'"),
    ],
)
def test_what_is_not_known_to_be_allowed_is_refused(given: str | None, told: str) -> None:
    assert told in " ".join(_refusals(given))


@pytest.mark.parametrize(
    "given",
    [
        "CC-BY-4.0",
        "cc-by-4.0",
        "CC0-1.0",
        "CC-BY-3.0-IGO",
        "PDDL-1.0",
        "ODC-By-1.0",
        "AFL-3.0",
        "BSD-3-Clause",
        "LicenseRef-KOGL-1",
        "LicenseRef-US-Public-Domain",
        "MIT OR GPL-3.0-only",
        "(CC-BY-NC-4.0 OR Apache-2.0) AND CC0-1.0",
    ],
)
def test_what_allows_all_that_is_needed_is_taken(given: str) -> None:
    assert _refusals(given) == []


def test_of_either_licence_the_acceptable_one_is_chosen() -> None:
    decision = decide("CC-BY-NC-4.0 OR (MIT AND CC0-1.0)", None, policy=LicencePolicy(), today=TODAY)
    assert decision.chosen == ("MIT", "CC0-1.0")
    assert decision.terms == terms_of("MIT").model_copy(update={"basis": decision.terms.basis})  # type: ignore[union-attr]


def test_a_right_ends_on_the_day_it_expires_and_is_told_before() -> None:
    terms = Terms(commercial=True, derivatives=True, expires=TODAY, basis="contract 12")
    assert _refusals("LicenseRef-Ours", terms) == [
        "license: must be in force on 2026-11-24, but the right ended on 2026-11-24; renew it"
    ]
    soon = terms.model_copy(update={"expires": date(2026, 12, 24)})
    decision = decide("LicenseRef-Ours", soon, policy=LicencePolicy(), today=TODAY)
    assert decision.refusals == ()
    assert decision.notes == ("the right to use it ends on 2026-12-24, in 30 days",)
    assert _refusals("CC-BY-4.0", terms), "a date narrows any licence"


def test_people_decide_by_hand_on_share_alike_and_agreements() -> None:
    assert _refusals("CC-BY-SA-3.0", share_alike=True) == []
    assert _refusals("CC-BY-SA-3.0", share_alike=["CC-BY-SA-3.0"]) == []
    assert _refusals("CC-BY-SA-4.0", share_alike=["CC-BY-SA-3.0"])
    bound = Terms(commercial=True, derivatives=True, share_alike=True, basis="letter of 2026")
    assert _refusals("CC-BY-4.0", bound, share_alike=["CC-BY-SA-3.0"]), "what a person wrote binds too"
    assert _refusals("CC-BY-4.0", bound, share_alike=[])
    assert _refusals("CC-BY-4.0", bound, share_alike=["CC-BY-4.0"]) == []
    assert _refusals("LicenseRef-UMLS", agreements=["UMLS Metathesaurus licence"]) == []
    assert _refusals("LicenseRef-DrugBank", Terms(commercial=True, derivatives=True, basis="contract of 2026")) == []
    assert _refusals("CC-BY-NC-4.0", commercial=False) == []


def test_terms_may_narrow_a_licence_but_never_widen_it() -> None:
    told = _refusals("CC-BY-NC-4.0", Terms(commercial=True, derivatives=True))
    assert "terms: must not widen a licence, but allow commercial, which CC-BY-NC-4.0 does not" in told[0]


def test_every_licence_of_the_table_has_terms_that_rest_on_something() -> None:
    for name in known():
        found = terms_of(name)
        assert found, name
        assert found.basis, name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("creativecommons.org/licenses/by/2.0", "CC-BY-2.0"),
        ("https://creativecommons.org/licenses/by-nc-nd/4.0/", "CC-BY-NC-ND-4.0"),
        ("https://creativecommons.org/licenses/by/3.0/igo/", "CC-BY-3.0-IGO"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("CC BY 4.0", "CC-BY-4.0"),
        ("CC_BY_4.0", "CC-BY-4.0"),
        ("CC-BY-NC 4.0", "CC-BY-NC-4.0"),
        ("CC BY", "LicenseRef-CC-BY"),
        ("Creative Commons Attribution-NonCommercial-ShareAlike 3.0 IGO (CC BY-NC-SA 3.0 IGO)", "CC-BY-NC-SA-3.0-IGO"),
        ("under the CC BY-NC-ND license (http://creativecommons.org/licenses/by-nc-nd/4.0/)", "CC-BY-NC-ND-4.0"),
        (OF_ARTICLE_AND_DATA, "CC-BY-4.0"),
        (WITHOUT_VERSION, "CC-BY-2.0"),
        ("Creative Commons Attribution 4.0 International License, available at example.org", "CC-BY-4.0"),
        ("CC BY 4.0, figures CC BY-NC 4.0", "CC-BY-NC-4.0"),
        ("Creative Commons Attribution Non-Commercial NoDerivs License", "LicenseRef-CC-BY-NC-ND"),
        ("CC BY 2.0 KR", "CC-BY-2.0-KR"),
        ("Public Domain Mark 1.0", "CC-PDM-1.0"),
        ("공공누리 제1유형", "LicenseRef-KOGL-1"),
        ("KOGL Type 4", "LicenseRef-KOGL-4"),
        ("The MIT License (MIT)", "MIT"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("GNU General Public License v3", "GPL-3.0-only"),
        ("US Government work", "LicenseRef-US-Public-Domain"),
        ("Copyright 2020 the authors. All rights reserved.", "LicenseRef-All-Rights-Reserved"),
        ("MIT, non-commercial only", None),
        ("CC BY-ND-SA 4.0", None),
        ("public domain", None),
        ("mit Erlaubnis", None),
        ("open access", None),
    ],
)
def test_licences_as_records_write_them(text: str, name: str | None) -> None:
    assert normalised(text) == name


def test_a_record_may_carry_an_expression() -> None:
    assert as_expression("MIT OR GPL-3.0-only") == "MIT OR GPL-3.0-only"
    assert as_expression("CC BY 4.0") == "CC-BY-4.0"
    assert as_expression("ask the author") == "ask the author"


def test_the_manifest_says_what_each_source_rests_on_and_its_share() -> None:
    policy = LicencePolicy()
    sources = [(name, decide(given, None, policy=policy, today=TODAY)) for name, given in (("a", "MIT"), ("b", "X"))]
    first, second = manifest(sources, {"a": 300, "b": 100})
    assert first["terms"] == {
        "commercial": True,
        "derivatives": True,
        "share_alike": False,
        "dua": None,
        "expires": None,
    }
    assert (first["rests_on"], first["share"], second["share"]) == ("permissive: notices must be kept", 0.75, 0.25)
    assert second["terms"] is None
    assert second["refusals"]


def test_a_record_is_judged_by_a_licence_of_its_own_though_its_source_is_fine() -> None:
    ours = Terms(commercial=True, derivatives=True, basis="contract 12")
    licences = {"ours": "LicenseRef-Ours"}
    screen = Screen(GatesConfig(), Path(), terms={"ours": ours}, licences=licences, today=TODAY)

    def check(text: str | None, source: str) -> Finding | None:
        record = Record(content={}, group="a", license=text)
        return screen.check(record, "Plain words.", source=source, modality="text")

    assert check(None, "web") is None
    assert check("CC BY 4.0", "web") is None
    assert check("LicenseRef-Ours", "ours") is None
    finding = check("CC BY-NC 4.0", "web")
    assert finding
    assert (finding.gate, finding.code, finding.detail) == ("licences", "licence", {"license": "CC BY-NC 4.0"})
    assert finding.reason.startswith("license: must allow commercial use, but CC-BY-NC-4.0 does not")
    assert check("ask the author", "web")
    assert check("LicenseRef-Ours", "web")
    assert screen.take()["licences"] == {"CC BY-NC 4.0": 1, "ask the author": 1, "LicenseRef-Ours": 1}
    for other in ("CC BY-NC", "LicenseRef-DrugBank", "LicenseRef-Theirs"):
        found = check(other, "ours")
        assert found, f"the contract on ours says nothing of {other}"
        assert found.gate == "licences"

"""The licence gate: an SPDX expression, or terms that a person wrote, held against what the run needs; default deny."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import product
from typing import Any

from corpus.gates.config import LicencePolicy
from corpus.gates.terms import Terms, canonical, terms_of

EXPRESSION = re.compile(r"^[A-Za-z0-9.+:() -]+$")
_MOST_SIDES = 64  # alternatives of one expression; nobody writes more
_TOKEN = re.compile(r"\s*([()]|[A-Za-z0-9.+:-]+)")


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the gate says about one licence.

    Attributes:
        license: the expression as it was given.
        chosen: the identifiers whose terms hold: of an OR the side that was taken.
        terms: the strictest of them together; None where nothing is known.
        refusals: why it may not be used, one line each; empty where it may.
        notes: what a person should know though it may be used.
    """

    license: str
    chosen: tuple[str, ...] = ()
    terms: Terms | None = None
    refusals: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def refusals(license: str | None, terms: Terms | None, *, policy: LicencePolicy, today: date) -> list[str]:  # noqa: A002
    """Returns why data under a licence may not be used, one line each; an empty list where it may."""
    return list(decide(license, terms, policy=policy, today=today).refusals)


def decide(license: str | None, terms: Terms | None, *, policy: LicencePolicy, today: date) -> Decision:  # noqa: A002
    """Decides about one licence.

    Args:
        license: SPDX identifier or expression; None or "" is refused.
        terms: what a person wrote: the terms of a LicenseRef-, or a narrower right than the licence gives.
        policy: what the run needs.
        today: the day of planning.
    """
    if not license or not license.strip():
        return Decision(license="", refusals=("license: must be given, but is not; find it out or leave the data out",))
    try:
        sides = _sides(license)
    except ValueError as error:
        return Decision(license=license, refusals=(f"license: {error}",))
    decisions = [_decide_side(license, side, terms, policy=policy, today=today) for side in sides]
    return min(decisions, key=lambda decision: (len(decision.refusals), _strictness(decision.terms)))


def _strictness(terms: Terms | None) -> int:
    if terms is None:
        return 9
    return sum((not terms.commercial, not terms.derivatives, terms.share_alike, terms.dua is not None))


def _decide_side(
    license: str,  # noqa: A002
    side: Sequence[str],
    given: Terms | None,
    *,
    policy: LicencePolicy,
    today: date,
) -> Decision:
    found: list[Terms] = []
    unknown: list[str] = []
    for name in side:
        if name.startswith("LicenseRef-") and given is not None:
            found.append(given)
        elif (terms := terms_of(name)) is not None:
            found.append(terms)
        else:
            unknown.append(name)
    if unknown:
        lines = tuple(_unknown(name) for name in unknown)
        return Decision(license=license, chosen=tuple(side), refusals=lines)
    widened = [] if given is None else _widened(side, given)
    terms = _together(found if given is None else [*found, given])
    lines = (*widened, *_refused(side, terms, policy=policy, today=today))
    notes = () if lines else _notes(terms, policy=policy, today=today)
    return Decision(license=license, chosen=tuple(side), terms=terms, refusals=lines, notes=notes)


def _unknown(name: str) -> str:
    if name.startswith("LicenseRef-"):
        return f"license: {name} must have terms, but none are known; write them under terms: with what they rest on"
    return f"license: must be an SPDX identifier whose terms are known, but is {name}; use LicenseRef-... with terms:"


def _widened(side: Sequence[str], given: Terms) -> list[str]:
    lines = []
    for name in side:
        held = None if name.startswith("LicenseRef-") else terms_of(name)
        wider = (
            []
            if held is None
            else [
                right for right in ("commercial", "derivatives") if getattr(given, right) and not getattr(held, right)
            ]
        )
        if wider:
            told = f"allow {' and '.join(wider)}, which {name} does not"
            lines.append(f"terms: must not widen a licence, but {told}; write 'OR LicenseRef-...' for an agreement")
    return lines


def _together(found: Sequence[Terms]) -> Terms:
    ends = [terms.expires for terms in found if terms.expires]
    agreements = dict.fromkeys(terms.dua for terms in found if terms.dua)
    return Terms(
        commercial=all(terms.commercial for terms in found),
        derivatives=all(terms.derivatives for terms in found),
        share_alike=any(terms.share_alike for terms in found),
        dua="; ".join(agreements) or None,
        expires=min(ends, default=None),
        basis="; ".join(dict.fromkeys(terms.basis for terms in found if terms.basis)),
    )


def _refused(side: Sequence[str], terms: Terms, *, policy: LicencePolicy, today: date) -> list[str]:
    name, lines = " AND ".join(side), []
    if policy.commercial and not terms.commercial:
        lines.append(f"license: must allow commercial use, but {name} does not; leave it out or get an agreement")
    if policy.derivatives and not terms.derivatives:
        lines.append(f"license: must allow derived works, but {name} does not; leave it out or get an agreement")
    if terms.share_alike and not _shares(side, policy):
        hint = "leave it out or name it under gates.licences.share_alike"
        lines.append(f"license: must not bind the result, but {name} is share-alike; {hint}")
    missing = [part for part in (terms.dua or "").split("; ") if part and part not in policy.agreements]
    for agreement in missing:
        hint = "sign it and name it under gates.licences.agreements"
        lines.append(f"license: must need no agreement, but {name} needs {agreement!r}; {hint}")
    if terms.expires is not None and terms.expires <= today:
        lines.append(f"license: must be in force on {today}, but the right ended on {terms.expires}; renew it")
    return lines


def _shares(side: Sequence[str], policy: LicencePolicy) -> bool:
    if isinstance(policy.share_alike, bool):
        return policy.share_alike
    taken = {name.casefold() for name in policy.share_alike}
    bound = [name for name in side if (terms := terms_of(name)) is None or terms.share_alike]
    return all(name.casefold() in taken for name in bound or side)  # where none is, the terms that people wrote bind


def _notes(terms: Terms, *, policy: LicencePolicy, today: date) -> tuple[str, ...]:
    if terms.expires is not None and (terms.expires - today).days <= policy.notice_days:
        return (f"the right to use it ends on {terms.expires}, in {(terms.expires - today).days} days",)
    return ()


def _sides(license: str) -> list[tuple[str, ...]]:  # noqa: A002
    tokens = _TOKEN.findall(license)
    if not EXPRESSION.match(license) or "".join(tokens) != "".join(license.split()):
        raise ValueError(f"must be an SPDX expression, but is {license!r:.80}; mend it")
    sides, rest = _either(tokens)
    if rest:
        raise ValueError(f"must be an SPDX expression, but {license!r:.80} goes on after its end; mend it")
    return [tuple(dict.fromkeys(side)) for side in sides]


def _either(tokens: list[str]) -> tuple[list[tuple[str, ...]], list[str]]:
    sides, rest = _both(tokens)
    while rest and rest[0] == "OR":
        more, rest = _both(rest[1:])
        sides = [*sides, *more]
    return sides[:_MOST_SIDES], rest


def _both(tokens: list[str]) -> tuple[list[tuple[str, ...]], list[str]]:
    sides, rest = _one(tokens)
    while rest and rest[0] == "AND":
        more, rest = _one(rest[1:])
        sides = [(*left, *right) for left, right in product(sides, more)][:_MOST_SIDES]
    return sides, rest


def _one(tokens: list[str]) -> tuple[list[tuple[str, ...]], list[str]]:
    if not tokens or tokens[0] in {"AND", "OR", "WITH", ")"}:
        found = tokens[0] if tokens else "the end"
        raise ValueError(f"must be an SPDX expression, but has {found} where a licence must stand; mend it")
    if tokens[0] == "(":
        sides, rest = _either(tokens[1:])
        if not rest or rest[0] != ")":
            raise ValueError("must be an SPDX expression, but a bracket is not closed; mend it")
        return sides, rest[1:]
    name, rest = canonical(tokens[0]), tokens[1:]
    if rest and rest[0] == "WITH":  # an exception only allows more; the licence's own terms are kept
        if len(rest) < 2:
            raise ValueError("must be an SPDX expression, but WITH names no exception; mend it")
        rest = rest[2:]
    return [(name,)], rest


def manifest(sources: Iterable[tuple[str, Decision]], tokens: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
    """Returns a row for every source: what a person who answers for the release reads.

    Args:
        sources: name and decision, in their order.
        tokens: of each source; without them there are no shares.
    """
    counted, total = tokens or {}, sum((tokens or {}).values())
    rows = []
    for name, decision in sources:
        terms = decision.terms
        rows.append(
            {
                "source": name,
                "license": decision.license,
                "chosen": " AND ".join(decision.chosen),
                "terms": None if terms is None else terms.model_dump(mode="json", exclude={"basis"}),
                "rests_on": "" if terms is None else terms.basis,
                "refusals": list(decision.refusals),
                "notes": list(decision.notes),
                "tokens": counted.get(name),
                "share": counted[name] / total if total and name in counted else None,
            }
        )
    return rows

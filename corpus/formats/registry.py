"""Registered trials in the form of ClinicalTrials.gov's version 2, written as facts and sections."""

import re
from collections.abc import Iterator
from typing import Any

from corpus.formats import papers
from corpus.formats.dates import is_korean, written_date
from corpus.formats.eligibility import split, unescaped
from corpus.formats.jsonvalues import as_dict, as_list, dicts, text
from corpus.formats.registry_results import sections as result_sections
from corpus.modality import Record, UnusableError

_PHASE = re.compile(r"phase(\d)")
_DATES = ("lastUpdatePostDateStruct", "lastUpdateSubmitDate", "studyFirstPostDateStruct", "startDateStruct")


def record(study: dict[str, Any], where: str, *, offsets: tuple[int, int] | None = None) -> Record:
    """Returns one study as a record.

    Raises:
        UnusableError: it has neither a number nor a title.
    """
    protocol = as_dict(study.get("protocolSection"))
    named = as_dict(protocol.get("identificationModule"))
    number = text(named.get("nctId")).strip().upper()
    if not number and not text(named.get("briefTitle")):
        raise UnusableError("no_study", "must have a number (nctId) or a title, but has neither")
    sections = [(title, unescaped(body)) for title, body in (*_sections(protocol), *result_sections(study))]
    everything = " ".join(body for _, body in sections) or text(named.get("briefTitle"))
    return papers.record(
        {name: unescaped(value) for name, value in _facts(protocol, named, number).items()},
        sections,
        where=where,
        offsets=offsets,
        language="ko" if is_korean(everything) else "en",
        ids=_ids(number, named),
        date=_date(as_dict(protocol.get("statusModule"))),
    )


def words(value: Any) -> str:
    """Returns a code as words: "EARLY_PHASE1" -> "early phase 1"."""
    given = text(value).strip()
    if not given.isupper() and "_" not in given:
        return given
    return _PHASE.sub(r"phase \1", given.replace("_", " ").lower())


def _ids(number: str, named: dict[str, Any]) -> Iterator[str]:
    yield from papers.trials(number)
    if number and not number.startswith("NCT"):
        yield f"trial:{number}"  # of another registry, such as CRIS: KCT0001234
    for alias in as_list(named.get("nctIdAliases")):
        yield from papers.trials(text(alias))


def _date(status: dict[str, Any]) -> str | None:
    found = (written_date(_day(status.get(name))) for name in _DATES)
    return next((date for date in found if date), None)


def _day(value: Any) -> str:
    return text(value.get("date")) if isinstance(value, dict) else text(value)


def _facts(protocol: dict[str, Any], named: dict[str, Any], number: str) -> dict[str, str]:
    status, design = as_dict(protocol.get("statusModule")), as_dict(protocol.get("designModule"))
    conditions = as_dict(protocol.get("conditionsModule"))
    sponsors = as_dict(protocol.get("sponsorCollaboratorsModule"))
    return {
        "trial": number,
        "title": text(named.get("briefTitle")),
        "official title": text(named.get("officialTitle")),
        "acronym": text(named.get("acronym")),
        "conditions": papers.joined(conditions.get("conditions")),
        "keywords": papers.joined(conditions.get("keywords")),
        "kind of study": words(design.get("studyType")),
        "phase": papers.joined([words(phase) for phase in as_list(design.get("phases")) if phase != "NA"]),
        **_design(as_dict(design.get("designInfo"))),
        "enrollment": _enrollment(as_dict(design.get("enrollmentInfo"))),
        "status": words(status.get("overallStatus")),
        "stopped because": text(status.get("whyStopped")),
        "start": _day(status.get("startDateStruct")),
        "completion": _day(status.get("completionDateStruct")),
        "sponsor": text(as_dict(sponsors.get("leadSponsor")).get("name")),
        "collaborators": papers.joined([text(each.get("name")) for each in dicts(sponsors.get("collaborators"))]),
        **_people(as_dict(protocol.get("eligibilityModule"))),
        "countries": _countries(protocol),
    }


def _design(info: dict[str, Any]) -> dict[str, str]:
    masking = as_dict(info.get("maskingInfo"))
    masked = papers.joined([words(who) for who in as_list(masking.get("whoMasked"))], separator=", ")
    blind = words(masking.get("masking"))
    return {
        "purpose": words(info.get("primaryPurpose")),
        "allocation": words(info.get("allocation")),
        "model": words(info.get("interventionModel") or info.get("observationalModel")),
        "time perspective": words(info.get("timePerspective")),
        "masking": f"{blind} ({masked})" if blind and masked else blind,
    }


def _enrollment(info: dict[str, Any]) -> str:
    count, kind = text(info.get("count")), words(info.get("type"))
    return f"{count} ({kind})" if count and kind else count


def _people(module: dict[str, Any]) -> dict[str, str]:
    youngest, oldest = text(module.get("minimumAge")), text(module.get("maximumAge"))
    ages = " to ".join(age for age in (youngest, oldest) if age) if youngest and oldest else ""
    healthy = module.get("healthyVolunteers")
    return {
        "sex": words(module.get("sex")),
        "ages": ages or (f"from {youngest}" if youngest else f"up to {oldest}" if oldest else ""),
        "healthy volunteers": {True: "yes", False: "no"}[healthy] if isinstance(healthy, bool) else text(healthy),
    }


def _countries(protocol: dict[str, Any]) -> str:
    places = dicts(as_dict(protocol.get("contactsLocationsModule")).get("locations"))
    return papers.joined([text(place.get("country")) for place in places])


def _sections(protocol: dict[str, Any]) -> Iterator[tuple[str, str]]:
    described = as_dict(protocol.get("descriptionModule"))
    yield "Summary", text(described.get("briefSummary"))
    yield "Description", text(described.get("detailedDescription"))
    treated = as_dict(protocol.get("armsInterventionsModule"))
    yield "Arms", "\n".join(_arm(arm) for arm in dicts(treated.get("armGroups")))
    yield "Interventions", "\n".join(_intervention(each) for each in dicts(treated.get("interventions")))
    measured = as_dict(protocol.get("outcomesModule"))
    for kind in ("primary", "secondary", "other"):
        outcomes = dicts(measured.get(f"{kind}Outcomes"))
        yield f"{kind.capitalize()} outcomes", "\n".join(_outcome(outcome) for outcome in outcomes)
    eligible = as_dict(protocol.get("eligibilityModule"))
    yield from split(text(eligible.get("eligibilityCriteria")))
    yield "Study population", text(eligible.get("studyPopulation"))


def _arm(arm: dict[str, Any]) -> str:
    kind, given = words(arm.get("type")), papers.joined(arm.get("interventionNames"))
    label = text(arm.get("label")) + (f" ({kind})" if kind else "")
    return _entry(label, text(arm.get("description")) or given)


def _intervention(each: dict[str, Any]) -> str:
    kind, others = words(each.get("type")), papers.joined(each.get("otherNames"), separator=", ")
    label = text(each.get("name")) + (f" ({kind})" if kind else "") + (f", also {others}" if others else "")
    return _entry(label, text(each.get("description")))


def _outcome(outcome: dict[str, Any]) -> str:
    frame = text(outcome.get("timeFrame"))
    label = text(outcome.get("measure")) + (f" [{frame}]" if frame else "")
    return _entry(label, text(outcome.get("description")))


def _entry(label: str, description: str) -> str:
    line = " ".join(f"{label}: {description}".split()) if description else " ".join(label.split())
    return f"- {line}" if line else ""

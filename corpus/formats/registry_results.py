"""Results of registered trials: who finished, who they were, what was measured, what went wrong; as lines of text."""

from collections.abc import Iterator
from typing import Any

from corpus.formats.jsonvalues import as_dict, as_list, dicts, text

_MOST_EVENTS = 200  # of one list; the rarest are far down


def sections(study: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields (title, text) of each part of a study's resultsSection; nothing where there is none."""
    results = as_dict(study.get("resultsSection"))
    yield "Results: participant flow", _lines(_flow(as_dict(results.get("participantFlowModule"))))
    yield "Results: baseline", _lines(_baseline(as_dict(results.get("baselineCharacteristicsModule"))))
    measures = dicts(as_dict(results.get("outcomeMeasuresModule")).get("outcomeMeasures"))
    for measure in measures:
        kind = text(measure.get("type")).lower() or "other"
        yield f"Results: {kind} outcome", _lines(_outcome(measure))
    yield "Results: adverse events", _lines(_adverse(as_dict(results.get("adverseEventsModule"))))
    limits = as_dict(as_dict(results.get("moreInfoModule")).get("limitationsAndCaveats"))
    yield "Results: limitations", text(limits.get("description"))


def _lines(found: Iterator[str]) -> str:
    return "\n".join(line for line in (" ".join(line.split()) for line in found) if line)


def _groups(module: dict[str, Any], name: str = "groups") -> dict[str, str]:
    """Returns {group id: title}."""
    return {
        text(group.get("id")): text(group.get("title")) or text(group.get("id")) for group in dicts(module.get(name))
    }


def _flow(module: dict[str, Any]) -> Iterator[str]:
    groups = _groups(module)
    yield text(module.get("recruitmentDetails"))
    yield text(module.get("preAssignmentDetails"))
    for period in dicts(module.get("periods")):
        for milestone in dicts(period.get("milestones")):
            counts = _counted(dicts(milestone.get("achievements")), groups, "numSubjects")
            yield f"{text(period.get('title'))}, {text(milestone.get('type')).lower()}: {counts}" if counts else ""
        for reason in dicts(period.get("dropWithdraws")):
            counts = _counted(dicts(reason.get("reasons")), groups, "numSubjects")
            yield f"left because of {text(reason.get('type')).lower()}: {counts}" if counts else ""


def _counted(found: list[dict[str, Any]], groups: dict[str, str], name: str) -> str:
    pairs = ((groups.get(text(each.get("groupId")), text(each.get("groupId"))), text(each.get(name))) for each in found)
    return "; ".join(f"{group} {value}" for group, value in pairs if value)


def _baseline(module: dict[str, Any]) -> Iterator[str]:
    groups = _groups(module)
    for counted in dicts(module.get("denoms")):
        yield f"{text(counted.get('units'))}: {_counted(dicts(counted.get('counts')), groups, 'value')}"
    for measure in dicts(module.get("measures")):
        yield from _measured(measure, groups, text(measure.get("title")))


def _measured(measure: dict[str, Any], groups: dict[str, str], title: str) -> Iterator[str]:
    """Yields "Age (mean, years): placebo 63.1 (8.2); drug 62.0 (7.9)", one line per class and category."""
    about = ", ".join(
        word
        for word in (text(measure.get("paramType")).lower().replace("_", " "), text(measure.get("unitOfMeasure")))
        if word
    )
    head = f"{title} ({about})" if about else title
    for part in dicts(measure.get("classes")):
        for category in dicts(part.get("categories")):
            named = " / ".join(word for word in (text(part.get("title")), text(category.get("title"))) if word)
            pairs = [
                (groups.get(text(each.get("groupId")), text(each.get("groupId"))), _value(each))
                for each in dicts(category.get("measurements"))
            ]
            values = "; ".join(f"{group} {value}" for group, value in pairs if value)
            if values:
                yield f"{head}{', ' if named else ''}{named}: {values}"


def _value(each: dict[str, Any]) -> str:
    value, spread = text(each.get("value")), text(each.get("spread"))
    low, high = text(each.get("lowerLimit")), text(each.get("upperLimit"))
    if spread:
        return f"{value} ({spread})"
    return f"{value} ({low} to {high})" if value and low and high else value


def _outcome(measure: dict[str, Any]) -> Iterator[str]:
    frame, groups = text(measure.get("timeFrame")), _groups(measure)
    yield f"{text(measure.get('title'))} [{frame}]" if frame else text(measure.get("title"))
    yield text(measure.get("description"))
    yield text(measure.get("populationDescription"))
    for counted in dicts(measure.get("denoms")):
        counts = _counted(dicts(counted.get("counts")), groups, "value")
        yield f"{text(counted.get('units'))} analysed: {counts}" if counts else ""
    yield from _measured(measure, groups, "Value")
    for analysis in dicts(measure.get("analyses")):
        yield _analysis(analysis, groups)


def _analysis(analysis: dict[str, Any], groups: dict[str, str]) -> str:
    compared = " against ".join(groups.get(text(each), text(each)) for each in as_list(analysis.get("groupIds")))
    low, high = text(analysis.get("ciLowerLimit")), text(analysis.get("ciUpperLimit"))
    parts = {
        text(analysis.get("statisticalMethod")): "",
        text(analysis.get("paramType")): text(analysis.get("paramValue")),
        f"{text(analysis.get('ciPctValue'))}% interval": f"{low} to {high}" if low and high else "",
        "p": text(analysis.get("pValue")),
    }
    told = [
        f"{name} {value}".strip()
        for name, value in parts.items()
        if value or (name and "interval" not in name and name != "p")
    ]
    return f"Analysis of {compared}: {', '.join(told)}" if told else ""


def _adverse(module: dict[str, Any]) -> Iterator[str]:
    yield text(module.get("timeFrame"))
    groups = _groups(module, "eventGroups")
    for group in dicts(module.get("eventGroups")):
        counts = [
            f"{kind} {text(group.get(f'{name}NumAffected'))} of {text(group.get(f'{name}NumAtRisk'))}"
            for name, kind in (("deaths", "died"), ("serious", "serious events"), ("other", "other events"))
            if text(group.get(f"{name}NumAffected"))
        ]
        yield f"{groups[text(group.get('id'))]}: {', '.join(counts)}" if counts else ""
    for name, kind in (("seriousEvents", "serious"), ("otherEvents", "other")):
        for event in dicts(module.get(name))[:_MOST_EVENTS]:
            told = _counted(dicts(event.get("stats")), groups, "numAffected")
            yield f"{kind}: {text(event.get('term'))} ({text(event.get('organSystem'))}): {told}" if told else ""

"""Registered trials of NCI's API and of ClinicalTrials.gov's old JSON and XML, in the form of its version 2."""

import re
from collections.abc import Iterator
from typing import Any

from corpus.formats.jsonvalues import as_dict, as_list, dicts, text
from corpus.formats.xmlfile import child, children, pieces, plain

_OLD_NAMES = {"gender": "sex", "nCTId": "nctId", "nCTIdAlias": "nctIdAlias", "designMasking": "masking"}
_HOLDERS = ("studies", "data", "trials", "FullStudies", "FullStudiesResponse", "StudyFieldsResponse", "StudyFields")


def studies(value: Any) -> Iterator[dict[str, Any]]:
    """Yields the studies that a JSON value is or holds: one, a list, a page of a search, an answer of NCI."""
    for item in as_list(value):
        if not isinstance(item, dict):
            continue
        if isinstance(item.get("protocolSection"), dict):
            yield item
        elif isinstance(item.get("Study"), dict) or isinstance(item.get("ProtocolSection"), dict):
            yield _of_old(as_dict(item.get("Study") or item))
        elif "nct_id" in item or "nci_id" in item:
            yield _of_nci(item)
        elif "NCTId" in item:
            yield _of_fields(item)
        else:
            for holder in _HOLDERS:
                yield from studies(item.get(holder))


def of_xml(study: Any) -> dict[str, Any]:
    """Returns <clinical_study>, as ClinicalTrials.gov wrote until 2024 and TREC kept it, in the form of version 2."""

    def at(*path: str) -> str:
        return _paragraphs(child(study, *path))

    def each(wanted: str) -> list[str]:
        return [plain(part) for part in children(study, wanted)]

    design = child(study, "study_design_info")
    eligible = child(study, "eligibility")
    number = at("id_info", "nct_id")
    return {
        "protocolSection": {
            "identificationModule": {
                "nctId": number,
                "briefTitle": at("brief_title"),
                "officialTitle": at("official_title"),
                "acronym": at("acronym"),
            },
            "statusModule": {
                "overallStatus": at("overall_status"),
                "whyStopped": at("why_stopped"),
                "startDateStruct": {"date": at("start_date")},
                "completionDateStruct": {"date": at("completion_date")},
                "lastUpdatePostDateStruct": {"date": at("last_update_posted") or at("lastchanged_date")},
            },
            "sponsorCollaboratorsModule": {"leadSponsor": {"name": at("sponsors", "lead_sponsor", "agency")}},
            "descriptionModule": {
                "briefSummary": at("brief_summary", "textblock"),
                "detailedDescription": at("detailed_description", "textblock"),
            },
            "conditionsModule": {"conditions": each("condition"), "keywords": each("keyword")},
            "designModule": {
                "studyType": at("study_type"),
                "phases": [phase for phase in at("phase").split("/") if phase != "N/A"],
                "designInfo": {
                    "allocation": plain(child(design, "allocation")),
                    "interventionModel": plain(child(design, "intervention_model")),
                    "primaryPurpose": plain(child(design, "primary_purpose")),
                    "maskingInfo": {"masking": plain(child(design, "masking"))},
                },
                "enrollmentInfo": {"count": at("enrollment")},
            },
            "armsInterventionsModule": {
                "armGroups": _mapped(study, "arm_group", label="arm_group_label", type="arm_group_type"),
                "interventions": _mapped(study, "intervention", name="intervention_name", type="intervention_type"),
            },
            "outcomesModule": {
                f"{kind}Outcomes": _mapped(study, f"{kind}_outcome", measure="measure", timeFrame="time_frame")
                for kind in ("primary", "secondary", "other")
            },
            "eligibilityModule": {
                "eligibilityCriteria": _paragraphs(child(eligible, "criteria", "textblock")),
                "studyPopulation": _paragraphs(child(eligible, "study_pop", "textblock")),
                "sex": plain(child(eligible, "gender")),
                "minimumAge": _age(plain(child(eligible, "minimum_age"))),
                "maximumAge": _age(plain(child(eligible, "maximum_age"))),
                "healthyVolunteers": plain(child(eligible, "healthy_volunteers")),
            },
            "contactsLocationsModule": {
                "locations": [
                    {"country": plain(part)} for part in children(child(study, "location_countries"), "country")
                ]
            },
        }
    }


def _mapped(study: Any, wanted: str, **names: str) -> list[dict[str, str]]:
    return [
        {new: plain(child(part, old)) for new, old in {**names, "description": "description"}.items()}
        for part in children(study, wanted)
    ]


def _paragraphs(element: Any) -> str:
    """Returns an indented block of text with its empty lines, and the lines within a paragraph joined."""
    if element is None:
        return ""
    paragraphs = re.split(r"\n[^\S\n]*\n", "".join(pieces(element)))
    return "\n".join(" ".join(part.split()) for part in paragraphs if part.strip())


def _age(written: str) -> str:
    return "" if written in ("N/A", "None") else written


def _of_nci(trial: dict[str, Any]) -> dict[str, Any]:
    """Returns a trial of NCI's Clinical Trials Search API in the form of version 2; contacts are left out."""
    masked = as_dict(trial.get("masking"))
    arms = dicts(trial.get("arms"))
    given = {text(each.get("name")): each for arm in arms for each in dicts(arm.get("interventions"))}
    outcomes = dicts(trial.get("outcome_measures"))
    ages = as_dict(as_dict(trial.get("eligibility")).get("structured"))
    healthy = ages.get("accepts_healthy_volunteers")
    lead = [disease for disease in dicts(trial.get("diseases")) if disease.get("is_lead_disease")]
    return {
        "protocolSection": {
            "identificationModule": {
                "nctId": text(trial.get("nct_id")) or text(trial.get("nci_id")),
                "briefTitle": trial.get("brief_title"),
                "officialTitle": trial.get("official_title"),
                "acronym": trial.get("acronym"),
            },
            "statusModule": {
                "overallStatus": trial.get("current_trial_status"),
                "whyStopped": trial.get("why_study_stopped"),
                "startDateStruct": {"date": trial.get("start_date")},
                "completionDateStruct": {"date": trial.get("completion_date")},
                "lastUpdatePostDateStruct": {
                    "date": trial.get("record_verification_date") or trial.get("amendment_date")
                },
            },
            "sponsorCollaboratorsModule": {
                "leadSponsor": {"name": trial.get("lead_org")},
                "collaborators": dicts(trial.get("collaborators")),
            },
            "descriptionModule": {
                "briefSummary": trial.get("brief_summary"),
                "detailedDescription": trial.get("detail_description"),
            },
            "conditionsModule": {
                "conditions": [text(each.get("name")) for each in lead or dicts(trial.get("diseases"))],
                "keywords": as_list(trial.get("keywords")),
            },
            "designModule": {
                "studyType": trial.get("study_protocol_type"),
                "phases": [f"Phase {part}" for part in text(trial.get("phase")).split("_") if part not in ("NA", "")],
                "designInfo": {
                    "allocation": masked.get("allocation_code"),
                    "interventionModel": trial.get("interventional_model"),
                    "primaryPurpose": trial.get("primary_purpose"),
                    "maskingInfo": {"masking": masked.get("masking")},
                },
                "enrollmentInfo": {"count": trial.get("minimum_target_accrual_number")},
            },
            "armsInterventionsModule": {
                "armGroups": [
                    {"label": arm.get("name"), "type": arm.get("type"), "description": arm.get("description")}
                    for arm in arms
                ],
                "interventions": [
                    {
                        "name": name,
                        "type": each.get("type"),
                        "description": each.get("description"),
                        "otherNames": as_list(each.get("synonyms"))[:5],
                    }
                    for name, each in given.items()
                ],
            },
            "outcomesModule": {
                f"{kind}Outcomes": [
                    {
                        "measure": each.get("name"),
                        "timeFrame": each.get("timeframe"),
                        "description": each.get("description"),
                    }
                    for each in outcomes
                    if text(each.get("type_code")).casefold().startswith(kind)
                ]
                for kind in ("primary", "secondary", "other")
            },
            "eligibilityModule": {
                "eligibilityCriteria": _nci_criteria(as_dict(trial.get("eligibility"))),
                "sex": ages.get("sex") or ages.get("gender"),
                "minimumAge": _nci_age(ages, "min"),
                "maximumAge": _nci_age(ages, "max"),
                "healthyVolunteers": healthy,
            },
            "contactsLocationsModule": {
                "locations": [{"country": site.get("org_country")} for site in dicts(trial.get("sites"))]
            },
        }
    }


def _nci_age(ages: dict[str, Any], which: str) -> str:
    written = text(ages.get(f"{which}_age"))
    return "" if written.startswith(("999", "0 ")) else written


def _nci_criteria(eligibility: dict[str, Any]) -> str:
    criteria = sorted(dicts(eligibility.get("unstructured")), key=lambda each: _order(each.get("display_order")))
    parts = {
        title: [
            f"* {' '.join(text(each.get('description')).split())}"
            for each in criteria
            if bool(each.get("inclusion_indicator")) is inside
        ]
        for title, inside in (("Inclusion Criteria", True), ("Exclusion Criteria", False))
    }
    return "\n".join(f"{title}:\n" + "\n".join(lines) for title, lines in parts.items() if lines)


def _order(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _of_fields(item: dict[str, Any]) -> dict[str, Any]:
    """Returns an answer of the old study_fields call, where every field is a list, in the form of version 2."""

    def one(name: str) -> str:
        return text(next(iter(as_list(item.get(name))), ""))

    return {
        "protocolSection": {
            "identificationModule": {
                "nctId": one("NCTId"),
                "briefTitle": one("BriefTitle"),
                "officialTitle": one("OfficialTitle"),
            },
            "statusModule": {"overallStatus": one("OverallStatus"), "startDateStruct": {"date": one("StartDate")}},
            "descriptionModule": {
                "briefSummary": one("BriefSummary"),
                "detailedDescription": one("DetailedDescription"),
            },
            "conditionsModule": {
                "conditions": as_list(item.get("Condition")),
                "keywords": as_list(item.get("Keyword")),
            },
            "designModule": {
                "studyType": one("StudyType"),
                "phases": as_list(item.get("Phase")),
                "enrollmentInfo": {"count": one("EnrollmentCount")},
            },
            "armsInterventionsModule": {
                "interventions": [{"name": name} for name in as_list(item.get("InterventionName"))]
            },
            "eligibilityModule": {
                "eligibilityCriteria": one("EligibilityCriteria"),
                "sex": one("Gender"),
                "minimumAge": one("MinimumAge"),
                "maximumAge": one("MaximumAge"),
            },
        }
    }


def _of_old(study: dict[str, Any]) -> dict[str, Any]:
    """Returns a study of the old full_studies call: names in capitals that repeat those above, lists in lists."""
    converted = {_lowered(key): _renamed(as_dict(value), "") for key, value in study.items()}
    return {"protocolSection": converted.get("protocolSection", {})}


def _renamed(value: Any, above: str) -> Any:
    if isinstance(value, list):
        return [_renamed(item, above) for item in value]
    if not isinstance(value, dict):
        return value
    found: dict[str, Any] = {}
    for key, item in value.items():
        if key.endswith("List") and isinstance(item, dict):
            entity, held = next(iter(item.items()), ("", None))
            found[f"{_short(key.removesuffix('List'), above)}s"] = _renamed(as_list(held), entity)
        else:
            entity = key.removesuffix("Struct").removesuffix("Info")
            found[_short(key, above)] = _renamed(item, entity)
    return found


def _short(key: str, above: str) -> str:
    """Returns ArmGroupLabel in ArmGroup as "label", and StartDate in StartDate as "date"."""
    rest = key[len(above) :] if above and key.startswith(above) else key
    lowered = _lowered(rest or ("Date" if above.endswith("Date") else above))
    return _OLD_NAMES.get(lowered, lowered)


def _lowered(name: str) -> str:
    return name[:1].lower() + name[1:]

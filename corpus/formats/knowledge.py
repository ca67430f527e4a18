"""FHIR knowledge resources as documents: plans with their actions, activities, questionnaires, libraries, evidence."""

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

from corpus.formats import fhir
from corpus.formats.fhir import concept, name, text
from corpus.formats.jsonvalues import dicts
from corpus.modality import UnusableError

TYPES = frozenset(
    {"PlanDefinition", "ActivityDefinition", "Questionnaire", "Library", "Evidence", "EvidenceReport", "Citation"}
)
_FIELDS = frozenset({"title", "description", "purpose", "usage", "action", "goal", "item", "date", "content"})
_DEPTH = 12  # of actions in actions
_PROSE = ("description", "purpose", "usage", "clinicalUsage", "note", "approvalDate", "lastReviewDate")
_SAID = {  # the end of an extension's address: what it says of an action
    "strengthOfRecommendation": "Strength of recommendation",
    "qualityOfEvidence": "Quality of evidence",
}
_MOST = 1 << 20  # characters of an attached text


def facts(resource: Mapping[str, Any]) -> dict[str, str]:
    """Returns what a resource says of itself: title, publisher, topics, where and for whom it holds.

    Raises:
        UnusableError: it is no FHIR in a field that is taken.
    """
    fhir.check(resource, fields=_FIELDS)
    uses = [
        name(fhir.first(item, "valueCodeableConcept", "valueQuantity")) for item in dicts(resource.get("useContext"))
    ]
    return {
        "title": text(resource.get("title")) or text(resource.get("name")),
        "kind": str(resource["resourceType"]),
        "type": name(resource.get("type")),
        "status": text(resource.get("status")),
        "version": text(resource.get("version")),
        "publisher": text(resource.get("publisher")),
        "jurisdiction": ", ".join(name(item) for item in dicts(resource.get("jurisdiction"))),
        "topic": ", ".join(name(item) for item in dicts(resource.get("topic"))),
        "for": ", ".join(use for use in uses if use),
    }


def sections(resource: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields [title, text] of a resource's prose, goals, actions, items, texts and citations.

    Raises:
        UnusableError: actions are nested too deep.
    """
    for field in _PROSE:
        if field in resource and (prose := text(resource[field])):
            yield _title(field), prose
    for goal in dicts(resource.get("goal")):
        yield "Goal", concept(goal.get("description"))
    for number, action in enumerate(dicts(resource.get("action")), start=1):
        title = text(action.get("title")) or text(action.get("description"))[:100]
        yield f"Action {number}: {title}".rstrip(": "), "\n".join(_action(action, depth=0))
    items = list(_items(resource.get("item"), depth=0))
    if items:
        yield "Questions", "\n".join(items)
    for content in dicts(resource.get("content")):
        yield text(content.get("title")) or "Text", _attached(content)
    citations = list(_citations(resource))
    if citations:
        yield "Documentation", "\n".join(citations)


def _title(field: str) -> str:
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in field)
    return words[0].upper() + words[1:]


def _action(action: Mapping[str, Any], *, depth: int) -> Iterator[str]:
    if depth > _DEPTH:
        raise UnusableError("too_deep", f"must have actions at most {_DEPTH} deep, but goes on")
    indent = "  " * depth
    head = text(action.get("title")) if depth else ""
    described = text(action.get("description"))
    if head or (depth and described):
        yield f"{indent}- {head}{': ' if head and described else ''}{described}"
    elif described:
        yield described
    for said in (*_said(action), *_conditions(action)):
        yield f"{indent}{said}"
    for document in dicts(action.get("documentation")):
        yield f"{indent}Documentation: {_citation(document)}"
    for inner in dicts(action.get("action")):
        yield from _action(inner, depth=depth + 1)


def _said(action: Mapping[str, Any]) -> Iterator[str]:
    for extension in dicts(action.get("extension")):
        for end, label in _SAID.items():
            if text(extension.get("url")).endswith(end) and (value := name(extension.get("valueCodeableConcept"))):
                yield f"{label}: {value}"
    if priority := text(action.get("priority")):
        yield f"Priority: {priority}"


def _conditions(action: Mapping[str, Any]) -> Iterator[str]:
    for trigger in dicts(action.get("trigger")):
        if event := text(trigger.get("name")):
            yield f"Trigger: {event}"
    for condition in dicts(action.get("condition")):
        found = condition.get("expression")
        expression = found if isinstance(found, dict) else condition
        told = text(expression.get("description")) or text(expression.get("expression"))
        if told:
            yield f"Condition ({text(condition.get('kind')) or 'applicability'}): {told}"


def _items(value: Any, *, depth: int) -> Iterator[str]:
    if depth > _DEPTH:
        raise UnusableError("too_deep", f"must have questions at most {_DEPTH} deep, but goes on")
    for item in dicts(value):
        number, asked = text(item.get("prefix")) or text(item.get("linkId")), text(item.get("text"))
        options = [
            name(fhir.first(option, "valueCoding")) or text(option.get("valueString"))
            for option in dicts(item.get("answerOption"))
        ]
        if asked:
            told = f" ({' / '.join(option for option in options if option)})" if any(options) else ""
            yield f"{'  ' * depth}{number} {asked}{told}".rstrip()
        yield from _items(item.get("item"), depth=depth + 1)


def _attached(content: Mapping[str, Any]) -> str:
    kind, data = text(content.get("contentType")), text(content.get("data"))
    if not kind.startswith(("text/plain", "text/markdown")) or len(data) > _MOST:
        return ""
    try:
        return base64.b64decode(data, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise UnusableError("bad_attachment", f"must be text in base64, but {str(error)[:100]}") from error


def _citations(resource: Mapping[str, Any]) -> Iterator[str]:
    for related in dicts(resource.get("relatedArtifact")):
        if text(related.get("type")) in ("documentation", "citation", "justification", "derived-from"):
            told = _citation(related)
            if told:
                yield told


def _citation(related: Mapping[str, Any]) -> str:
    cited = text(related.get("citation")) or text(related.get("display")) or text(related.get("label"))
    document = related.get("document")
    address = text(related.get("url")) or (text(document.get("url")) if isinstance(document, dict) else "")
    return " ".join(part for part in (cited, address) if part)

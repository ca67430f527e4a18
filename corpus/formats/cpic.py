"""Answers of the CPIC API: recommendations by genotype, guidelines, gene-drug pairs and allele frequencies."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from corpus.clean import is_missing
from corpus.formats.fhir import number
from corpus.formats.jsonvalues import dicts
from corpus.modality import UnusableError

_PAGE = re.compile(r"(?:clinpgx|pharmgkb)\.org/(?:\w+/)*(PA\d+)")


@dataclass(frozen=True, kw_only=True)
class Found:
    """One answer as facts and sections, the guideline it belongs to, and its names."""

    facts: dict[str, str]
    sections: tuple[tuple[str, str], ...]
    guideline: str
    ids: tuple[str, ...]


def document(answer: Mapping[str, Any]) -> Found | None:
    """Returns what an answer says; None when it is none of CPIC's.

    Raises:
        UnusableError: it is one of CPIC's, but says nothing.
    """
    if "drugrecommendation" in answer:
        return _recommendation(answer)
    if "cpiclevel" in answer:
        return _pair(answer)
    if "population_group" in answer and "genesymbol" in answer:
        return _frequency(answer)
    if "guideline_name" in answer or {"name", "genes"} <= set(answer):
        return _guideline(answer)
    return None


def _recommendation(answer: Mapping[str, Any]) -> Found:
    drug = _text(answer, "drugname") or _text(answer, "drugid")
    advice = _text(answer, "drugrecommendation")
    if not advice:
        raise UnusableError("no_recommendation", "must have a drugrecommendation, but it is missing")
    return Found(
        facts={
            "drug": drug,
            "guideline": _text(answer, "guidelinename"),
            **_genotype(answer),
            "population": _text(answer, "population"),
        },
        sections=(
            ("Implications", _lines(answer.get("implications"))),
            ("Recommendation", advice),
            ("Strength of recommendation", _text(answer, "classification")),
            ("Other prescribing guidance", _text(answer, "otherprescribingguidance")),
            ("Comments", _text(answer, "comments")),
        ),
        guideline=_text(answer, "guidelinename") or _text(answer, "guidelineid") or drug,
        ids=_ids(answer, "cpic-recommendation", "recommendationid"),
    )


def _genotype(answer: Mapping[str, Any]) -> dict[str, str]:
    """Returns {gene: 'Intermediate Metabolizer, activity score 0.25'}."""
    found: dict[str, list[str]] = {}
    for field, before in (("phenotypes", ""), ("activityscore", "activity score "), ("allelestatus", "")):
        for gene, value in _pairs(answer.get(field)):
            found.setdefault(gene, []).append(f"{before}{value}")
    for gene, value in _pairs(answer.get("lookupkey")):
        found.setdefault(gene, [value])
    return {gene: ", ".join(dict.fromkeys(values)) for gene, values in found.items()}


def _guideline(answer: Mapping[str, Any]) -> Found:
    title = _text(answer, "guideline_name") or _text(answer, "name")
    genes = [str(gene.get("symbol") or "") for gene in dicts(answer.get("genes"))] or _words(answer.get("genes"))
    return Found(
        facts={
            "guideline": title,
            "genes": ", ".join(gene for gene in genes if gene),
            "drugs": ", ".join(_words(answer.get("drugs"))),
            "url": _text(answer, "guideline_url") or _text(answer, "url"),
        },
        sections=(("Notes on usage", _text(answer, "notesonusage")),),
        guideline=title,
        ids=_ids(answer, "cpic-guideline", "id"),
    )


def _pair(answer: Mapping[str, Any]) -> Found:
    names = {
        "genesymbol": "gene",
        "drugname": "drug",
        "drugid": "drug id",
        "guidelinename": "guideline",
        "cpiclevel": "CPIC level",
        "clinpgxlevel": "ClinPGx level of evidence",
        "pgkbcalevel": "PharmGKB level of evidence",
        "pgxtesting": "PGx on the label",
        "usedforrecommendation": "used for recommendation",
    }
    facts = {label: _text(answer, field) for field, label in names.items()}
    cited = [f"pmid:{number}" for number in _words(answer.get("pmids") or answer.get("citations"))]
    return Found(
        facts={**facts, "citations": ", ".join(cited)},
        sections=(),
        guideline=_text(answer, "guidelinename") or f"{facts['gene']} {facts['drug']}",
        ids=_ids(answer, "cpic-pair", "pairid"),
    )


def _frequency(answer: Mapping[str, Any]) -> Found:
    measured = {
        "freq_weighted_avg": "weighted mean frequency",
        "freq_avg": "mean frequency",
        "freq_min": "lowest frequency",
        "freq_max": "highest frequency",
    }
    figures = {label: number(answer.get(field)) for field, label in measured.items()}
    if not any(figures.values()):
        raise UnusableError("no_value", "must have a frequency, but all are missing")
    gene = _text(answer, "genesymbol")
    facts = {"gene": gene, "allele": _text(answer, "name"), "population": _text(answer, "population_group")}
    return Found(
        facts={**facts, "subjects": number(answer.get("subjectcount")), **figures},
        sections=(),
        guideline=f"frequencies of {gene}",
        ids=(),
    )


def _ids(answer: Mapping[str, Any], kind: str, field: str) -> tuple[str, ...]:
    page = _PAGE.search(" ".join(_text(answer, name) for name in ("guidelineurl", "guideline_url", "url")))
    own = _text(answer, field)
    return (*((f"{kind}:{own}",) if own else ()), *((f"clinpgx:{page[1]}",) if page else ()))


def _text(answer: Mapping[str, Any], field: str) -> str:
    value = answer.get(field)
    return str(value).strip() if isinstance(value, (str, int, float)) and not is_missing(value) else ""


def _pairs(value: Any) -> Iterable[tuple[str, str]]:
    given = value.items() if isinstance(value, dict) else ()
    return [
        (str(gene), str(said).strip())
        for gene, said in given
        if not is_missing(said) and isinstance(said, (str, int, float))
    ]


def _lines(value: Any) -> str:
    return "\n".join(f"{gene}: {said}" for gene, said in _pairs(value)) or (value if isinstance(value, str) else "")


def _words(value: Any) -> list[str]:
    given = value if isinstance(value, list) else []
    return [str(item).strip() for item in given if isinstance(item, (str, int)) and str(item).strip()]

"""A corpus as its records tell it: prepare's and tokenize's, read into plain values; what is missing is said."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.corpora import Contamination, Corpus, Sample, Source
from slurm.files import read_json

Values = Mapping[str, Any]
"""A record, or a part of one."""

_WANTED = {  # of details: what a person misses when it is not there
    "gates": "what the gates found",
    "samples": "samples of the records",
}


def sources(prepare: Values, tokenize: Values | None = None) -> list[Source]:
    """Returns the sources, with their tokens once there are some; behind prepare's, those of tokenize's store of cells.

    A matrix that both read, under one name and licence, is told once.
    """
    told: Values = tokenize["details"] if tokenize else {}
    rows = list(prepare["details"]["sources"])
    known = {(each["name"], each["license"]) for each in rows}
    rows += [each for each in told.get("cells", []) if (each["name"], each["license"]) not in known]
    return [_source(each, told.get("sources", {}).get(each["name"], {})) for each in rows]


def corpus(prepare: Values, tokenize: Values | None = None) -> Corpus:
    """Returns all that is known beside the sources and streams."""
    details, gates = prepare["details"], prepare["details"].get("gates", {})
    told: Values = tokenize["details"] if tokenize else {}
    rows: Values = told.get("streams", {})
    return Corpus(
        modalities=_modalities(rows),
        languages=told.get("languages", {}),
        scales=told.get("scales", {}),
        personal=gates.get("personal", {}),
        quality=gates.get("quality", {}),
        contamination=[_contamination(name, found) for name, found in gates.get("contamination", {}).items()],
        crossings=[(first, second, number) for first, second, number in gates.get("duplicates", [])],
        phases={name: phase.get("mixture", phase) for name, phase in told.get("phases", {}).items()},
        padding={name: row["padding"] for name, row in rows.items() if row.get("padding")},
        chars_per_token={name: row["chars_per_token"] for name, row in rows.items() if row.get("chars_per_token")},
        samples=_samples(details.get("samples", {})),
        untold=list(_untold(details, tokenize)),
    )


def files(root: Path, source: str) -> dict[str, str]:
    """Returns the files that prepare read of a source and their digests, as its parts tell; empty without them."""
    found = sorted((root / "prepare" / "parts" / source).glob("*/report.json"), key=lambda path: _natural(path.parent))
    return {str(name): str(sha256) for path in found for name, sha256, *_ in read_json(path).get("files", [])}


def _natural(path: Path) -> tuple[int, str]:
    return int(path.name) if path.name.isdigit() else 0, path.name


def _source(each: Values, tokens: Values) -> Source:
    terms = each.get("terms") or {}
    optional = ("files", "bytes", "seconds", "near_duplicates", "contaminated", "quarantined", "filtered")
    return Source(
        name=each["name"],
        modality=each["modality"],
        license=each["license"] or "none stated",
        commercial=bool(each.get("commercial", terms.get("commercial", False))),
        records=each["records"],
        duplicates=each["duplicates"],
        rejects=each["rejects"],
        notes=each["notes"],
        scale=each.get("scale", ""),
        path=each.get("path", ""),
        sha256=each.get("sha256", ""),
        terms=terms,
        tokens=tokens.get("tokens"),
        documents=tokens.get("documents"),
        share=tokens.get("share"),
        **{name: _number(each.get(name)) for name in optional},
    )


def _number(value: Any) -> Any:
    return len(value) if isinstance(value, (list, dict)) else value


def _modalities(rows: Values) -> dict[str, dict[str, int]]:
    """Returns modality -> language -> training tokens; a stream is called modality or modality.language."""
    found: dict[str, dict[str, int]] = {}
    for stream, row in rows.items():
        name, _, language = stream.partition(".")
        languages = found.setdefault(name, {})
        languages[language] = languages.get(language, 0) + int(row["train_tokens"])
    return found


def _contamination(name: str, found: Values) -> Contamination:
    return Contamination(
        benchmark=name, items=int(found["items"]), found=int(found["found"]), records=int(found["records"])
    )


def _samples(given: Values) -> list[Sample]:
    return [
        Sample(stream=stream, id=str(each["id"]), source=str(each["source"]), text=str(each["text"]))
        for stream, found in given.items()
        for each in found
    ]


def _untold(details: Values, tokenize: Values | None) -> list[str]:
    lines = [f"prepare's record does not tell {what}" for name, what in _WANTED.items() if name not in details]
    if tokenize is None:
        return [*lines, "tokenize has no record: tokens are not known"]
    missing = [name for name in ("sources", "languages", "scales", "phases") if name not in tokenize["details"]]
    return [*lines, f"tokenize's record does not tell {', '.join(missing)}"] if missing else lines

"""Trials: registered ones, their subjects (CDISC, or any table with an outcome), patients who look for one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from corpus import annotations, document
from corpus.annotations import Column, Columns
from corpus.formats import cdisc, cdisc_files, papers, registry, registry_forms, tables, trec, xmlfile
from corpus.formats.jsonfile import items
from corpus.formats.jsonvalues import each, load
from corpus.formats.tables import Row, TableOptions
from corpus.modality import Item, Record, Reject, SourceError, UnusableError
from corpus.symbols import inside, tags
from slurm.files import digest

SUFFIXES = (*tables.SUFFIXES, ".xml", ".xpt", ".ndjson")
SCALE = "L5"
SYMBOLS = (*tags("trial"), *document.SYMBOLS)
Format = Literal["participants", "registry", "cdisc", "topics", "judgements"]


class Options(TableOptions):
    """How to read a trial. Nothing needs to be said about registered trials, CDISC tables and TREC's files.

    Attributes:
        format: found by what the file holds when not given; `participants` where fields and outcome are.
        study: what the trial is called; the first line of every participant.
        fields: what was known of a participant at the start: `{name: column}`, in the order to write.
        outcome: what happened, written behind the record.
        domain: of a CDISC table that does not say it, such as AE or ADTTE.
    """

    format: Format | None = None
    study: str | None = Field(default=None, min_length=1)
    fields: Columns = Field(default_factory=dict)
    outcome: Columns = Field(default_factory=dict)
    domain: str | None = Field(default=None, pattern="^[A-Z0-9]{2,8}$")

    @model_validator(mode="after")
    def _participants_are_whole(self) -> "Options":
        wanted = {"study": self.study, "fields": self.fields, "outcome": self.outcome}
        if self.format == "participants" or self.fields or self.outcome:
            lacking = [name for name, value in wanted.items() if not value]
            if lacking:
                raise ValueError(
                    f"must have study, fields and outcome for participants, but lacks {lacking[0]}; add it"
                )
        return self


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    study: str
    fields: dict[str, Column]
    outcome: dict[str, Column]
    group: str | None


def read(path: Path, options: Options, /) -> Iterator[Item]:
    """Yields participants, registered trials, subjects, patient notes or judgements, by what the file holds.

    Raises:
        SourceError: the file is damaged or unsafe, or in none of the formats above.
    """
    found = options.format or ("participants" if options.fields else _detect(path, options))
    if found == "participants":
        rows = tables.rows(path, options)
        yield from tables.records(rows, choose=lambda columns: _choose(columns, options), make=_record)
    elif found == "registry":
        yield from _studies(path, options)
    elif found == "cdisc":
        yield from cdisc.subjects(_dataset(path, options))
    elif found == "judgements":
        yield from trec.judgements(path, options)
    else:
        yield from _topics(path, options)


def render(content: Mapping[str, Any], /) -> str:
    """Writes a participant: <|trial|>, the fields, <|/trial|> and the outcome; anything else as a document."""
    if "outcome" not in content:
        return document.write("trial", content)
    opening, closing = tags("trial")
    return f"{opening}{annotations.write(content['fields'])}{closing}{annotations.write(content['outcome'])}"


def parse(rendered: str, /) -> dict[str, Any]:
    """Reads back what `render` wrote: only a participant has something behind its closing tag."""
    body, rest = inside(rendered, "trial")
    if not rest:
        return document.read("trial", rendered)
    return {"fields": annotations.read(body), "outcome": annotations.read(rest)}


def _choose(found: list[str], options: Options) -> _Chosen:
    return _Chosen(
        study=options.study or "",
        fields=annotations.find_columns(options.fields, found),
        outcome=annotations.find_columns(options.outcome, found),
        group=None if options.group is None else annotations.find_column(options.group, found),
    )


def _record(row: Row, chosen: _Chosen) -> Iterator[Record]:
    fields = annotations.take(row.cells, chosen.fields)
    outcome = annotations.take(row.cells, chosen.outcome)
    if not fields:
        raise UnusableError("no_field", "must have a field, but all are missing")
    if not outcome:
        raise UnusableError("no_outcome", "must have an outcome, but it is missing")
    content = {"fields": {"study": chosen.study, **fields}, "outcome": outcome}
    yield Record(content=content, group=tables.group_of(row.cells, chosen.group, default=digest(content)))


def _detect(path: Path, options: Options) -> str:
    kind = tables.suffix(path)
    if kind == ".xpt":
        return "cdisc"
    if kind == ".xml":
        return _detect_xml(path)
    if kind == ".json":
        return _detect_json(path, options)
    if kind in (".jsonl", ".ndjson"):
        first = next((item[1] for item in each(path, encoding=options.encoding) if isinstance(item, tuple)), None)
        found = _of_value(first)
        return found or _detect_table(path, options)
    return _detect_table(path, options)


def _detect_xml(path: Path) -> str:
    root = xmlfile.root(path)
    if root in trec.ROOTS:
        return "topics"
    if root in ("clinical_study", "clinical_studies", "search_results", "studies"):
        return "registry"
    told = "must be TREC's topics or clinical_study"
    raise SourceError("unknown_xml", f"{told}, but is <{root}>; use another modality or convert it")


def _detect_json(path: Path, options: Options) -> str:
    first = list(islice(items(path, encoding=options.encoding), 64))
    keyed = {str(item.key): item.value for item in first}
    found = _of_value(keyed) or next((_of_value(item.value) for item in first), None)
    return found or _detect_table(path, options)


def _of_value(value: Any) -> str | None:
    if cdisc_files.is_dataset_json(value):
        return "cdisc"
    if next(registry_forms.studies(value), None) is not None:
        return "registry"
    return "topics" if trec.is_topic(value) else None


def _detect_table(path: Path, options: Options) -> str:
    columns = next((list(item.cells) for item in tables.rows(path, options) if isinstance(item, Row)), [])
    if tables.suffix(path) != ".parquet" and trec.is_judged(path, columns, encoding=options.encoding):
        return "judgements"
    if not columns or cdisc.is_cdisc(columns):
        return "cdisc"
    told = f"must be registered trials, CDISC (USUBJID), topics or judgements, but has {', '.join(columns)[:300]}"
    raise SourceError("wrong_columns", f"{told}; set study, fields and outcome to read participants")


def _studies(path: Path, options: Options) -> Iterator[Item]:
    if tables.suffix(path) == ".xml":
        found: Iterator[tuple[str, Any] | Reject] = (
            (f"study {number}", registry_forms.of_xml(study))
            for number, study in enumerate(xmlfile.elements(path, ("clinical_study",)), start=1)
        )
    elif tables.suffix(path) == ".json":
        found = _json_studies(path, options)
    else:
        found = each(path, encoding=options.encoding)
    for item in found:
        if isinstance(item, Reject):
            yield item
            continue
        where, value = item
        held = [
            (f"{where}, study {number}", study) for number, study in enumerate(registry_forms.studies(value), start=1)
        ]
        yield from papers.records(held, lambda study, place: iter((registry.record(study, place),)), excerpt=str)


def _json_studies(path: Path, options: Options) -> Iterator[tuple[str, Any] | Reject]:
    """The members of a list or of a page one by one; the whole file where it is one study."""
    keys = {item.key for item in items(path, encoding=options.encoding)}
    if keys and all(isinstance(key, int) for key in keys):
        for item in items(path, encoding=options.encoding):
            yield item.value if isinstance(item.value, Reject) else (item.where, item.value)
        return
    whole = load(path, encoding=options.encoding)
    if next(registry_forms.studies(whole), None) is None:
        raise SourceError("no_study", "must hold a registered trial, but holds none; use another format")
    yield "whole file", whole


def _dataset(path: Path, options: Options) -> cdisc.Dataset:
    kind = tables.suffix(path)
    shared: dict[str, Any] = {"study": options.study, "domain": options.domain}
    if kind == ".xpt":
        return cdisc_files.transport(path, encoding=options.encoding, **shared)
    if kind == ".ndjson" or (kind == ".json" and _is_dataset_json(path, options)):
        return cdisc_files.dataset_json(path, encoding=options.encoding, **shared)
    name = path.name.partition(".")[0]
    return cdisc.Dataset(rows=tables.rows(path, options), name=name, **shared)


def _is_dataset_json(path: Path, options: Options) -> bool:
    keys = {str(item.key): item.value for item in items(path, encoding=options.encoding) if isinstance(item.key, str)}
    return cdisc_files.is_dataset_json(keys)


def _topics(path: Path, options: Options) -> Iterator[Item]:
    if tables.suffix(path) == ".xml":
        yield from trec.topics(path)
        return
    rows = tables.rows(path, options)
    yield from tables.records(rows, choose=tuple, make=lambda row, _: iter((trec.note(row),)))

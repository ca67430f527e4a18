"""A run's corpus on the terminal: what it holds, under which licences, what was left out and why."""

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from evaluation.corpora import Corpus, Source, left_out, told_terms
from evaluation.figures import data_size, duration
from evaluation.report import count, percent
from jobs._corpus import corpus, files, sources
from jobs._run import PlanningError
from slurm.files import read_json

_WIDTH = 120
"""Of what is not a terminal: a file or a pipe."""

_MOST = 12  # reasons and pairs shown
_TERMS = ("commercial", "derivatives", "share_alike", "dua", "expires")
_COLUMNS = ("source", "license", *_TERMS, "modality", "records", "tokens", "token_share", "file", "sha256")


def corpus_command(options: argparse.Namespace) -> int:
    """Runs one of the actions.

    Raises:
        PlanningError: the run has no record of what is asked, or no such token.
    """
    root = options.results / Path(options.run).stem
    if options.action == "trace":
        from jobs._corpus_trace import trace

        return trace(root, options.stream, place=options.place, split=options.split, document=options.document)
    prepare, tokenize = require_record(root, "prepare"), _record(root, "tokenize")
    found = sources(prepare, tokenize)
    if options.action == "licences":
        _licences(found, root, as_csv=options.csv)
    elif options.json:
        told = {"sources": [asdict(each) for each in found], **asdict(corpus(prepare, tokenize))}
        print(json.dumps(told, ensure_ascii=False, indent=2))
    else:
        _print(_shown(found, corpus(prepare, tokenize), title=f"{root.name}'s corpus"))
    return 0


def require_record(root: Path, stage: str) -> dict[str, Any]:
    """Returns the record of a stage.

    Raises:
        PlanningError: there is none.
    """
    record = _record(root, stage)
    if record is None:
        path = root / stage / "record.json"
        raise PlanningError([f"{path}: must be there, but is not; run the stage {stage}, or name another run"])
    return record


def _record(root: Path, stage: str) -> dict[str, Any] | None:
    path = root / stage / "record.json"
    return read_json(path) if path.is_file() else None


def _print(parts: Iterable[str | Table]) -> None:
    console = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)
    for part in parts:
        console.print(part)
        if isinstance(part, Table):
            console.print()


def _shown(found: list[Source], whole: Corpus, *, title: str) -> Iterator[str | Table]:
    records = sum(source.records for source in found)
    tokens = f", {count(whole.tokens)} training tokens" if whole.tokens else ""
    yield f"[bold]{escape(title)}[/]: {len(found)} sources, {count(records)} records{tokens}"
    yield from (f"note: {escape(line)}" for line in whole.untold)
    yield _sources(found)
    yield from _counted("left out, by reason", left_out(found))
    yield from _counted("personal data, set aside", whole.personal.items())
    yield from _counted("low quality", whole.quality.items())
    yield from _overlaps(whole)
    yield from _tokens(whole)
    for source in found:
        yield from (f"{escape(source.name)}: {escape(note)}" for note in source.notes)
    for sample in whole.samples:
        head = f"[bold]{escape(sample.stream)}[/] {escape(sample.id)} of {escape(sample.source)}"
        yield f"{head}\n  {escape(' '.join(sample.text.split()))}"


def _sources(found: list[Source]) -> Table:
    names = ("source", "modality", "licence", "conditions", "read", "records", "left out", "tokens", "share")
    table = _table(*names, words=4)
    for source in found:
        read = " in ".join(part for part in (_size(source), _time(source)) if part)
        missing = sum(number for _, number in left_out([source]))
        tokens = "" if source.tokens is None else count(source.tokens)
        share = "" if source.share is None else percent(source.share)
        kind = f"{source.modality} {source.scale}".strip()
        words = (source.name, kind, source.license, told_terms(source.terms, bound=True))
        table.add_row(*map(escape, words), read, count(source.records), count(missing), tokens, share)
    return table


def _size(source: Source) -> str:
    return "" if source.bytes is None else data_size(source.bytes)


def _time(source: Source) -> str:
    return "" if source.seconds is None else duration(source.seconds)


def _counted(title: str, found: Iterable[tuple[str, int]]) -> Iterator[Table]:
    rows = [(name, number) for name, number in found if number]
    if rows:
        table = _table(title, "number")
        for name, number in rows[:_MOST]:
            table.add_row(escape(name.replace("_", " ")), count(number))
        if rows[_MOST:]:
            table.add_row(f"{len(rows) - _MOST} more reasons", count(sum(number for _, number in rows[_MOST:])))
        yield table


def _overlaps(whole: Corpus) -> Iterator[Table]:
    if whole.contamination:
        table = _table("benchmark", "items", "found", "records taken out")
        for each in whole.contamination:
            table.add_row(escape(each.benchmark), count(each.items), count(each.found), count(each.records))
        yield table
    if whole.crossings:
        table = _table("records that an earlier source has too", "of", "number", words=2)
        for first, second, number in sorted(whole.crossings, key=lambda each: -each[2])[:_MOST]:
            table.add_row(escape(first), escape(second), count(number))
        yield table


def _tokens(whole: Corpus) -> Iterator[Table]:
    total = whole.tokens or 1
    if whole.modalities:
        table = _table("training tokens of", "language", "number", "share", words=2)
        for name, languages in whole.modalities.items():
            for language, number in languages.items():
                table.add_row(escape(name), escape(language), count(number), percent(number / total))
        yield table
    yield from _counted("tokens by scale", sorted(whole.scales.items()))
    yield from _counted("tokens by language", sorted(whole.languages.items()))
    streams = dict.fromkeys(name for phase in whole.phases.values() for name in phase)
    if streams:
        table = _table("stream", "characters a token", "padding", *(f"share in {phase}" for phase in whole.phases))
        for stream in streams:
            chars = f"{whole.chars_per_token[stream]:.2f}" if stream in whole.chars_per_token else ""
            shares = (percent(phase.get(stream, 0.0)) for phase in whole.phases.values())
            table.add_row(escape(stream), chars, percent(whole.padding.get(stream, 0.0)), *shares)
        yield table


def _licences(found: list[Source], root: Path, *, as_csv: bool) -> None:
    if as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(_COLUMNS)
        writer.writerows(row for source in found for row in _rows(source, root))
        return
    table = _table("source", "licence", "terms", "records", "tokens", "share", "files", words=3)
    for source in found:
        tokens = "not known" if source.tokens is None else count(source.tokens)
        share = "not known" if source.share is None else percent(source.share)
        files = count(len(_files(source, root)))
        words = (source.name, source.license, told_terms(source.terms) or "not stated")
        table.add_row(*map(escape, words), count(source.records), tokens, share, files)
    _print([table])
    for source in found:
        for name, sha256 in _files(source, root).items():
            print(f"{sha256}  {source.name}  {name}")


def _rows(source: Source, root: Path) -> Iterator[list[Any]]:
    terms = [source.terms.get(name, "") for name in _TERMS]
    known = [source.modality, source.records, source.tokens, source.share]
    for name, sha256 in _files(source, root).items():
        yield [source.name, source.license, *terms, *known, name, sha256]


def _files(source: Source, root: Path) -> dict[str, str]:
    """Returns a source's files and their digests; where its parts are gone, all of them as one."""
    return files(root, source.name) or {source.path: source.sha256}


def _table(*columns: str, words: int = 1) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for index, name in enumerate(columns):
        table.add_column(escape(name), justify="left" if index < words else "right", no_wrap=index >= words)
    return table

"""A cell store from many matrices: surveyed, scattered, gathered, and committed by a manifest that is written last."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus.cells.parts import Gather, Scatter, part, shard_folder
from corpus.cells.plan import (
    StorePlan,
    chunks,
    describe,
    layout,
    read_survey,
    shard_units,
    source_digest,
    survey,
    vocabulary,
)
from corpus.cells.store import FORMAT, GENES, MANIFEST
from corpus.claims import Nodes
from corpus.records import SPLITS
from corpus.workers import Crew, run_units
from slurm.files import digest, read_json, sha256_file, write_atomic, write_json


@dataclass(frozen=True, kw_only=True)
class _Surveyor:
    """Surveys sources; picklable."""

    plan: StorePlan
    parts: Path
    apart: bool

    def __call__(self, number: int) -> None:
        survey(self.plan.sources[number], self.parts / f"{number:05d}", apart=self.apart)


def build(
    plan: StorePlan,
    folder: Path,
    *,
    crew: Crew,
    progress: Callable[[str, int, int], None] = lambda _n, _d, _t: None,
    apart: bool | None = None,
) -> dict[str, Any]:
    """Builds a store, or goes on where an earlier attempt was ended; returns the manifest.

    Every shard is written by one worker, from a range of a shuffled order that only the plan decides: the bytes are the
    same for any crew. What was begun with another plan or other files is thrown away.

    Args:
        plan: what to build.
        folder: where to; nothing else may lie in it.
        crew: who does it.
        progress: is told which pass runs (survey, scatter, gather), and how many of its units are done, of how many.
        apart: whether each file is read in a process of its own, which a damaged one may kill; when not given, where
            the crew's workers are none.

    Raises:
        ValueError: a source cannot be used, or took its readers along.
    """
    nodes = crew.nodes()
    with nodes.together():
        if _ready(plan, folder, nodes=nodes):
            return dict(read_json(folder / MANIFEST))
        return _build(plan, folder, crew=crew, progress=progress, apart=_inline(crew) if apart is None else apart)


def _build(
    plan: StorePlan, folder: Path, *, crew: Crew, progress: Callable[[str, int, int], None], apart: bool
) -> dict[str, Any]:
    parts = folder / "parts"

    def run(units: Any, work: Any, committed: Callable[[Any], bool], name: str) -> None:
        def told(done: int, total: int, _items: int) -> None:
            progress(name, done, total)

        died = run_units(units, work, committed=committed, crew=crew, progress=told, name=f"cells-{name}")
        if died:
            unit, why = next(iter(died.items()))
            raise ValueError(f"every part of a cell store must be built, but for {name} {units[unit]} {why}; mend it")

    numbers = range(len(plan.sources))
    run(
        numbers,
        _Surveyor(plan=plan, parts=parts, apart=apart),
        lambda unit: (parts / f"{unit:05d}/survey.json").is_file(),
        "survey",
    )
    surveys = [read_survey(parts / f"{number:05d}") for number in numbers]
    place, genes, units = layout(plan, surveys), tuple(vocabulary(plan, surveys)), tuple(chunks(plan, surveys))
    scatter = Scatter(plan=plan, layout=place, genes=genes, parts=parts, apart=apart)
    run(units, scatter, lambda unit: (part(parts, unit) / "report.json").is_file(), "scatter")
    reports = [read_json(part(parts, unit) / "report.json") for unit in units]
    labels = {name: sorted({value for told in reports for value in told["labels"][name]}) for name in plan.labels}
    gather = Gather(plan=plan, layout=place, genes=genes, parts=parts, units=units, labels=labels, folder=folder)
    shards = shard_units(place)
    run(shards, gather, lambda unit: (shard_folder(folder, unit) / "entry.json").is_file(), "gather")
    entries = [_entry(shard_folder(folder, unit) / "entry.json") for unit in shards]
    rejects = [_rejects(reports, units, number) for number in numbers]
    manifest = _manifest(plan, genes, labels, entries, described=describe(plan, surveys), rejects=rejects)
    _agree(crew.nodes(), lambda: _commit(folder, manifest, genes))
    return dict(read_json(folder / MANIFEST))


def _ready(plan: StorePlan, folder: Path, *, nodes: Nodes) -> bool:
    """Makes the folder ready, on the first node, before any works; says whether the store is there already."""
    begun, kept = nodes.meeting / "cells-begun", nodes.meeting / "cells-kept"
    if nodes.rank > 0:
        nodes.wait_for(begun)
        return kept.exists()
    committed = _committed(plan, folder) is not None
    if not committed:
        _begin(plan, folder, folder / "parts")
    for file in [kept, begun][not committed :] if nodes.many else ():
        file.touch()
    return committed


def _agree(nodes: Nodes, commit: Callable[[], None]) -> None:
    """Commits on the first node, and not before all others are done with the parts, which that removes."""
    if nodes.rank == 0:
        for rank in range(1, nodes.world_size):
            nodes.wait_for(nodes.meeting / f"cells-built-{rank}", rank=rank)
        commit()
        if nodes.many:
            (nodes.meeting / "cells-committed").touch()
    else:
        (nodes.meeting / f"cells-built-{nodes.rank}").touch()
        nodes.wait_for(nodes.meeting / "cells-committed")


def _entry(path: Path) -> dict[str, Any]:
    """Returns what a shard's writer told, that file among those of the shard."""
    entry = read_json(path)
    return {**entry, "files": {**entry["files"], path.name: sha256_file(path)}}


def _inline(crew: Crew) -> bool:
    return crew.workers == 1 and crew.world_size == 1 and not crew.isolate


def _begin(plan: StorePlan, folder: Path, parts: Path) -> None:
    """Keeps what an equal plan began; a part of a file that has changed since is told by the survey's digest."""
    begun = parts / "plan.json"
    wanted = {"plan": plan.digest(), "files": [_stamp(source.request.path) for source in plan.sources]}
    if begun.is_file() and read_json(begun) == wanted:
        return
    for name in (parts, folder / "shards"):
        shutil.rmtree(name, ignore_errors=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    write_json(begun, wanted)


def _committed(plan: StorePlan, folder: Path) -> dict[str, Any] | None:
    """Returns the manifest of an equal plan of equal files."""
    if not (folder / MANIFEST).is_file():
        return None
    manifest = read_json(folder / MANIFEST)
    files = [source_digest(source.request.path) for source in plan.sources]
    same = manifest["plan"] == plan.digest() and [told["sha256"] for told in manifest["sources"]] == files
    return dict(manifest) if same else None


def _stamp(path: Path) -> list[list[Any]]:
    """Returns names, sizes and times of a source's files: hashing terabytes anew at each start would cost hours."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _rejects(reports: list[Any], units: tuple[tuple[int, int, int], ...], source: int) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for told, unit in zip(reports, units, strict=True):
        if unit[0] == source:
            counted.update(told["rejects"])
    return dict(sorted(counted.items()))


def _manifest(
    plan: StorePlan,
    genes: tuple[str, ...],
    labels: Mapping[str, list[str]],
    entries: list[dict[str, Any]],
    *,
    described: list[dict[str, Any]],
    rejects: list[dict[str, int]],
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "plan": plan.digest(),
        "seed": plan.seed,
        "order": plan.order,
        "medians": bool(plan.medians),
        "values": plan.values,
        "genes": len(genes),
        "labels": dict(labels),
        "sources": [{**told, "rejects": counted} for told, counted in zip(described, rejects, strict=True)],
        "splits": {split: [entry for entry in entries if entry["split"] == split] for split in SPLITS},
    }


def _commit(folder: Path, manifest: dict[str, Any], genes: tuple[str, ...]) -> None:
    write_atomic(folder / GENES, json.dumps(list(genes)))
    told = {**manifest, "genes_digest": sha256_file(folder / GENES)}
    write_json(folder / MANIFEST, {**told, "digest": digest(told)})
    shutil.rmtree(folder / "parts", ignore_errors=True)

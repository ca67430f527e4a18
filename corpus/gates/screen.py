"""The screen: every gate that looks at one record, built once in each worker."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from corpus.gates import personal, quality
from corpus.gates.config import GatesConfig
from corpus.gates.contamination import Index, build
from corpus.gates.licences import refusals
from corpus.gates.spellings import as_expression
from corpus.gates.terms import Terms
from corpus.modality import Record

_SHOWN = 80  # letters of a licence that a record states

Gate = Literal["licences", "personal", "contamination", "quality"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Why a record is kept out. Never holds the data itself.

    Attributes:
        gate: which gate; what `personal` finds is quarantined, everything else is filtered.
        code: stable and counted: `licence`, a kind of personal data, `contaminated`, a rule of quality.
        reason: for people.
        detail: kinds, counts, offsets in the text, benchmarks.
    """

    gate: Gate
    code: str
    reason: str
    detail: Mapping[str, Any]


def ready(config: GatesConfig, root: Path, *, folder: Path) -> None:
    """Builds in a folder what every worker's screen reads; once, before there are workers."""
    if config.contamination.benchmarks:
        build(config.contamination, root, folder=folder)


class Screen:
    """Looks at records, one by one; counts what it sees.

    Args:
        config: of the gates.
        folder: where `ready` wrote.
        terms: of sources, as the run file gives them; they hold for records under their source's own licence alone.
        licences: of sources.
        today: the day of planning; licences of records are judged by it.
    """

    def __init__(
        self,
        config: GatesConfig,
        folder: Path,
        *,
        terms: Mapping[str, Terms | None] | None = None,
        licences: Mapping[str, str | None] | None = None,
        today: date | None = None,
    ) -> None:
        self._config, self._folder = config, folder
        self._terms, self._licences = dict(terms or {}), dict(licences or {})
        self._today = today or datetime.now(UTC).date()
        self._refused: dict[tuple[str, str], str | None] = {}
        self._counts = _no_counts()

    def check(self, record: Record, text: str, *, source: str, modality: str) -> Finding | None:
        """Returns why a record is kept out, or None.

        Args:
            record: as its reader made it.
            text: as people read it: `symbols.plain(render(content))`.
            source: the source's name.
            modality: the source's modality.
        """
        return (
            self._licence(record, source)
            or self._personal(text, source, modality)
            or self._contamination(record, text)
            or self._quality(record, text, source, modality)
        )

    def take(self) -> dict[str, Any]:
        """Returns what was counted since the last call, as JSON values; `totals` adds them up."""
        taken, self._counts = self._counts, _no_counts()
        contamination = {
            name: {"records": found["records"], "items": sorted(found["items"])}
            for name, found in taken["contamination"].items()
        }
        return {
            **{name: dict(taken[name]) for name in ("licences", "personal", "quality")},
            "contamination": contamination,
        }

    @cached_property
    def _index(self) -> Index | None:
        return Index.load(self._folder) if self._config.contamination.benchmarks else None

    def _licence(self, record: Record, source: str) -> Finding | None:
        if record.license is None:
            return None
        known = self._refused
        if (source, record.license) not in known:
            name = as_expression(record.license)
            terms = self._terms.get(source) if name == as_expression(self._licences.get(source) or "") else None
            lines = refusals(name, terms, policy=self._config.licences, today=self._today)
            known[source, record.license] = "; ".join(lines) or None
        reason = known[source, record.license]
        if reason is None:
            return None
        shown = record.license[:_SHOWN]
        self._counts["licences"][shown] += 1
        return Finding(gate="licences", code="licence", reason=reason, detail={"license": shown})

    def _personal(self, text: str, source: str, modality: str) -> Finding | None:
        if modality in self._config.personal.skip:
            return None
        actions = self._config.personal.actions_for(source)
        hits = personal.scan(text, actions)
        if not hits:
            return None
        self._counts["personal"].update(hit.kind for hit in hits)
        kept_out = [hit for hit in hits if actions[hit.kind] == "quarantine"]
        if not kept_out:
            return None
        counted = Counter(hit.kind for hit in kept_out)
        told = ", ".join(f"{number} {kind}" for kind, number in counted.most_common())
        return Finding(
            gate="personal",
            code=counted.most_common(1)[0][0],
            reason=f"must hold no personal data, but holds {told}",
            detail={"kinds": dict(counted), "offsets": [[hit.kind, hit.start, hit.end] for hit in kept_out[:100]]},
        )

    def _contamination(self, record: Record, text: str) -> Finding | None:
        found = self._index.check(text, record.ids) if self._index else {}
        if not found:
            return None
        for name, items in found.items():
            self._counts["contamination"][name]["records"] += 1
            self._counts["contamination"][name]["items"] |= items
        told = ", ".join(f"{len(items)} of {name}" for name, items in sorted(found.items()))
        return Finding(
            gate="contamination",
            code="contaminated",
            reason=f"must hold no item of an evaluation set, but holds {told}",
            detail={name: sorted(items)[:20] for name, items in sorted(found.items())},
        )

    def _quality(self, record: Record, text: str, source: str, modality: str) -> Finding | None:
        config = self._config.quality
        if modality not in config.modalities:
            return None
        off = frozenset(config.off) | frozenset(config.sources.get(source, ()))
        broken = quality.judge(text, record.language, config=config, off=off)
        if broken is None:
            return None
        code, reason, detail = broken
        self._counts["quality"][code] += 1
        return Finding(gate="quality", code=code, reason=reason, detail=detail)


def totals(taken: Iterable[Mapping[str, Any]], config: GatesConfig, *, folder: Path) -> dict[str, Any]:
    """Adds up what screens took, as the stage's record shows it.

    Args:
        taken: of every unit.
        config: of the gates.
        folder: where `ready` wrote.
    """
    sums = {name: Counter[str]() for name in ("licences", "personal", "quality")}
    records, items = Counter[str](), dict[str, set[int]]()
    for part in taken:
        for name, summed in sums.items():
            summed.update(part[name])
        for name, found in part["contamination"].items():
            records[name] += found["records"]
            items.setdefault(name, set()).update(found["items"])
    index = Index.load(folder).benchmarks() if config.contamination.benchmarks else {}
    contamination = {
        name: {**about, "found": len(items.get(name, ())), "records": records[name]} for name, about in index.items()
    }
    return {**{name: dict(sorted(summed.items())) for name, summed in sums.items()}, "contamination": contamination}


def _no_counts() -> dict[str, Any]:
    counters: dict[str, Any] = {name: Counter[str]() for name in ("licences", "personal", "quality")}
    return {**counters, "contamination": _ByBenchmark()}


class _ByBenchmark(dict[str, dict[str, Any]]):
    def __missing__(self, name: str) -> dict[str, Any]:
        self[name] = {"records": 0, "items": set()}
        return self[name]

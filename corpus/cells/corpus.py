"""The stream omics.cells: a store of whole cells beside the shards of tokenize, written in tokens when it is read."""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from corpus.gates.config import LicencePolicy
from corpus.source import Source

STREAM = "omics.cells"
FOLDER = f"cells/{STREAM}"


class CellStoreConfig(BaseModel):
    """The section `tokenize.cell_store:`.

    Attributes:
        sources: matrices, as in `prepare.sources`, each with modality: omics; of their options, those that choose
            values count (matrix, genes, features, cellxgene, same_names).
        encoding: rank or bins.
        length: tokens of a cell: tags and end included; in bins, a gene takes two.
        medians: a table gene -> median to rank by (csv, tsv, json).
        group: a column of obs, such as the donor; cells of one value stay in the same split.
        labels: columns of obs to keep beside the cells.
        valid_fraction: share of groups held out.
        shard_cells: about as many cells are in a shard.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    encoding: Literal["rank", "bins"] = "rank"
    length: Annotated[int, Field(ge=8, le=1 << 16)] = 2048
    medians: str | None = None
    group: str | None = None
    labels: tuple[str, ...] = ()
    valid_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05
    shard_cells: Annotated[int, Field(ge=1)] = 1 << 15

    @field_validator("sources")
    @classmethod
    def _are_cells(cls, sources: tuple[Source, ...]) -> tuple[Source, ...]:
        wrong = next((source for source in sources if source.modality != "omics"), None)
        if wrong is not None:
            raise ValueError(f"must have the modality omics, but {wrong.name} has {wrong.modality}; leave it out")
        if len({source.name for source in sources}) < len(sources):
            raise ValueError(
                "must have names of their own, for tokens are counted by them, but one occurs twice; rename it"
            )
        for source in sources:
            unheard = [name for name in ("member", "max_records", "sha256") if getattr(source, name) is not None]
            if unheard:
                told = f"but {source.name} has {unheard[0]}:; take it out"
                raise ValueError(f"must be whole files, which the store's manifest knows by their digests, {told}")
        return sources

    def files(self, root: Path) -> list[Path]:
        """Returns what is read: files, those of folders one by one."""
        found = [path for source in self.sources for path in source.files(root)]
        below = [inner for path in found if path.is_dir() for inner in sorted(path.rglob("*")) if inner.is_file()]
        medians = [] if self.medians is None else [root / self.medians]
        return [*(path for path in found if not path.is_dir()), *below, *medians]

    def problems(self, root: Path, *, policy: LicencePolicy, today: date) -> Iterator[str]:
        """Yields the sources that are not there or may not be used, one line each."""
        for number, source in enumerate(self.sources):
            found = [*source.problems(root), *source.decision(policy, today=today).refusals]
            yield from (f"sources.{number}.{line}" for line in found)
        if self.medians is not None and not (root / self.medians).is_file():
            yield f"medians: must be a table of genes, but {root / self.medians} is not there; mend the path"


def build_cells(
    config: CellStoreConfig, folder: Path, *, tokenizer: Any, seed: int, crew: Any, root: Path
) -> dict[str, dict[str, Any]]:
    """Builds the store below tokenize's folder; returns the entries of its stream for the manifest.

    Args:
        config: what to build.
        folder: tokenize's.
        tokenizer: with a symbol for each gene that is wanted; others are left out.
        seed: of the shuffle and the splits.
        crew: who works; every node calls it.
        root: what paths are relative to.

    Raises:
        ValueError: a source cannot be used, or the tokenizer knows no gene of the cells.
    """
    from corpus.cells.build import build
    from corpus.cells.plan import StorePlan
    from corpus.cells.text import read_medians
    from corpus.symbols import symbol

    ids = tokenizer.get_vocab()
    start = symbol("gene", "x").removesuffix("x|>")
    known = tuple(sorted(name[len(start) : -2] for name in ids if name.startswith(start)))
    if not known:
        raise ValueError("tokenize.genes: must name genes where there is a cell_store, but none has a symbol; give it")
    medians = {} if config.medians is None else read_medians(root / config.medians)
    plan = StorePlan(
        sources=tuple(_sources(config, root)),
        labels=config.labels,
        group=config.group,
        seed=seed,
        valid_fraction=config.valid_fraction,
        order="rank" if config.encoding == "rank" else "gene",
        medians=tuple(sorted(medians.items())),
        genes=known,
        shard_cells=config.shard_cells,
    )
    manifest = build(plan, folder / FOLDER, crew=crew)
    return {STREAM: _entries(config, folder, manifest, ids)} if crew.rank == 0 else {}


def matrices(config: CellStoreConfig, folder: Path, *, root: Path) -> list[dict[str, Any]]:
    """Returns what prepare tells of its sources, of each matrix of the store that `build_cells` built.

    Args:
        config: what was built.
        folder: tokenize's.
        root: what paths are relative to.
    """
    from corpus.cells.store import MANIFEST
    from slurm.files import read_json

    given = [source for source in config.sources for _ in source.files(root)]
    rows = []
    for source, told in zip(given, read_json(folder / FOLDER / MANIFEST)["sources"], strict=True):
        terms = source.decision(LicencePolicy(), today=date.min).terms
        rows.append(
            {
                **{name: told[name] for name in ("name", "license", "sha256", "rejects")},
                "modality": source.modality,
                "scale": source.reader().SCALE,
                "path": source.path,
                "terms": {} if terms is None else terms.model_dump(mode="json"),
                "commercial": source.commercial,
                "records": told["rows"] - sum(told["rejects"].values()),
                "duplicates": 0,
                "notes": [f"whole cells, of the stream {STREAM}"],
            }
        )
    return rows


def _sources(config: CellStoreConfig, root: Path) -> Iterator[Any]:
    from corpus.cells.plan import CellSource
    from corpus.formats.cellmatrix import Request

    for source in config.sources:
        options: Any = source.read_options()
        names = ("matrix", "genes", "features", "cellxgene", "same_names", "memory_gb")
        chosen = {name: getattr(options, name) for name in names}
        for number, path in enumerate(source.files(root)):
            name = source.name if number == 0 else f"{source.name}.{number}"
            request = Request(path=path, **chosen)
            yield CellSource(name=name, license=source.license or "", request=request, timeout_s=options.timeout_s)


def _entries(
    config: CellStoreConfig, folder: Path, manifest: Mapping[str, Any], ids: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    from corpus.cells.store import GENES
    from corpus.symbols import VALUES, symbol, tags
    from slurm.files import read_json, sha256_files

    opening, closing = tags("cell")
    shared = {
        "kind": "cells",
        "path": FOLDER,
        "encoding": config.encoding,
        "length": config.length,
        "opening_id": ids[opening],
        "closing_id": ids[closing],
        "gene_ids": [ids[symbol("gene", gene)] for gene in read_json(folder / FOLDER / GENES)],
        "value_ids": [ids[value] for value in VALUES],
        "shards": [{"path": FOLDER, "files": sha256_files(folder / FOLDER)}],
    }
    return {
        split: {**shared, "split": split, **_counted(config, folder, manifest, split)} for split in manifest["splits"]
    }


def _counted(config: CellStoreConfig, folder: Path, manifest: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Returns how many tokens there are of what; padding is counted by itself."""
    import numpy as np

    from corpus.cells.store import open_store
    from corpus.cells.stream import frame

    cells = open_store(folder / FOLDER, hashed=False).split(split)
    tokens: Counter[str] = Counter()
    documents: Counter[str] = Counter()
    names = [told["name"] for told in manifest["sources"]]
    for first in range(0, len(cells), 1 << 16):
        positions = np.arange(first, min(first + (1 << 16), len(cells)))
        view = cells.view(positions)
        written = frame(view.ends - view.begins, length=config.length, encoding=config.encoding)
        source = cells.origin(positions)[0]
        for number in np.unique(source).tolist():
            tokens[names[number]] += int(written[source == number].sum())
            documents[names[number]] += int((source == number).sum())
    whole = len(cells) * config.length
    return {
        "tokens": whole,
        "documents": len(cells),
        "padding": whole - tokens.total(),
        "chars": tokens.total(),
        "sources": dict(sorted(tokens.items())),
        "source_documents": dict(sorted(documents.items())),
        "languages": {},
        "scales": {"L3": tokens.total()},
    }

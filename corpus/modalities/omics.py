"""Omics: the cells of a matrix as the genes they express, highest first, or with their values in bins."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from corpus import annotations, modality
from corpus.annotations import Column, Columns
from corpus.clean import is_missing
from corpus.formats.cellmatrix import Block, Opened, Request, read_cells
from corpus.formats.tables import group_of
from corpus.modality import Item, Note, Record, UnusableError, reject
from corpus.symbols import inside, names, symbol, tags
from slurm.files import digest

SUFFIXES = (".h5ad", ".h5", ".zarr", ".zip", ".tar", ".tgz", ".mtx")
FOLDERS = ("matrix.mtx", "matrix.mtx.gz")
BESIDE = (".mtx",)  # a matrix is read with the names beside it
SCALE = "L3"
SYMBOLS = tags("cell")
_SEVERAL = " || "
_PROBLEMS = {
    "not_finite": "must hold finite values, but has NaN or infinity",
    "negative": "must hold counts or their logarithms, but has negative values; set matrix: raw or a layer",
    "fractional": "must hold whole counts, but has fractions; set matrix: to the raw ones, or leave counts: out",
    "empty": "must express a gene, but has no value above 0",
    "same_name": "must have a name of its own, but an earlier cell has it; mend the names, or set same_names: true",
}


class Perturbation(BaseModel):
    """What was done to a cell: a column of obs, and which of its values mean that nothing was.

    Attributes:
        column: of obs, such as the gene that was knocked out or the drug that was given.
        control: values of untreated cells; they become `control`.
        name: what the annotation is called.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    control: tuple[str, ...] = ("control", "non-targeting", "ctrl", "NT", "DMSO", "vehicle", "unperturbed", "untreated")
    name: annotations.Name = "perturbation"


class Options(modality.Options):
    """How to read cells.

    Attributes:
        matrix: auto (raw where there is one, else X), X, raw or the name of a layer.
        genes: a column of var with unique gene names; its index when not given.
        features: the types of features to keep, where a file has several.
        encoding: names or rank, genes in order of value or of value / median; bins, the same with each one's bin.
        medians: a table gene -> median (csv, tsv or json); for rank, genes that are not in it are left out.
        bins: how many; 0 is no expression, the others are quantiles of the cell.
        top_genes: genes to keep of each cell.
        counts: whether a cell with fractions is refused.
        cellxgene: whether the file must follow the CELLxGENE schema; cells that are no primary data are left out.
        same_names: whether cells may share a name.
        properties: annotations from obs to write behind each cell.
        perturbation: a column of obs that tells what was done to the cell.
        group: a column of obs, such as the donor; cells of one value stay in the same split.
        timeout_s: seconds that the reader may be silent.
        memory_gb: what the reader may hold.
    """

    matrix: str = "auto"
    genes: str | None = None
    features: tuple[str, ...] = ("Gene Expression",)
    encoding: Literal["names", "rank", "bins"] = "names"
    medians: str | None = None
    bins: int = Field(default=51, ge=3, le=51)
    top_genes: int = Field(default=48, ge=1, le=65_536)
    counts: bool = False
    cellxgene: bool = False
    same_names: bool = False
    properties: Columns = Field(default_factory=dict)
    perturbation: Perturbation | None = None
    group: str | None = None
    timeout_s: Annotated[float, Field(gt=0)] = 300
    memory_gb: Annotated[float, Field(gt=0)] = 16

    @model_validator(mode="after")
    def _ranked(self) -> "Options":
        if self.medians is not None and self.encoding != "rank":
            raise ValueError("medians: must be left out unless encoding is rank, but is given; set encoding: rank")
        if self.perturbation is not None and self.perturbation.name in self.properties:
            name = self.perturbation.name
            raise ValueError(f"perturbation.name: must not be a property too, but {name!r} is; rename one")
        return self


def read(path: Path, options: Options, /) -> Iterator[Item]:
    """Yields notes on what is read, and the cells; without a group column every cell is its own group."""
    specs = annotations.as_columns(options.properties)
    if options.perturbation is not None:
        specs |= {options.perturbation.name: Column(column=options.perturbation.column)}
    left_out, blocks = 0, read_cells(_request(path, options, specs), timeout_s=options.timeout_s)
    encoder: Any = None
    for found in blocks:
        if isinstance(found, Opened):
            from corpus.cells.text import Encoder

            yield Note(found.told)
            encoder = Encoder.of(found.genes, encoding=options.encoding, bins=options.bins, top=options.top_genes)
            encoder = encoder if options.medians is None else encoder.normalised(options.medians)
            yield from map(Note, encoder.notes)
            continue
        left_out += found.problems.count("not_primary")
        yield from _items(found, encoder, specs, options)
    if left_out:
        yield Note(f"{left_out} cells left out: is_primary_data is false, so that they are in another file too")


def render(content: Mapping[str, Any], /) -> str:
    """Writes <|cell|>, a symbol per gene and, in bins, one per value, <|/cell|> and the annotations."""
    opening, closing = tags("cell")
    values = content.get("bins") or [None] * len(content["genes"])
    body = "".join(
        symbol("gene", gene) + ("" if value is None else symbol("value", str(value)))
        for gene, value in zip(content["genes"], values, strict=True)
    )
    return f"{opening}{body}{closing}{annotations.write(content['properties'])}"


def parse(rendered: str, /) -> dict[str, Any]:
    """Reads back what `render` wrote."""
    body, rest = inside(rendered, "cell")
    found, properties = names(body), annotations.read(rest)
    if "<|value:" not in body:
        return {"genes": found, "properties": properties}
    return {"genes": found[::2], "bins": [int(value) for value in found[1::2]], "properties": properties}


def _request(path: Path, options: Options, specs: Mapping[str, Column]) -> Request:
    wanted = [str(spec.column) for spec in specs.values()]
    return Request(
        path=path,
        matrix=options.matrix,
        genes=options.genes,
        features=options.features,
        columns=tuple(dict.fromkeys([*wanted, *([options.group] if options.group else [])])),
        counts=options.counts,
        same_names=options.same_names,
        cellxgene=options.cellxgene,
        memory_gb=options.memory_gb,
    )


def _items(block: Block, encoder: Any, specs: Mapping[str, Column], options: Options) -> Iterator[Item]:
    for row, encoded in encoder.encode(block):
        name = block.names[row]
        columns = {column: values[row] for column, values in block.columns.items()}
        try:
            yield _record(block.problems[row], encoded, columns, specs=specs, options=options, name=name)
        except UnusableError as error:
            yield reject(error, where=f"cell {name}", excerpt=encoded.get("genes", [])[:8])


def _record(
    problem: str | None,
    encoded: Mapping[str, Any],
    columns: dict[str, Any],
    *,
    specs: Mapping[str, Column],
    options: Options,
    name: str,
) -> Record:
    problem = problem or (None if encoded["genes"] else "empty")  # none of its genes may have a median
    if problem:
        raise UnusableError(problem, _PROBLEMS[problem])
    for gene in encoded["genes"]:
        _check_gene(gene)
    told = {column: _told(value) for column, value in columns.items()}
    if options.perturbation is not None:
        told[options.perturbation.column] = _perturbed(told[options.perturbation.column], options.perturbation)
    content = {**encoded, "properties": annotations.take(told, specs)}
    group = group_of(columns, options.group, default=digest(content))
    return Record(content=content, group=group, where=f"cell {name}")


def _told(value: Any) -> Any:
    """Returns what obs tells of a cell; several diseases of CELLxGENE's are divided as people would."""
    if isinstance(value, float) and math.isnan(value):
        return None
    return value.replace(_SEVERAL, "; ") if isinstance(value, str) else value


def _perturbed(value: Any, perturbation: Perturbation) -> Any:
    if is_missing(value):
        raise UnusableError("no_perturbation", "must tell what was done to it, but has no value in its column")
    return "control" if str(value).casefold() in {word.casefold() for word in perturbation.control} else value


def _check_gene(gene: str) -> None:
    try:
        symbol("gene", gene)
    except ValueError as error:
        raise UnusableError("gene_name", str(error)) from error

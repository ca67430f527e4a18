"""Cells: AnnData files as cell sentences, the highest genes of a cell in order; one symbol per gene."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from corpus import annotations, modality
from corpus.annotations import Column, Columns
from corpus.cellmatrix import Cell, Request, read_cells
from corpus.modality import Item, Note, Record, UnusableError, reject
from corpus.symbols import inside, names, symbol, tags
from corpus.tables import group_of
from slurm.files import digest

SUFFIXES = (".h5ad", ".zip")
SCALE = "L3"
SYMBOLS = tags("cell")
_PROBLEMS = {
    "not_finite": "must hold finite values, but has NaN or infinity",
    "negative": "must hold counts or their logarithms, but has negative values; set matrix: raw or a layer",
    "empty": "must express a gene, but has no value above 0",
}


class Options(modality.Options):
    """How to read cells.

    Attributes:
        matrix: auto (raw where there is one, else X), X, raw or the name of a layer.
        genes: a column of var with unique gene names; its index when not given.
        top_genes: genes to keep of each cell.
        properties: annotations from obs to write behind each cell.
        group: a column of obs, such as the donor; cells of one value stay in the same split.
        timeout_s: seconds that the reader may be silent.
    """

    matrix: str = "auto"
    genes: str | None = None
    top_genes: int = Field(default=48, ge=1, le=4096)
    properties: Columns = Field(default_factory=dict)
    group: str | None = None
    timeout_s: float = Field(default=300, gt=0)


def read(path: Path, options: Options, /) -> Iterator[Item]:
    """Yields a note on what is read, then the cells; without a group column every cell is its own group."""
    specs = annotations.as_columns(options.properties)
    wanted = [str(spec.column) for spec in specs.values()]
    request = Request(
        path=path,
        matrix=options.matrix,
        genes=options.genes,
        top_genes=options.top_genes,
        columns=(*wanted, *([options.group] if options.group else [])),
    )
    for item in read_cells(request, timeout_s=options.timeout_s):
        if isinstance(item, str):
            yield Note(item)
            continue
        try:
            yield _record(item, specs, options.group)
        except UnusableError as error:
            yield reject(error, where=f"cell {item.name}", excerpt=item.genes)


def render(content: Mapping[str, Any], /) -> str:
    """Writes <|cell|>, a symbol per gene, <|/cell|> and the annotations."""
    opening, closing = tags("cell")
    body = "".join(symbol("gene", gene) for gene in content["genes"])
    return f"{opening}{body}{closing}{annotations.write(content['properties'])}"


def parse(rendered: str, /) -> dict[str, Any]:
    """Reads back what `render` wrote."""
    body, rest = inside(rendered, "cell")
    return {"genes": names(body), "properties": annotations.read(rest)}


def _record(cell: Cell, specs: Mapping[str, Column], group: str | None) -> Record:
    if cell.problem:
        raise UnusableError(cell.problem, _PROBLEMS[cell.problem])
    for gene in cell.genes:
        _check_gene(gene)
    content = {"genes": cell.genes, "properties": annotations.take(cell.columns, specs)}
    return Record(content=content, group=group_of(cell.columns, group, default=digest(content)))


def _check_gene(gene: str) -> None:
    try:
        symbol("gene", gene)
    except ValueError as error:
        raise UnusableError("gene_name", str(error)) from error

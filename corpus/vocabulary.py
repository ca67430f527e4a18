"""The vocabulary beside text: every symbol that a record of any modality may hold, and the genes of a table.

It is the same for every corpus, so that a source added later finds its symbols, and a model its old ones.
"""

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from corpus import document
from corpus.formats import sequences
from corpus.modality import modalities, modality
from corpus.symbols import VALUES, symbol, tags

_HEADS = frozenset(
    {"gene", "genes", "gene_id", "gene_name", "gene_symbol", "symbol", "name", "feature_id", "ensembl_id"}
)


def declared() -> list[str]:
    """Returns the symbols that need no data: tags, letters, glyphs, sections, values; each once, in a fixed order."""
    shared = (*document.SYMBOLS, *sequences.SYMBOLS, *VALUES)
    found = [*shared, *(each for name in modalities() for each in (*tags(name), *modality(name).SYMBOLS))]
    return list(dict.fromkeys(found))


def all_symbols(*, genes: Path | None, found: Iterable[str]) -> list[str]:
    """Returns all symbols of a corpus: those declared, those of the table of genes, and what else its records hold.

    Raises:
        ValueError: the table cannot be read.
    """
    table = [] if genes is None else gene_symbols(genes)
    fixed = dict.fromkeys([*declared(), *table])
    return [*fixed, *sorted(set(found) - fixed.keys())]


def gene_symbols(path: Path) -> list[str]:
    """Returns a symbol for each gene of a table, in its order.

    The table is the first column of a .txt, .csv or .tsv file, or the keys of a .json object or the items of a .json
    list, each also as .gz. A first line that names its column is left out, and so is what another vocabulary
    writes <so>.

    Raises:
        ValueError: it cannot be read, names no gene, or has a name that cannot be a symbol.
    """
    try:
        names = dict.fromkeys(_names(path))
        symbols = [symbol("gene", name) for name in names]
    except (OSError, EOFError, TypeError, ValueError) as error:
        raise ValueError(f"tokenize.genes: {path} must be a table of genes, but {error}; mend it") from error
    if not symbols:
        raise ValueError(f"tokenize.genes: {path} must name a gene, but names none; mend it")
    return symbols


def _names(path: Path) -> Iterator[str]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    name = path.name.removesuffix(".gz")
    found = iter(json.loads(text)) if name.endswith(".json") else _column(text)
    return (str(each) for each in found if not (str(each).startswith("<") and str(each).endswith(">")))


def _column(text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines()):
        cell = line.replace(",", "\t").partition("\t")[0].strip().strip('"')
        if cell and not (number == 0 and cell.casefold() in _HEADS):
            yield cell

"""Pairs of a drug and its target, or of two drugs, with a label: tables, and lines of words."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus import document
from corpus.annotations import find_column
from corpus.clean import clean_line
from corpus.entities import first_column, names_of, task_names
from corpus.formats import tables
from corpus.formats.figures import figure, is_blank, number
from corpus.formats.sequences import clean_sequence
from corpus.formats.tables import Row, TableOptions
from corpus.modality import Record, SourceError, UnusableError

_SMILES = ("smiles", "drug", "compoundisosmiles", "canonicalsmiles", "isomericsmiles", "isosmiles", "ligandsmiles")
DRUG = (*_SMILES, "drugsmiles", "compoundsmiles", "smiles1", "drug1", "x1", "druga", "smilesa", "compound", "ligand")
SECOND = ("smiles2", "drug2", "x2", "drugb", "smilesb")
TARGET = (
    *("targetsequence", "proteinsequence", "sequence", "target", "protein", "targetseq", "aasequence"),
    *("bindingdbtargetchainsequence", "bindingdbtargetchainsequence1", "proteinseq"),
)
LABELS = (
    *("label", "y", "affinity", "interaction", "activity", "class", "value", "standardvalue", "kibascore", "kiba"),
    *("pkd", "pki", "pic50", "kd", "ki", "ic50", "ec50", "kd(nm)", "ki(nm)", "ic50(nm)", "ec50(nm)", "sideeffect"),
)
_IDS = {
    "chembl": ("moleculechemblid", "chemblid", "chemblidofligand"),
    "cid": ("cid", "pubchemcid", "pubchemcidofligand"),
    "inchikey": ("inchikey", "ligandinchikey"),
    "uniprot": ("uniprotid", "uniprot", "uniprotaccession", "uniprot(swissprot)primaryidoftargetchain"),
}
_ENOUGH = 64


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The columns of one source, as it writes them; either `second` or `target` is there."""

    drug: str
    second: str | None
    target: str | None
    labels: dict[str, str]
    ids: dict[str, str]
    group: str | None


def has_pairs(found: list[str]) -> bool:
    """Says whether a table with these columns holds pairs."""
    drug = first_column(found, DRUG)
    return drug is not None and first_column([name for name in found if name != drug], (*SECOND, *TARGET)) is not None


def is_words(path: Path, options: TableOptions) -> bool:
    """Says whether a text file holds two or three words a line, and nothing that separates the cells of a table."""
    if tables.suffix(path) != ".txt" or options.delimiter not in (None, " "):
        return False
    lines = (line for line in tables.placed_lines(path, encoding=options.encoding) if line.text and line.text.strip())
    first = next(lines, None)
    text = "" if first is None else first.text or ""
    return len(text.split()) in (2, 3) and not any(mark in text for mark in ",;\t|")


def word_rows(path: Path, options: TableOptions) -> Iterator[Row]:
    """Yields the lines of such a file as rows; unnamed ones are drug, target or drug2, and label."""
    names: list[str] = []
    for line in tables.placed_lines(path, encoding=options.encoding):
        words = (line.text or "").split()
        if words and not names:
            named = first_column([words[0]], DRUG) is not None
            names = words if named else ["drug", _second_name(path, options), "label"][: len(words)]
            if named:
                continue
        if words or line.text is None:
            cells = dict(zip(names, words, strict=False)) if len(words) == len(names) else {"words": len(words)}
            yield Row(where=f"line {line.number}", cells=cells, offsets=line.offsets)


def choose(found: list[str], columns: Mapping[str, str | int], *, group: str | int | None) -> Chosen:
    """Finds the columns that `columns` names (drug, second, target, label), or the usual ones.

    Raises:
        SourceError: a column is not there, or there is nothing to pair.
    """
    named = {role: find_column(column, found) for role, column in columns.items()}
    drug = named.get("drug") or first_column(found, DRUG)
    rest = [name for name in found if name != drug]
    second = named.get("second") or (None if "target" in named else first_column(rest, SECOND))
    target = named.get("target") or (None if second else first_column(rest, TARGET))
    if drug is None or (second is None and target is None):
        told = (
            f"must have a column with SMILES, and one with proteins or further SMILES, but has {', '.join(found)[:300]}"
        )
        raise SourceError("wrong_columns", f"{told}; set columns:")
    used = {drug, second, target}
    labels = [name for usual in LABELS if (name := first_column(rest, (usual,))) is not None and name not in used]
    chosen = task_names([named["label"]] if "label" in named else labels, taken=())
    ids = {kind: name for kind, usual in _IDS.items() if (name := first_column(rest, usual)) is not None}
    return Chosen(
        drug=drug,
        second=second,
        target=target,
        labels=chosen,
        ids=ids,
        group=None if group is None else find_column(group, found),
    )


def record(row: Row, chosen: Chosen, *, digits: int, facts: Mapping[str, str]) -> Record:
    """Returns a pair as a record; its group is the first drug's skeleton.

    Raises:
        UnusableError: a SMILES or a sequence cannot be used, or the label is missing.
    """
    from corpus.formats.chemistry import canonical

    if set(row.cells) == {"words"}:
        raise UnusableError("ragged_row", f"must have the words of the first line, but has {row.cells['words']}")
    smiles, skeleton = canonical(tables.text_of(row.cells, chosen.drug))
    spans = [["molecule", smiles]]
    if chosen.second is not None:
        spans.append(["molecule", canonical(tables.text_of(row.cells, chosen.second))[0]])
    else:
        spans.append(["protein", clean_sequence(tables.text_of(row.cells, chosen.target or ""))])
    kind = "drug-drug pair" if chosen.second is not None else "drug-target pair"
    written = {"kind": kind, **_labels(row.cells, chosen, digits=digits), **facts}
    return Record(
        content={**document.make(written, []), "spans": spans},
        group=tables.group_of(row.cells, chosen.group, default=skeleton),
        ids=names_of(row.cells, chosen.ids),
    )


def _labels(cells: Mapping[str, Any], chosen: Chosen, *, digits: int) -> dict[str, str]:
    """Returns the labels that are there; a number is shortened, >10000 and words stay as they are."""
    known = {name: cells.get(column) for name, column in chosen.labels.items() if not is_blank(cells.get(column))}
    if chosen.labels and not known:
        raise UnusableError("no_label", f"must have a label ({', '.join(chosen.labels)}), but has none")
    return {
        name: clean_line(str(value)) if number(value) is None else figure(name, value, digits=digits)
        for name, value in known.items()
    }


def _second_name(path: Path, options: TableOptions) -> str:
    """Returns what stands second in the lines of a file: a protein has many letters, all upper case."""
    seen = votes = 0
    for line in tables.placed_lines(path, encoding=options.encoding):
        words = (line.text or "").split()
        if len(words) > 1:
            seen += 1
            word = words[1]
            votes += len(word) >= 20 and len(set(word)) >= 8 and re.fullmatch("[A-Z*]+", word) is not None
        if seen >= _ENOUGH:
            break
    return "target" if 2 * votes > seen else "drug2"

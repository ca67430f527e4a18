"""The CELLxGENE schema: what a file must hold so that its cells can be compared with all others of the collection.

After github.com/chanzuckerberg/single-cell-curation, schema 3 to 7: the keys that models and benchmarks stand on.
"""

import re
from typing import Any

import numpy as np
import pandas as pd

from corpus.formats.cellfile import Parts
from corpus.modality import SourceError

REQUIRED = (
    "assay_ontology_term_id",
    "cell_type_ontology_term_id",
    "development_stage_ontology_term_id",
    "disease_ontology_term_id",
    "donor_id",
    "is_primary_data",
    "self_reported_ethnicity_ontology_term_id",
    "sex_ontology_term_id",
    "suspension_type",
    "tissue_ontology_term_id",
)
_GENE = re.compile(
    r"ENS[A-Z]*G\d{11}(_PAR_Y)?|ERCC-\d{5}|FBgn\d{7}|WBGene\d{8}|Y[A-P][LR]\d{3}[WC](-[A-Z])?|FBti\d{7}|RR\d{5}\S*"
)
_TERM = re.compile(r"[A-Za-z_]+:\S+|unknown|na|multiethnic")
_LISTS = ("disease_ontology_term_id", "self_reported_ethnicity_ontology_term_id")
_SEEN = 2000  # rows whose counts are looked at before the first is given out


def check_file(parts: Parts) -> None:
    """Refuses a file that is not of the schema.

    Raises:
        SourceError: a key of obs is missing, the organism is not told, a term is no ontology id, genes are not named by
            ids, or there are no raw counts.
    """
    missing = [name for name in REQUIRED if name not in parts.obs]
    if missing:
        raise _refused(f"must have the obs columns {', '.join(missing)}, but has not")
    if "organism_ontology_term_id" not in parts.obs and "organism_ontology_term_id" not in parts.uns:
        raise _refused("must tell organism_ontology_term_id in obs or uns, but does not")
    if not pd.api.types.is_bool_dtype(parts.obs["is_primary_data"]):
        found = parts.obs["is_primary_data"].dtype
        raise _refused(f"must have true or false in is_primary_data, but has {found}")
    for name in REQUIRED:
        if name.endswith("_ontology_term_id"):
            _check_terms(name, parts.obs[name])
    _check_genes(parts)
    _check_counts(parts)


def primary(obs: pd.DataFrame) -> np.ndarray:
    """Returns which cells are the first of their kind; the same cell is often part of several files (cells,)."""
    return np.asarray(obs["is_primary_data"], dtype=bool)


def _check_terms(name: str, column: pd.Series) -> None:
    for value in column.unique():
        terms = re.split(r" \|\| |,", str(value)) if name in _LISTS else [str(value)]
        wrong = [term for term in terms if not _TERM.fullmatch(term.strip())]
        if wrong:
            raise _refused(f"must have ontology ids in {name}, several of them divided by ' || ', but has {value!r}")


def _check_genes(parts: Parts) -> None:
    for _, var in parts.matrices.values():
        wrong = [str(name) for name in var.index if not _GENE.fullmatch(str(name))]
        if wrong:
            raise _refused(f"must name genes by Ensembl ids in the index of var, but has {wrong[0]!r}")


def _check_counts(parts: Parts) -> None:
    data: Any = parts.matrices["raw" if "raw" in parts.matrices else "X"][0]
    rows = data[: min(_SEEN, data.shape[0])] if getattr(data, "format", "csr") == "csr" else data[:64]
    values = np.asarray(rows.data if hasattr(rows, "indptr") else rows)
    if (values != np.rint(values)).any() or (values < 0).any():
        raise _refused("must hold raw counts in raw.X, or in X where there is no raw, but has fractions or negatives")


def _refused(found: str) -> SourceError:
    return SourceError("cellxgene", f"{found}; mend the file, or leave cellxgene: out")

"""What all modalities have in common."""

import re
import subprocess
import sys
from itertools import pairwise

import pytest

from corpus import document
from corpus.modalities import (
    drug,
    guideline,
    literature,
    molecule,
    omics,
    patient,
    population,
    protein,
    text,
    trial,
)
from corpus.modality import Modality, UnusableError, modalities, modality, reject
from corpus.symbols import SYMBOL, inside, names, plain, symbol

ALL: dict[str, Modality] = {
    "drug": drug,
    "guideline": guideline,
    "literature": literature,
    "molecule": molecule,
    "omics": omics,
    "patient": patient,
    "population": population,
    "protein": protein,
    "text": text,
    "trial": trial,
}


def test_the_folder_is_the_registry() -> None:
    assert modalities() == tuple(ALL)
    assert all(modality(name) is module for name, module in ALL.items())


@pytest.mark.parametrize("name", ALL)
def test_a_modality_offers_what_the_protocol_says(name: str) -> None:
    found = modality(name)
    assert all(suffix.startswith(".") for suffix in found.SUFFIXES)
    assert all(SYMBOL.fullmatch(written) for written in found.SYMBOLS)
    assert found.Options.model_config["extra"] == "forbid"


def test_no_symbol_belongs_to_two_modalities() -> None:
    symbols = sorted(written for found in ALL.values() for written in found.SYMBOLS if written not in document.SYMBOLS)
    assert all(first != second for first, second in pairwise(symbols))


def test_importing_all_modalities_imports_nothing_heavy() -> None:
    code = """
import sys
import corpus.source
from corpus.modality import modalities, modality
[modality(name) for name in modalities()]
heavy = ("rdkit", "anndata", "zarr", "pandas", "numpy", "pyarrow", "tokenizers", "transformers", "torch")
print(*[name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_symbols_are_read_by_name() -> None:
    written = symbol("mol", "[") + symbol("mol", "Na") + symbol("mol", "+") + symbol("mol", "]")
    assert names(written) == ["[", "Na", "+", "]"]
    assert plain(f"<|molecule|>{written}<|/molecule|> name: salt") == "[Na+] name: salt"


@pytest.mark.parametrize("name", ["", "a b", "a|b", "<a>", "x" * 70])
def test_a_symbol_has_a_name_that_can_be_written(name: str) -> None:
    with pytest.raises(ValueError, match="a symbol's name must be 1-50 ASCII characters without blanks"):
        symbol("gene", name)


def test_a_record_without_its_tags_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("a record must be written <|cell|>...<|/cell|>, but is 'CD3E'")):
        inside("CD3E", "cell")


def test_an_excerpt_is_short() -> None:
    item = reject(UnusableError("code", "reason"), where="line 1", excerpt="x" * 1000)
    assert len(item.excerpt) == 120
    assert item.excerpt.endswith("...")


def test_an_excerpt_is_not_cut_within_a_number() -> None:
    error = UnusableError("empty", "must hold text, but is empty")
    excerpt = reject(error, where="line 1", excerpt="x" * 100 + ', "rrn": 900101-1234567').excerpt
    assert excerpt.endswith('"rrn...')
    assert not any(letter.isdigit() for letter in excerpt)

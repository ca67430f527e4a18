"""Ranks and bins of cells are exactly what a slow and plain reading of their definition gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from corpus.cells.rank import BINS, Cells, bins, rank, rank_tokens

GENES = 30
TOKENS = np.arange(100, 100 + GENES, dtype=np.uint32)


def _cells(rows: list[dict[int, float]], dtype: type) -> Cells:
    sizes = [len(row) for row in rows]
    genes = [gene for row in rows for gene in sorted(row)]
    values = [row[gene] for row in rows for gene in sorted(row)]
    return Cells(
        indptr=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        genes=np.array(genes, dtype=np.uint16),
        values=np.array(values, dtype=dtype),
    )


def _slow(cells: Cells, length: int, medians: NDArray[np.float32] | None) -> list[list[int]]:
    found = []
    for genes, values in cells.each():
        by = values if medians is None else values.astype(np.result_type(values, np.float32)) / medians[genes]
        ranked = sorted(zip(by.tolist(), genes.tolist(), strict=True), key=lambda pair: (-pair[0], pair[1]))
        found.append([gene for _, gene in ranked][:length])
    return found


counts = st.dictionaries(st.integers(0, GENES - 1), st.integers(1, 65_535) | st.integers(1, 5), max_size=GENES)
floats = st.dictionaries(
    st.integers(0, GENES - 1),
    st.floats(2.0**-100, 2.0**100, width=32) | st.sampled_from([0.5, 1.0, 1.5]),
    max_size=GENES,
)
median_lists = st.lists(st.floats(0.125, 512, width=32), min_size=GENES, max_size=GENES)


@settings(max_examples=120, deadline=None)
@given(st.lists(counts, max_size=4), st.integers(1, 40), st.none() | median_lists)
def test_counts_are_ranked_as_the_definition_says(
    rows: list[dict[int, float]], length: int, given_: list[float]
) -> None:
    cells, medians = _cells(rows, np.uint16), np.array(given_, dtype=np.float32) if given_ else None
    expected = _slow(cells, length, medians)
    found = rank_tokens(cells, length=length, tokens=TOKENS, pad=7, medians=medians)
    assert found.tolist() == [[*(gene + 100 for gene in row), *[7] * (length - len(row))] for row in expected]
    places = rank(cells, length=length, medians=medians)
    assert [cells.genes[row[row >= 0]].tolist() for row in places] == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=80, deadline=None)
@given(rows=st.lists(floats, max_size=4), length=st.integers(1, 40))
def test_floats_are_ranked_as_the_definition_says(rows: list[dict[int, float]], length: int, dtype: type) -> None:
    cells = _cells(rows, dtype)
    found = rank(cells, length=length)
    assert [cells.genes[row[row >= 0]].tolist() for row in found] == _slow(cells, length, None)


@settings(max_examples=80, deadline=None)
@given(st.lists(counts, max_size=4), st.sampled_from([3, 4, BINS]))
def test_bins_are_numpys_quantiles(rows: list[dict[int, float]], count: int) -> None:
    cells = _cells(rows, np.uint16)
    expected: list[int] = []
    for _, values in cells.each():
        edges = np.quantile(values.astype(np.float64), np.linspace(0, 1, count - 1)) if len(values) else values
        expected += np.digitize(values, edges).tolist()
    assert bins(cells, count=count).tolist() == expected


def test_cells_in_order_of_rank_are_only_cut() -> None:
    plain = _cells([{4: 1, 2: 9, 7: 3}, {}, {1: 5}], np.uint16)
    places = rank(plain, length=3)
    order = places[places >= 0]
    ranked = Cells(indptr=plain.indptr, genes=plain.genes[order], values=plain.values[order], ranked=True)
    out = np.empty((3, 2), dtype=np.uint32)
    assert rank_tokens(ranked, length=2, tokens=TOKENS, pad=0, out=out) is out
    assert out.tolist() == rank_tokens(plain, length=2, tokens=TOKENS, pad=0).tolist() == [[102, 107], [0, 0], [101, 0]]
    assert rank(ranked, length=2).tolist() == [[0, 1], [-1, -1], [3, -1]]


def test_bins_of_many_genes_reach_from_the_first_to_the_last() -> None:
    draw = np.random.default_rng(0)
    values = draw.geometric(0.01, 2000).astype(np.uint16)
    cells = Cells(indptr=np.array([0, 2000]), genes=np.arange(2000, dtype=np.uint16), values=values)
    found = bins(cells)
    assert [int(found.min()), int(found.max())] == [1, BINS - 1]
    assert found.tolist() == np.digitize(values, np.quantile(values, np.linspace(0, 1, BINS - 1))).tolist()

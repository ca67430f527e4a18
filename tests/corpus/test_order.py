"""Permutations are whole, repeatable, and those of parallelism/data.py."""

import numpy as np
import pytest

from corpus.order import key, permute
from parallelism import permutation


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 65, 1000])
def test_every_number_has_one_place_and_training_would_draw_the_same(size: int) -> None:
    drawn = key(3, "cells", size)
    found = permute(np.arange(size), size=size, key=drawn).tolist()
    assert sorted(found) == list(range(size))
    assert found == [permutation.permute(number, size=size, key=drawn) for number in range(size)]


def test_numbers_beyond_any_table_have_places() -> None:
    size = 10**15
    found = permute(np.array([0, size - 1, size // 2]), size=size, key=key("a"))
    assert len(set(found.tolist())) == 3
    assert (found >= 0).all()
    assert (found < size).all()

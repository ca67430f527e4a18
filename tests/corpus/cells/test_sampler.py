"""Samples of cells: each once a pass, from any place, for any number of processes."""

from itertools import islice

import numpy as np
import pytest

from corpus.cells.sampler import Sampler

SHAPES = [(1000, 8, 4, 1, 16), (1000, 8, 4, 2, 16), (1003, 8, 4, 3, 8), (7, 8, 4, 1, 3), (64, 8, 4, 2, 16)]


def _sampler(shape: tuple[int, int, int, int, int]) -> Sampler:
    cells, block, pool, lanes, run = shape
    return Sampler(cells=cells, seed=5, block=block, pool=pool, lanes=lanes, run=run)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_pass_has_every_cell_once_and_the_next_has_another_order(shape: tuple[int, int, int, int, int]) -> None:
    sampler = _sampler(shape)
    first, second = (sampler.positions(np.arange(turn * shape[0], (turn + 1) * shape[0])) for turn in (0, 1))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(shape[0]))
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("shape", SHAPES)
def test_going_on_from_a_sample_is_exact(shape: tuple[int, int, int, int, int]) -> None:
    sampler = _sampler(shape)
    whole = sampler.positions(np.arange(200))
    assert sampler.positions(np.arange(37, 150)).tolist() == whole[37:150].tolist()
    batches = np.concatenate(list(islice(sampler.batches(40, batch=8), 20)))
    assert batches.tolist() == whole[40:200].tolist()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_processes_share_the_samples_without_overlap(size: int) -> None:
    sampler = _sampler((1003, 8, 4, 3, 8))
    each = [list(islice(sampler.batches(16, batch=4, rank=rank, size=size), 12)) for rank in range(size)]
    merged = np.concatenate([batch for step in zip(*each, strict=True) for batch in step])
    assert merged.tolist() == sampler.positions(np.arange(16, 16 + 48 * size)).tolist()


def test_with_lanes_a_process_reads_pools_of_its_own() -> None:
    sampler = Sampler(cells=64 * 4 * 8, seed=1, block=8, pool=8, lanes=4, run=16)
    pools = []
    for rank in range(4):
        cells = np.concatenate(list(islice(sampler.batches(0, batch=16, rank=rank, size=4), 4)))
        pools.append({cell // 8 for cell in cells.tolist()})
    assert [len(pool) for pool in pools] == [8] * 4
    assert len(set.union(*pools)) == 32


def test_a_pool_mixes_its_blocks() -> None:
    sampler = Sampler(cells=10_000, seed=1, block=10, pool=20)
    blocks = sampler.positions(np.arange(64)) // 10
    assert len(set(blocks.tolist())) >= 18


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cells": 0}, "a sampler's cells must be 1 or more, but is 0"),
        ({"block": 0}, "a sampler's block must be 1 or more"),
        ({"lanes": 2, "run": 48}, "a pool must be a whole number of runs, but has 16384 cells for runs of 48"),
    ],
)
def test_sizes_that_cannot_be_are_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampler(**{"cells": 10, "seed": 0, **wrong})

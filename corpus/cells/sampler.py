"""Which cells are in which batch: a pure function of (seed, sample), over a store of any size.

A store is shuffled when it is built, so that neighbours are strangers. Each pass over it draws an order anew, at the
price of sequential reads: blocks of neighbouring cells are put in an order drawn for the pass, so many of them make a
pool, and within a pool the cells come in an order drawn for it. Every cell comes exactly once in a pass.

`lanes` pools are read side by side, `run` samples of each in turn. With run = the batch of one process and lanes = a
multiple of the processes, each process touches pools of its own, so that none reads what another needs.
Nothing is stored and nothing is as long as the data: a sample number is all that a checkpoint needs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from corpus.order import key, permute

_AHEAD = 64  # batches whose cells are computed at once: one at a time would cost as much as to read them


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """The endless order of samples.

    Attributes:
        cells: in the store.
        seed: what is drawn depends on it.
        block: neighbouring cells that are read together.
        pool: blocks whose cells are mixed.
        lanes: pools that are read side by side.
        run: samples of one lane before the next has its turn.
    """

    cells: int
    seed: int
    block: int = 64
    pool: int = 256
    lanes: int = 1
    run: int = 64

    def __post_init__(self) -> None:
        """Checks the sizes.

        Raises:
            ValueError: there are no cells, a size is not positive, or a pool is not a whole number of runs.
        """
        sizes = {"cells": self.cells, "block": self.block, "pool": self.pool, "lanes": self.lanes, "run": self.run}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"a sampler's {name} must be 1 or more, but is {size}; change it")
        if self.lanes > 1 and self.block * self.pool % self.run:
            cells = self.block * self.pool
            raise ValueError(f"a pool must be a whole number of runs, but has {cells} cells for runs of {self.run}")

    def positions(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the cells of samples, as positions in the store."""
        epochs = samples // self.cells
        found = np.empty_like(samples)
        for epoch in np.unique(epochs).tolist():
            mine = epochs == epoch
            found[mine] = self._within(samples[mine] - epoch * self.cells, epoch)
        return found

    def batches(self, start: int, *, batch: int, rank: int = 0, size: int = 1) -> Iterator[NDArray[np.int64]]:
        """Yields the batches of process `rank` of `size` from sample `start` on; all together take each sample once."""
        steps = np.arange(_AHEAD, dtype=np.int64)[:, None] * size * batch + np.arange(batch)
        for first in count(start + rank * batch, _AHEAD * size * batch):
            yield from self.positions((first + steps).ravel()).reshape(_AHEAD, batch)

    @property
    def _pool_cells(self) -> int:
        return self.block * self.pool

    @property
    def _whole(self) -> int:
        """Blocks that are full; what is left over comes last in every pass."""
        return self.cells // self.block

    def _within(self, samples: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """Returns the cells of samples counted from the beginning of their pass."""
        lane_cells = self._pool_cells * self.lanes
        side_by_side = self.cells // lane_cells * lane_cells
        pools = samples // self._pool_cells
        places = samples % self._pool_cells
        mixed = samples < side_by_side
        if self.lanes > 1 and mixed.any():
            group, within = np.divmod(samples[mixed], lane_cells)
            turn, offset = np.divmod(within, self.run)
            pools[mixed] = group * self.lanes + turn % self.lanes
            places[mixed] = turn // self.lanes * self.run + offset
        found = np.empty_like(samples)
        for pool in np.unique(pools).tolist():
            mine = pools == pool
            found[mine] = self._cells(places[mine], pool, epoch)
        return found

    def _cells(self, places: NDArray[np.int64], pool: int, epoch: int) -> NDArray[np.int64]:
        first = pool * self._pool_cells
        size = min(self._pool_cells, self.cells - first)
        ordered = first + permute(places, size=size, key=key(self.seed, "pool", epoch, pool))
        blocks, offsets = np.divmod(ordered, self.block)
        whole = blocks < self._whole
        blocks[whole] = permute(blocks[whole], size=self._whole, key=key(self.seed, "blocks", epoch))
        return blocks * self.block + offsets

"""Reading ahead: a thread reads the next micro batches while the model works on this one.

What is read depends on the samples alone, so that nothing here decides what training sees: a micro batch that nobody
foresaw is read when it is asked for, and one that was foreseen in vain is dropped.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self

from parallelism import data
from parallelism.data import AttentionMask, Batch, Sample, TokenStream

Samples = tuple[Sample, ...]


@dataclass(frozen=True, kw_only=True)
class Loader:
    """Reads micro batches of some streams; holds at most `depth` of them. Its thread ends with the `with` block.

    Attributes:
        streams: what samples number.
        seq_length: tokens of a sample.
        mode: what a token sees of packed documents.
        depth: micro batches read ahead; 0 reads all of them when they are asked for.
    """

    streams: Sequence[TokenStream]
    seq_length: int
    mode: AttentionMask = "causal"
    depth: int = 4
    _reading: dict[Samples, Future[Batch]] = field(default_factory=dict, init=False, repr=False)
    _coming: deque[Samples] = field(default_factory=deque, init=False, repr=False)
    _pool: list[ThreadPoolExecutor] = field(default_factory=list, init=False, repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._coming.clear()
        for pool in self._pool:
            pool.shutdown(cancel_futures=True)
        self._reading.clear()
        self._pool.clear()

    def expect(self, batches: Iterable[Sequence[Sample]]) -> None:
        """Tells which micro batches will be asked for next, in this order; what was expected before is forgotten."""
        if not self.depth:
            return
        coming = [tuple(samples) for samples in batches]
        for gone in self._reading.keys() - set(coming):
            self._reading.pop(gone).cancel()
        self._coming.clear()
        self._coming.extend(samples for samples in coming if samples not in self._reading)
        self._read_on()

    def take(self, samples: Sequence[Sample]) -> Batch:
        """Returns a micro batch.

        Raises:
            ValueError: a chunk of its tokens is damaged.
        """
        wanted = tuple(samples)
        reading = self._reading.pop(wanted, None)
        if reading is None and wanted in self._coming:
            self._coming.remove(wanted)
        self._read_on()
        return self._read(wanted) if reading is None else reading.result()

    def _read_on(self) -> None:
        while self._coming and len(self._reading) < self.depth:
            samples = self._coming.popleft()
            if samples not in self._reading:
                self._reading[samples] = self._thread().submit(partial(self._read, samples))

    def _thread(self) -> ThreadPoolExecutor:
        if not self._pool:
            self._pool.append(ThreadPoolExecutor(1, thread_name_prefix="loader"))
        return self._pool[0]

    def _read(self, samples: Samples) -> Batch:
        return data.read(samples, streams=self.streams, seq_length=self.seq_length, mode=self.mode)

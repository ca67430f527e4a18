"""Which tokens are in which sample: a pure function of (seed, sample index), whatever the layout.

Samples come in blocks of BLOCK. Every block holds the same number of samples of each stream (its quota), in an order
drawn for that block. The k-th sample of a stream is a window of seq_length + 1 tokens; within one pass over the stream
every window comes exactly once, in an order drawn for that pass. Nothing is stored and nothing is as long as the data.

A later phase with another mixture begins blocks of its own at its first sample; its streams go on where they were.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from typing import Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from parallelism.permutation import key_of, mix, permute_all

BLOCK = 1024
"""Samples in a block, and so the finest share of a mixture: 1/1024."""

AttentionMask = Literal["causal", "document", "xlda"]
"""What a token sees of the documents packed with its own (docs/xlda.md): all, none, its translations."""

PADDING = -1
"""Stands for a sample that is not there: its tokens count nothing. It fills the last batch of a validation."""


class TokenStream(Protocol):
    """The tokens of one stream, one after another, documents closed by their end token."""

    def __len__(self) -> int:
        """Returns the number of tokens."""
        ...

    def tokens(self, start: int, stop: int) -> NDArray[np.int64]:
        """Returns the tokens at [start, stop)."""
        ...


class DocumentStream(TokenStream, Protocol):
    """A stream that also knows its documents; masks other than "causal" need one."""

    def ids(self, start: int, stop: int) -> NDArray[np.int32]:
        """Returns document, group and language of the tokens at [start, stop), (3, tokens); only languages fall."""
        ...


class CountedStream(TokenStream, Protocol):
    """A stream that fills batches without a copy in between, and knows which of its tokens cannot be learned."""

    def copy_into(self, out: NDArray[np.int64], start: int) -> None:
        """Copies the tokens from `start` on into `out`, which they must fill."""
        ...

    def counted(self, start: int, tokens: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Returns which of the tokens behind the first, all from `start` on, count; None for all of them."""
        ...


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One training sample: window `window` of stream number `stream`, or PADDING."""

    stream: int
    window: int


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples as arrays.

    Attributes:
        tokens: (samples, seq_length) int64, what the model reads.
        labels: (samples, seq_length) int64, the token that follows each.
        mask: (samples, seq_length) float32, 1 where a label exists.
        streams: (samples,) int64, the stream of each sample.
        ids: (samples, 3, seq_length) int32, document, group and language of each token; None for a causal mask.
    """

    tokens: NDArray[np.int64]
    labels: NDArray[np.int64]
    mask: NDArray[np.float32]
    streams: NDArray[np.int64]
    ids: NDArray[np.int32] | None = None


def quotas(mixture: Mapping[str, float]) -> dict[str, int]:
    """Returns each stream's samples in a block of BLOCK, by the largest remainder; they sum to BLOCK.

    Raises:
        ValueError: the weights are no mixture, or one is too small to occur in a block.
    """
    total = math.fsum(mixture.values())
    if not mixture or min(mixture.values()) <= 0 or not math.isclose(total, 1.0, abs_tol=1e-6):
        raise ValueError(
            f"a mixture must be positive weights that sum to 1, but is {dict(mixture)}; correct the weights"
        )
    exact = {name: weight / total * BLOCK for name, weight in sorted(mixture.items())}
    quota = {name: math.floor(share) for name, share in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (quota[name] - exact[name], name))
    for name in by_remainder[: BLOCK - sum(quota.values())]:
        quota[name] += 1
    small = [name for name, count in quota.items() if count == 0]
    if small:
        raise ValueError(
            f"every stream's weight must be at least 1/{BLOCK}, but {small[0]} has {mixture[small[0]]:g}; "
            "raise it or leave the stream out"
        )
    return quota


def windows(length: int, *, seq_length: int) -> int:
    """Returns how many windows a stream of `length` tokens has; each token but the first is predicted in one."""
    return -(-(length - 1) // seq_length)


@dataclass(frozen=True)
class Order:
    """The endless sequence of training samples of a mixture, and of the mixtures after it.

    Attributes:
        seed: what is drawn depends on it.
        quota: samples of each stream in a block, by name; streams are numbered in this order.
        sizes: windows of each stream, by name.
        start: the first sample of this mixture.
        taken: samples of each stream before `start`; none where that is 0.
        after: the order that holds from its own `start` on.
    """

    seed: int
    quota: tuple[tuple[str, int], ...]
    sizes: tuple[tuple[str, int], ...]
    start: int = 0
    taken: tuple[int, ...] = ()
    after: "Order | None" = None

    def sample(self, index: int) -> Sample:
        """Returns sample number `index`."""
        if self.after and index >= self.after.start:
            return self.after.sample(index)
        block, offset = divmod(index - self.start, BLOCK)
        streams, windows_ = _samples(self, block)
        return Sample(stream=streams[offset], window=windows_[offset])

    def counts(self, index: int) -> tuple[int, ...]:
        """Returns how many of the samples before `index`, a sample of this mixture, each stream has given."""
        block, offset = divmod(index - self.start, BLOCK)
        begun = np.bincount(
            _block(self.seed, self.start, block, quota=self.quota)[0][:offset], minlength=len(self.quota)
        )
        before = self.taken or (0,) * len(self.quota)
        return tuple(
            taken + block * count + int(some) for taken, (_, count), some in zip(before, self.quota, begun, strict=True)
        )


@lru_cache(maxsize=4)
def _samples(order: Order, block: int) -> tuple[list[int], list[int]]:
    """Returns stream and window of every sample of a block: all at once, for they are read one after another."""
    streams, turns = _block(order.seed, order.start, block, quota=order.quota)
    found = np.empty(BLOCK, dtype=np.int64)
    for stream, (name, count) in enumerate(order.quota):
        places = np.flatnonzero(streams == stream)
        before = order.taken[stream] if order.taken else 0
        epochs, positions = np.divmod(before + block * count + turns[places], order.sizes[stream][1])
        for epoch in np.unique(epochs):
            mine, key = epochs == epoch, key_of(order.seed, name, int(epoch))
            found[places[mine]] = permute_all(positions[mine], size=order.sizes[stream][1], key=key)
    return streams.tolist(), found.tolist()


@lru_cache(maxsize=4)
def _block(
    seed: int, start: int, block: int, *, quota: tuple[tuple[str, int], ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns each place's stream number, and how many samples of that stream came before it in the block."""
    numbered = np.repeat(np.arange(len(quota)), [count for _, count in quota])
    key = key_of(seed, "block", *([start] if start else []), block)
    drawn = np.array([mix(key ^ place) for place in range(BLOCK)], dtype=np.uint64)
    streams = numbered[np.argsort(drawn, kind="stable")]
    turns = np.zeros(BLOCK, dtype=np.int64)
    for number, (_, count) in enumerate(quota):
        turns[streams == number] = np.arange(count)
    return streams, turns


def order(
    streams: Mapping[str, TokenStream],
    *,
    mixture: Mapping[str, float],
    seq_length: int,
    seed: int,
    phases: Sequence[tuple[int, Mapping[str, float]]] = (),
) -> Order:
    """Returns the order of training samples.

    Args:
        streams: what mixtures name.
        mixture: each stream's share of the samples.
        seq_length: tokens that a window predicts.
        seed: what is drawn depends on it.
        phases: later mixtures, each with its first sample, ascending; a stream goes on where it was.

    Raises:
        ValueError: a mixture is wrong, or names a stream that is not there or has no tokens to predict.
    """
    shares = [quotas(each) for each in (mixture, *(later for _, later in phases))]
    names = sorted({name for share in shares for name in share})
    unknown = [name for name in names if name not in streams]
    if unknown:
        raise ValueError(
            f"a mixture must name streams of {', '.join(sorted(streams))}, but names {unknown[0]}; correct it"
        )
    sizes = {name: windows(len(streams[name]), seq_length=seq_length) for name in names}
    empty = [name for name, size in sizes.items() if size < 1]
    if empty:
        raise ValueError(
            f"every stream must have 2 tokens or more, but {empty[0]} has {len(streams[empty[0]])}; "
            "leave it out of the mixture"
        )
    stretches: list[Order] = []
    for start, share in zip((0, *(first for first, _ in phases)), shares, strict=True):
        quota = tuple((name, share.get(name, 0)) for name in names)
        taken = stretches[-1].counts(start) if stretches else ()
        stretches.append(Order(seed, quota, tuple(sizes.items()), start, taken))
    return reduce(lambda later, earlier: replace(earlier, after=later), reversed(stretches))


def validation(
    streams: Mapping[str, TokenStream], *, seq_length: int, samples_per_stream: int, batch_size: int
) -> list[Sample]:
    """Returns the fixed validation samples: up to `samples_per_stream` windows of each stream, evenly spread over it.

    The list is filled with PADDING up to a multiple of `batch_size`. Streams are numbered by their sorted names.

    Raises:
        ValueError: no stream has anything to predict.
    """
    chosen: list[Sample] = []
    for number, name in enumerate(sorted(streams)):
        size = windows(len(streams[name]), seq_length=seq_length)
        count = min(size, samples_per_stream)
        chosen += [Sample(stream=number, window=place * size // count) for place in range(count)]
    if not chosen:
        raise ValueError("some stream must hold out 2 tokens or more, but none does; raise prepare's valid_fraction")
    missing = -len(chosen) % batch_size
    return chosen + [Sample(stream=0, window=PADDING)] * missing


def share(samples: Sequence[Sample], *, rank: int, size: int, micro_batch_size: int) -> Iterator[Sequence[Sample]]:
    """Yields the micro batches of data-parallel rank `rank` of `size`; all ranks together see each sample once."""
    for start in range(0, len(samples), micro_batch_size * size):
        mine = start + rank * micro_batch_size
        yield samples[mine : mine + micro_batch_size]


def read(
    samples: Sequence[Sample], *, streams: Sequence[TokenStream], seq_length: int, mode: AttentionMask = "causal"
) -> Batch:
    """Reads the tokens of `samples`; a window that ends with its stream is filled with token 0, masked."""
    tokens = np.zeros((len(samples), seq_length + 1), dtype=np.int64)
    mask = np.zeros((len(samples), seq_length), dtype=np.float32)
    for row, sample in enumerate(samples):
        if sample.window == PADDING:
            continue
        stream, start = streams[sample.stream], sample.window * seq_length
        count = min(seq_length + 1, len(stream) - start)
        counted = _fill(tokens[row, :count], stream, start)
        mask[row, : count - 1] = 1 if counted is None else counted
    numbers = np.array([sample.stream for sample in samples], dtype=np.int64)
    ids = read_ids(samples, streams=streams, seq_length=seq_length, mode=mode)
    return Batch(tokens=tokens[:, :-1], labels=tokens[:, 1:], mask=mask, streams=numbers, ids=ids)


def _fill(out: NDArray[np.int64], stream: TokenStream, start: int) -> NDArray[np.bool_] | None:
    """Reads tokens into their place in the batch; returns which of them behind the first count, None for all."""
    if not hasattr(stream, "copy_into"):
        out[:] = stream.tokens(start, start + len(out))
        return None
    counted = cast(CountedStream, stream)
    counted.copy_into(out, start)
    return counted.counted(start, out)


def read_ids(
    samples: Sequence[Sample], *, streams: Sequence[TokenStream], seq_length: int, mode: AttentionMask
) -> NDArray[np.int32] | None:
    """Reads the ids of `samples` (Batch.ids); what fills a window is a document of its own."""
    if mode == "causal":
        return None
    ids = np.zeros((len(samples), 3, seq_length), dtype=np.int32)
    for row, sample in enumerate(samples):
        if sample.window == PADDING:
            continue
        start = sample.window * seq_length
        stream = cast(DocumentStream, streams[sample.stream])
        found = stream.ids(start, min(start + seq_length, len(stream)))
        ids[row, :, : found.shape[1]] = found
        ids[row, :2, found.shape[1] :] = found[:2, -1:] + 1
    if mode == "document":
        ids[:, 1] = ids[:, 0]
    return ids

"""Reading ahead changes nothing that is read; padding counts nothing."""

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from corpus.packing import Documents, packed
from corpus.shards import Content, write_shard
from corpus.tokenstream import TokenStream, token_stream
from parallelism import data
from parallelism.data import PADDING, Batch, Sample
from parallelism.loader import Loader

PAD, SIZE = 1, 16


class Counted:
    """A stream whose tokens are their own positions; it remembers who read."""

    def __init__(self, length: int, *, broken: bool = False) -> None:
        self.length, self.broken = length, broken
        self.readers: list[str] = []

    def __len__(self) -> int:
        return self.length

    def tokens(self, start: int, stop: int) -> NDArray[np.int64]:
        self.readers.append(threading.current_thread().name)
        if self.broken:
            raise ValueError("chunk 0 must match its CRC-32C, but does not; run tokenize again")
        return np.arange(start, stop)


def micro_batches(count: int, *, size: int = 2, first: int = 0) -> list[list[Sample]]:
    return [[Sample(stream=0, window=first + size * each + place) for place in range(size)] for each in range(count)]


def same(one: Batch, other: Batch) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in Batch.__dataclass_fields__)


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 12), st.booleans()), max_size=6),
    st.integers(0, 5),
)
@settings(deadline=None, max_examples=30)
def test_whatever_is_foreseen_each_micro_batch_is_what_was_asked_for(
    asked: list[tuple[int, int, bool]], depth: int
) -> None:
    """Steps that come as foreseen, others in their place, some twice: as after a rewind or with chunks of a model."""
    streams = [Counted(2000)]
    with Loader(streams=streams, seq_length=8, depth=depth) as loader:
        for count, first, backwards in asked:
            mine = micro_batches(count, first=first)
            loader.expect([*mine, *micro_batches(3, first=first + 7)])
            for samples in [*(reversed(mine) if backwards else mine), *mine[:1]]:
                assert same(loader.take(samples), data.read(samples, streams=streams, seq_length=8))
            assert len(loader._reading) <= depth


def test_what_was_foreseen_is_read_by_the_thread_and_never_too_much_of_it() -> None:
    streams, mine = [Counted(1000)], micro_batches(6)
    with Loader(streams=streams, seq_length=8, depth=2) as loader:
        loader.expect(mine)
        for samples in mine:
            loader.take(samples)
            assert len(loader._reading) <= 2
        assert {name.partition("_")[0] for name in streams[0].readers} == {"loader"}
        loader.take([Sample(stream=0, window=90), Sample(stream=0, window=PADDING)])
        assert streams[0].readers[-1] == "MainThread"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


def test_damage_that_the_thread_meets_is_told_to_whoever_asks() -> None:
    with Loader(streams=[Counted(1000, broken=True)], seq_length=8) as loader:
        loader.expect(micro_batches(2))
        with pytest.raises(ValueError, match="chunk 0 must match its CRC-32C"):
            loader.take(micro_batches(1)[0])


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> TokenStream:
    """Two packed shards of short and long documents; every token but the last of a document is one above the last."""
    folder, draws, entries, token = tmp_path_factory.mktemp("packed"), np.random.default_rng(3), [], 2
    for number in range(2):
        lengths = draws.integers(2, 50, 60)
        tokens = np.arange(token, token + lengths.sum()).astype(np.uint16)
        layout = packed(Documents(tokens=tokens, lengths=lengths), size=SIZE, pad_id=PAD)
        records = np.zeros((len(layout.lengths), 12), np.uint8)
        told: dict[str, Any] = {
            "tokens": layout.tokens,
            "offsets": layout.offsets,
            "lengths": layout.lengths,
            "breaks": layout.breaks,
        }
        entries.append({"path": str(number), **write_shard(folder / str(number), Content(records=records, **told))})
        token += int(lengths.sum())
    return token_stream(folder, {"shards": entries}, pad_id=PAD)


def test_padding_and_what_does_not_go_on_count_nothing(stream: TokenStream) -> None:
    samples = [Sample(stream=0, window=number) for number in range(data.windows(len(stream), seq_length=SIZE))]
    batch = data.read(samples, streams=[stream], seq_length=SIZE, mode="document")
    assert batch.ids is not None
    fill, counts = batch.tokens == PAD, batch.mask == 1
    assert 0 < fill.sum() < 0.1 * fill.size
    assert not counts[fill].any()
    assert not counts[batch.labels == PAD].any()
    within = batch.ids[:, 0, 1:] == batch.ids[:, 0, :-1]
    inside = within & ~fill[:, 1:] & ~fill[:, :-1]
    assert counts[:, :-1][inside].all()
    assert (batch.labels[:, :-1][inside] == batch.tokens[:, :-1][inside] + 1).all()
    for row, ids in enumerate(batch.ids):
        assert not set(ids[0][fill[row]]) & set(ids[0][~fill[row]])
    goes_on = ~counts & ~fill & (batch.labels != PAD)
    goes_on[-1, -1] = False  # behind the last window is nothing
    assert (batch.labels[goes_on] != batch.tokens[goes_on] + 1).all()
    assert goes_on.any()


def test_batches_are_filled_in_place_and_are_those_of_tokens(stream: TokenStream) -> None:
    class Plain:
        def __len__(self) -> int:
            return len(stream)

        def tokens(self, start: int, stop: int) -> NDArray[np.int64]:
            return stream.tokens(start, stop)

    samples = [Sample(stream=0, window=number) for number in (5, 0, 90, PADDING)]
    one, other = (data.read(samples, streams=[each], seq_length=SIZE) for each in (stream, Plain()))
    assert np.array_equal(one.tokens, other.tokens)
    assert np.array_equal(one.labels, other.labels)
    assert one.mask.sum() < other.mask.sum() == 3 * SIZE

"""The order of samples: a pure function of (seed, index) in which every window comes once per pass."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from parallelism import data
from parallelism.data import BLOCK, PADDING, Order, Sample
from parallelism.permutation import permute, permute_all

weights = st.lists(st.integers(1, 100), min_size=1, max_size=6).map(
    lambda parts: {f"stream{number}": part / sum(parts) for number, part in enumerate(parts)}
)


class Counted:
    """A stream whose tokens are their own positions."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def tokens(self, start: int, stop: int) -> NDArray[np.int64]:
        assert 0 <= start < stop <= self.length
        return np.arange(start, stop)


def order(sizes: dict[str, int], *, seed: int = 1) -> Order:
    quota = data.quotas(dict.fromkeys(sizes, 1 / len(sizes)))
    return Order(seed, tuple(quota.items()), tuple(sorted(sizes.items())))


@given(st.integers(1, 5000), st.integers(0, 2**64 - 1))
@settings(deadline=None, max_examples=50)
def test_a_permutation_visits_everything_once(size: int, key: int) -> None:
    found = [permute(number, size=size, key=key) for number in range(size)]
    assert set(found) == set(range(size))
    assert permute_all(np.arange(size), size=size, key=key).tolist() == found


def test_permutations_of_two_keys_differ_and_leave_no_order() -> None:
    one, two = ([permute(number, size=1000, key=key) for number in range(1000)] for key in (1, 2))
    assert sum(a == b for a, b in zip(one, two, strict=True)) < 10
    assert abs(np.corrcoef(one, range(1000))[0, 1]) < 0.1
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.1


@given(weights)
def test_quotas_fill_a_block_within_one_sample_of_the_mixture(mixture: dict[str, float]) -> None:
    quota = data.quotas(mixture)
    assert sum(quota.values()) == BLOCK
    assert all(abs(quota[name] - weight * BLOCK) < 1 for name, weight in mixture.items())


@pytest.mark.parametrize("mixture", [{}, {"a": 0.0, "b": 1.0}, {"a": 0.5, "b": 0.6}], ids=["empty", "zero", "above 1"])
def test_what_is_no_mixture_is_refused(mixture: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"a mixture must be positive weights that sum to 1, but is"):
        data.quotas(mixture)


def test_a_weight_that_no_block_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match=r"weight must be at least 1/1024, but a has 0\.0001; raise it or leave"):
        data.quotas({"a": 0.0001, "b": 0.9999})


@given(st.integers(1, 700), st.integers(1, 3000), st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_every_window_comes_once_in_a_pass(first: int, second: int, seed: int) -> None:
    endless = order({"a": first, "b": second}, seed=seed)
    seen: dict[int, list[int]] = {0: [], 1: []}
    for index in range(4 * BLOCK):
        sample = endless.sample(index)
        seen[sample.stream].append(sample.window)
    for stream, size in enumerate((first, second)):
        passes = [seen[stream][start : start + size] for start in range(0, len(seen[stream]), size)]
        assert all(set(windows) == set(range(size)) for windows in passes[:-1])
        assert len(set(passes[-1])) == len(passes[-1])


def test_every_block_holds_the_mixture() -> None:
    quota = data.quotas({"a": 0.7, "b": 0.3})
    endless = Order(3, tuple(quota.items()), (("a", 50), ("b", 5000)))
    for block in (0, 1, 17):
        counts = Counter(endless.sample(block * BLOCK + place).stream for place in range(BLOCK))
        assert dict(counts) == {0: quota["a"], 1: quota["b"]}


def test_a_sample_does_not_depend_on_what_was_asked_before() -> None:
    forward = [order({"a": 100, "b": 30}).sample(index) for index in range(3000)]
    data._block.cache_clear()
    data._samples.cache_clear()
    again = order({"a": 100, "b": 30})
    assert [again.sample(index) for index in reversed(range(3000))] == forward[::-1]
    assert [order({"a": 100, "b": 30}, seed=2).sample(index) for index in range(3000)] != forward


def test_the_order_is_the_one_of_every_release() -> None:
    """Changing it would change what a resumed training sees."""
    endless = order({"a": 1000, "b": 77})
    assert [(sample.stream, sample.window) for sample in map(endless.sample, (0, 1, 2, 1500, 10**9))] == PINNED


PINNED = [(0, 462), (1, 22), (0, 202), (0, 646), (0, 277)]


@given(st.integers(1, 64), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4]))
def test_any_data_parallel_size_covers_the_same_samples(groups: int, size: int, micro_batch_size: int) -> None:
    samples = [Sample(stream=0, window=number) for number in range(groups * size * micro_batch_size)]
    shares = [
        [
            sample
            for batch in data.share(samples, rank=rank, size=size, micro_batch_size=micro_batch_size)
            for sample in batch
        ]
        for rank in range(size)
    ]
    assert {len(share) for share in shares} == {len(samples) // size}
    assert sorted(sample.window for share in shares for sample in share) == list(range(len(samples)))


@given(st.integers(0, 300), st.integers(2, 40))
def test_each_token_but_the_first_is_predicted_once(length: int, seq_length: int) -> None:
    stream = Counted(length)
    samples = [Sample(stream=0, window=number) for number in range(data.windows(length, seq_length=seq_length))]
    batch = data.read(samples, streams=[stream], seq_length=seq_length)
    assert sorted(batch.labels[batch.mask == 1]) == list(range(1, length))
    assert (batch.labels[batch.mask == 1] == batch.tokens[batch.mask == 1] + 1).all()


def test_padding_counts_nothing() -> None:
    batch = data.read([Sample(stream=0, window=PADDING)], streams=[Counted(100)], seq_length=8)
    assert batch.mask.sum() == 0


class Paired(Counted):
    """Documents of 3 tokens, two to a group, in two languages by turns."""

    def ids(self, start: int, stop: int) -> NDArray[np.int32]:
        documents = np.arange(start, stop, dtype=np.int32) // 3
        return np.stack([documents, documents // 2, documents % 2])


def test_ids_travel_with_the_batch_and_fill_is_a_document_of_its_own() -> None:
    samples = [Sample(stream=0, window=1), Sample(stream=0, window=PADDING)]
    read = {mode: data.read(samples, streams=[Paired(13)], seq_length=8, mode=mode).ids for mode in MODES}
    assert read["causal"] is None
    assert read["xlda"] is not None
    assert read["document"] is not None
    assert read["xlda"].dtype == np.int32
    assert read["xlda"][0].tolist() == [[2, 3, 3, 3, 4, 5, 5, 5], [1, 1, 1, 1, 2, 3, 3, 3], [0, 1, 1, 1, 0, 0, 0, 0]]
    assert read["document"][0].tolist() == [[2, 3, 3, 3, 4, 5, 5, 5]] * 2 + [[0, 1, 1, 1, 0, 0, 0, 0]]
    assert not read["xlda"][1].any()
    alone = data.read_ids(samples, streams=[Paired(13)], seq_length=8, mode="xlda")
    assert alone is not None
    assert np.array_equal(alone, read["xlda"])


MODES: tuple[data.AttentionMask, ...] = ("causal", "document", "xlda")


def test_validation_is_fixed_spread_over_each_stream_and_fills_batches() -> None:
    streams = {"long": Counted(1001), "short": Counted(25), "empty": Counted(0)}
    samples = data.validation(streams, seq_length=10, samples_per_stream=4, batch_size=5)
    assert [(sample.stream, sample.window) for sample in samples] == [
        *((1, 0), (1, 25), (1, 50), (1, 75)),
        *((2, 0), (2, 1), (2, 2)),
        *[(0, PADDING)] * 3,
    ]
    assert samples == data.validation(streams, seq_length=10, samples_per_stream=4, batch_size=5)


def test_something_must_be_held_out() -> None:
    with pytest.raises(ValueError, match="some stream must hold out 2 tokens or more, but none does; raise prepare's"):
        data.validation({"a": Counted(1)}, seq_length=8, samples_per_stream=4, batch_size=2)


def test_a_stream_without_tokens_cannot_be_learned() -> None:
    with pytest.raises(ValueError, match="every stream must have 2 tokens or more, but b has 1; leave it out"):
        data.order({"a": Counted(50), "b": Counted(1)}, mixture={"a": 0.5, "b": 0.5}, seq_length=8, seed=1)


PHASED = {"a": 500, "b": 300, "c": 200}


def phased(boundary: int, then: dict[str, float]) -> Order:
    streams = {name: Counted(size * 4 + 1) for name, size in PHASED.items()}
    return data.order(streams, mixture={"a": 0.6, "b": 0.4}, seq_length=4, seed=3, phases=[(boundary, then)])


@pytest.mark.parametrize("boundary", [1, 700, BLOCK, 2 * BLOCK + 17])
def test_a_later_mixture_goes_on_where_its_streams_were(boundary: int) -> None:
    order, last = phased(boundary, {"b": 0.25, "c": 0.75}), boundary + BLOCK
    samples = [order.sample(index) for index in range(last)]
    plain = data.order(
        {name: Counted(PHASED[name] * 4 + 1) for name in "ab"}, mixture={"a": 0.6, "b": 0.4}, seq_length=4, seed=3
    )
    assert samples[:boundary] == [plain.sample(index) for index in range(boundary)]
    assert Counter(sample.stream for sample in samples[boundary:]) == {1: BLOCK // 4, 2: BLOCK * 3 // 4}
    for stream, size in enumerate(PHASED.values()):  # within one pass over a stream, every window comes once
        windows = [sample.window for sample in samples if sample.stream == stream]
        assert len(set(windows[:size])) == min(size, len(windows))
        assert order.counts(0) == (0, 0, 0)


def test_a_later_mixture_of_the_same_shares_is_drawn_anew() -> None:
    order = phased(BLOCK, {"a": 0.6, "b": 0.4})
    first, second = ([order.sample(start + place).stream for place in range(100)] for start in (0, BLOCK))
    assert first != second


def test_a_mixture_of_streams_that_are_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a mixture must name streams of a, b, c, but names d; correct it"):
        phased(5, {"d": 1.0})

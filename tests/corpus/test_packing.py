"""Packing: no document is cut that fits in a window, nothing is lost, and little is padding."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.packing import Documents, Layout, arrange, best_fit, joined, packed

PAD = 65_535
sizes = st.integers(2, 40)
lengths = st.lists(st.integers(1, 100), max_size=60)


def documents(lengths: list[int], *, items: list[int] | None = None) -> Documents:
    return Documents(
        tokens=np.arange(sum(lengths)).astype(np.uint16),
        lengths=np.array(lengths, np.int64),
        items=None if items is None else np.array(items, np.int64),
    )


def pieces(layout: Layout) -> list[list[int]]:
    ends = layout.offsets[:-1] + layout.lengths
    return [layout.tokens[start:end].tolist() for start, end in zip(layout.offsets, ends, strict=False)]


@given(lengths, sizes)
@settings(deadline=None, max_examples=150)
def test_short_documents_are_whole_and_long_ones_fill_windows(given_lengths: list[int], size: int) -> None:
    layout = packed(documents(given_lengths), size=size, pad_id=PAD)
    assert len(layout.tokens) % size == 0
    begins = np.append(0, np.cumsum(given_lengths)).astype(int).tolist()
    found: dict[int, list[tuple[int, list[int]]]] = {}
    for place, document, piece in zip(layout.offsets.tolist(), layout.documents.tolist(), pieces(layout), strict=False):
        assert place // size == (place + len(piece) - 1) // size
        found.setdefault(document, []).append((place, piece))
    for document, length in enumerate(given_lengths):
        parts = sorted(found[document], key=lambda part: part[1])
        assert [token for _, piece in parts for token in piece] == list(range(begins[document], begins[document + 1]))
        assert [len(piece) for _, piece in parts] == [size] * (length // size) + [length % size] * (length % size > 0)
        assert all(place % size == 0 for place, piece in parts if len(piece) == size)
        full = [place for place, piece in parts if len(piece) == size and length > size]
        assert np.diff(full).tolist() == [size] * (len(full) - 1)
    padding = np.flatnonzero(layout.tokens == PAD)
    assert layout.padding == len(padding) == len(layout.tokens) - sum(given_lengths)
    assert all(place % size == size - 1 or place + 1 in padding for place in padding.tolist())


@given(lengths, sizes)
@settings(deadline=None, max_examples=60)
def test_breaks_are_where_no_model_could_go_on(given_lengths: list[int], size: int) -> None:
    layout = packed(documents(given_lengths), size=size, pad_id=PAD)
    begins = set(np.append(0, np.cumsum(given_lengths)).tolist())
    expected = []
    for place, token, before in zip(range(1, len(layout.tokens)), layout.tokens[1:], layout.tokens[:-1], strict=False):
        goes_on = int(before) + 1 == int(token) or {int(before) + 1, int(token)} <= begins
        if PAD not in (token, before) and not goes_on:
            expected.append(place)
    told = [place for place in layout.breaks.tolist() if place and layout.tokens[place - 1] != PAD]
    assert told == expected
    if given_lengths:  # the next shard begins behind the end of a document
        last = layout.tokens[layout.tokens != PAD][-1] if layout.tokens[-1] != PAD else None
        assert last is None or int(last) + 1 in begins


@given(st.lists(st.integers(1, 4), min_size=1, max_size=15), st.integers(20, 60), st.integers(0, 1 << 20))
@settings(deadline=None, max_examples=60)
def test_what_belongs_together_stays_together(items: list[int], size: int, seed: int) -> None:
    drawn = np.random.default_rng(seed).integers(1, 6, sum(items)).tolist()
    layout = packed(documents(drawn, items=items), size=size, pad_id=PAD)
    order = layout.documents.tolist()
    assert sorted(order) == list(range(len(drawn)))
    first = 0
    for count in items:
        place = order.index(first)
        assert order[place : place + count] == list(range(first, first + count))
        assert layout.offsets[place] // size == (layout.offsets[place + count] - 1) // size
        first += count


@given(st.lists(st.integers(1, 30), max_size=80), st.integers(30, 40))
@settings(deadline=None, max_examples=60)
def test_the_window_with_the_least_room_is_taken(given_lengths: list[int], size: int) -> None:
    descending = sorted(given_lengths, reverse=True)
    rooms: list[int] = []
    for length, bin_ in zip(descending, best_fit(descending, size=size).tolist(), strict=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            assert rooms[bin_] == min(fitting)
        else:
            assert bin_ == len(rooms)
            rooms.append(size)
        rooms[bin_] -= length


def test_windows_keep_the_order_of_the_records() -> None:
    layout = packed(documents([3, 25, 4, 3, 8]), size=10, pad_id=PAD)
    assert layout.documents.tolist() == [0, 3, 1, 1, 1, 2, 4]
    assert layout.lengths.tolist() == [3, 3, 10, 10, 5, 4, 8]
    assert layout.offsets.tolist() == [0, 3, 10, 20, 30, 35, 40, 50]
    assert not len(layout.breaks)
    again = packed(documents([3, 25, 4, 3, 8]), size=10, pad_id=PAD)
    assert np.array_equal(layout.tokens, again.tokens)


def test_documents_one_after_another_are_left_as_they_are() -> None:
    layout = joined(documents([3, 25, 4]))
    assert (layout.padding, layout.offsets.tolist(), len(layout.breaks)) == (0, [0, 3, 28, 32], 0)
    empty = packed(documents([]), size=8, pad_id=PAD)
    assert (len(empty.tokens), empty.offsets.tolist(), empty.padding) == (0, [0], 0)


@pytest.mark.parametrize("size", [2048, 8192])
def test_a_hundred_thousand_documents_are_arranged_quickly_with_little_padding(size: int) -> None:
    drawn = np.clip(np.random.default_rng(0).lognormal(5.5, 1.2, 100_000).astype(np.int64), 1, 60_000)
    started = time.perf_counter()
    found = arrange(drawn, size=size)
    assert time.perf_counter() - started < 5  # 0.1 s where nothing else runs
    assert found.windows * size - drawn.sum() < 0.001 * drawn.sum()

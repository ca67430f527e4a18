"""Packing: which documents share a window, so that none is cut that fits in one (Ding et al. 2024).

By best fit, longest first: a document goes to the window with the least room that still holds it. One that is longer
than a window fills whole windows, and its rest is packed like a document. What stays free is filled with padding.

Windows keep the order of the records as far as that goes: a long document's windows stand side by side, before the one
that holds its rest.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Whole = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Documents as they were read.

    Attributes:
        tokens: of all of them, one after another.
        lengths: of each, its end token included.
        items: how many documents stand side by side in each item that packing moves; None for one in each.
    """

    tokens: NDArray[np.unsignedinteger]
    lengths: Whole
    items: Whole | None = None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Documents as they lie in a shard.

    Attributes:
        tokens: with padding.
        offsets: where every piece begins, and the end: (pieces + 1,).
        lengths: of each piece, without the padding behind it.
        documents: which document each piece is of.
        breaks: tokens that do not follow from the one before, though no document ends there.
    """

    tokens: NDArray[np.unsignedinteger]
    offsets: Whole
    lengths: Whole
    documents: Whole
    breaks: Whole

    @property
    def padding(self) -> int:
        """Tokens of padding."""
        return len(self.tokens) - int(self.lengths.sum())


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """Pieces of items in windows, in order: of which item, from where in it, how long, and where they go."""

    item: Whole
    start: Whole
    length: Whole
    target: Whole
    windows: int


def joined(documents: Documents) -> Layout:
    """Returns the documents one after another, whatever windows will cut."""
    return Layout(
        tokens=documents.tokens,
        offsets=_offsets(documents.lengths),
        lengths=documents.lengths,
        documents=np.arange(len(documents.lengths)),
        breaks=np.empty(0, np.int64),
    )


def packed(documents: Documents, *, size: int, pad_id: int) -> Layout:
    """Returns the documents packed into windows of `size` tokens."""
    begins = _offsets(documents.lengths)
    items = _offsets(documents.items) if documents.items is not None else np.arange(len(begins))
    item_begins = begins[items]
    found = arrange(np.diff(item_begins), size=size)
    source = item_begins[found.item] + found.start
    # Pieces end where an item's piece ends and where a document does.
    order = np.argsort(source, kind="stable")
    starts = np.unique(np.concatenate([source, begins[:-1]]))
    place = order[np.searchsorted(source[order], starts, side="right") - 1]
    target = found.target[place] + starts - source[place]
    lengths = np.diff(np.append(starts, len(documents.tokens)))
    by_target = np.argsort(target, kind="stable")
    starts, lengths, target = starts[by_target], lengths[by_target], target[by_target]
    tokens = np.full(found.windows * size, pad_id, documents.tokens.dtype)
    _move(documents.tokens, tokens, starts=starts, lengths=lengths, target=target)
    return Layout(
        tokens=tokens,
        offsets=np.append(target, len(tokens)),
        lengths=lengths,
        documents=np.searchsorted(begins, starts, side="right") - 1,
        breaks=target[_breaks(starts, starts + lengths, begins=begins)],
    )


def arrange(lengths: Whole, *, size: int) -> Arrangement:
    """Returns where items of `lengths` (1 or more) go, in windows of `size`."""
    whole, rest = lengths // size, lengths % size
    full_item = np.repeat(np.arange(len(lengths)), whole)
    full_part = np.arange(len(full_item)) - np.repeat(np.cumsum(whole) - whole, whole)
    parts = np.flatnonzero(rest)
    parts = parts[np.argsort(-rest[parts], kind="stable")]
    bins = best_fit(rest[parts].tolist(), size=size)
    inside = np.lexsort((parts, whole[parts] == 0, bins))  # the rest of a long one first
    parts, bins = parts[inside], bins[inside]
    first = np.flatnonzero(np.diff(bins, prepend=-1))
    leaders = parts[first]
    windows = np.lexsort((np.append(full_part, whole[leaders]), np.append(full_item, leaders)))
    windows = _ended(windows, full=len(full_item), loose=rest[full_item] > 0)
    rank = np.argsort(windows)
    begins = np.cumsum(rest[parts]) - rest[parts]
    begins -= np.repeat(begins[first], np.diff(np.append(first, len(parts))))
    target = np.concatenate([rank[: len(full_item)] * size, rank[len(full_item) + bins] * size + begins])
    order = np.argsort(target, kind="stable")
    return Arrangement(
        item=np.append(full_item, parts)[order],
        start=np.append(full_part * size, whole[parts] * size)[order],
        length=np.append(np.full(len(full_item), size), rest[parts])[order],
        target=target[order],
        windows=len(windows),
    )


def best_fit(lengths: list[int], *, size: int) -> Whole:
    """Returns the bin of every length (descending, 1 to `size`): the one with the least room that holds it.

    Bins wait by the room they have; one integer holds, as bits, which rooms there are.
    """
    waiting: list[list[int]] = [[] for _ in range(size)]
    rooms = count = 0
    found = []
    for length in lengths:
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            number = waiting[room].pop()
            if not waiting[room]:
                rooms ^= 1 << room
        else:
            number, room, count = count, size, count + 1
        if room > length:
            waiting[room - length].append(number)
            rooms |= 1 << room - length
        found.append(number)
    return np.array(found, np.int64)


def _ended(windows: Whole, *, full: int, loose: NDArray[np.bool_]) -> Whole:
    """Returns the windows in an order whose last one ends with a document: the next shard begins behind it."""
    if not len(windows) or windows[-1] >= full or not loose[windows[-1]]:
        return windows
    last = np.flatnonzero(windows >= full)[-1]  # there is one: it holds the rest
    return np.append(np.delete(windows, last), windows[last])


def _breaks(starts: Whole, stops: Whole, *, begins: Whole) -> NDArray[np.bool_]:
    """Returns which pieces go on from elsewhere, or come after one that goes on elsewhere."""
    begun = np.isin(starts, begins)
    ended = np.append(True, np.isin(stops, begins)[:-1])
    follows = np.append(False, starts[1:] == stops[:-1])
    found: NDArray[np.bool_] = ~follows & ~(begun & ended)
    return found


def _offsets(lengths: Whole) -> Whole:
    return np.append(0, np.cumsum(lengths, dtype=np.int64))


def _move(
    source: NDArray[np.unsignedinteger],
    out: NDArray[np.unsignedinteger],
    *,
    starts: Whole,
    lengths: Whole,
    target: Whole,
) -> None:
    """Copies every piece to its place."""
    for start, length, place in zip(starts.tolist(), lengths.tolist(), target.tolist(), strict=True):
        out[place : place + length] = source[start : start + length]

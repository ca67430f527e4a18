"""How often training meets two languages together: what packing pairs side by side comes to, window by window."""

from collections import defaultdict
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from corpus.mixture import languages
from corpus.shards import Shards


def shares(shards: Shards, *, seq_length: int, attention_mask: str, windows: int = 256) -> dict[str, float]:
    """Returns how often training meets two languages together, from `windows` windows of each stream, by the mixture.

    `bilingual` is the share of windows that hold two languages or more; `ko_after_en` the share of Korean tokens that
    see an English one before them, and so on for each two languages.
    """
    known = {language for name in shards.mixture for language in languages(name)}
    counts: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name, weight in shards.mixture.items():
        stream = shards.stream(name, "train")
        starts = np.unique(np.linspace(0, max(0, len(stream) - seq_length), windows).astype(int))
        for start in starts.tolist():
            ids = stream.ids(start, min(start + seq_length, len(stream)))
            _count(counts, ids, told=languages(name), known=known, mode=attention_mask, weight=weight / len(starts))
    return {key: part / whole for key, (part, whole) in sorted(counts.items()) if whole}


def _count(
    counts: dict[str, list[float]],
    ids: NDArray[np.int32],
    *,
    told: list[str],
    known: set[str],
    mode: str,
    weight: float,
) -> None:
    """Adds one window to (what counts, of what) of every figure."""
    numbers = {language: number for number, language in enumerate(told)}
    counts["bilingual"][0] += weight * (len(np.unique(ids[2])) > 1)
    counts["bilingual"][1] += weight
    for language, other in permutations(sorted(known), 2):
        here = ids[2] == numbers.get(language, -1)
        seen = _seen(ids, ids[2] == numbers.get(other, -1), mode=mode)
        counts[f"{language}_after_{other}"][0] += weight * float((here & seen).sum())
        counts[f"{language}_after_{other}"][1] += weight * float(here.sum())


def _seen(ids: NDArray[np.int32], others: NDArray[np.bool_], *, mode: str) -> NDArray[np.bool_]:
    """Returns for each token whether it sees one of `others` before it."""
    if mode == "document":
        return np.zeros_like(others)
    before = np.cumsum(others) - others
    first = np.zeros(len(others), np.int64) if mode == "causal" else np.searchsorted(ids[1], ids[1])
    seen: NDArray[np.bool_] = before > before[first]
    return seen

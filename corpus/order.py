"""Orders drawn by a key: permutations of any size that are computed, not stored, for many numbers at once.

The same permutation as parallelism/permutation.py, which may not be imported here:
neither package stands on the other. A test holds them equal.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 6
_STEP = 0x632BE59BD9B4E019
_ALL = (1 << 64) - 1


def key(*parts: object) -> int:
    """Returns 64 bits drawn from what the parts say."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8])


def permute(numbers: NDArray[np.int64], *, size: int, key: int) -> NDArray[np.int64]:
    """Returns where a permutation of range(size), drawn by `key`, sends each of `numbers`; no table is made.

    A balanced Feistel network over the next even number of bits, walked until each result is below `size`
    (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
    """
    half = max(1, -(-(size - 1).bit_length() // 2))
    found = _network(numbers.astype(np.uint64), half, key)
    outside = np.flatnonzero(found >= size)
    while len(outside):
        found[outside] = _network(found[outside], half, key)
        outside = outside[found[outside] >= size]
    return found.astype(np.int64)


def _network(numbers: NDArray[np.uint64], half: int, key: int) -> NDArray[np.uint64]:
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = numbers >> shift, numbers & mask
    for turn in range(_ROUNDS):
        mixed = _mix(right + np.uint64((key + turn * _STEP) & _ALL)) & mask
        left, right = right, left ^ mixed
    return left << shift | right


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scrambles 64 bits (the finalizer of SplitMix64, Steele, Lea and Flood 2014)."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ value >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ value >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return value ^ value >> np.uint64(31)

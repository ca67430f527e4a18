"""Permutations of any size that are computed, not stored: where each number goes depends on a key alone."""

import hashlib

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1
_ROUNDS = 6
_FEW = 24  # for fewer, arrays take longer than one after another
_TURN = 0x632BE59BD9B4E019


def permute(number: int, *, size: int, key: int) -> int:
    """Returns where a permutation of range(size), drawn by `key`, sends `number`; no table is made.

    A balanced Feistel network over the next even number of bits, walked until the result is below `size`
    (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
    """
    half = max(1, -(-(size - 1).bit_length() // 2))
    low_bits = (1 << half) - 1
    while True:
        left, right = number >> half, number & low_bits
        for turn in range(_ROUNDS):
            left, right = right, left ^ (mix(key + turn * _TURN + right) & low_bits)
        number = left << half | right
        if number < size:
            return number


def permute_all(numbers: NDArray[np.int64], *, size: int, key: int) -> NDArray[np.int64]:
    """Returns where `permute` sends each of `numbers`, all of them at once."""
    if len(numbers) < _FEW:
        return np.array([permute(number, size=size, key=key) for number in numbers.tolist()], np.int64)
    half = np.uint64(max(1, -(-(size - 1).bit_length() // 2)))
    low_bits = (np.uint64(1) << half) - np.uint64(1)
    keys = [np.uint64((key + turn * _TURN) & _MASK) for turn in range(_ROUNDS)]
    found = numbers.astype(np.uint64)
    walking = np.arange(len(found))
    while len(walking):
        here = found[walking]
        left, right = here >> half, here & low_bits
        for turn_key in keys:
            left, right = right, left ^ (_mix_all(turn_key + right) & low_bits)
        here = left << half | right
        found[walking] = here
        walking = walking[here >= np.uint64(size)]
    return found.astype(np.int64)


def mix(value: int) -> int:
    """Scrambles 64 bits (the finalizer of SplitMix64, Steele, Lea and Flood 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _MASK
    return value ^ value >> 31


def key_of(*parts: object) -> int:
    """Returns 64 bits drawn for what the parts name."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8])


def _mix_all(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)

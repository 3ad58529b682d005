"""Random numbers without a generator to carry along: number `counter` of a stream is computed on its own.

Whatever is drawn for sample i then depends on the key and i alone, for any batch, any rank and after any resume, and
whole batches are drawn at once. splitmix64 (Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom Number
Generators", figure 17), whose state is a counter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

MASK_64 = 2**64 - 1

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
_LAST = np.uint64(31)
_HALF = np.uint64(32)


def draw(key: int | Words, counters: NDArray[Any]) -> Words:
    """Numbers `counters` (integers ≥ 0 of any shape) of the streams that `key` names, uniform over 64 bits.

    An array of keys is broadcast against the counters; streams of unrelated keys are unrelated. An int counts modulo
    2**64. Numbers drawn with one key are good keys themselves.
    """
    keys = np.uint64(key & MASK_64) if isinstance(key, int) else key
    words = np.asarray(keys + (counters.astype(np.uint64) + np.uint64(1)) * _STEP)
    for shift, factor in _MIX:
        words ^= words >> shift
        words *= factor
    words ^= words >> _LAST
    return words


def below(words: Words, probability: float) -> NDArray[np.bool_]:
    """True with this probability (0 to 1) for each of some drawn numbers."""
    return words < np.uint64(min(int(probability * 2**64), MASK_64))


def fractions(words: Words) -> NDArray[np.floating]:
    """Drawn numbers as uniform in [0, 1)."""
    return (words >> np.uint64(11)) * 2.0**-53


def choices(words: Words, size: int) -> NDArray[np.int64]:
    """Drawn numbers as uniform in range(size), for a size below 2**32 (to within size / 2**32, relatively)."""
    return ((words >> _HALF) * np.uint64(size) >> _HALF).astype(np.int64)

"""MinHash signatures (Broder 1997): minima of a text's hashed n-grams under many permutations, and their bands.

The share of equal minima of two texts estimates the Jaccard similarity of their sets of n-grams. Minima are cut into
bands; texts that agree in all rows of any band are candidates (locality-sensitive hashing, Indyk and Motwani 1998).
Permutations are x → a·x + b mod 2^64 with odd a, over hashes that are well mixed already.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.corpus.comparisons.units import hash_units, mix, power
from firstlight.corpus.compiled import compiled

NGRAM_BASE = np.uint64(0xD6E8FEB86659FD93)
"""An n-gram of units is hashed as a polynomial in this number, so that the next one costs two multiplications."""


def permutations(count: int, seed: int) -> NDArray[np.uint64]:
    """[2, count] factors and addends, from the seed alone: splitmix64, whatever the version of NumPy."""
    numbers = np.empty((2, count), dtype=np.uint64)
    state = seed
    for index in range(2 * count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        numbers.flat[index] = mix(np.uint64(state))
    numbers[0] |= np.uint64(1)
    return numbers


@compiled
def hash_ngrams(units: Any, count: int, ngram: int, grams: Any) -> int:
    """Write the hashes of all runs of `ngram` of the first `count` units into `grams`; returns how many there are.

    Fewer units than `ngram` are one n-gram; no unit is none. grams: uint64, with room for `count`.
    """
    size = min(ngram, count)
    if size == 0:
        return 0
    gone = power(NGRAM_BASE, size)
    rolling = np.uint64(0)
    for place in range(size):
        rolling = rolling * NGRAM_BASE + units[place]
    grams[0] = mix(rolling)
    for place in range(size, count):
        rolling = rolling * NGRAM_BASE + units[place] - units[place - size] * gone
        grams[place - size + 1] = mix(rolling)
    return count - size + 1


@compiled
def signatures(data: Any, offsets: Any, table: Any, ngram: int, permutations: Any) -> Any:
    """Minima of every text: [texts, permutations] uint64; and the n-grams of each: [texts] int64, 0 for none.

    data, offsets: texts in UTF-8, as `Block.utf8` has them.
    """
    texts, hashes = len(offsets) - 1, permutations.shape[1]
    minima = np.full((texts, hashes), np.uint64(0xFFFFFFFFFFFFFFFF))
    counts = np.zeros(texts, dtype=np.int64)
    longest = 0
    for text in range(texts):
        longest = max(longest, offsets[text + 1] - offsets[text])
    units = np.empty(longest, dtype=np.uint64)
    grams = np.empty(longest, dtype=np.uint64)
    for text in range(texts):
        count = hash_units(data, offsets[text], offsets[text + 1], table, units)
        count = hash_ngrams(units, count, ngram, grams)
        counts[text] = count
        for number in range(hashes):
            factor, addend = permutations[0, number], permutations[1, number]
            lowest = np.uint64(0xFFFFFFFFFFFFFFFF)
            for place in range(count):
                lowest = min(lowest, grams[place] * factor + addend)
            minima[text, number] = lowest
    return minima, counts


@compiled
def band_keys(minima: Any, bands: int, rows: int) -> Any:
    """One 64-bit key for each band of each signature: [bands, texts] int64; bands have different keys.

    minima: [texts, bands · rows]. Among 10^10 documents about 3 pairs share a key of a band by chance.
    """
    texts = minima.shape[0]
    keys = np.empty((bands, texts), dtype=np.int64)
    for band in range(bands):
        for text in range(texts):
            key = mix(np.uint64(band + 1))
            for row in range(rows):
                key = mix(key * NGRAM_BASE + minima[text, band * rows + row])
            keys[band, text] = np.int64(key)
    return keys

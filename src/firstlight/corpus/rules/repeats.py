"""Repeats within one text: paragraphs and lines that stood before, n-grams of words that stood before or are commonest.

Pieces are compared by 64-bit hashes, in a table of indices that is made anew for every text and every n.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from firstlight.corpus.comparisons.minhash import hash_ngrams
from firstlight.corpus.comparisons.units import mix
from firstlight.corpus.compiled import compiled, inlined
from firstlight.corpus.rules.characters import count_characters

_FREE = np.uint32(0xFFFFFFFF)
_PRIME = np.uint64(0x9FB21C651E98DF25)
_LINE_FEED = 10


@compiled
def table_for(count: int) -> Any:
    """An empty table for so many hashes, half full at most."""
    size = 16
    while size < 2 * count:
        size *= 2
    return np.full(size, _FREE, dtype=np.uint32)


@inlined
def slot_of(table: Any, hashes: Any, value: Any) -> Any:
    """The slot of a hash: where the index of an equal one stands (`hashes[table[slot]]`), or where it would."""
    last = np.uint64(len(table) - 1)
    slot = (value >> np.uint64(20)) & last
    while table[slot] != _FREE and hashes[table[slot]] != value:
        slot = (slot + np.uint64(1)) & last
    return slot


@inlined
def stood_before(table: Any, hashes: Any, number: int, value: Any) -> bool:
    """Whether a hash is in the table; if not, it is put there as `hashes[number]`."""
    slot = slot_of(table, hashes, value)
    if table[slot] != _FREE:
        return True
    hashes[number] = value
    table[slot] = number
    return False


@compiled
def hash_bytes(data: Any, start: int, end: int) -> Any:
    """Hash of data[start:end]."""
    value = np.uint64(end - start)
    place = start
    while place + 8 <= end:
        eight = np.uint64(0)
        for offset in range(8):
            eight |= np.uint64(data[place + offset]) << np.uint64(8 * offset)
        value = (value ^ eight) * _PRIME
        value ^= value >> np.uint64(29)
        place += 8
    while place < end:
        value = (value ^ np.uint64(data[place])) * _PRIME
        place += 1
    return mix(value)


@compiled
def count_byte(data: Any, start: int, end: int, byte: int) -> int:
    """How often a byte stands in data[start:end]."""
    count = 0
    for place in range(start, end):
        count += data[place] == byte
    return count


@compiled
def repeated_pieces(data: Any, start: int, end: int, newlines: int) -> Any:
    """(pieces, pieces that stood before, their characters) of data[start:end].

    Pieces are parted by runs of `newlines` line feeds or more; one at either end of the text parts an empty piece.
    """
    room = count_byte(data, start, end, _LINE_FEED) + 1
    table, hashes = table_for(room), np.empty(room, dtype=np.uint64)
    pieces = repeated = characters = 0
    piece = place = start
    while place <= end:
        after = place
        while after < end and data[after] == _LINE_FEED:
            after += 1
        if place == end or after - place >= newlines:
            if stood_before(table, hashes, pieces - repeated, hash_bytes(data, piece, place)):
                repeated += 1
                characters += count_characters(data, piece, place)
            pieces += 1
            piece = after
            if place == end:
                break
            if after == end:  # what follows the last run is one more, empty piece
                place = end
                continue
        place = max(after, place + 1)
    return pieces, repeated, characters


@compiled
def top_ngram_characters(hashes: Any, characters: Any, ngram: int) -> int:
    """Characters of the commonest n words in a row (spaces between them counted), times how often they stand there.

    hashes, characters: of the words of one text, at least `ngram` of them. Of several that are commonest, the first.
    """
    words = len(hashes)
    grams = np.empty(words, dtype=np.uint64)
    count = hash_ngrams(hashes, words, ngram, grams)
    table = table_for(count)
    times = np.zeros(len(table), dtype=np.uint32)
    most, first = np.uint32(0), 0
    for place in range(count):
        slot = slot_of(table, grams, grams[place])
        if table[slot] == _FREE:
            table[slot] = place
        times[slot] += np.uint32(1)
        if times[slot] > most or (times[slot] == most and table[slot] < first):
            most, first = times[slot], table[slot]
    length = ngram - 1
    for place in range(first, first + ngram):
        length += characters[place]
    return int(length * most)


@compiled
def repeated_ngram_characters(terms: Any, fronts: Any, characters: Any, ngram: int) -> int:
    """Characters of n words in a row whose letters, joined, stood before; such words are passed over together.

    terms, fronts, characters: of the words of one text (see `Words`).
    """
    words = len(terms)
    count = words - ngram + 1
    if count < 2:
        return 0
    table, hashes = table_for(count), np.empty(count, dtype=np.uint64)
    repeated = number = place = 0
    total = np.uint64(0)
    for word in range(ngram):
        total += terms[word]
    while True:
        if stood_before(table, hashes, number, mix(total * fronts[place])):
            for word in range(place, place + ngram):
                repeated += characters[word]
            step = ngram
        else:
            number += 1
            step = 1
        if place + step >= count:
            return repeated
        for word in range(place, place + step):
            total += terms[word + ngram] - terms[word]
        place += step

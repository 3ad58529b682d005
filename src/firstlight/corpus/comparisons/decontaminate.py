"""Overlap with evaluation sets: documents that share n words in a row with an example are dropped.

Words are those of the near-duplicates, but numbers keep their digits. GPT-3 (Brown et al. 2020, appendix C) looked for
13 words in a row, and left out examples that are shorter than 8. N-grams are compared by 64-bit hash: with 10^7 n-grams
of evaluation sets, one in 2·10^12 n-grams of a corpus is taken for an overlap that is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.config.duplicates import Decontaminate
from firstlight.corpus.comparisons.minhash import NGRAM_BASE
from firstlight.corpus.comparisons.units import character_table, hash_units, mix, power
from firstlight.corpus.compiled import compiled
from firstlight.corpus.step import Block, Result
from firstlight.documents import BadLine, Document, expand_inputs, read_documents
from firstlight.documents.read import input_kind
from firstlight.documents.tables import NoTextColumn
from firstlight.support.console import note
from firstlight.support.errors import ConfigError, DataError

_FILTER_BITS_PER_NGRAM = 32
_MAX_FILTER_BITS = 1 << 28


class DecontaminateStep:
    """N-grams of evaluation sets, read once, and the documents that hold one of them."""

    def __init__(self, config: Decontaminate) -> None:
        """Read the sets. DataError when one cannot be read whole or holds no text; ConfigError for the lengths."""
        if config.min_ngram > config.ngram:
            raise ConfigError(
                f"decontaminate: min_ngram ({config.min_ngram}) is larger than ngram ({config.ngram}); examples "
                "between the two are looked for as a whole."
            )
        self.config = config
        self._table = character_table(False)
        lengths: set[int] = set()
        hashes: list[NDArray[np.uint64]] = []
        sets: list[NDArray[np.uint64]] = []
        for number, (name, patterns) in enumerate(config.against.items()):
            texts = _read_set(name, patterns, config.fields)
            ngrams = [found for text in texts if (found := self._ngrams_of(text)) is not None]
            short = len(texts) - len(ngrams)
            if not ngrams:
                raise DataError(
                    f"decontaminate: all {short:,} texts of '{name}' have fewer than {config.min_ngram} words; lower "
                    "min_ngram, or name the fields that hold longer texts."
                )
            if short:
                note(
                    f"decontaminate: {short:,} of {len(texts):,} texts of '{name}' have fewer than {config.min_ngram} "
                    "words (min_ngram) and are not looked for."
                )
            lengths.update(length for length, _ in ngrams)
            hashes.append(np.unique(np.concatenate([keys for _, keys in ngrams])))
            sets.append(np.full(len(hashes[-1]), 1 << number, dtype=np.uint64))
        self._lengths = np.array(sorted(lengths), dtype=np.int64)
        self._keys, self._sets, self._filter = _lookup(np.concatenate(hashes), np.concatenate(sets))

    def _ngrams_of(self, text: str) -> tuple[int, NDArray[np.uint64]] | None:
        """Length and hashes of the n-grams of an example; None when it is too short to be looked for."""
        data = np.frombuffer(text.encode("utf-8"), dtype=np.uint8)
        units = np.empty(len(data), dtype=np.uint64)
        count = hash_units(data, 0, len(data), self._table, units)
        if count < self.config.min_ngram:
            return None
        length = min(count, self.config.ngram)
        return length, _ngrams(units[:count], length)

    def apply(self, block: Block) -> Result:
        """Drop documents by overlap; counts of documents with overlaps by set, also of those that stay."""
        data, offsets = block.utf8()
        masks, shares = _overlaps(data, offsets, self._table, self._lengths, self._keys, self._sets, self._filter)
        reasons: list[str | None] = [None] * len(block)
        counts: dict[str, int] = {}
        names = list(self.config.against)
        for place in np.flatnonzero(masks):
            hit = [name for number, name in enumerate(names) if int(masks[place]) >> number & 1]
            for name in hit:
                counts[f"set {name}"] = counts.get(f"set {name}", 0) + 1
            if shares[place] > self.config.max_share:
                reasons[place] = f"overlaps with {hit[0]}"
        return Result(reasons, counts=counts)


def _read_set(name: str, patterns: Sequence[str], fields: Sequence[str]) -> list[str]:
    """The texts of an evaluation set: of each example every field that is there."""
    texts: list[str] = []
    for path in expand_inputs(patterns):
        bad: dict[int, BadLine] | None = None
        missing: list[NoTextColumn] = []
        for field in fields if input_kind(path) != "text" else ("text",):
            wrong = {}
            try:
                for item in read_documents(path, text_field=field):
                    if isinstance(item, Document):
                        texts.append(item.text)
                    elif isinstance(item, BadLine):
                        wrong[item.line] = item
            except NoTextColumn as problem:
                missing.append(problem)
                if len(missing) == len(fields):
                    raise
                continue
            bad = wrong if bad is None else {line: item for line, item in bad.items() if line in wrong}
        for item in (bad or {}).values():
            raise DataError(
                f"{item.path}, line {item.line}: an example of evaluation set '{name}' cannot be read "
                f"({item.reason}); decontaminate looks for its text in the fields {', '.join(fields)}."
            )
    if not texts:
        raise DataError(f"decontaminate: evaluation set '{name}' holds no text.")
    return texts


@compiled
def _ngrams(units: Any, length: int) -> Any:
    """Hashes of all runs of `length` units: [units - length + 1] uint64, none of them 0."""
    hashes = np.empty(len(units) - length + 1, dtype=np.uint64)
    gone = power(NGRAM_BASE, length)
    rolling = np.uint64(0)
    for place in range(len(units)):
        rolling = rolling * NGRAM_BASE + units[place]
        if place >= length:
            rolling -= units[place - length] * gone
        if place >= length - 1:
            hashes[place - length + 1] = _key(rolling, length)
    return hashes


@compiled
def _key(rolling: Any, length: int) -> Any:
    return mix(rolling + np.uint64(length)) | np.uint64(1)


@compiled
def _fill(hashes: Any, values: Any, keys: Any, sets: Any, bits: Any) -> None:
    slots, places = np.uint64(len(keys) - 1), np.uint64(len(bits) * 64 - 1)
    for number in range(len(hashes)):
        key = hashes[number]
        slot = (key >> np.uint64(20)) & slots
        while keys[slot] != 0 and keys[slot] != key:
            slot = (slot + np.uint64(1)) & slots
        keys[slot] = key
        sets[slot] |= values[number]
        place = (key >> np.uint64(1)) & places
        bits[place >> np.uint64(6)] |= np.uint64(1) << (place & np.uint64(63))


def _lookup(hashes: NDArray[np.uint64], values: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], ...]:
    """Open-addressing table of keys (0: free) and sets, half full at most, and a bitmap that rules most words out."""
    size = 1 << max(4, int(2 * len(hashes)).bit_length())
    wanted = min(_FILTER_BITS_PER_NGRAM * len(hashes), _MAX_FILTER_BITS)
    bits = np.zeros(max(1, (1 << wanted.bit_length()) // 64), dtype=np.uint64)
    keys, sets = np.zeros(size, dtype=np.uint64), np.zeros(size, dtype=np.uint64)
    _fill(hashes, values, keys, sets, bits)
    return keys, sets, bits


@compiled
def _overlaps(data: Any, offsets: Any, table: Any, lengths: Any, keys: Any, sets: Any, bits: Any) -> Any:
    """Sets that each text overlaps with (bit mask), and the share of its units that lies in overlaps: [texts] each."""
    texts = len(offsets) - 1
    masks = np.zeros(texts, dtype=np.uint64)
    shares = np.zeros(texts, dtype=np.float64)
    longest = 0
    for text in range(texts):
        longest = max(longest, offsets[text + 1] - offsets[text])
    units = np.empty(longest, dtype=np.uint64)
    covered = np.zeros(longest, dtype=np.bool_)
    slots, places = np.uint64(len(keys) - 1), np.uint64(len(bits) * 64 - 1)
    for text in range(texts):
        count = hash_units(data, offsets[text], offsets[text + 1], table, units)
        for length in lengths:
            gone = power(NGRAM_BASE, length)
            rolling = np.uint64(0)
            for place in range(count):
                rolling = rolling * NGRAM_BASE + units[place]
                if place >= length:
                    rolling -= units[place - length] * gone
                if place < length - 1:
                    continue
                key = _key(rolling, length)
                bit = (key >> np.uint64(1)) & places
                if not (bits[bit >> np.uint64(6)] >> (bit & np.uint64(63))) & np.uint64(1):
                    continue
                slot = (key >> np.uint64(20)) & slots
                while keys[slot] != 0 and keys[slot] != key:
                    slot = (slot + np.uint64(1)) & slots
                if keys[slot] == key:
                    masks[text] |= sets[slot]
                    covered[place - length + 1 : place + 1] = True
        if masks[text]:
            shares[text] = covered[:count].sum() / count
            covered[:count] = False
    return masks, shares

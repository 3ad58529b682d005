"""Megatron-LM's order of one source: documents shuffled, cut into samples every `length` tokens, samples shuffled.

All passes over a source are shuffled together; only where the last one is needed for less than 80 % of its samples is
it shuffled apart and read at the end. Three arrays say it all, and one generator fills them in this order: documents
(of the last pass too), samples (no draw), shuffle (of the last pass too). Source: `gpt_dataset.py` and
`build_sample_idx` of `helpers.cpp`, megatron-core 0.16.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight.support.errors import ConfigError, DataError

APART_BELOW = 0.80
"""Share of a pass's samples below which the last pass is shuffled apart."""
MOST_ELEMENTS = 2**31 - 1
"""Sequences that an int32 can number."""
_AT_ONCE = 1 << 22
"""Sequences whose ends are held at a time."""


@dataclass(frozen=True)
class Passes:
    """How often a source is gone over."""

    tokens: int
    """Of one pass."""
    length: int
    """Tokens from one sample to the next; a sample has one more."""
    passes: int
    last_apart: bool
    """Whether the last pass is shuffled by itself."""

    @property
    def samples(self) -> int:
        """Whole samples of all passes, laid end to end."""
        return (self.passes * self.tokens - 1) // self.length

    @property
    def samples_together(self) -> int:
        """Samples that are shuffled together, from the first on."""
        passes = self.passes - self.last_apart
        return (passes * self.tokens - 1) // self.length


class Order(NamedTuple):
    """The arrays, as Megatron-LM keeps them but for sequences, which are numbered from the first of the split."""

    document_index: NDArray[np.int32]
    """[passes × sequences]: the sequences in the order in which they are laid end to end."""
    sample_index: NDArray[Any]
    """[samples + 1, 2]: where each sample begins: place in `document_index`, and token in that sequence."""
    shuffle_index: NDArray[Any]
    """[samples]: the samples in the order in which they are read."""


def passes_of(tokens: int, length: int, requested: int | None) -> Passes:
    """The fewest passes over `tokens` tokens that give `requested` samples (None: one pass) and a last target."""
    if requested is None:
        return Passes(tokens, length, 1, False)
    passes = max(1, -(-(requested * length + 1) // tokens))
    before = ((passes - 1) * tokens - 1) // length
    last_apart = passes > 1 and requested - before < int(APART_BELOW * ((tokens - 1) // length))
    return Passes(tokens, length, passes, last_apart)


def build_order(lengths: NDArray[np.int32], plan: Passes, seed: int) -> Order:
    """The arrays of a source with sequences of `lengths` tokens.

    They take 4 bytes × passes × sequences and 12 bytes × samples of memory, beside the lengths: for a pass over a
    trillion tokens in a billion sequences, cut every 4,096, that is 7 GB. Raises ConfigError for a seed that numpy's
    `RandomState` does not take, DataError for lengths that are not those of the plan.
    """
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed is {seed}; data.order megatron takes one from 0 to {2**32 - 1}.")
    if len(lengths) > MOST_ELEMENTS:
        raise DataError(f"{len(lengths):,} sequences; data.order megatron numbers {MOST_ELEMENTS:,} at most.")
    found = int(np.sum(lengths, dtype=np.int64))
    if found != plan.tokens or np.min(lengths) < 0:
        raise DataError(
            f"the lengths of {len(lengths):,} sequences sum to {found:,} tokens, but there are {plan.tokens:,}; the "
            "index is damaged, or its sequences do not follow each other (firstlight verify PREFIX names the place)."
        )
    draw = np.random.RandomState(seed)
    together = plan.passes - plan.last_apart
    documents = np.tile(np.arange(len(lengths), dtype=np.int32), plan.passes)
    draw.shuffle(documents[: together * len(lengths)])
    if plan.last_apart:
        draw.shuffle(documents[together * len(lengths) :])
    samples = _cut(lengths, documents, plan)
    count = plan.samples
    shuffled = np.arange(count, dtype=np.int64 if count >= np.iinfo(np.uint32).max - 1 else np.uint32)
    draw.shuffle(shuffled[: plan.samples_together])
    if plan.last_apart:
        draw.shuffle(shuffled[plan.samples_together :])
    return Order(documents, samples, shuffled)


def _cut(lengths: NDArray[np.int32], documents: NDArray[np.int32], plan: Passes) -> NDArray[Any]:
    """Where each sample begins: number k at token k × length of the documents end to end; and where the last ends.

    That token is in the first document that ends after it; documents without tokens are none of them.
    """
    small = max(len(documents), int(np.max(lengths))) <= MOST_ELEMENTS
    index = np.empty((plan.samples + 1, 2), np.int32 if small else np.int64)
    placed = end = 0
    for first in range(0, len(documents), _AT_ONCE):
        sizes = lengths[documents[first : first + _AT_ONCE]]
        ends = np.cumsum(sizes, dtype=np.int64) + end
        end = int(ends[-1])
        beyond = min(plan.samples, (end - 1) // plan.length) + 1
        tokens = np.arange(placed, beyond, dtype=np.int64) * plan.length
        place = np.searchsorted(ends, tokens, "right")
        index[placed:beyond, 0] = first + place
        index[placed:beyond, 1] = tokens - ends[place] + sizes[place]
        placed = beyond
    index[0] = 0
    return index

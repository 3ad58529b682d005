"""Dropout without a generator: each mask is computed from the sample's key, so it is the same wherever it is needed.

Srivastava et al. 2014 (JMLR 15, section 10), with what stays scaled by 1 / (1 - p). Whether a number is dropped is a
function of (key of its row, block and place, position in the row, channel; for attention head, query and key), never
of a generator's state: any rank, micro-batch, shard or recomputation draws the same, and nothing has to be saved.
Keys and counters become 64-bit words by the mixing function of splitmix64 (see `firstlight.tokens.draws`); a row of
numbers then comes from its word by one of 32 bits, which is cheap on any device and fuses when compiled.

Products of mixed words are meant to wrap around; those of counters must not, for a C++ compiler takes a counter in a
loop that overflows as proof that the loop is shorter. So counters are only ever joined by exclusive or.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

PLACES = 3
ATTENTION_WEIGHTS, ATTENTION_OUTPUT, FEED_FORWARD = range(PLACES)
"""Where a block drops something."""
EMBEDDING = 0
"""The same before the first block, which has draws of its own."""

_LOW = 0xFFFFFFFF


def _signed(number: int, bits: int) -> int:
    """A constant of so many bits as PyTorch's signed integers hold it."""
    return number - (1 << bits) if number >> (bits - 1) else number


_MIX_64 = ((30, _signed(0xBF58476D1CE4E5B9, 64)), (27, _signed(0x94D049BB133111EB, 64)))
_MIX_32 = ((16, 0x7FEB352D), (15, _signed(0x846CA68B, 32)))
"""Shifts and factors of Wellons, "Prospecting for Hash Functions" (nullprogram.com/blog/2018/07/31), lowbias32."""


class Draws(NamedTuple):
    """What a block's dropout is drawn from."""

    keys: Tensor
    """Of the places of this block and the rows: [PLACES, batch] int64."""
    places: Tensor
    """Positions in the whole rows of the columns that hidden states have here: [columns] int64."""
    queries: Tensor
    """Those of attention's queries, which are more where ranks share the hidden states: [columns] int64."""


class DroppedWeights(NamedTuple):
    """Dropout of attention weights, as `attend` is given it."""

    probability: float
    words: Tensor
    """[batch, heads, queries] int64."""

    def rows(self, part: slice) -> DroppedWeights:
        """That of some of the queries."""
        return DroppedWeights(self.probability, self.words[:, :, part])

    def __call__(self, weights: Tensor) -> Tensor:
        """weights: [batch, heads, queries, keys], keys at positions 0 … → the same, some of them 0, not yet scaled."""
        return weights.masked_fill(_below(self.words, weights.shape[-1], self.probability), 0)

    @property
    def scale(self) -> float:
        """What the weights, or any sum of them, are to be multiplied by."""
        return 1 / (1 - self.probability)


def draws_of_blocks(keys: Tensor, count: int, places: Tensor, queries: Tensor) -> list[Draws]:
    """Those of the embedding and of count - 1 blocks, from what rows are drawn from: keys [batch] int64."""
    numbers = torch.arange(count * PLACES, device=keys.device).view(count, PLACES, 1)
    return [Draws(own, places, queries) for own in derive(keys, numbers).unbind(0)]


def derive(keys: Tensor, counters: Tensor) -> Tensor:
    """Word `counters` of the streams that `keys` name, uniform over 64 bits, broadcast: int64. Words are good keys."""
    words = keys ^ counters
    for shift, factor in _MIX_64:
        words = _folded(words, shift, 64) * factor
    return _folded(words, 31, 64)


def drop_hidden(hidden: Tensor, draws: Draws | None, place: int, probability: float) -> Tensor:
    """Drop numbers of `hidden` [batch, columns, channels], which keeps its type; without draws, none."""
    if draws is None or not probability:
        return hidden
    words = derive(draws.keys[place][:, None], draws.places)
    return hidden.masked_fill(_below(words, hidden.shape[-1], probability), 0) * (1 / (1 - probability))


def dropped_weights(draws: Draws | None, first_head: int, heads: int, probability: float) -> DroppedWeights | None:
    """What to drop of the attention weights of `heads` heads from `first_head` on; None: nothing."""
    if draws is None or not probability:
        return None
    numbers = torch.arange(first_head, first_head + heads, device=draws.keys.device)
    words = derive(draws.keys[ATTENTION_WEIGHTS][:, None], numbers)
    return DroppedWeights(probability, derive(words[:, :, None], draws.queries))


def _below(words: Tensor, count: int, probability: float) -> Tensor:
    """[…] int64 → […, count] bool, true with `probability`, to within 2**-32."""
    first = (((words & _LOW) ^ (1 << 31)) - (1 << 31)).to(torch.int32)[..., None]
    second = (words >> 32).to(torch.int32)[..., None]
    drawn = first ^ torch.arange(count, device=words.device, dtype=torch.int32)
    drawn = _folded(drawn, _MIX_32[0][0], 32) * _MIX_32[0][1] ^ second
    drawn = _folded(drawn, _MIX_32[1][0], 32) * _MIX_32[1][1]
    return drawn < min(round(probability * 2**32) - 2**31, 2**31 - 1)


def _folded(words: Tensor, shift: int, bits: int) -> Tensor:
    """words ^ (words >> shift), the sign taken as a bit like any other."""
    return words ^ ((words >> shift) & ((1 << (bits - shift)) - 1))

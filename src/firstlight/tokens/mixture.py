"""Which source each training sample comes from: a pure function of the weights, the seed and the sample's position.

The stream is cut into blocks. After every block each source has been drawn as often as its weight says, to within one
sample; inside a block the order is a keyed permutation. Nothing is drawn at random and nothing is remembered, so any
position can be asked for on its own. All counts are exact whole numbers: weights are read as the decimals that the
recipe shows, and the remainders go to the largest fractions (Hamilton's method of apportionment).
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from firstlight.config import DataConfig
from firstlight.support.errors import ConfigError, did_you_mean
from firstlight.tokens.permutation import derive_key, permute

MAX_BLOCK_SIZE = 2**22

_CACHED_BLOCKS = 4


@dataclass(frozen=True)
class Stage:
    """From sample `first_sample` on, draw by these shares (exact, above 0, sum 1)."""

    first_sample: int
    shares: Mapping[str, Fraction]


def shares(weights: Mapping[str, float | int | Fraction], where: str = "mixture") -> dict[str, Fraction]:
    """Weights as exact fractions that sum to 1; a float counts as the decimal it prints as (0.1 is one tenth).

    Raises ConfigError, with `where` as the field's name, when there is no weight or one is not above 0 and finite.
    """
    if not weights:
        raise ConfigError(f"{where} is empty; give at least one source a weight above 0.")
    exact = {}
    for source, weight in weights.items():
        if not 0 < weight < math.inf:
            raise ConfigError(f"{where}.{source} is {weight}; a weight is above 0 (leave the source out instead).")
        exact[source] = Fraction(repr(float(weight))) if isinstance(weight, float) else Fraction(weight)
    total = sum(exact.values())
    return {source: weight / total for source, weight in exact.items()}


def apportion(weights: Mapping[str, Fraction], total: int) -> dict[str, int]:
    """`total` divided by exact shares that sum to 1 (see `shares`): whole numbers that sum to `total`.

    Each is within one of its share: floors, and what is left goes one each to the largest fractions (Hamilton's
    method; ties: alphabetical).
    """
    denominator = math.lcm(*(share.denominator for share in weights.values()))
    sources = sorted(weights)
    counts = _apportioned([int(weights[source] * denominator) for source in sources], denominator, total)
    return dict(zip(sources, counts, strict=True))


def _apportioned(weights: Sequence[int], denominator: int, total: int) -> list[int]:
    """`total` divided in proportion to `weights`, which sum to `denominator`; ties go to the first."""
    counts, fractions = [], []
    for weight in weights:
        whole, fraction = divmod(weight * total, denominator)
        counts.append(whole)
        fractions.append(fraction)
    by_fraction = sorted(range(len(counts)), key=lambda source: -fractions[source])
    for source in by_fraction[: total - sum(counts)]:
        counts[source] += 1
    return counts


def stages_of(data: DataConfig, num_tokens: Mapping[str, int]) -> list[Stage]:
    """The mixture and its later stages as a recipe gives them; `num_tokens` are the training tokens by source.

    An empty mixture is in proportion to tokens. A stage begins at the first whole sample at or after its
    `start_tokens`. Raises ConfigError for a weight that is not above 0, a source without tokens, and stages that do
    not follow each other.
    """
    stages: list[Stage] = []
    for where, start_tokens, weights in _fields(data):
        for source in weights:
            if source not in num_tokens:
                raise ConfigError(f"{where} names '{source}', which has no tokens.{did_you_mean(source, num_tokens)}")
        first_sample = -(-start_tokens // data.sequence_length)
        if stages and first_sample <= stages[-1].first_sample:
            raise ConfigError(
                f"{where} starts at {start_tokens:,} tokens = sample {first_sample:,}, not after the stage before it "
                f"(sample {stages[-1].first_sample:,}); stages need rising start_tokens, "
                f"a sample of {data.sequence_length} tokens apart at least."
            )
        stages.append(Stage(first_sample, shares(weights or num_tokens, where)))
    return stages


def mixture_notes(data: DataConfig, mixture: Mixture, num_tokens: Mapping[str, int]) -> list[str]:
    """What the recipe left to be derived, one sentence each, for the caller to print."""
    notes = weight_notes(data, mixture.stages, num_tokens)
    if mixture.block_size != data.mixture_block_size:
        share, source = min((share, source) for stage in mixture.stages for source, share in stage.shares.items())
        notes.append(
            f"data.mixture_block_size was raised from {data.mixture_block_size} to {mixture.block_size}, "
            f"so that a block holds at least one sample of '{source}' (share {float(share):.2g})."
        )
    return notes


def weight_notes(data: DataConfig, stages: Sequence[Stage], num_tokens: Mapping[str, int]) -> list[str]:
    """What of the weights was derived, one sentence each; true of any order of samples."""
    notes = []
    for (where, start_tokens, weights), stage in zip(_fields(data), stages, strict=True):
        shown = ", ".join(f"{source} {float(share):.4g}" for source, share in stage.shares.items())
        total = sum(Fraction(repr(float(weight))) for weight in weights.values())
        if not weights:
            notes.append(f"{where} is empty: sources are drawn in proportion to their tokens: {shown}.")
        elif total != 1:
            notes.append(f"{where}: the weights sum to {float(total):.6g} and were normalised: {shown}.")
        if start_tokens % data.sequence_length:
            begins = stage.first_sample * data.sequence_length
            notes.append(f"{where} starts at {begins:,} tokens, the first whole sample after {start_tokens:,}.")
    idle = sorted(set(num_tokens) - {source for stage in stages for source in stage.shares})
    if idle:
        notes.append(f"No mixture gives a weight to {', '.join(idle)}; training does not read it.")
    return notes


def _fields(data: DataConfig) -> Iterator[tuple[str, int, Mapping[str, float]]]:
    """Field name, first token and weights of the mixture and of every later stage."""
    yield "data.mixture", 0, data.mixture
    for number, stage in enumerate(data.mixture_stages):
        yield f"data.mixture_stages[{number}].mixture", stage.start_tokens, stage.mixture


class Mixture:
    """The source of every sample of an endless stream.

    `sources`: names in alphabetical order; sources are numbered by their place in it, so that the order in which a
    recipe lists them does not matter. `block_size`: samples per block.

    Let w be a source's share and P a block boundary, counted from the start of the stage. The source has then been
    drawn C(P) = floor(w·P) times, plus one for the sources with the largest fractions of w·P until the counts sum to
    P (ties: alphabetical). So |C(P) − w·P| < 1 at every block boundary.

    A block of B samples holds C(P+B) − C(P) of each source. From C(P+B) > w·(P+B) − 1 and C(P) < w·P + 1 this is
    above w·B − 2, and a whole number above −1, hence not negative, as soon as w·B ≥ 1. The block size is therefore
    the configured one doubled until it is at least 1 / (the smallest share of any stage): a function of the
    configuration alone.

    A stage begins a new block; the counts of each source go on from where the stage before it ended, whose last
    block may be cut short.
    """

    def __init__(self, stages: Sequence[Stage], seed: int, block_size: int = 1024) -> None:
        """`stages` have rising `first_sample`, the first 0. Raises ConfigError when a share is too small to mix."""
        assert stages, "a mixture has at least one stage"
        assert stages[0].first_sample == 0
        assert all(a.first_sample < b.first_sample for a, b in pairwise(stages))
        self.stages = tuple(stages)
        self.sources = tuple(sorted({source for stage in stages for source in stage.shares}))
        self.block_size = _block_size(stages, block_size)
        self._seed = seed
        self._starts = [stage.first_sample for stage in stages]
        self._weights: list[list[int]] = []  # by stage and source; shares × common denominator
        self._denominators: list[int] = []
        for stage in stages:
            denominator = math.lcm(*(share.denominator for share in stage.shares.values()))
            self._denominators.append(denominator)
            self._weights.append([int(stage.shares.get(source, 0) * denominator) for source in self.sources])
        self._block = functools.lru_cache(maxsize=_CACHED_BLOCKS)(self._make_block)
        self._before = [[0] * len(self.sources)]  # by stage and source: samples drawn before the stage
        for number, start in enumerate(self._starts[1:]):
            inside = self._counts_inside(number, start - self._starts[number])
            self._before.append([a + b for a, b in zip(self._before[-1], inside, strict=True)])

    def sources_of(self, first_sample: int, count: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Source number and ordinal of samples `first_sample` … `first_sample + count − 1`, each [count].

        The ordinal is how many samples of the same source came before in the stream. Costs O(count + block size).
        """
        assert first_sample >= 0
        assert count >= 0
        numbers = np.empty(count, dtype=np.int32)
        ordinals = np.empty(count, dtype=np.int64)
        done = 0
        while done < count:
            stage = bisect_right(self._starts, first_sample + done) - 1
            block, offset = divmod(first_sample + done - self._starts[stage], self.block_size)
            end = min(offset + count - done, self.block_size)
            if stage + 1 < len(self._starts):
                end = min(end, self._starts[stage + 1] - self._starts[stage] - block * self.block_size)
            source, rank = self._block(stage, block)
            drawn = self._boundary_counts(stage, block * self.block_size)
            before = np.array([a + b for a, b in zip(self._before[stage], drawn, strict=True)], dtype=np.int64)
            place = slice(done, done + end - offset)
            numbers[place] = source[offset:end]
            ordinals[place] = before[source[offset:end]] + rank[offset:end]
            done += end - offset
        return numbers, ordinals

    def counts(self, position: int) -> dict[str, int]:
        """How many of the first `position` samples come from each source; exact."""
        stage = max(0, bisect_right(self._starts, position) - 1)
        inside = self._counts_inside(stage, position - self._starts[stage])
        total = (a + b for a, b in zip(self._before[stage], inside, strict=True))
        return dict(zip(self.sources, total, strict=True))

    def sample_of(self, source: str, ordinal: int, total: int) -> int | None:
        """The sample that is number `ordinal` (from 0) of those of `source`; None: not among the first `total`."""
        if source not in self.sources:
            return None
        sample = bisect_right(range(total), ordinal, key=lambda sample: self.counts(sample + 1)[source])
        return sample if sample < total else None

    def _counts_inside(self, stage: int, position: int) -> list[int]:
        """Samples of each source among the first `position` of a stage."""
        block, offset = divmod(position, self.block_size)
        drawn = self._boundary_counts(stage, position - offset)
        if offset:
            source, _ = self._block(stage, block)
            partial = np.bincount(source[:offset], minlength=len(self.sources)).tolist()
            drawn = [a + b for a, b in zip(drawn, partial, strict=True)]
        return drawn

    def _boundary_counts(self, stage: int, position: int) -> list[int]:
        """C(P) of the class's docstring for each source, with P counted from the start of the stage."""
        return _apportioned(self._weights[stage], self._denominators[stage], position)

    def _make_block(self, stage: int, block: int) -> tuple[NDArray[np.int16], NDArray[np.int32]]:
        """Source, and place among the block's samples of that source, of every sample of a block: [block size]."""
        before = self._boundary_counts(stage, block * self.block_size)
        after = self._boundary_counts(stage, (block + 1) * self.block_size)
        counts = np.array([b - a for a, b in zip(before, after, strict=True)])
        in_turn = np.repeat(np.arange(len(counts), dtype=np.int16), counts)
        key = derive_key(self._seed, "mixture", stage, block)
        source = in_turn[permute(np.arange(self.block_size), self.block_size, key)]
        rank = np.empty(self.block_size, dtype=np.int32)
        first = np.cumsum(counts) - counts
        rank[np.argsort(source, kind="stable")] = np.arange(self.block_size) - first[in_turn]
        return source, rank


def _block_size(stages: Sequence[Stage], block_size: int) -> int:
    """`block_size` doubled until every share of every stage is at least one sample of a block."""
    if block_size > MAX_BLOCK_SIZE:
        raise ConfigError(f"data.mixture_block_size is {block_size:,}; the largest is {MAX_BLOCK_SIZE:,} samples.")
    share, source = min((share, source) for stage in stages for source, share in stage.shares.items())
    if MAX_BLOCK_SIZE * share < 1:
        raise ConfigError(
            f"data.mixture: the share of '{source}' is {float(share):.2g}, less than one sample in {MAX_BLOCK_SIZE:,}; "
            "leave it out or raise its weight."
        )
    while block_size * share < 1:
        block_size *= 2
    return block_size

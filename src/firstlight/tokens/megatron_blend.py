"""Which source each sample comes from where Megatron-LM mixes: a fixed rhythm, without chance and without a seed.

Sample i is of the source whose share is furthest behind: the largest weight × max(i, 1) − samples so far, ties to the
first. Sources are in the order of the recipe, which decides ties. Source: `build_blending_indices` of `helpers.cpp`,
`blended_dataset.py` and `blended_megatron_dataset_builder.py` of megatron-core 0.16.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.config import DataConfig
from firstlight.support.errors import ConfigError
from firstlight.tokens.mixture import Stage, apportion, stages_of

SURPLUS = 0.005
"""So many more samples than its share each source is asked for (`mid_level_dataset_surplus`)."""
MOST_SOURCES = 32766
COMPILED_FROM = 2_000_000
"""Samples from which on compiling the rhythm pays."""


@dataclass(frozen=True)
class Blend:
    """What is asked of each source for a run."""

    sources: tuple[str, ...]
    """In the order of `data.mixture`, or of `data.sources` where that is empty."""
    requested: tuple[int | None, ...]
    """Samples asked of each source; None: those of one pass."""
    weights: tuple[float, ...] | None
    """By source, summing to 1; None: one source alone, without any blending."""
    size: int
    """Samples of the blend; of one source alone, those asked for."""
    stages: tuple[Stage, ...]
    """One, with the exact shares."""

    def counts(self, position: int) -> dict[str, int]:
        """How many of the first `position` samples come from each source, to within a few samples."""
        return apportion(self.stages[0].shares, position)


def blend_of(data: DataConfig, num_tokens: Mapping[str, int], samples: int) -> Blend:
    """What a run of `samples` samples asks of its sources; num_tokens: training tokens by source.

    One source without a weight is read alone. Several without weights are mixed in proportion to the samples of one
    pass, and nothing is read twice: ConfigError where that is not enough. With weights, source number d is asked for
    ceil(ceil(samples × weight) × 1.005).
    """
    sources = tuple(data.mixture or num_tokens)
    if len(sources) > MOST_SOURCES:
        raise ConfigError(f"data.order megatron mixes at most {MOST_SOURCES:,} sources, not {len(sources):,}.")
    if not data.mixture:
        num_tokens = {name: max(1, (tokens - 1) // data.sequence_length) for name, tokens in num_tokens.items()}
    stages = tuple(stages_of(data, num_tokens))
    if not data.mixture and len(sources) == 1:
        return Blend(sources, (samples,), None, samples, stages)
    if not data.mixture:
        passes = [num_tokens[name] for name in sources]
        if samples > sum(passes):
            raise ConfigError(
                f"data.order megatron without data.mixture reads every source once: {sum(passes):,} samples of "
                f"{data.sequence_length} tokens, and the run asks for {samples:,}; give data.mixture, or train on less."
            )
        return Blend(sources, (None,) * len(sources), _normalized(passes), samples, stages)
    weights = _normalized([float(data.mixture[name]) for name in sources])
    wanted = [math.ceil(samples * weight) for weight in weights]
    requested = tuple(math.ceil(count * (1 + SURPLUS)) for count in wanted)
    return Blend(sources, requested, _normalized(weights), sum(wanted), stages)


def rhythm(blend: Blend) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """(source number, samples of that source before), both [blend.size].

    The sums are those of 64-bit floats without fused multiplication, as compilers make them of Megatron-LM's code for
    x86-64. Takes 10 bytes a sample, and a microsecond or two a sample, or some nanoseconds where numba is installed.
    """
    assert blend.weights is not None
    source, before = np.empty(blend.size, np.int16), np.empty(blend.size, np.int64)
    counts: Any = [0] * len(blend.weights)
    follow: Any = _follow
    if blend.size >= COMPILED_FROM:
        follow, counts = _compiled(), np.array(counts)
    step = 1 << 20
    for first in range(0, blend.size, step):
        part = source[first : first + step], before[first : first + step]
        follow(blend.weights, counts, first, *part)
    return source, before


def _follow(weights: Any, counts: Any, first: int, source: Any, before: Any) -> None:
    """Fill in the samples from number `first` on; counts: of each source so far."""
    for place in range(len(source)):
        at = float(max(first + place, 1))
        best, most = 0, weights[0] * at - counts[0]
        for number in range(1, len(weights)):
            behind = weights[number] * at - counts[number]
            if behind > most:
                best, most = number, behind
        source[place], before[place] = best, counts[best]
        counts[best] += 1


def _compiled() -> Any:
    try:
        from numba import njit
    except ImportError:
        return _follow
    compiled = njit(nogil=True)(_follow)
    return lambda weights, *rest: compiled(np.array(weights), *rest)


def _normalized(weights: Any) -> tuple[float, ...]:
    array = np.array(weights, dtype=np.float64)
    return tuple((array / np.sum(array)).tolist())

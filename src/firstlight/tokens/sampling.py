"""A sample of items by mixture weights, as an ordinary function on lists and datasets.

The obvious way, `random.sample(source, int(number * weight))` for each source, returns fewer items than were asked for
(0.29 × 100 is 28 there) and fails on a source that is too small. Here the counts are exact and sum to the number, the
order is a keyed permutation, and a small source is a question that the caller answers: an error, or further passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.support.console import warn
from firstlight.support.errors import ConfigError, DataError, did_you_mean
from firstlight.tokens.mixture import apportion, shares
from firstlight.tokens.permutation import derive_key, permute


def sample_with_mixture(
    dataset: Mapping[str, Sequence[Any]] | Iterable[Any],
    mixture_weights: Mapping[str, float],
    num_samples: int,
    seed: int = 1234,
    *,
    repeat: bool = False,
) -> list[Any]:
    """`num_samples` items of the sources of `dataset`, by weight, in a shuffled order that `seed` names.

    dataset: maps the name of each source to its items (a list, a Hugging Face dataset, anything with a length and
    [index]); or documents in any order, each a mapping with `metadata.source`. mixture_weights: normalised to sum to
    1. Every source gives its share to within one item, and the counts sum to `num_samples`. Within a source no item
    is drawn twice before every other one was drawn once.

    repeat: a source with fewer items than its share is gone over several times, each in a new order, with a warning
    that says how often. Otherwise that is a DataError with the arithmetic. Raises ConfigError for a weight that is not
    above 0, a source that is not there or a negative number.
    """
    if isinstance(num_samples, bool) or not isinstance(num_samples, int | np.integer) or num_samples < 0:
        raise ConfigError(f"num_samples is {num_samples!r}; a whole number of at least 0 is due.")
    sources = dataset if isinstance(dataset, Mapping) else by_source(dataset)
    exact = shares(mixture_weights, "mixture_weights")
    for source in exact:
        if source not in sources:
            known = did_you_mean(source, [str(name) for name in sources])
            raise ConfigError(f"mixture_weights names '{source}', which the dataset does not have.{known}")
    counts = apportion(exact, int(num_samples))
    _check_supply(counts, {source: len(sources[source]) for source in exact}, int(num_samples), repeat)
    names = list(counts)
    items = {source: draw(len(sources[source]), counts[source], seed, source) for source in names}
    turn = np.repeat(np.arange(len(names)), list(counts.values()))
    place = np.concatenate([items[source] for source in names])
    if num_samples:
        order = permute(np.arange(num_samples), int(num_samples), derive_key(seed, "sample order"))
        turn, place = turn[order], place[order]
    return [sources[names[source]][index] for source, index in zip(turn.tolist(), place.tolist(), strict=True)]


def draw(size: int, count: int, seed: int, source: str) -> NDArray[np.int64]:
    """[count] indices below `size`: pass after pass over all of them, each pass in an order of its own."""
    indices = np.empty(count, dtype=np.int64)
    for first in range(0, count, max(1, size)):
        part = np.arange(min(size, count - first))
        indices[first : first + len(part)] = permute(part, size, derive_key(seed, "sample", source, first // size))
    return indices


def by_source(documents: Iterable[Any]) -> dict[str, list[Any]]:
    """Documents by their `metadata.source`, each source in the order of the input.

    A document is a mapping with `metadata`, or an object with such an attribute. DataError, with its number, for one
    that names no source.
    """
    sources: dict[str, list[Any]] = {}
    for number, document in enumerate(documents, 1):
        has = document.get("metadata") if isinstance(document, Mapping) else getattr(document, "metadata", None)
        source = has.get("source") if isinstance(has, Mapping) else None
        if not isinstance(source, str):
            raise DataError(
                f"document {number} has no metadata.source; give each one its source, or a mapping from the name of "
                "each source to its items."
            )
        sources.setdefault(source, []).append(document)
    return sources


def _check_supply(counts: Mapping[str, int], sizes: Mapping[str, int], num_samples: int, repeat: bool) -> None:
    """Say of which sources there is too little; without `repeat`, of the one that allows the fewest samples."""
    short = [source for source, count in counts.items() if count > sizes[source]]
    if short and not repeat:
        short = [min(short, key=lambda source: Fraction(sizes[source], counts[source]))]
    for source in short:
        size, count = sizes[source], counts[source]
        asked = f"source '{source}' has {size:,} items, but its share of {num_samples:,} samples is {count:,}"
        if not size:
            raise DataError(f"{asked}; give it items, or leave it out of mixture_weights.")
        if not repeat:
            raise DataError(
                f"{asked} ({count / size:.4g} epochs); ask for about {num_samples * size // count:,} samples at most, "
                "lower its weight, or pass repeat=True to go over it several times."
            )
        warn(f"{asked}: it is gone over {count / size:.4g} times, each time in another order.")

"""Fewer points of a long curve that look the same: of every bucket of neighbours the lowest and the highest stay.

Averages or every n-th point would lose the one step at which the loss jumped, which is what people look for. Means of
the buckets come along, because only of them a smoothed line can be made.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

KEPT_WHOLE = 200
"""Points at the beginning that all stay: there a loss falls the fastest, and a logarithmic axis is widest."""


class Thinned(NamedTuple):
    """A curve to draw. steps, values: [n] points in order; mean_steps, mean_values: [m] means of all points."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    mean_steps: NDArray[np.int64]
    mean_values: NDArray[np.float64]
    bucket: int
    """Points that share a bucket; 1: all are there."""


def bucket_starts(count: int, buckets: int) -> NDArray[np.int64]:
    """[at most KEPT_WHOLE + buckets] index of the first point of each bucket, for `count` points.

    The first KEPT_WHOLE points, or all when there are no more than those and two for each bucket, have one each.
    """
    if count <= KEPT_WHOLE + 2 * buckets:
        return np.arange(count, dtype=np.int64)
    rest = np.unique(np.linspace(KEPT_WHOLE, count, buckets, endpoint=False).astype(np.int64))
    return np.concatenate([np.arange(KEPT_WHOLE, dtype=np.int64), rest])


def thin(steps: NDArray[np.int64], values: NDArray[np.float64], buckets: int) -> Thinned:
    """At most KEPT_WHOLE + 2 · buckets of the points. steps: [n], rising; values: [n], finite; buckets: from 1 on."""
    starts = bucket_starts(len(values), buckets)
    if len(starts) == len(values):
        return Thinned(steps, values, steps, values, 1)
    sizes = np.diff([*starts, len(values)])
    bucket_of = np.repeat(np.arange(len(starts)), sizes)
    order = np.lexsort((values, bucket_of))  # within each bucket from the lowest to the highest
    kept = np.unique(np.concatenate([order[starts], order[starts + sizes - 1], [len(values) - 1]]))
    means = np.add.reduceat(values, starts) / sizes
    return Thinned(steps[kept], values[kept], steps[starts + sizes // 2], means, int(sizes.max()))

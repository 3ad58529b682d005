"""Robust statistics of noisy curves: medians in the place of means, so that a spike does not hide itself."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NORMAL_MAD = 1.4826
"""Standard deviation of normal noise over its median absolute deviation."""
MEDIAN_ERROR = 1.2533
"""Standard error of a median over that of a mean, for normal noise: sqrt(pi / 2)."""

Values = NDArray[np.float64]


def median(values: Values) -> float:
    """What np.median gives for finite numbers, ten times faster for the few that a window has."""
    ordered, half = np.sort(values), len(values) // 2
    return float(ordered[half]) if len(values) % 2 else 0.5 * float(ordered[half - 1] + ordered[half])


def deviation(values: Values) -> float:
    """Robust standard deviation: 1.4826 × the median distance from the median."""
    return NORMAL_MAD * median(np.abs(values - median(values)))


def noise(values: Values) -> float:
    """Standard deviation of the noise around a curve that moves slowly: from differences of neighbours."""
    return deviation(np.diff(values)) / np.sqrt(2) if len(values) > 2 else 0.0


def window_medians(values: Values, width: int) -> tuple[NDArray[np.int64], Values]:
    """(first place, median) of windows of `width` neighbours, a quarter of that apart; the last ends the curve."""
    assert 1 <= width <= len(values)
    places = np.arange(len(values) - width, -1, -max(1, width // 4))[::-1]
    return places, np.array([np.median(values[place : place + width]) for place in places])


def share_median(values: Values, begin: float, end: float) -> float:
    """Median of the part of a curve from share `begin` to share `end`; at least one value."""
    first = min(int(begin * len(values)), len(values) - 1)
    return float(np.median(values[first : max(first + 1, round(end * len(values)))]))


class Slope(NamedTuple):
    """A straight line's slope and its standard error."""

    value: float
    error: float


def slope(x: Values, y: Values) -> Slope:
    """Least squares; the error from the noise around the curve, not from its bends."""
    centred = x - x.mean()
    scale = float(centred @ centred)
    return Slope(float(centred @ y) / scale, float(noise(y)) / float(np.sqrt(scale)))

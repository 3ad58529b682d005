"""From thresholds and codes to what a step says: rules run in compiled code and answer with numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from firstlight.corpus.step import Result


def limits(*thresholds: float | None) -> NDArray[np.float64]:
    """Thresholds as an array; None becomes NaN, which nothing is above or below: no rule."""
    return np.array([np.nan if threshold is None else threshold for threshold in thresholds], dtype=np.float64)


def verdict(codes: NDArray[np.int8], reasons: Sequence[str]) -> Result:
    """Code 0: a document stays; code n: it is dropped for reason n, counted from 1."""
    named: list[str | None] = [None, *reasons]
    return Result([named[code] for code in codes.tolist()])

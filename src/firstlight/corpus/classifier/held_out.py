"""How well a classifier tells documents that it was not trained on: figures for its record and for a table.

Good and bad documents are given equal weight throughout, as in training, so that figures do not depend on how many of
each happened to be at hand: precision is that of a mixture of halves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
CALIBRATION_BINS = 10


def held_out_figures(scores: NDArray[np.float32], is_good: NDArray[np.bool_]) -> dict[str, Any]:
    """Figures of [documents] scores, with at least one document of each class.

    `auc`: how often a good document scores higher than a bad one (ties: half). `accuracy` at 0.5. `thresholds`: share
    of good and of bad documents that a `min_score` keeps, and the precision of what it keeps. `calibration`: for each
    tenth of scores the documents, their mean score, and the share of good among them.
    """
    good, bad = np.sort(scores[is_good]), np.sort(scores[~is_good])
    weight = np.where(is_good, 0.5 / len(good), 0.5 / len(bad))
    thresholds = []
    for threshold in THRESHOLDS:
        kept_good, kept_bad = float((good >= threshold).mean()), float((bad >= threshold).mean())
        kept = kept_good + kept_bad
        thresholds.append(
            {
                "min_score": threshold,
                "good_kept": _rounded(kept_good),
                "bad_kept": _rounded(kept_bad),
                "precision": _rounded(kept_good / kept) if kept else None,
            }
        )
    calibration = []
    bins = np.minimum((scores * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    for number in range(CALIBRATION_BINS):
        inside = bins == number
        total = weight[inside].sum()
        calibration.append(
            {
                "from": number / CALIBRATION_BINS,
                "documents": int(inside.sum()),
                "mean_score": _rounded(float((weight * scores)[inside].sum() / total)) if total else None,
                "good": _rounded(float((weight * is_good)[inside].sum() / total)) if total else None,
            }
        )
    below = np.searchsorted(bad, good, "left") + np.searchsorted(bad, good, "right")
    return {
        "good": len(good),
        "bad": len(bad),
        "auc": _rounded(float(below.mean() / (2 * len(bad)))),
        "accuracy": _rounded(float((good >= 0.5).mean() + (bad < 0.5).mean()) / 2),
        "thresholds": thresholds,
        "calibration": calibration,
    }


def classifier_table(record: Mapping[str, Any]) -> Table:
    """What each `min_score` keeps of the documents held out, for the terminal."""
    figures = record["held_out"]
    table = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
        title_justify="left",
        title=f"{figures['good']:,} good and {figures['bad']:,} bad documents held out: "
        f"AUC {figures['auc']:.4f}, accuracy {figures['accuracy']:.1%}",
    )
    for name in ("min_score", "good kept", "bad kept", "precision"):
        table.add_column(name, justify="right")
    for row in figures["thresholds"]:
        precision = "–" if row["precision"] is None else f"{row['precision']:.1%}"
        table.add_row(f"{row['min_score']:g}", f"{row['good_kept']:.1%}", f"{row['bad_kept']:.1%}", precision)
    return table


def _rounded(value: float) -> float:
    return round(value, 6)

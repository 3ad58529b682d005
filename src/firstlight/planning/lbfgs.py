"""L-BFGS on many small problems at once: thousands of starts and bootstrap samples as the rows of one array.

One problem of five parameters costs an interpreter more than it costs a processor; numpy walks all rows together, each
with its own curvature and step (Nocedal & Wright 2006, "Numerical Optimization", algorithms 7.4 and 7.5, with
backtracking until Armijo's condition 3.4 holds).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]
Objective = Callable[[Rows, NDArray[np.intp]], tuple[Rows, Rows]]
"""(points [k, p], numbers of their problems [k]) → (values [k], gradients [k, p])."""

HISTORY = 10
ARMIJO = 1e-4
MOST_HALVINGS = 30


def minimize_rows(
    objective: Objective, starts: Rows, *, iterations: int = 500, tolerance: float = 1e-9
) -> tuple[Rows, Rows]:
    """(points [k, p], values [k]) of the minima that each row of `starts` [k, p] leads to.

    A row ends when no step makes it smaller, when it has become smaller by less than `tolerance` (relative) in each of
    ten iterations, or after `iterations`.
    """
    points = starts.copy()
    count, size = points.shape
    values, gradients = objective(points, np.arange(count))
    steps, changes = np.zeros((HISTORY, count, size)), np.zeros((HISTORY, count, size))
    idle = np.zeros(count, dtype=np.int64)
    active = np.flatnonzero(np.isfinite(values))
    for _ in range(iterations):
        if not len(active):
            break
        directions = _directions(gradients[active], steps[:, active], changes[:, active])
        slopes = np.einsum("kp,kp->k", directions, gradients[active])
        uphill = slopes >= 0
        directions[uphill] = -gradients[active][uphill]
        slopes[uphill] = -np.einsum("kp,kp->k", gradients[active][uphill], gradients[active][uphill])
        new_points, new_values, new_gradients, moved = _search(
            objective, active, points[active], values[active], gradients[active], directions, slopes
        )
        steps = np.roll(steps, 1, axis=0)
        changes = np.roll(changes, 1, axis=0)
        steps[0, active] = new_points - points[active]
        changes[0, active] = new_gradients - gradients[active]
        gained = values[active] - new_values
        idle[active] = np.where(gained > tolerance * (1e-12 + np.abs(new_values)), 0, idle[active] + 1)
        points[active], values[active], gradients[active] = new_points, new_values, new_gradients
        active = active[moved & (idle[active] < 10)]
    return points, values


def _directions(gradients: Rows, steps: Rows, changes: Rows) -> Rows:
    """−H·g by the two-loop recursion; pairs without positive curvature are passed over."""
    curvature = np.einsum("hkp,hkp->hk", steps, changes)
    sizes = np.einsum("hkp,hkp->hk", changes, changes)
    usable = (curvature > 1e-12 * sizes) & (sizes > 1e-200)
    inverse = np.where(usable, 1 / np.where(usable, curvature, 1.0), 0.0)
    direction = gradients.copy()
    weights = np.zeros_like(curvature)
    for age in range(HISTORY):
        weights[age] = inverse[age] * np.einsum("kp,kp->k", steps[age], direction)
        direction -= weights[age][:, None] * changes[age]
    newest = np.argmax(usable, axis=0)
    rows = np.arange(len(gradients))
    length = 1 / np.maximum(np.linalg.norm(gradients, axis=1), 1e-300)
    known = usable[newest, rows]
    scale = np.where(
        known, curvature[newest, rows] / np.where(known, sizes[newest, rows], 1.0), np.minimum(1.0, 0.1 * length)
    )
    direction *= scale[:, None]
    for age in reversed(range(HISTORY)):
        back = inverse[age] * np.einsum("kp,kp->k", changes[age], direction)
        direction += (weights[age] - back)[:, None] * steps[age]
    return -direction


def _search(
    objective: Objective,
    problems: NDArray[np.intp],
    points: Rows,
    values: Rows,
    gradients: Rows,
    directions: Rows,
    slopes: Rows,
) -> tuple[Rows, Rows, Rows, NDArray[np.bool_]]:
    """The points that steps of 1, ½, ¼ … lead to, and which rows found one that is lower."""
    points, values, gradients = points.copy(), values.copy(), gradients.copy()
    start = points.copy()
    length = np.ones(len(points))
    waiting = np.arange(len(points))
    for _ in range(MOST_HALVINGS):
        tried = start[waiting] + length[waiting, None] * directions[waiting]
        found, slope = objective(tried, problems[waiting])
        enough = found <= values[waiting] + ARMIJO * length[waiting] * slopes[waiting]  # false where not a number
        rows = waiting[enough]
        points[rows], values[rows], gradients[rows] = tried[enough], found[enough], slope[enough]
        waiting = waiting[~enough]
        if not len(waiting):
            break
        length[waiting] /= 2
    moved = np.ones(len(points), dtype=bool)
    moved[waiting] = False
    return points, values, gradients, moved

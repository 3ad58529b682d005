"""Whether a recipe agrees with itself, its data, its hardware and what the laws expect: findings with the arithmetic.

What training itself refuses is asked of training's own functions, by the caller; the checks here go on from there. A
check looks at a `Situation` and gives findings, or raises `CannotTell` with what it would have needed. Severities are
those of `firstlight.planning.diagnosis`: a problem makes training refuse or fail, a warning costs quality, time or
money, a note is worth knowing. Nothing here reads or writes.
"""

from firstlight.planning.consistency.check import CHECKS, Check, Consistency, check_consistency
from firstlight.planning.consistency.situation import Situation

__all__ = ["CHECKS", "Check", "Consistency", "Situation", "check_consistency"]

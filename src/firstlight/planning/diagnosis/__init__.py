"""What a run's records say about it: findings with evidence and remedy, from pure functions over numbers and events.

A rule looks at a `RunRecord` and gives findings, or raises `CannotTell` with what it would have needed. Where a
threshold comes from a paper it says so; the others are conventions of this package. Nothing here reads or writes.
"""

from firstlight.planning.diagnosis.diagnose import RULES, Diagnosis, ask_all, diagnose
from firstlight.planning.diagnosis.finding import SEVERITIES, Finding, Severity
from firstlight.planning.diagnosis.record import CannotTell, RunRecord, SourceRecord

__all__ = [
    "RULES",
    "SEVERITIES",
    "CannotTell",
    "Diagnosis",
    "Finding",
    "RunRecord",
    "Severity",
    "SourceRecord",
    "ask_all",
    "diagnose",
]

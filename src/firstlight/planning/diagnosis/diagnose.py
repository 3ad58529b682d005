"""All rules on one record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from firstlight.planning.diagnosis import data, ending, norms, pace, progress, spikes, validation
from firstlight.planning.diagnosis.finding import SEVERITIES, Finding
from firstlight.planning.diagnosis.record import CannotTell, RunRecord

Subject = TypeVar("Subject")
Rule = Callable[[RunRecord], Iterator[Finding]]

RULES: dict[str, Rule] = {
    "loss spikes": spikes.loss_spikes,
    "not finite": spikes.not_finite,
    "diverged": spikes.diverged,
    "skipped steps": spikes.skipped_steps,
    "roll-backs": spikes.rolled_back,
    "gradient norm": norms.gradient_growth,
    "parameter norm": norms.parameter_growth,
    "loss scale": norms.loss_scale_collapse,
    "learns at all": progress.does_not_learn,
    "use of context": progress.knows_frequencies_alone,
    "rising loss": progress.loss_rises,
    "plateau": progress.stalled,
    "scaling law": progress.behind_the_law,
    "learning rate": pace.learning_rate,
    "waiting for data": pace.data_bound,
    "communication": pace.communication_bound,
    "speed": pace.slower,
    "repeated text": data.repeated_text,
    "mixture": data.mixture_drift,
    "sources of trouble": data.troublesome_source,
    "validation": validation.left_behind,
    "checkpoints": ending.checkpoints,
    "records": ending.records,
    "ending": ending.ending,
}
"""What is looked at, by the name that the doctor calls it."""


@dataclass(frozen=True)
class Diagnosis:
    """What all rules have to say."""

    findings: tuple[Finding, ...]
    """Most severe first; of the same severity in the order of the rules."""
    looked_at: tuple[str, ...]
    not_looked_at: dict[str, str] = field(default_factory=dict)
    """Names of rules, and what they would have needed."""

    @property
    def worst(self) -> str | None:
        """Severity of the worst finding; None without any."""
        return self.findings[0].severity if self.findings else None


def diagnose(record: RunRecord) -> Diagnosis:
    """Ask every rule."""
    return Diagnosis(*ask_all(RULES, record))


def ask_all(
    rules: Mapping[str, Callable[[Subject], Iterator[Finding]]], subject: Subject, found_before: Iterable[Finding] = ()
) -> tuple[tuple[Finding, ...], tuple[str, ...], dict[str, str]]:
    """(findings, most severe first; rules that looked; those that could not, and what they would have needed)."""
    findings = list(found_before)
    not_looked_at = {}
    for name, rule in rules.items():
        try:
            findings += rule(subject)
        except CannotTell as missing:
            not_looked_at[name] = str(missing)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return tuple(findings), tuple(name for name in rules if name not in not_looked_at), not_looked_at

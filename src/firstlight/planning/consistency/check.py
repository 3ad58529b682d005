"""All checks on one recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from firstlight.planning.consistency import length, machine, rates, shape
from firstlight.planning.consistency.situation import Situation
from firstlight.planning.diagnosis import Finding, ask_all

Check = Callable[[Situation], Iterator[Finding]]

CHECKS: dict[str, Check] = {
    "schedule": length.schedule,
    "warm-up": length.warmup,
    "end of the decay": length.end_of_decay,
    "repeated text": length.repeated_text,
    "checkpoints": length.checkpoints,
    "validation": length.validation,
    "time limit": length.time_limit,
    "positions": shape.positions,
    "vocabulary": shape.vocabulary,
    "widths": shape.widths,
    "heads": shape.head_size,
    "learning rate": rates.learning_rate,
    "batch": rates.batch,
    "tokens a parameter": rates.tokens_per_parameter,
    "weight decay": rates.weight_decay,
    "clipping": rates.clipping,
    "precision": machine.half_precision,
    "memory": machine.memory,
    "tensor groups": machine.tensor_in_node,
    "bubble": machine.bubble,
    "compilation": machine.compiled,
}
"""What is looked at, by the name that the plan calls it. One more is one function more here."""


@dataclass(frozen=True)
class Consistency:
    """What all checks have to say."""

    findings: tuple[Finding, ...] = ()
    """Most severe first; of the same severity in the order of the checks."""
    looked_at: tuple[str, ...] = ()
    not_looked_at: dict[str, str] = field(default_factory=dict)
    """Names of checks, and what they would have needed."""

    @property
    def contradicts_itself(self) -> bool:
        """Whether training would refuse or fail."""
        return any(finding.severity == "problem" for finding in self.findings)


def check_consistency(situation: Situation, found_before: Iterable[Finding] = ()) -> Consistency:
    """Ask every check. found_before: what reading the recipe has found already."""
    return Consistency(*ask_all(CHECKS, situation, found_before))

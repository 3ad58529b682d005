"""What a page says of a run, as plain values: the only thing that this room knows of run folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from firstlight.report.html import Words
from firstlight.report.thinning import Thinned

State = Literal["running", "finished", "stopped", "diverged", "ended"]
"""ended: neither running nor at its end, and nothing says why."""


class Mark(NamedTuple):
    """Something that happened at a step."""

    step: int
    kind: str
    """As the event is called, or `spike` or `checkpoint`."""
    said: Words


class Note(NamedTuple):
    """A finding of the doctor."""

    severity: str
    kind: str
    steps: tuple[int, int] | None
    evidence: str
    remedy: str
    examples: tuple[str, ...] = ()


class Drawn(NamedTuple):
    """What a run has read of one source."""

    tokens: int
    """In its dataset."""
    wanted: float
    """Share of samples by the weights."""
    seen: float
    """Share of samples drawn."""
    epochs: float
    epochs_at_end: float
    skipped: int
    """Samples of steps that did not count."""


class Spelled(NamedTuple):
    """How a tokenizer spells one language of one source."""

    source: str
    language: str | None
    """None: the whole source."""
    documents: int
    tokens: int
    text_bytes: int


class Sample(NamedTuple):
    """What the model wrote."""

    step: int
    prompt: str
    text: str


class Outcome(NamedTuple):
    """A planned figure beside the measured one; ready words, `–` where there is none."""

    what: Words
    planned: str
    measured: str
    remark: Words | None = None


class FunnelStep(NamedTuple):
    """What one step of a corpus build left. Bytes are of text in UTF-8."""

    name: str
    meaning: str
    documents_out: int
    bytes_out: int
    dropped: Mapping[str, int]
    """Documents by reason."""
    examples: Sequence[Dropped] = ()


class Dropped(NamedTuple):
    """A document that a step dropped."""

    source: str
    reason: str
    text: str


class Corpus(NamedTuple):
    """A built corpus: what was read, and what each step left."""

    documents_in: int
    bytes_in: int
    steps: Sequence[FunnelStep]


@dataclass(frozen=True)
class RunFacts:
    """One run. Times are in seconds, losses in nats a token."""

    name: str
    path: str
    state: State
    causal: bool
    step: int
    total_steps: int
    step_tokens: int
    flops_per_token: float
    parameters: int
    vocab_size: int
    processes: int
    architecture: str
    precision: str
    settings: Mapping[str, Any]
    """Every setting by its dotted name."""
    curves: Mapping[str, Thinned] = field(default_factory=dict)
    """By their names in metrics."""
    clock: Thinned | None = None
    """Seconds of training since the beginning, by step; without what was done and undone."""
    validation: Mapping[str, Mapping[str, Thinned]] = field(default_factory=dict)
    """Metric → domain → curve."""
    marks: Sequence[Mark] = ()
    marks_left_out: int = 0
    shares: Mapping[str, float] = field(default_factory=dict)
    """Seconds of the run by purpose: data, compute, evaluation, checkpoints."""
    mixture: Mapping[str, Drawn] = field(default_factory=dict)
    corpora: Sequence[Corpus] = ()
    spelled: Sequence[Spelled] = ()
    tokenizer_training: Mapping[str, Any] = field(default_factory=dict)
    samples: Sequence[Sample] = ()
    outcomes: Sequence[Outcome] = ()
    plan_assumptions: Sequence[Words] = ()
    why_no_plan: Words | None = None
    notes: Sequence[Note] = ()
    looked_at: Sequence[str] = ()
    not_looked_at: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Trained on so far."""
        return self.step * self.step_tokens

    @property
    def seconds(self) -> float:
        """Of training, as far as the records tell."""
        return float(sum(self.shares.values()))

    @property
    def flops(self) -> float:
        """Model FLOPs so far."""
        return self.tokens * self.flops_per_token

    def last(self, curve: str) -> float | None:
        """Mean of the last twentieth of a curve, at most 100 points; None without one."""
        values = self.curves[curve].mean_values if curve in self.curves else ()
        if not len(values):
            return None
        tail = values[-min(100, max(1, len(values) // 20)) :]
        return float(sum(tail) / len(tail))

"""What a check looks at: a recipe that has been worked out, and what the planner predicts of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from firstlight.config import Batch, Layout, RunConfig
from firstlight.planning.devices import Device
from firstlight.planning.diagnosis import CannotTell, RunRecord
from firstlight.planning.expectations import Expectations
from firstlight.planning.flops import parameter_count


@dataclass(frozen=True)
class Situation:
    """A resolved recipe on given hardware, in plain numbers."""

    config: RunConfig
    """Resolved: its model's shape is complete."""
    layout: Layout
    batch: Batch
    total_steps: int
    schedule: tuple[int, int] | None
    """Last step of the warm-up (0: there is none), and step at which the lowest rate is reached; None where they
    contradict each other, which training says."""
    device: Device
    devices_per_node: int
    expected: Expectations | None = None
    """What the scaling laws say; None where they do not apply (masked models)."""
    source_tokens: Mapping[str, int] = field(default_factory=dict)
    """Training tokens by source; empty where the recipe's token datasets are not there."""
    source_epochs: Mapping[str, float] = field(default_factory=dict)
    """Passes over each of them by the end."""
    tokenizer_size: int | None = None
    """Tokens of the tokenizer that is there; None without one."""
    memory_bytes: int | None = None
    """Predicted for the rank that needs the most, with its margin."""
    step_seconds: float | None = None
    """Predicted."""
    bubble_share: float = 0.0
    """Share of a step in which pipeline ranks wait."""

    @property
    def step_tokens(self) -> int:
        """Tokens of a global batch."""
        return self.batch.global_batch_size * self.config.data.sequence_length

    @property
    def total_tokens(self) -> int:
        """Tokens of the whole run."""
        return self.total_steps * self.step_tokens

    @property
    def parameters(self) -> int:
        """All of the model's."""
        return parameter_count(self.config.model)

    @property
    def on_accelerator(self) -> bool:
        """Whether sizes should be those that matrix units like."""
        return self.device.name != "cpu"

    @property
    def warmup_end(self) -> int:
        """Of `schedule`. Raises CannotTell where there is none."""
        return self._schedule[0]

    @property
    def _schedule(self) -> tuple[int, int]:
        if self.schedule is None:
            raise CannotTell("the schedule contradicts itself")
        return self.schedule

    @property
    def record(self) -> RunRecord:
        """The same as a run that has written nothing yet, for the rules of `firstlight.planning.diagnosis`."""
        return RunRecord(
            config=self.config,
            metrics=(),
            events=(),
            total_steps=self.total_steps,
            step_tokens=self.step_tokens,
            warmup_end=self._schedule[0],
            decay_end=self._schedule[1],
        )

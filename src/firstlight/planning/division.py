"""One way to divide a training step, what is to be divided, and a way with what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from firstlight.config import Layout, ModelConfig, ParallelConfig
from firstlight.config.parallel import SINGLE_STAGE, Schedule
from firstlight.planning.activations import Recompute
from firstlight.planning.step_time import StepTime


@dataclass(frozen=True, slots=True)
class Division:
    """One way to divide a step."""

    layout: Layout
    micro_batch_size: int
    accumulation: int
    """Micro-batches a step."""
    recompute: Recompute
    schedule: Schedule = "1f1b"
    stages_per_rank: int = 1
    reshard_after_forward: bool | None = None
    """As in a recipe; a search leaves it unset."""

    def parallel(self) -> ParallelConfig:
        """The same as the section of a recipe."""
        return parallel_of(self.layout, self.schedule, self.stages_per_rank)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is to be divided, and over what."""

    model: ModelConfig
    """Resolved."""
    sequence_length: int
    global_batch_size: int
    devices: int
    devices_per_node: int
    memory_bytes: float
    """What a rank may use; infinite where it is not known."""
    schedules: Sequence[Schedule] = ("1f1b", "interleaved")
    across_nodes: bool = False
    """Let tensor and context parallel groups reach over several machines."""
    refused: Callable[[Division], str | None] = lambda division: None
    """What training would refuse for another reason than arithmetic, in a sentence."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A division with what it costs."""

    division: Division
    memory_bytes: float
    """Of the rank that needs the most, margin included."""
    step: StepTime


def parallel_of(layout: Layout, schedule: Schedule, stages: int) -> ParallelConfig:
    """A layout as the section of a recipe; schedule and stages count with a pipeline only."""
    pipelined = layout.pipeline > 1
    return ParallelConfig(
        replicate=layout.replicate,
        shard=layout.shard,
        tensor=layout.tensor,
        context=layout.context,
        pipeline=layout.pipeline,
        pipeline_schedule=schedule if pipelined else "1f1b",
        pipeline_stages_per_rank=stages if pipelined and schedule not in SINGLE_STAGE else None,
    )

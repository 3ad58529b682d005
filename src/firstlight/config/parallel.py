"""How a model is divided over processes, and the arithmetic that must come out before any of them starts.

processes = pipeline × replicate × shard × context × tensor, outermost first: neighbours in rank share a tensor-parallel
group, which speaks the most, and so lie on one machine. Data-parallel ranks = replicate × shard.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, model_validator

from firstlight.config.base import Positive, Section
from firstlight.config.batch import divisors, nearest_multiples
from firstlight.config.model import ModelConfig
from firstlight.support.errors import ConfigError

Schedule = Literal["gpipe", "1f1b", "interleaved", "interleaved_zero_bubble", "zbv"]
SINGLE_STAGE = ("gpipe", "1f1b")
"""Schedules with one stage on each pipeline rank."""


class ParallelConfig(Section):
    """How the model and its data are divided over processes."""

    replicate: Positive = 1
    """Copies of the sharded model (HSDP); gradients are summed over them."""
    shard: Positive | None = None
    """Data-parallel ranks that share parameters, gradients and optimizer states (FSDP2); unset: all that are left."""
    tensor: Positive = 1
    """Tensor parallel size, with sequence parallel norms and a loss parallel over the vocabulary."""
    context: Positive = 1
    """Context parallel size: ranks that share each sequence."""
    pipeline: Positive = 1
    """Pipeline parallel size: ranks that share the layers."""
    pipeline_schedule: Schedule = "1f1b"
    """Order of forward and backward passes in the pipeline; micro-batches are the gradient accumulation steps."""
    pipeline_stages_per_rank: Positive | None = None
    """Stages on each pipeline rank; unset: 2 for interleaved, interleaved_zero_bubble and zbv, else 1."""
    reshard_after_forward: bool | None = None
    """Free gathered parameters between forward and backward pass (ZeRO-3); unset: true without a pipeline."""

    @model_validator(mode="after")
    def _stages(self) -> ParallelConfig:
        several = self.pipeline_schedule not in SINGLE_STAGE
        stages = self.pipeline_stages_per_rank
        if self.pipeline == 1:
            if stages not in (None, 1):
                raise ValueError(f"pipeline_stages_per_rank is {stages}, but pipeline is 1; leave it out")
        elif several and stages == 1:
            raise ValueError(f"pipeline_schedule {self.pipeline_schedule} needs at least 2 pipeline_stages_per_rank")
        elif not several and stages not in (None, 1):
            raise ValueError(
                f"pipeline_schedule {self.pipeline_schedule} has 1 stage per rank, not {stages}; "
                "several are for interleaved, interleaved_zero_bubble and zbv (2)"
            )
        elif self.pipeline_schedule == "zbv" and stages not in (None, 2):
            raise ValueError(f"pipeline_schedule zbv has 2 stages per rank, not {stages}")
        return self

    @property
    def stages_per_rank(self) -> int:
        """Pipeline stages on each rank, filled in."""
        if self.pipeline == 1:
            return 1
        return self.pipeline_stages_per_rank or (1 if self.pipeline_schedule in SINGLE_STAGE else 2)


class Place(NamedTuple):
    """Where a rank stands along each dimension of the layout."""

    pipeline: int
    replicate: int
    shard: int
    context: int
    tensor: int


class Layout(BaseModel):
    """Sizes that come out: the product is the number of processes."""

    model_config = ConfigDict(frozen=True)

    pipeline: int = 1
    replicate: int = 1
    shard: int = 1
    context: int = 1
    tensor: int = 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """All five, outermost first."""
        return self.pipeline, self.replicate, self.shard, self.context, self.tensor

    @property
    def world_size(self) -> int:
        """Processes."""
        return self.data * self.model_ranks

    @property
    def data(self) -> int:
        """Data-parallel ranks: each reads other samples."""
        return self.replicate * self.shard

    @property
    def model_ranks(self) -> int:
        """Processes that work on the same samples."""
        return self.pipeline * self.context * self.tensor

    def place(self, rank: int) -> Place:
        """Where `rank` stands."""
        rest, coordinates = rank, []
        for size in reversed(self.sizes):
            rest, coordinate = divmod(rest, size)
            coordinates.append(coordinate)
        return Place(*reversed(coordinates))

    def __str__(self) -> str:
        shown = [f"{name} {size}" for name, size in zip(Place._fields, self.sizes, strict=True) if size > 1]
        return " × ".join(shown) or "one process"


def least_world_size(parallel: ParallelConfig) -> int:
    """The fewest processes that the sizes allow: an unset shard is 1."""
    return parallel.pipeline * parallel.replicate * (parallel.shard or 1) * parallel.context * parallel.tensor


def resolve_layout(parallel: ParallelConfig, world_size: int) -> Layout:
    """The layout of `world_size` processes; ConfigError with the arithmetic when the product is not that."""
    model_ranks = parallel.pipeline * parallel.context * parallel.tensor
    fixed = model_ranks * parallel.replicate
    shown = f"pipeline {parallel.pipeline} × replicate {parallel.replicate}"
    rest = f"context {parallel.context} × tensor {parallel.tensor}"
    if parallel.shard is None:
        if world_size % fixed:
            fewer = ", ".join(str(d) for d in divisors(world_size))
            raise ConfigError(
                f"parallel: {shown} × {rest} = {fixed} does not divide the {world_size} "
                f"process{'es' if world_size > 1 else ''}; start a multiple of {fixed} processes, or choose sizes "
                f"whose product is one of {fewer}."
            )
        shard = world_size // fixed
    else:
        shard = parallel.shard
        if fixed * shard != world_size:
            advice = (
                f"shard {world_size // fixed} (or unset) fits"
                if world_size % fixed == 0
                else f"nearest that fit: {nearest_multiples(world_size, fixed * shard)} processes"
            )
            raise ConfigError(
                f"parallel: {shown} × shard {shard} × {rest} = {fixed * shard}, but there "
                f"{'are' if world_size > 1 else 'is'} {world_size} process{'es' if world_size > 1 else ''}; {advice}."
            )
    return Layout(
        pipeline=parallel.pipeline,
        replicate=parallel.replicate,
        shard=shard,
        context=parallel.context,
        tensor=parallel.tensor,
    )


def check_model_fits(parallel: ParallelConfig, model: ModelConfig, sequence_length: int, micro_batches: int) -> None:
    """ConfigError, with the valid choices, when the model's shape or the batch cannot be divided as `parallel` says."""
    tensor, context, pipeline = parallel.tensor, parallel.context, parallel.pipeline
    groups = model.num_key_value_heads or model.num_attention_heads
    for name, size in (("num_attention_heads", model.num_attention_heads), ("num_key_value_heads", groups)):
        if size % tensor:
            raise ConfigError(
                f"parallel.tensor {tensor} does not divide model.{name} {size}; valid: "
                f"{', '.join(str(d) for d in divisors(groups) if model.num_attention_heads % d == 0)}."
            )
    inner = model.intermediate_size
    if inner is not None and inner % tensor:
        raise ConfigError(
            f"parallel.tensor {tensor} does not divide model.intermediate_size {inner}; "
            f"nearest that it divides: {nearest_multiples(inner, tensor)}."
        )
    if context > 1 or tensor > 1:
        unit = tensor * (2 * context if context > 1 else 1)
        if sequence_length % unit:
            chunks = f"2 × context {context} × " if context > 1 else ""
            raise ConfigError(
                f"data.sequence_length {sequence_length} is not divisible by {chunks}tensor {tensor} = {unit}, "
                f"which each rank's part of a sequence needs; nearest: {nearest_multiples(sequence_length, unit)}."
            )
    stages = pipeline * parallel.stages_per_rank
    if stages > model.num_hidden_layers:
        each = f" × {parallel.stages_per_rank} stages a rank" if parallel.stages_per_rank > 1 else ""
        raise ConfigError(
            f"parallel.pipeline {pipeline}{each} = {stages} stages, but model.num_hidden_layers is "
            f"{model.num_hidden_layers}; every stage needs a layer, so at most {model.num_hidden_layers} stages."
        )
    if pipeline > 1:
        _check_micro_batches(parallel, stages, micro_batches)


def _check_micro_batches(parallel: ParallelConfig, stages: int, micro_batches: int) -> None:
    """What each schedule asks of the number of micro-batches in a step."""
    name, pipeline = parallel.pipeline_schedule, parallel.pipeline
    least = {"1f1b": pipeline, "zbv": stages}.get(name, 1)
    if micro_batches < least:
        raise ConfigError(
            f"parallel.pipeline_schedule {name} over {stages} stages needs at least {least} micro-batches a step, "
            f"but training.gradient_accumulation_steps is {micro_batches}; raise it (a smaller micro_batch_size or a "
            "larger global_batch_size), or use pipeline_schedule=gpipe."
        )
    if name.startswith("interleaved"):
        rounds = max(1, micro_batches // pipeline)
        if micro_batches % rounds:
            raise ConfigError(
                f"parallel.pipeline_schedule {name} takes micro-batches in rounds of at least pipeline {pipeline}, all "
                f"of one size, which {micro_batches} gradient_accumulation_steps are not; "
                f"nearest that are: {nearest_multiples(micro_batches, pipeline)}."
            )

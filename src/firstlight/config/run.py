"""A whole run: data, tokenizer, model, optimizer, training, and how they must agree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from firstlight.config.base import (
    Fraction,
    Integer,
    NonNegative,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Section,
)
from firstlight.config.batch import Batch, resolve_batch
from firstlight.config.checkpoint import CheckpointConfig
from firstlight.config.corpus import CorpusConfig
from firstlight.config.data import DataConfig, TokenizerConfig
from firstlight.config.loss_scale import LossScaleConfig
from firstlight.config.masking import MaskingConfig
from firstlight.config.model import ModelConfig
from firstlight.config.parallel import Layout, ParallelConfig, check_model_fits, least_world_size, resolve_layout
from firstlight.config.stability import StabilityConfig
from firstlight.support.errors import ConfigError, did_you_mean


class OptimizerConfig(Section):
    """AdamW (Loshchilov & Hutter 2019), decay on matrices only."""

    name: Literal["adamw"] = "adamw"
    """Optimizer."""
    lr: PositiveFloat = 3e-4
    """Peak learning rate."""
    min_lr: NonNegativeFloat = 3e-5
    """Learning rate at the end of the schedule (absolute)."""
    weight_decay: NonNegativeFloat = 0.1
    """Decoupled weight decay on matrices; norms and biases have none."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    """Decay rates of the two moments."""
    eps: PositiveFloat = 1e-8
    """Denominator constant."""

    @model_validator(mode="after")
    def _order(self) -> OptimizerConfig:
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr {self.min_lr:g} is above lr {self.lr:g}")
        if max(self.betas) >= 1:
            raise ValueError("betas must be below 1")
        return self


class ScheduleConfig(Section):
    """Learning rate over time; lengths in steps or in tokens, not both."""

    name: Literal["cosine", "linear", "wsd", "constant"] = "cosine"
    """Shape after warm-up. wsd: constant, then linear decay over the last part."""
    warmup_steps: NonNegative | None = None
    """Steps of linear warm-up from 0."""
    warmup_tokens: NonNegative | None = None
    """The same in tokens."""
    decay_steps: Positive | None = None
    """wsd: steps of the final decay (default 20 % of training); cosine, linear: step where min_lr is reached."""
    decay_tokens: Positive | None = None
    """The same in tokens."""

    @model_validator(mode="after")
    def _units(self) -> ScheduleConfig:
        for what in ("warmup", "decay"):
            if getattr(self, f"{what}_steps") is not None and getattr(self, f"{what}_tokens") is not None:
                raise ValueError(f"give {what}_steps or {what}_tokens, not both")
        if self.name == "constant" and (self.decay_steps or self.decay_tokens):
            raise ValueError("a constant schedule has no decay; leave decay_steps and decay_tokens out")
        return self


class TrainingConfig(Section):
    """Length, batch, precision and device of training."""

    total_steps: Positive | None = None
    """Optimizer steps."""
    total_tokens: Positive | None = None
    """Training length in tokens, rounded up to whole steps."""
    micro_batch_size: Positive | None = None
    """Sequences per forward pass and data-parallel rank."""
    global_batch_size: Positive | None = None
    """Sequences per optimizer step over all ranks."""
    gradient_accumulation_steps: Positive | None = None
    """Forward passes per optimizer step and rank."""
    max_grad_norm: NonNegativeFloat = 1.0
    """Gradients are scaled to at most this global L2 norm; 0: never."""
    precision: Literal["fp32", "bf16", "fp16", "fp8"] = "bf16"
    """Arithmetic of matrix products; weights and optimizer stay fp32. fp16: with a loss scale. fp8: the linear layers
    of blocks (extra `float8`, H100 or newer), the rest bf16."""
    loss_scale: LossScaleConfig = LossScaleConfig()
    fp16_on_cpu: bool = False
    """Allow precision fp16 on a CPU, where its matrix products are hundreds of times slower than bf16's."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """auto: the first of CUDA, Apple MPS, CPU that works."""
    compile: bool = True
    """torch.compile on every block."""
    recompute: Literal["none", "selective", "full"] = "none"
    """What the backward pass computes again: nothing; all but matrix products and attention; whole blocks."""
    max_hours: PositiveFloat | None = None
    """Stop and save when the process has run so long; the step under way and its save still come. Unset: never."""
    hang_seconds: NonNegative = 1200
    """A process that finishes no step for so long (and 5 times its longest) has hung: its stack is shown and the run
    ends. 0: never."""

    @model_validator(mode="after")
    def _length(self) -> TrainingConfig:
        if self.total_steps is not None and self.total_tokens is not None:
            raise ValueError("give total_steps or total_tokens, not both")
        if self.precision != "fp16" and self.loss_scale != LossScaleConfig():
            raise ValueError(f"loss_scale is for precision fp16, not {self.precision}; leave it out")
        return self


class LaunchConfig(Section):
    """The cluster that a recipe is written for."""

    nodes: Positive | None = None
    """Machines; unset: 1."""
    gpus_per_node: Positive | None = None
    """Accelerators (processes) per machine; unset: as few as the parallel sizes ask for."""


class EvaluationConfig(Section):
    """Validation while training."""

    interval_steps: Positive = 1000
    """Validate every so many steps, and at the end."""
    max_tokens: Positive | None = 1_000_000
    """Most validation tokens per source; unset: all of them."""
    batch_size: Positive | None = None
    """Sequences per forward pass; unset: training.micro_batch_size, or 8 without one."""


class LoggingConfig(Section):
    """Metrics beyond `metrics.jsonl`, which is always written."""

    interval_steps: Positive = 10
    """Write one line of metrics every so many steps."""
    tensorboard: bool = False
    """Also write TensorBoard event files (extra `tensorboard`)."""
    wandb_project: str | None = None
    """Also log to this Weights & Biases project (extra `wandb`)."""


class RunConfig(Section):
    """Everything that defines a run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name of the run; its folder is runs_directory/name."""
    description: str = ""
    """One line about the recipe."""
    runs_directory: str = "runs"
    """Folder that holds the run folders."""
    seed: Annotated[Integer, Field(ge=0, lt=2**63)] = 1234
    """Seed of initialisation, shuffling and every other draw."""
    data: DataConfig = DataConfig()
    corpus: CorpusConfig = CorpusConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    masking: MaskingConfig = MaskingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    training: TrainingConfig = TrainingConfig()
    parallel: ParallelConfig = ParallelConfig()
    launch: LaunchConfig = LaunchConfig()
    stability: StabilityConfig = StabilityConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    logging: LoggingConfig = LoggingConfig()

    @model_validator(mode="after")
    def _agreement(self) -> RunConfig:
        for stage in [self.data.mixture, *(s.mixture for s in self.data.mixture_stages)]:
            for source, weight in stage.items():
                if source not in self.data.sources:
                    raise ValueError(
                        f"data.mixture names '{source}', which data.sources does not have."
                        + did_you_mean(source, self.data.sources)
                    )
                if not 0 < weight < float("inf"):
                    raise ValueError(
                        f"data.mixture.{source} is {weight:g}; a weight is above 0 (leave the source out instead)"
                    )
        starts = [stage.start_tokens for stage in self.data.mixture_stages]
        if starts != sorted(set(starts)) or (starts and starts[0] == 0):
            raise ValueError("data.mixture_stages need rising start_tokens above 0")
        limit, length = self.model.max_position_embeddings, self.data.sequence_length
        if limit is not None and length > limit:
            raise ValueError(f"data.sequence_length {length} is above model.max_position_embeddings {limit}")
        if self.model.causal and self.masking != MaskingConfig():
            raise ValueError("masking is for model.objective masked, and this one is causal; leave it out")
        self.layout(self.declared_world_size)
        return self

    @property
    def predicted_share(self) -> float:
        """Expected share of positions whose token is predicted: 1, or `masking.fraction` of a masked model."""
        return 1.0 if self.model.causal else self.masking.fraction

    @property
    def run_folder(self) -> Path:
        """`runs_directory/name`."""
        return Path(self.runs_directory) / self.name

    @property
    def declared_world_size(self) -> int:
        """Processes that the recipe is written for: those of `launch`, or the fewest that `parallel` allows."""
        if self.launch.gpus_per_node is None:
            return least_world_size(self.parallel)
        return (self.launch.nodes or 1) * self.launch.gpus_per_node

    def layout(self, world_size: int) -> Layout:
        """How `world_size` processes share model and data; ConfigError with the arithmetic when they cannot."""
        layout = resolve_layout(self.parallel, world_size)
        batch = self._batch(layout)
        check_model_fits(self.parallel, self.model, self.data.sequence_length, batch.gradient_accumulation_steps)
        return layout

    def batch(self, world_size: int) -> Batch:
        """Batch arithmetic for `world_size` processes; ConfigError with the equation when it does not come out."""
        return self._batch(self.layout(world_size))

    def _batch(self, layout: Layout) -> Batch:
        training = self.training
        return resolve_batch(
            training.micro_batch_size, training.gradient_accumulation_steps, training.global_batch_size, layout.data
        )

    def steps(self, world_size: int = 1) -> int:
        """Optimizer steps of the whole run, from total_steps or total_tokens."""
        if self.training.total_steps is not None:
            return self.training.total_steps
        if self.training.total_tokens is None:
            raise ConfigError("training: give total_steps or total_tokens; the run has no length.")
        tokens = self.batch(world_size).global_batch_size * self.data.sequence_length
        return -(-self.training.total_tokens // tokens)

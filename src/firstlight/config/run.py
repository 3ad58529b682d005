"""A whole run: data, tokenizer, model, optimizer, training, and how they must agree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from firstlight.config.base import (
    Fraction,
    Integer,
    NonNegative,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Section,
)
from firstlight.config.batch import Batch, divisors, nearest_multiples, resolve_batch
from firstlight.config.corpus import CorpusConfig
from firstlight.config.data import DataConfig, TokenizerConfig
from firstlight.support.errors import ConfigError, did_you_mean


class ModelConfig(Section):
    """Shape of the Transformer."""

    architecture: Literal["llama", "gpt2"] = "llama"
    """llama: RMSNorm, RoPE, SwiGLU, no biases. gpt2: LayerNorm, learned positions, GELU, biases."""
    vocab_size: Positive | None = None
    """Rows of the embedding; unset: the tokenizer's size rounded up to a multiple of 64."""
    hidden_size: Positive = 512
    """Width of the residual stream."""
    intermediate_size: Positive | None = None
    """Width of the feed-forward layer; unset: 8/3 hidden rounded up to 64 (llama), 4 hidden (gpt2)."""
    num_hidden_layers: Positive = 8
    """Number of Transformer blocks."""
    num_attention_heads: Positive = 8
    """Query heads."""
    num_key_value_heads: Positive | None = None
    """Key and value heads; unset: as many as query heads."""
    head_dim: Positive | None = None
    """Width of one head; unset: hidden_size / num_attention_heads."""
    max_position_embeddings: Positive | None = None
    """Longest sequence the model is declared for; unset: data.sequence_length."""
    rope_theta: PositiveFloat = 10000.0
    """Base of the rotary frequencies."""
    norm_eps: PositiveFloat = Field(default=1e-6, alias="rms_norm_eps")
    """Epsilon of RMSNorm or LayerNorm."""
    qk_norm: bool = False
    """RMSNorm on every query and key head (Qwen3)."""
    tie_word_embeddings: bool = False
    """Input embedding and output head share one matrix."""
    initializer_range: PositiveFloat = 0.02
    """Standard deviation of the normal initialisation."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    @model_validator(mode="after")
    def _shapes(self) -> ModelConfig:
        heads, groups = self.num_attention_heads, self.num_key_value_heads
        if self.head_dim is None and self.hidden_size % heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not divisible by num_attention_heads {heads}; "
                f"nearest that are: {nearest_multiples(self.hidden_size, heads)}"
            )
        if groups is not None and heads % groups:
            raise ValueError(
                f"num_attention_heads {heads} is not divisible by num_key_value_heads {groups}; "
                f"valid: {', '.join(str(d) for d in divisors(heads))}"
            )
        if self.architecture == "gpt2":
            for field, wrong in (
                ("num_key_value_heads", groups not in (None, heads)),
                ("qk_norm", self.qk_norm),
                ("head_dim", self.head_dim not in (None, self.hidden_size // heads)),
            ):
                if wrong:
                    raise ValueError(f"architecture gpt2 has no {field}; leave it out or use architecture llama")
        elif (self.head_dim or self.hidden_size // heads) % 2:
            raise ValueError("rotary positions need an even head_dim")
        return self

    def resolved(self, tokenizer_size: int | None = None, sequence_length: int = 1024) -> ModelConfig:
        """The same shape with every unset field filled in; the model is built from nothing else.

        Raises ConfigError when the vocabulary is smaller than the tokenizer, or unset and there is no tokenizer.
        """
        vocab_size = self.vocab_size
        if vocab_size is None:
            if tokenizer_size is None:
                raise ConfigError("model.vocab_size is missing; without a tokenizer it cannot be derived.")
            vocab_size = -(-tokenizer_size // 64) * 64
        if tokenizer_size is not None and vocab_size < tokenizer_size:
            raise ConfigError(
                f"model.vocab_size {vocab_size} is smaller than the tokenizer's {tokenizer_size}; "
                f"use at least {tokenizer_size}, or leave it out."
            )
        intermediate = 4 * self.hidden_size
        if self.architecture == "llama":
            intermediate = -(-8 * self.hidden_size // (3 * 64)) * 64
        return self.model_copy(
            update={
                "vocab_size": vocab_size,
                "intermediate_size": self.intermediate_size or intermediate,
                "num_key_value_heads": self.num_key_value_heads or self.num_attention_heads,
                "head_dim": self.head_dim or self.hidden_size // self.num_attention_heads,
                "max_position_embeddings": self.max_position_embeddings or sequence_length,
            }
        )


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
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    """Arithmetic of matrix products; weights and optimizer stay fp32."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """auto: the first of CUDA, Apple MPS, CPU that works."""
    compile: bool = True
    """torch.compile on every block."""
    recompute: Literal["none", "full"] = "none"
    """Activation recomputation: none, or every block in the backward pass."""

    @model_validator(mode="after")
    def _length(self) -> TrainingConfig:
        if self.total_steps is not None and self.total_tokens is not None:
            raise ValueError("give total_steps or total_tokens, not both")
        return self


class ParallelConfig(Section):
    """How the model is divided over processes."""

    tensor: Positive = 1
    """Tensor parallel size."""
    pipeline: Positive = 1
    """Pipeline parallel size."""
    context: Positive = 1
    """Context parallel size."""


class LaunchConfig(Section):
    """The cluster that a recipe is written for."""

    nodes: Positive = 1
    """Machines."""
    gpus_per_node: Positive = 1
    """Accelerators (processes) per machine."""


class CheckpointConfig(Section):
    """When to save and what to keep."""

    interval_steps: Positive = 1000
    """Save every so many steps, and at the end."""
    keep_last: Positive = 2
    """Newest checkpoints kept."""
    keep_every_steps: Positive | None = None
    """Also keep every checkpoint whose step is a multiple of this."""


class EvaluationConfig(Section):
    """Validation while training."""

    interval_steps: Positive = 1000
    """Validate every so many steps, and at the end."""
    max_tokens: Positive | None = 1_000_000
    """Most validation tokens per source; unset: all of them."""
    batch_size: Positive | None = None
    """Sequences per forward pass; unset: the training micro batch."""


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
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    training: TrainingConfig = TrainingConfig()
    parallel: ParallelConfig = ParallelConfig()
    launch: LaunchConfig = LaunchConfig()
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
        self.batch(self.launch.nodes * self.launch.gpus_per_node)
        return self

    @property
    def run_folder(self) -> Path:
        """`runs_directory/name`."""
        return Path(self.runs_directory) / self.name

    def batch(self, world_size: int) -> Batch:
        """Batch arithmetic for `world_size` processes; ConfigError with the equation when it does not come out."""
        parallel = self.parallel
        model_ranks = parallel.tensor * parallel.pipeline * parallel.context
        if world_size % model_ranks:
            raise ConfigError(
                f"parallel: tensor {parallel.tensor} × pipeline {parallel.pipeline} × context {parallel.context} = "
                f"{model_ranks} does not divide the {world_size} processes; "
                f"use a multiple of {model_ranks} processes or smaller parallel sizes."
            )
        training = self.training
        return resolve_batch(
            training.micro_batch_size,
            training.gradient_accumulation_steps,
            training.global_batch_size,
            world_size // model_ranks,
        )

    def steps(self, world_size: int = 1) -> int:
        """Optimizer steps of the whole run, from total_steps or total_tokens."""
        if self.training.total_steps is not None:
            return self.training.total_steps
        if self.training.total_tokens is None:
            raise ConfigError("training: give total_steps or total_tokens; the run has no length.")
        tokens = self.batch(world_size).global_batch_size * self.data.sequence_length
        return -(-self.training.total_tokens // tokens)

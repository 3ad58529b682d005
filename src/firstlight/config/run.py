"""A whole run: data, tokenizer, model, optimizer, training, and how they must agree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

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

    name: Literal["cosine", "linear", "wsd", "constant", "inverse_square_root"] = "cosine"
    """Shape after warm-up. wsd: constant, then decay over the last part. inverse_square_root: lr·√(warm-up / step)."""
    wsd_decay: Literal["linear", "cosine", "exponential", "minus_sqrt"] = "linear"
    """wsd: shape of the final decay. exponential: 2·0.5^x - 1 of the way down, minus_sqrt: 1 - √x, x from 0 to 1."""
    position: Literal["after_step", "before_step"] = "after_step"
    """Where on the curve a step stands. after_step: the first of w warm-up steps has lr/w, the last step min_lr; tokens
    are rounded up to whole steps. before_step (Megatron-LM): at what was trained until then, so that the first step has
    initial_lr; tokens are exact."""
    initial_lr: NonNegativeFloat = 0.0
    """Learning rate where the warm-up begins."""
    waits_for_overflow: bool = False
    """precision fp16: a step that is skipped for overflow does not count, as in Megatron-LM. Else it does."""
    warmup_steps: NonNegative | None = None
    """Steps of linear warm-up from initial_lr."""
    warmup_tokens: NonNegative | None = None
    """The same in tokens."""
    decay_steps: Positive | None = None
    """wsd: steps of the final decay (default 20 % of training); others: step from which on it is min_lr."""
    decay_tokens: Positive | None = None
    """The same in tokens."""

    @model_validator(mode="after")
    def _units(self) -> ScheduleConfig:
        for what in ("warmup", "decay"):
            if getattr(self, f"{what}_steps") is not None and getattr(self, f"{what}_tokens") is not None:
                raise ValueError(f"give {what}_steps or {what}_tokens, not both")
        if self.name == "constant" and (self.decay_steps or self.decay_tokens):
            raise ValueError("a constant schedule has no decay; leave decay_steps and decay_tokens out")
        if self.name != "wsd" and self.wsd_decay != "linear":
            raise ValueError(f"wsd_decay is for schedule wsd, not {self.name}; leave it out")
        if not (self.warmup_steps or self.warmup_tokens):
            if self.initial_lr:
                raise ValueError("initial_lr is where a warm-up begins, and there is none; leave it out")
            if self.name == "inverse_square_root":
                raise ValueError("inverse_square_root falls from the end of the warm-up; give warmup_steps above 0")
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

    interval_steps: NonNegative = 1000
    """Validate every so many steps, and at the end. 0: never."""
    max_tokens: Positive | None = 1_000_000
    """Most validation tokens per source; unset: all of them."""
    batch_size: Positive | None = None
    """Sequences per forward pass; unset: training.micro_batch_size, or 8 without one."""
    tasks: list[str] = []
    """Tasks to score while training: files of JSON lines, folders of such, or names of lm-eval's (extra `tasks`)."""
    task_interval_steps: Positive | None = None
    """Score the tasks every so many steps, and at the end; unset: interval_steps."""
    task_limit: Positive | None = 200
    """Most items of each task while training; unset: all of them."""
    task_baselines: dict[str, Annotated[float, Field(ge=0, lt=1)]] = {}
    """Accuracy of guessing, by the name of a task; unset: 1 / choices."""

    @model_validator(mode="after")
    def _with_tasks(self) -> EvaluationConfig:
        if not self.tasks and (self.task_interval_steps or self.task_baselines):
            raise ValueError("task_interval_steps and task_baselines go with tasks, and none is named; leave them out")
        return self


class LoggingConfig(Section):
    """Metrics beyond `metrics.jsonl`, which is always written."""

    interval_steps: Positive = 10
    """Write one line of metrics every so many steps."""
    trackers: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = []
    """Where the same numbers go, too; the extra of the same name installs what it needs. Addresses and keys come from
    the environment."""
    project: str | None = None
    """Project (in MLflow: experiment) that the trackers put the run in; unset: firstlight."""

    @model_validator(mode="before")
    @classmethod
    def _former_names(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if value.get("tensorboard"):
            raise ValueError("tensorboard is an entry of logging.trackers now: trackers=[tensorboard]")
        if project := value.get("wandb_project"):
            raise ValueError(f"wandb_project is written trackers=[wandb] and project={project} now")
        kept = {key: item for key, item in value.items() if key not in ("tensorboard", "wandb_project")}
        if isinstance(kept.get("trackers"), str):
            kept["trackers"] = [kept["trackers"]]
        return kept

    @model_validator(mode="after")
    def _trackers_once(self) -> LoggingConfig:
        if len(set(self.trackers)) < len(self.trackers):
            raise ValueError(f"trackers names one twice: {', '.join(self.trackers)}")
        if self.project is not None and not set(self.trackers) - {"tensorboard"}:
            raise ValueError("project is for the trackers wandb, mlflow and trackio; name one in trackers")
        if self.project is not None and not self.project.strip():
            raise ValueError("project is empty; leave it out, or give a name")
        return self


class RunConfig(Section):
    """Everything that defines a run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name of the run; its folder is runs_directory/name."""
    description: str = ""
    """One line about the recipe."""
    license: str | None = None
    """Licence of the trained model as the hub writes it (apache-2.0, cc-by-4.0); for the card of an export."""
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
        if self.schedule.initial_lr > self.optimizer.lr:
            raise ValueError(
                f"schedule.initial_lr {self.schedule.initial_lr:g} is above optimizer.lr {self.optimizer.lr:g}"
            )
        if self.schedule.waits_for_overflow and self.training.precision != "fp16":
            raise ValueError(
                f"schedule.waits_for_overflow is for training.precision fp16, not {self.training.precision}; "
                "leave it out"
            )
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

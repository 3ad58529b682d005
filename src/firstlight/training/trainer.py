"""The training loop, written like the algorithm it is.

    while step < total:  batch → forward and backward over micro-batches → check → clip → step → log
                         → maybe validate → maybe save

The loss of a step is the sum of its token losses over the number of its target tokens, whatever the micro-batches and
whatever the layout. All state is: model, optimizer, loss scale, step. The learning rate is a function of the step, the
batch a function of `samples_consumed` = step × global batch; so a resumed run does exactly what the uninterrupted one
would have done. Every process of a run executes the same loop; only the chief's run folder writes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from firstlight.config import RunConfig
from firstlight.parallel.gradients import reduce_step, scale_gradients
from firstlight.parallel.parallel_model import ParallelModel
from firstlight.planning.flops import training_flops_per_token
from firstlight.support.console import ProgressBar, human_count, note, progress
from firstlight.support.errors import DivergedError, TrainingStopped
from firstlight.tokens.batches import SampleStream
from firstlight.tokens.loader import Loader, TokenBatch
from firstlight.tokens.objective import Objective
from firstlight.training.allocator import keep_freed_memory
from firstlight.training.checkpoint import CheckpointWriter, load_checkpoint
from firstlight.training.device import peak_memory_bytes
from firstlight.training.loss_scale import LossScale
from firstlight.training.metrics import MetricsLog
from firstlight.training.optimizer import Optimizer
from firstlight.training.run_folder import RunFolder
from firstlight.training.schedule import learning_rate
from firstlight.training.signals import StopRequest

Validate = Callable[[ParallelModel], Mapping[str, Any]]


class Step(NamedTuple):
    """What came of one optimizer step; the same on every process."""

    loss: float
    """Mean token loss in nats."""
    grad_norm: float
    """L2 norm of the whole gradient before clipping; not finite where an fp16 step was skipped."""
    learning_rate: float
    stops: int
    """Processes that were asked to stop."""


@dataclass
class Interval:
    """What is summed between two lines of metrics."""

    steps: int = 0
    seconds: float = 0.0
    waiting: float = 0.0


class Trainer:
    """Trains `model` on `stream` into `run`; `validate(model)` gives numbers to log next to the training loss."""

    def __init__(
        self,
        config: RunConfig,
        run: RunFolder,
        model: ParallelModel,
        stream: SampleStream,
        *,
        objective: Objective,
        eod_id: int,
        peak_flops: float,
        remark: str = "",
        validate: Validate | None = None,
    ) -> None:
        """model: materialized, with its weights or ready to `resume`. objective: what it is to predict, as
        `objective_of` makes it. peak_flops: of one process, in FLOP/s. remark: shown until the first step is done."""
        self.config, self.run, self.model, self.stream, self.objective = config, run, model, stream, objective
        self.eod_id, self.peak_flops, self.validate, self.remark = eod_id, peak_flops, validate, remark
        self.ranks, self.device = model.ranks, model.ranks.device
        if self.device.type == "cpu":
            keep_freed_memory()
        world_size = self.ranks.layout.world_size
        self.batch = config.batch(world_size)
        self.total_steps = config.steps(world_size)
        self.step_tokens = self.batch.global_batch_size * config.data.sequence_length
        self.flops_per_token = training_flops_per_token(
            config.model, config.data.sequence_length, config.predicted_share
        )
        self.optimizer = Optimizer(model.named_parameters(), config.optimizer)
        scaled = config.training.precision == "fp16"
        self.loss_scale = LossScale(config.training.loss_scale, self.step_tokens) if scaled else None
        self.step = 0
        self.last_validation: Mapping[str, Any] = {}

    def fit(self) -> None:
        """Train to the last step; ends with a checkpoint and a validation.

        Raises DivergedError at a loss or gradient that is not finite, before the optimizer moves, and TrainingStopped
        after a signal, when the state is saved.
        """
        batches = self.batches()
        log = MetricsLog(self.run, self.config)
        interval = Interval()
        self.model.train()
        try:
            with (
                CheckpointWriter(self.run.checkpoints, self.config.checkpoint) as writer,
                StopRequest() as stop,
                progress("train", self.total_steps, "steps", completed=self.step) as bar,
            ):
                bar.show(self.remark)
                while self.step < self.total_steps:
                    started, waited = time.perf_counter(), batches.wait_seconds
                    step = self.train_step(next(batches), stop.signal_name is not None)
                    interval.steps += 1
                    interval.seconds += time.perf_counter() - started
                    interval.waiting += batches.wait_seconds - waited
                    bar.advance()
                    last = self.step == self.total_steps
                    if last or self.step % self.config.logging.interval_steps == 0:
                        self._log(log, bar, interval, step)
                        interval = Interval()
                    if last or self.step % self.config.evaluation.interval_steps == 0:
                        self._validate(log, bar)
                    if last or step.stops or self.step % self.config.checkpoint.interval_steps == 0:
                        self.save(writer, wait=last or step.stops > 0)
                    if step.stops and not last:
                        name = stop.signal_name or "signal to another process"
                        self.run.event("stopped", step=self.step, signal=name)
                        raise TrainingStopped(
                            f"{name}: stopped at step {self.step} of {self.total_steps}, saved. "
                            f"Go on with: firstlight train {self.run.path}"
                        )
        finally:
            batches.close()
            log.close()

    def batches(self) -> Loader:
        """This process's part of the global batches from the current step on, read ahead in the background."""
        return Loader(
            self.stream,
            self.step * self.batch.global_batch_size,
            self.batch.global_batch_size,
            self.ranks.data_rank,
            self.ranks.layout.data,
            objective=self.objective,
            eod_id=self.eod_id if self.config.data.attention_within_documents else None,
            pin_memory=self.device.type == "cuda",
        )

    def train_step(self, batch: TokenBatch, stop: bool = False) -> Step:
        """One optimizer step on this process's part of a global batch; `stop` is told to all others."""
        scale = self.loss_scale.scale if self.loss_scale else 1.0
        targets = torch.tensor(float((batch.targets != -100).sum()), device=self.device)
        factor = scale / self.ranks.sum_over_data(targets)
        scaled_loss = self.model.forward_backward(batch, factor)
        loss, norm, stops = reduce_step(self.model, scaled_loss, stop)
        loss, norm = loss / scale, norm / scale
        lr = learning_rate(
            self.step + 1, self.config.schedule, self.config.optimizer, self.total_steps, self.step_tokens
        )
        if self._may_move(loss, norm):
            limit = self.config.training.max_grad_norm or math.inf
            scale_gradients(self.model, min(1.0, limit / (norm + 1e-6)) / scale)
            self.optimizer.step(lr)
            self.model.parameters_changed()
        else:
            self.optimizer.drop_gradients()
        self.step += 1
        return Step(loss, norm, lr, round(stops))

    def save(self, writer: CheckpointWriter, wait: bool = False) -> None:
        """Write the checkpoint of this step; unless told to wait, while training goes on."""
        state = {
            "samples_consumed": self.step * self.batch.global_batch_size,
            "tokens_consumed": self.step * self.step_tokens,
            "validation": dict(self.last_validation),
            "loss_scale": self.loss_scale.state() if self.loss_scale else None,
        }
        writer.save(self.step, self._tensors(), state, wait=wait)

    def resume(self) -> None:
        """Take up the newest sound checkpoint of the run, whatever layout saved it."""
        tensors = self._tensors()
        state = load_checkpoint(self.run.checkpoints, tensors)
        torch.set_rng_state(tensors["rng.cpu"])
        self.model.parameters_changed()
        if self.loss_scale and state.get("loss_scale"):
            self.loss_scale.load(state["loss_scale"])
        self.step, self.last_validation = state["step"], state["validation"]
        self.run.trim_metrics(self.step)
        self.run.event("resumed", step=self.step)

    def _tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor of the run by name: parameters, optimizer state, random state."""
        tensors = {f"model.{name}": value.detach() for name, value in self.model.named_parameters()}
        tensors |= {f"optimizer.{name}": value for name, value in self.optimizer.tensors()}
        return {**tensors, "rng.cpu": torch.get_rng_state()}

    def _may_move(self, loss: float, grad_norm: float) -> bool:
        """Whether the optimizer may use this step's gradients: false where fp16 overflowed, which the loss scale
        answers. Any other number that is not finite raises DivergedError; parameters stay as they were."""
        finite = math.isfinite(loss) and math.isfinite(grad_norm)
        first = self.step * self.batch.global_batch_size
        samples = [first, first + self.batch.global_batch_size]
        if self.loss_scale:
            if not finite:
                self.run.event("overflow", step=self.step + 1, loss_scale=self.loss_scale.scale, samples=samples)
            self.loss_scale.update(overflow=not finite)
            return finite
        if finite:
            return True
        self.run.event("diverged", step=self.step + 1, loss=str(loss), grad_norm=str(grad_norm), samples=samples)
        saved = self.run.last_step()
        raise DivergedError(
            f"step {self.step + 1}: loss {loss}, gradient norm {grad_norm} (samples {samples[0]} to {samples[1] - 1}). "
            "Nothing was changed by this step. "
            + (f"The checkpoint of step {saved} is sound; " if saved else "")
            + "a lower optimizer.lr, a longer warm-up or training.precision=fp32 are what usually helps."
        )

    def _validate(self, log: MetricsLog, bar: ProgressBar) -> None:
        if self.validate is None:
            return
        bar.show("validating …")
        self.model.train(False)
        # Other batch shapes and no gradients would compile every block again for a few batches.
        with torch.compiler.set_stance("force_eager"):
            self.last_validation = self.validate(self.model)
        self.model.train()
        log.write(self.step, {"validation": self.last_validation})
        key = "bits_per_byte" if self.config.model.causal else "accuracy"
        numbers = ((name, score[key]) for name, score in self.last_validation.items())
        shown = ", ".join(f"{name} {'–' if number is None else f'{number:.3f}'}" for name, number in numbers)
        note(f"step {self.step}: held-out {key.replace('_', ' ')}: {shown}")
        bar.show(self.remark)

    def _log(self, log: MetricsLog, bar: ProgressBar, interval: Interval, step: Step) -> None:
        rate = interval.steps * self.step_tokens / interval.seconds
        mfu = rate * self.flops_per_token / (self.peak_flops * self.ranks.layout.world_size)
        overflowed = not math.isfinite(step.grad_norm)
        scaling = {}
        if self.loss_scale:
            scaling = {"loss_scale": self.loss_scale.scale, "skipped_steps": self.loss_scale.skipped_steps}
        log.write(
            self.step,
            {
                "loss": step.loss if math.isfinite(step.loss) else None,
                "learning_rate": step.learning_rate,
                "grad_norm": None if overflowed else step.grad_norm,
                "tokens_per_second": rate,
                "mfu": mfu,
                "samples_consumed": self.step * self.batch.global_batch_size,
                "tokens_consumed": self.step * self.step_tokens,
                "data_wait_fraction": interval.waiting / interval.seconds,
                "peak_memory_bytes": peak_memory_bytes(self.device),
                **scaling,
            },
        )
        self.remark = (
            f"loss {step.loss:.3f}  lr {step.learning_rate:.2e}  "
            + (f"skipped, loss scale {scaling['loss_scale']:g}" if overflowed else f"norm {step.grad_norm:.2f}")
            + f"  {human_count(rate)} tok/s  mfu {100 * mfu:.0f}%"
        )
        bar.show(self.remark)

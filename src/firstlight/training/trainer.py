"""The training loop, written like the algorithm it is.

    while step < total:  batch → forward and backward over micro-batches → check → clip → step → log
                         → maybe go back → maybe validate → maybe save

The loss of a step is the sum of its token losses over the number of its target tokens, whatever the micro-batches and
whatever the layout. All state is: model, optimizer, loss scale, guard, step, samples consumed. The learning rate is a
function of the step, the batch of the samples consumed (step × global batch, unless the run went back); so a resumed
run does exactly what the uninterrupted one would have done. Every process of a run executes the same loop; only the
chief's run folder writes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from firstlight.config import RunConfig
from firstlight.parallel.gradients import parameter_norm, reduce_step, scale_gradients
from firstlight.parallel.parallel_model import ParallelModel
from firstlight.planning.flops import training_flops_per_token
from firstlight.support.console import ProgressBar, human_count, note, progress
from firstlight.support.errors import CheckpointError, TrainingStopped
from firstlight.support.hang import beat, resting, watching_steps
from firstlight.tokens.loader import Loader, TokenBatch
from firstlight.tokens.objective import Objective
from firstlight.tokens.stream import Stream
from firstlight.training.allocator import keep_freed_memory
from firstlight.training.checkpoint import CheckpointWriter, last_good_step, load_checkpoint, set_aside_after
from firstlight.training.device import peak_memory_bytes
from firstlight.training.guard import Guard
from firstlight.training.incidents import Describe, Incidents
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
    saving: float = 0.0


class Trainer:
    """Trains `model` on `stream` into `run`; `validate(model)` gives numbers to log next to the training loss."""

    def __init__(
        self,
        config: RunConfig,
        run: RunFolder,
        model: ParallelModel,
        stream: Stream,
        *,
        objective: Objective,
        eod_id: int,
        peak_flops: float,
        remark: str = "",
        validate: Validate | None = None,
        score_tasks: Validate | None = None,
        describe: Describe | None = None,
    ) -> None:
        """model: materialized, with its weights or ready to `resume`. objective: what it is to predict, as
        `objective_of` makes it. peak_flops: of one process, in FLOP/s. remark: shown until the first step is done.
        score_tasks: as `validate`, of tasks: {"tasks": {name: numbers}} and what follows from them.
        describe: what samples are, for the record of a skipped step."""
        self.config, self.run, self.model, self.stream, self.objective = config, run, model, stream, objective
        self.eod_id, self.peak_flops, self.validate, self.remark = eod_id, peak_flops, validate, remark
        self.score_tasks = score_tasks
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
        self.guard = Guard(
            config.stability, [stage.first_sample for stage in stream.mixture.stages[1:]] if stream else []
        )
        self.incidents = Incidents(run, describe)
        self.step = 0
        self.samples_consumed = 0
        """The next sample that is read; all that the data needs to go on."""
        self.skipped_samples: list[list[int]] = []
        """[first, one past the last] of samples that were passed over when the run went back."""
        self.last_validation: Mapping[str, Any] = {}

    def fit(self) -> None:
        """Train to the last step; ends with a checkpoint and a validation.

        Raises DivergedError when going back did not help, with the model as the last checkpoint has it, and
        TrainingStopped after a signal, when the state is saved.
        """
        batches = self.batches()
        log = MetricsLog(self.run, self.config, self.step)
        interval = Interval()
        self.model.train()
        try:
            with (
                CheckpointWriter(self.run.checkpoints, self.config.checkpoint, self.incidents.save_failed) as writer,
                StopRequest(self.config.training.max_hours) as stop,
                watching_steps(self.config.training.hang_seconds, self._tell_hung),
                progress("train", self.total_steps, "steps", completed=self.step) as bar,
            ):
                bar.show(self.remark)
                while self.step < self.total_steps:
                    started, waited = time.perf_counter(), batches.wait_seconds
                    step = self.train_step(next(batches), stop.signal_name is not None)
                    beat()
                    interval.steps += 1
                    interval.seconds += time.perf_counter() - started
                    interval.waiting += batches.wait_seconds - waited
                    bar.advance()
                    at_the_end = self.step == self.total_steps and self.guard.in_a_row > 1
                    if self.guard.gives_up or at_the_end:
                        batches.close()
                        bar.advance(-self.go_back(step, writer))
                        batches, interval = self.batches(), Interval()
                        continue
                    last = self.step == self.total_steps
                    if last or self.step % self.config.logging.interval_steps == 0:
                        self._log(log, bar, interval, step)
                        interval = Interval()
                    validating = self.config.evaluation.interval_steps
                    if validating and (last or self.step % validating == 0):
                        self._validate(log, bar)
                    scoring = self.config.evaluation.task_interval_steps or validating
                    if scoring and (last or self.step % scoring == 0):
                        self._score_tasks(log, bar)
                    if last or step.stops or writer.due(self.step):
                        started = time.perf_counter()
                        self.save(writer, wait=last or step.stops > 0)
                        interval.saving += time.perf_counter() - started
                    if step.stops and not last:
                        name = stop.signal_name or "signal to another process"
                        self.run.event("stopped", step=self.step, signal=name)
                        raise TrainingStopped(
                            f"{name}: stopped at step {self.step} of {self.total_steps}, saved. "
                            f"Go on with: firstlight train {self.run.path}"
                        )
        finally:
            batches.close()
            log.close(finished=self.step == self.total_steps)

    def batches(self) -> Loader:
        """This process's part of the global batches from the current step on, read ahead in the background."""
        return Loader(
            self.stream,
            self.samples_consumed,
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
        waited = self.loss_scale.skipped_steps if self.loss_scale and self.config.schedule.waits_for_overflow else 0
        lr = learning_rate(
            self.step + 1 - waited, self.config.schedule, self.config.optimizer, self.total_steps, self.step_tokens
        )
        if self._may_move(loss, norm, batch.first_sample):
            limit = self.config.training.max_grad_norm or math.inf
            scale_gradients(self.model, min(1.0, limit / (norm + 1e-6)) / scale)
            self.optimizer.step(lr)
            self.model.parameters_changed()
        else:
            self.optimizer.drop_gradients()
        self.step += 1
        self.samples_consumed = batch.first_sample + self.batch.global_batch_size
        return Step(loss, norm, lr, round(stops))

    @resting()
    def save(self, writer: CheckpointWriter, wait: bool = False) -> None:
        """Write the checkpoint of this step; unless told to wait, while training goes on."""
        state = {
            "samples_consumed": self.samples_consumed,
            "skipped_samples": self.skipped_samples,
            "tokens_consumed": self.step * self.step_tokens,
            "guard": self.guard.state(),
            "good": self.guard.calm,
            "validation": dict(self.last_validation),
            "loss_scale": self.loss_scale.state() if self.loss_scale else None,
        }
        writer.save(self.step, self._tensors(), state, wait=wait)

    def resume(self) -> None:
        """Take up the newest sound checkpoint of the run, whatever layout saved it."""
        state = self._load()
        self.samples_consumed, self.skipped_samples = state["samples_consumed"], state.get("skipped_samples", [])
        if state.get("guard"):
            self.guard.load(state["guard"])
        self.run.trim_metrics(self.step)
        self.run.event("resumed", step=self.step)

    @resting()
    def go_back(self, last: Step, writer: CheckpointWriter) -> int:
        """Take up the last good checkpoint, and pass over the samples since then; returns the steps undone.

        Raises DivergedError when there is none, or the run went back often enough.
        """
        writer.wait()
        spoilt, samples = self.step, [self.samples_consumed - self.batch.global_batch_size, self.samples_consumed]
        good = self.ranks.from_chief(lambda: last_good_step(self.run.checkpoints))
        reason = self.guard.why_not_back(good)
        if reason:
            raise self.incidents.given_up(spoilt, self.guard, last.loss, last.grad_norm, samples, reason)
        state = self._load(good)
        # Else a run that is killed now would resume from a newer checkpoint of what was given up.
        self.ranks.from_chief(lambda: set_aside_after(self.run.checkpoints, self.step))
        self.guard.go_back(state.get("guard"))
        self.skipped_samples.append([state["samples_consumed"], self.samples_consumed])
        self.incidents.rolled_back(spoilt, self.step, self.skipped_samples[-1], self.guard)
        return spoilt - self.step

    def _load(self, step: int | None = None) -> dict[str, Any]:
        """Fill model, optimizer, loss scale and step from a checkpoint (unset: the newest sound one); its state."""
        tensors = self._tensors()
        state = load_checkpoint(self.run.checkpoints, tensors, step)
        torch.set_rng_state(tensors["rng.cpu"])
        self.model.parameters_changed()
        if self.loss_scale and state.get("loss_scale"):
            self.loss_scale.load(state["loss_scale"])
        self.step, self.last_validation = state["step"], state.get("validation") or {}
        if not isinstance(state.get("samples_consumed"), int):
            raise CheckpointError(f"the checkpoint of step {self.step} does not say how many samples the run has read.")
        return state

    def _tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor of the run by name: parameters, optimizer state, random state."""
        tensors = {f"model.{name}": value.detach() for name, value in self.model.named_parameters()}
        tensors |= {f"optimizer.{name}": value for name, value in self.optimizer.tensors()}
        return {**tensors, "rng.cpu": torch.get_rng_state()}

    def _may_move(self, loss: float, grad_norm: float, first_sample: int) -> bool:
        """Whether the optimizer may use this step's gradients: not where fp16 overflowed, which the loss scale answers,
        nor where the guard finds the step spoilt."""
        samples = [first_sample, first_sample + self.batch.global_batch_size]
        if self.loss_scale:
            overflow = not (math.isfinite(loss) and math.isfinite(grad_norm))
            if overflow:
                self.incidents.overflow(self.step + 1, self.loss_scale.scale, samples)
            self.loss_scale.update(overflow)
            if overflow:
                return False
        verdict = self.guard.judge(loss, grad_norm, first_sample)
        if not verdict.accepted:
            self.incidents.skipped(self.step + 1, verdict, loss, grad_norm, samples, self.guard.in_a_row)
        return verdict.accepted

    def _tell_hung(self, message: str) -> None:
        self.run.event("hung", step=self.step, message=message)

    @resting()
    def _validate(self, log: MetricsLog, bar: ProgressBar) -> None:
        if self.validate is None:
            return
        bar.show("validating …")
        self.last_validation, seconds = self._evaluated(self.validate)
        log.write(self.step, {"validation": self.last_validation, "validation_seconds": seconds})
        key = "bits_per_byte" if self.config.model.causal else "accuracy"
        if all(score[key] is None for score in self.last_validation.values()):
            key = "loss"  # the tokenizer, or the lack of one, does not say how many bytes a token stands for
        numbers = ((name, score[key]) for name, score in self.last_validation.items())
        shown = ", ".join(f"{name} {'–' if number is None else f'{number:.3f}'}" for name, number in numbers)
        note(f"step {self.step}: held-out {key.replace('_', ' ')}: {shown}")
        bar.show(self.remark)

    @resting()
    def _score_tasks(self, log: MetricsLog, bar: ProgressBar) -> None:
        if self.score_tasks is None:
            return
        bar.show("scoring tasks …")
        numbers, seconds = self._evaluated(self.score_tasks)
        log.write(self.step, {**numbers, "tasks_seconds": seconds})
        shown = (f"{name} {score['acc']:.3f}" for name, score in numbers["tasks"].items() if "acc" in score)
        note(f"step {self.step}: accuracy on tasks: {', '.join(shown)}")
        bar.show(self.remark)

    def _evaluated(self, evaluate: Validate) -> tuple[Mapping[str, Any], float]:
        """(what `evaluate` says of the model as it stands, seconds)."""
        started = time.perf_counter()
        self.model.train(False)
        # Other batch shapes and no gradients would compile every block again for a few batches.
        with torch.compiler.set_stance("force_eager"):
            found = evaluate(self.model)
        self.model.train()
        return found, time.perf_counter() - started

    def _log(self, log: MetricsLog, bar: ProgressBar, interval: Interval, step: Step) -> None:
        rate = interval.steps * self.step_tokens / interval.seconds
        mfu = rate * self.flops_per_token / (self.peak_flops * self.ranks.layout.world_size)
        finite = math.isfinite(step.grad_norm)
        skipped, norm = self.guard.skipped_steps, f"norm {step.grad_norm:.2f}"
        scaling: dict[str, Any] = {}
        if self.loss_scale:
            scaling, skipped = {"loss_scale": self.loss_scale.scale}, skipped + self.loss_scale.skipped_steps
            norm = norm if finite else f"skipped, loss scale {self.loss_scale.scale:g}"
        log.write(
            self.step,
            {
                "loss": step.loss if math.isfinite(step.loss) else None,
                "learning_rate": step.learning_rate,
                "grad_norm": step.grad_norm if finite else None,
                "tokens_per_second": rate,
                "mfu": mfu,
                "param_norm": parameter_norm(self.model),
                "skipped_steps": skipped,
                "samples_consumed": self.samples_consumed,
                "tokens_consumed": self.step * self.step_tokens,
                "seconds": interval.seconds,
                "data_wait_fraction": interval.waiting / interval.seconds,
                "save_seconds": interval.saving,
                "peak_memory_bytes": peak_memory_bytes(self.device),
                **scaling,
            },
        )
        speed = f"{human_count(rate)} tok/s  mfu {100 * mfu:.0f}%"
        self.remark = f"loss {step.loss:.3f}  lr {step.learning_rate:.2e}  {norm}  {speed}"
        bar.show(self.remark)

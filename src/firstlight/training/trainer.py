"""The training loop, written like the algorithm it is.

    while step < total:  batch → forward and backward over micro-batches → check → clip → step → log
                         → maybe validate → maybe save

The loss of a step is the sum of its token losses over the number of its target tokens, whatever the micro-batches.
All state is: model, optimizer, step. The learning rate is a function of the step, the batch a function of
`samples_consumed` = step × global batch; so a resumed run does exactly what the uninterrupted one would have done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from firstlight.config import RunConfig
from firstlight.model import CausalLanguageModel
from firstlight.parallel.compile import apply_compile
from firstlight.parallel.recompute import apply_recompute
from firstlight.planning.flops import training_flops_per_token
from firstlight.support.console import ProgressBar, human_count, note, progress
from firstlight.support.errors import DivergedError, TrainingStopped
from firstlight.tokens.batches import SampleStream
from firstlight.tokens.loader import Loader, TokenBatch
from firstlight.training.allocator import keep_freed_memory
from firstlight.training.checkpoint import load_checkpoint, prune_checkpoints, save_checkpoint
from firstlight.training.device import DTYPES, peak_memory_bytes
from firstlight.training.metrics import MetricsLog
from firstlight.training.optimizer import build_optimizer, optimizer_tensors, set_learning_rate
from firstlight.training.run_folder import RunFolder
from firstlight.training.schedule import learning_rate
from firstlight.training.signals import StopRequest

Validate = Callable[[CausalLanguageModel], Mapping[str, Any]]


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
        model: CausalLanguageModel,
        stream: SampleStream,
        device: torch.device,
        *,
        eod_id: int,
        peak_flops: float,
        compile_blocks: bool,
        validate: Validate | None = None,
    ) -> None:
        self.config, self.run, self.model, self.stream = config, run, model, stream
        self.device, self.eod_id, self.peak_flops, self.validate = device, eod_id, peak_flops, validate
        if device.type == "cpu":
            keep_freed_memory()
        self.batch = config.batch(world_size=1)
        self.total_steps = config.steps(world_size=1)
        self.step_tokens = self.batch.global_batch_size * config.data.sequence_length
        self.flops_per_token = training_flops_per_token(model.config, config.data.sequence_length)
        self.optimizer = build_optimizer(model, config.optimizer)
        if config.training.recompute == "full":
            apply_recompute(model)
        if compile_blocks:
            apply_compile(model)
        self.step = 0
        self.last_validation: Mapping[str, Any] = {}
        self.remark = "compiling" if compile_blocks else ""

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
                StopRequest() as stop,
                progress("train", self.total_steps, "steps", completed=self.step) as bar,
            ):
                bar.show(self.remark)
                while self.step < self.total_steps:
                    started, waited = time.perf_counter(), batches.wait_seconds
                    loss, grad_norm, lr = self.train_step(next(batches))
                    interval.steps += 1
                    interval.seconds += time.perf_counter() - started
                    interval.waiting += batches.wait_seconds - waited
                    bar.advance()
                    last = self.step == self.total_steps
                    if last or self.step % self.config.logging.interval_steps == 0:
                        self._log(log, bar, interval, loss, grad_norm, lr)
                        interval = Interval()
                    if last or self.step % self.config.evaluation.interval_steps == 0:
                        self._validate(log, bar)
                    if last or stop.signal_name or self.step % self.config.checkpoint.interval_steps == 0:
                        self.save()
                    if stop.signal_name and not last:
                        self.run.event("stopped", step=self.step, signal=stop.signal_name)
                        raise TrainingStopped(
                            f"{stop.signal_name}: stopped at step {self.step} of {self.total_steps}, saved. "
                            f"Go on with: firstlight train {self.run.path}"
                        )
        finally:
            batches.close()
            log.close()

    def batches(self) -> Loader:
        """Global batches from the current step on, read ahead in the background."""
        return Loader(
            self.stream,
            self.step * self.batch.global_batch_size,
            self.batch.global_batch_size,
            eod_id=self.eod_id if self.config.data.attention_within_documents else None,
        )

    def train_step(self, batch: TokenBatch) -> tuple[float, float, float]:
        """One optimizer step on a global batch; returns (mean token loss, gradient norm, learning rate)."""
        targets_in_batch = int((batch.targets != -100).sum())
        micro = self.batch.micro_batch_size
        loss = torch.zeros((), device=self.device)
        for start in range(0, self.batch.global_batch_size, micro):
            rows = slice(start, start + micro)
            documents = None if batch.document_ids is None else self._to_device(batch.document_ids[rows])
            with self._autocast():
                token_losses = self.model.token_loss(
                    self._to_device(batch.input_ids[rows]), self._to_device(batch.targets[rows]), documents
                )
            micro_loss = token_losses / targets_in_batch
            micro_loss.backward()
            loss += micro_loss.detach()
        clip = self.config.training.max_grad_norm or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        loss_value, norm_value = torch.stack([loss, norm]).tolist()
        self._check(loss_value, norm_value)
        lr = learning_rate(
            self.step + 1, self.config.schedule, self.config.optimizer, self.total_steps, self.step_tokens
        )
        set_learning_rate(self.optimizer, lr)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return loss_value, norm_value, lr

    def save(self) -> None:
        """Write the checkpoint of this step and remove the ones that retention does not keep."""
        state = {
            "samples_consumed": self.step * self.batch.global_batch_size,
            "tokens_consumed": self.step * self.step_tokens,
            "validation": self.last_validation,
        }
        save_checkpoint(self.run.checkpoints, self.step, self._tensors(), state)
        prune_checkpoints(self.run.checkpoints, self.config.checkpoint)

    def resume(self) -> None:
        """Take up the newest sound checkpoint of the run."""
        tensors = self._tensors()
        state = load_checkpoint(self.run.checkpoints, tensors)
        torch.set_rng_state(tensors["rng.cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)
        self.step, self.last_validation = state["step"], state["validation"]
        self.run.trim_metrics(self.step)
        self.run.event("resumed", step=self.step)

    def _tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor of the run by name: parameters, optimizer state, random state."""
        tensors = {f"model.{name}": value.detach() for name, value in self.model.named_parameters()}
        for name, value in optimizer_tensors(self.optimizer, self.model).items():
            tensors[f"optimizer.{name}"] = value
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        return tensors

    def _check(self, loss: float, grad_norm: float) -> None:
        """Stop before the optimizer moves when a number is not finite; parameters stay as they were."""
        finite = float("-inf") < loss < float("inf") and float("-inf") < grad_norm < float("inf")
        if finite:
            return
        first = self.step * self.batch.global_batch_size
        samples = [first, first + self.batch.global_batch_size]
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
        self.model.eval()
        # Other batch shapes and no gradients would compile every block again for a few batches.
        with torch.compiler.set_stance("force_eager"), self._autocast():
            self.last_validation = self.validate(self.model)
        self.model.train()
        log.write(self.step, {"validation": self.last_validation})
        scores = ", ".join(f"{name} {score['bits_per_byte']:.3f}" for name, score in self.last_validation.items())
        note(f"step {self.step}: held-out bits per byte: {scores}")
        bar.show(self.remark)

    def _log(
        self, log: MetricsLog, bar: ProgressBar, interval: Interval, loss: float, grad_norm: float, lr: float
    ) -> None:
        rate = interval.steps * self.step_tokens / interval.seconds
        mfu = rate * self.flops_per_token / self.peak_flops
        log.write(
            self.step,
            {
                "loss": loss,
                "learning_rate": lr,
                "grad_norm": grad_norm,
                "tokens_per_second": rate,
                "mfu": mfu,
                "samples_consumed": self.step * self.batch.global_batch_size,
                "tokens_consumed": self.step * self.step_tokens,
                "data_wait_fraction": interval.waiting / interval.seconds,
                "peak_memory_bytes": peak_memory_bytes(self.device),
            },
        )
        self.remark = (
            f"loss {loss:.3f}  lr {lr:.2e}  norm {grad_norm:.2f}  {human_count(rate)} tok/s  mfu {100 * mfu:.0f}%"
        )
        bar.show(self.remark)

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.device, non_blocking=True)

    def _autocast(self) -> torch.autocast:
        precision = self.config.training.precision
        return torch.autocast(self.device.type, dtype=DTYPES[precision], enabled=precision != "fp32")

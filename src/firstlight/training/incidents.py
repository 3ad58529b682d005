"""What a step that did not count leaves behind: a line in events.jsonl, a sentence on the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from firstlight.support.console import warn
from firstlight.support.errors import DivergedError
from firstlight.training.guard import Guard, Verdict
from firstlight.training.run_folder import RunFolder

Describe = Callable[[int, int], Sequence[Mapping[str, Any]]]
"""(first sample, count) → what some of the samples are: [{"source", "document", "text"}]."""
TOLD_IN_A_ROW = 3
"""Skipped steps of which the terminal shows each; of more it shows the end."""
REMEDIES = "a lower optimizer.lr, a longer warm-up or training.precision=fp32 are what usually helps"


class Incidents:
    """Records of one run; every process makes the same calls, and the chief's writes and speaks."""

    def __init__(self, run: RunFolder, describe: Describe | None = None) -> None:
        self.run, self.describe = run, describe

    def overflow(self, step: int, scale: float, samples: Sequence[int]) -> None:
        """fp16: gradients overflowed, which the loss scale answers."""
        self.run.event("overflow", step=step, loss_scale=scale, samples=list(samples))

    def skipped(self, step: int, verdict: Verdict, loss: float, norm: float, samples: Sequence[int], row: int) -> None:
        """A step that the guard did not accept. samples: [first, one past the last]; row: so many in a row by now."""
        documents = self._documents(samples) if row <= TOLD_IN_A_ROW else []
        self.run.event(
            "skipped",
            step=step,
            reason=verdict.reason,
            loss=_number(loss),
            grad_norm=_number(norm),
            limit=verdict.limit,
            samples=list(samples),
            documents=documents,
        )
        if not self.run.writes or row > TOLD_IN_A_ROW:
            return
        what = {"loss": f"loss {loss:.3f}", "grad_norm": f"gradient norm {norm:.3g}"}.get(
            verdict.reason, f"loss {loss}, gradient norm {norm}"
        )
        above = "" if verdict.limit is None else f", above {verdict.limit:.3g}"
        from_where = ", ".join(dict.fromkeys(document["source"] for document in documents))
        last = " Further ones are only recorded, in events.jsonl." if row == TOLD_IN_A_ROW else ""
        warn(
            f"step {step} is skipped: {what}{above} (samples {samples[0]} to {samples[1] - 1}"
            f"{'; among them ' + from_where if from_where else ''}). The model did not move.{last}"
        )

    def rolled_back(self, step: int, to_step: int, samples: Sequence[int], guard: Guard) -> None:
        """The run went back from `step` to the checkpoint of `to_step`, and passes over `samples`."""
        self.run.event(
            "rolled_back", step=step, to_step=to_step, skipped_samples=list(samples), rollbacks=guard.rollbacks
        )
        if self.run.writes:
            warn(
                f"step {step}: {guard.config.rollback_after} steps in a row were skipped. The run goes back to step "
                f"{to_step} and passes over samples {samples[0]} to {samples[1] - 1}; "
                f"{guard.config.max_rollbacks - guard.rollbacks} more times, then it stops."
            )

    def save_failed(self, step: int, reason: str) -> None:
        """A checkpoint could not be written; training goes on."""
        self.run.event("save_failed", step=step, reason=reason)

    def given_up(
        self, step: int, guard: Guard, loss: float, norm: float, samples: Sequence[int], why: str
    ) -> DivergedError:
        """The run stops; the error to raise. why: why it does not go back (again), as a sentence without its stop."""
        self.run.event("diverged", step=step, loss=str(loss), grad_norm=str(norm), samples=list(samples))
        saved = self.run.last_step()
        sound = f"; the checkpoint of step {saved} is sound" if saved else ""
        return DivergedError(
            f"step {step}: loss {loss:.4g}, gradient norm {norm:.4g} (samples {samples[0]} to {samples[1] - 1}), and "
            f"{why}. Nothing was changed by this step{sound}; {REMEDIES}."
        )

    def _documents(self, samples: Sequence[int]) -> list[dict[str, Any]]:
        if self.describe is None or not self.run.writes:
            return []
        return [dict(document) for document in self.describe(samples[0], samples[1] - samples[0])]


def _number(value: float) -> float | None:
    """A number that JSON has, or None."""
    return value if math.isfinite(value) else None

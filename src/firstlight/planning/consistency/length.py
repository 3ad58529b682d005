"""How long a run is, and what its schedule, its data, its checkpoints and its validation make of that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from firstlight.planning.consistency.situation import Situation
from firstlight.planning.diagnosis import CannotTell, Finding
from firstlight.planning.diagnosis.pace import LONG_WARMUP, learning_rate
from firstlight.planning.repeated_data import LITTLE_MORE_EPOCHS, NEARLY_NEW_EPOCHS, value_lost, verdict
from firstlight.support.console import human_count, human_seconds

USUAL_WARMUP = 0.1
"""Share of training; published recipes have 0.1 to 5 %."""
HIGH_END = 0.3
"""min_lr over lr; a tenth is usual (Hoffmann et al. 2022, table A9), 0 at least as good (Bergsma et al. 2025,
arXiv:2502.15938)."""
LONG_BETWEEN_SAVES_SECONDS = 2 * 3600.0
SHORT_BETWEEN_SAVES_SECONDS = 60.0
COSTLY_VALIDATION = 0.05
"""Share of the time of training."""


def schedule(situation: Situation) -> Iterator[Finding]:
    """A decay that ends long before or long after training, a warm-up of most of it: what `doctor` would say."""
    record = situation.record
    with suppress(CannotTell):  # its last rule asks for lines that a run has written
        yield from learning_rate(record)


def warmup(situation: Situation) -> Iterator[Finding]:
    """A warm-up that is long, or too short for the second moment to settle."""
    steps, total = situation.warmup_end, situation.total_steps
    if USUAL_WARMUP * total < steps <= LONG_WARMUP * total:
        yield Finding(
            "long warm-up",
            "note",
            (1, steps),
            f"schedule.warmup_steps {steps:,} of training.total_steps {total:,} are {steps / total:.0%}; up to 5 % is "
            "usual.",
            f"Set schedule.warmup_steps={max(1, total // 50)}, or train longer.",
        )
    settle = round(2 / (1 - situation.config.optimizer.betas[1])) if situation.config.optimizer.betas[1] < 1 else 0
    if steps < settle <= USUAL_WARMUP * total:
        yield Finding(
            "short warm-up" if steps else "no warm-up",
            "note" if steps else "warning",
            (1, settle),
            f"schedule.warmup_steps is {steps:,}; AdamW's second moment with beta2 "
            f"{situation.config.optimizer.betas[1]:g} takes about 2 / (1 − beta2) = {settle:,} steps to settle (Ma and "
            "Yarats 2019, arXiv:1910.04209).",
            f"Set schedule.warmup_steps to {settle} or more.",
        )


def end_of_decay(situation: Situation) -> Iterator[Finding]:
    """A learning rate that never falls, or hardly."""
    optimizer = situation.config.optimizer
    if situation.config.schedule.name == "constant":
        yield Finding(
            "no decay",
            "note",
            None,
            f"schedule.name is constant: the learning rate is still {optimizer.lr:g} at the last step, and the loss "
            "higher than after a decay.",
            "Use schedule.name=wsd to end with a decay of the last 20 %, or go on from a checkpoint with one.",
        )
    elif optimizer.min_lr > HIGH_END * optimizer.lr:
        yield Finding(
            "little decay",
            "warning" if optimizer.min_lr == optimizer.lr else "note",
            None,
            f"optimizer.min_lr {optimizer.min_lr:g} is {optimizer.min_lr / optimizer.lr:.0%} of optimizer.lr "
            f"{optimizer.lr:g}; a tenth or less is usual.",
            f"Set optimizer.min_lr={optimizer.lr / 10:g} (it is absolute and does not follow lr).",
        )


def repeated_text(situation: Situation) -> Iterator[Finding]:
    """Sources gone over so often that they teach little more (Muennighoff et al. 2023, arXiv:2305.16264)."""
    if not situation.source_epochs:
        raise CannotTell("the recipe's sources have no token datasets here")
    for name, epochs in situation.source_epochs.items():
        if epochs <= NEARLY_NEW_EPOCHS:
            continue
        tokens = situation.source_tokens[name]
        yield Finding(
            "repeated text",
            "warning" if epochs > LITTLE_MORE_EPOCHS else "note",
            None,
            f"'{name}' has {human_count(tokens)} tokens and is gone over {epochs:.3g} times: its text is then "
            f"{verdict(epochs)}, and {value_lost(epochs):.0%} of the tokens read from it teach nothing.",
            f"Lower data.mixture.{name}, add text, or train on fewer tokens; `firstlight mixture --propose` finds "
            "weights.",
        )


def checkpoints(situation: Situation) -> Iterator[Finding]:
    """Saving so seldom that a fault costs hours, or so often that it costs time."""
    interval, total = situation.config.checkpoint.interval_steps, situation.total_steps
    if situation.step_seconds is None:
        raise CannotTell("no step time is predicted for this hardware")
    seconds = situation.step_seconds * min(interval, total)
    arithmetic = (
        f"checkpoint.interval_steps {interval:,} × {situation.step_seconds:.3g} s a step = "
        f"{human_seconds(situation.step_seconds * interval)}"
    )
    if seconds > LONG_BETWEEN_SAVES_SECONDS:
        steps = max(1, round(LONG_BETWEEN_SAVES_SECONDS / 4 / situation.step_seconds))
        yield Finding(
            "seldom saved",
            "warning",
            None,
            f"{arithmetic}: so much work is lost when a machine fails.",
            f"Set checkpoint.interval_steps={_round_down(steps)}.",
        )
    elif interval < total and seconds < SHORT_BETWEEN_SAVES_SECONDS and total * situation.step_seconds > 3600:
        steps = max(1, round(10 * SHORT_BETWEEN_SAVES_SECONDS / situation.step_seconds))
        yield Finding(
            "saved very often",
            "note",
            None,
            f"{arithmetic}: {total // interval:,} checkpoints in all.",
            f"Set checkpoint.interval_steps={_round_down(steps)}.",
        )


def validation(situation: Situation) -> Iterator[Finding]:
    """Validation that takes a good part of the time, or comes only at the end."""
    evaluation, data = situation.config.evaluation, situation.config.data
    if evaluation.interval_steps == 0:
        yield Finding(
            "never validated",
            "note",
            None,
            "evaluation.interval_steps is 0: nothing will say whether the model learns more than its own text.",
            f"Set evaluation.interval_steps={max(1, situation.total_steps // 20)}.",
        )
        return
    if evaluation.interval_steps > situation.total_steps:
        yield Finding(
            "validated only at the end",
            "note",
            None,
            f"evaluation.interval_steps {evaluation.interval_steps:,} is above training.total_steps "
            f"{situation.total_steps:,}.",
            f"Set evaluation.interval_steps={max(1, situation.total_steps // 20)}.",
        )
        return
    if evaluation.max_tokens is None:
        raise CannotTell("evaluation.max_tokens is unset, and how much text is held out is not known")
    tokens = evaluation.max_tokens * max(1, len(data.sources))
    between = evaluation.interval_steps * situation.step_tokens
    # A forward pass is a third of forward and backward.
    share = tokens / 3 / between
    if share > COSTLY_VALIDATION:
        least = max(1, round(tokens / 3 / (COSTLY_VALIDATION / 2 * situation.step_tokens)))
        yield Finding(
            "costly validation",
            "warning",
            None,
            f"Every {evaluation.interval_steps:,} steps, {human_count(between)} tokens, up to {human_count(tokens)} "
            f"tokens are validated (evaluation.max_tokens × {max(1, len(data.sources))} sources), a third of the work "
            f"each: {share:.0%} more time.",
            f"Set evaluation.interval_steps={least}, or lower evaluation.max_tokens.",
        )


def time_limit(situation: Situation) -> Iterator[Finding]:
    """A run that is stopped before its end."""
    limit = situation.config.training.max_hours
    if limit is None:
        return
    if situation.step_seconds is None:
        raise CannotTell("no step time is predicted for this hardware")
    hours = situation.step_seconds * situation.total_steps / 3600
    if hours > limit:
        yield Finding(
            "stopped by the clock",
            "note",
            None,
            f"About {hours:,.3g} hours of training with training.max_hours {limit:g}: the run is stopped and saved, "
            f"and has to be started {-(-hours // limit):.0f} times.",
            "Start the same command again after each stop, or raise training.max_hours.",
        )


def _round_down(steps: int) -> int:
    """To one digit."""
    power = 10 ** (len(str(steps)) - 1)
    return steps // power * power

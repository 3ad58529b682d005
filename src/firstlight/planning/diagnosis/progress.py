"""Whether the loss falls as it should: at all, still, and as fast as scaling laws let one expect.

A law's level means little for another tokenizer or other text, since loss is in nats per token. Its slope in the
logarithm of loss against that of tokens does not change when the unit does, so that is what a run is compared with;
still only as a note, and only inside the range that the law was fitted on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from firstlight.planning.diagnosis.curves import MEDIAN_ERROR, Slope, noise, slope, window_medians
from firstlight.planning.diagnosis.finding import Finding
from firstlight.planning.diagnosis.record import CannotTell, Curve, RunRecord, curve, number
from firstlight.planning.flops import parameter_count
from firstlight.planning.repeated_data import NEARLY_NEW_EPOCHS

LAWS = {
    "published": (1.69337, 406.401, 410.723, 0.33917, 0.28491),
    "Besiroglu": (1.817196, 482.006, 2085.434, 0.347813, 0.365854),
}
"""E, A, B, alpha, beta of L = E + A/N^alpha + B/D^beta: Hoffmann et al. 2022 (arXiv:2203.15556), eq. 10 with the digits
of its source; Besiroglu et al. 2024 (arXiv:2404.10102), the fit to the same runs corrected."""
FITTED_PARAMETERS, FITTED_TOKENS = (70e6, 16e9), (5e9, 500e9)
"""The runs that the law was fitted on (Hoffmann et al. 2022, abstract)."""
BEHIND = 0.25
"""Share of the law's fall over the last doubling of tokens below which a run is behind: a constant learning rate slows
the middle of a run, other text has another exponent; neither takes three quarters."""
SURE = 3.0
"""Standard errors that a statement about a slope needs."""
CLEAR_ERROR, PLATEAU = 0.005, 0.01
"""Shares of the loss over a doubling: the standard error with which something can be said, and the fall that is then
ruled out. By the law a doubling takes 4 % at a billion parameters of 20 tokens each, 1.3 % at 7 billion of 300."""
LEAST_LINES = 40
GUESSING_MARGIN = 0.5
"""Nats below ln(vocabulary) that every model reaches within a few hundred steps, by the frequencies of tokens alone."""
GUESSING_STEPS = 200
BEYOND_BASELINE = 1.3
"""Accuracy over that of the commonest token; small models on little text were at 1.9 to 2.4 after 200 to 400 steps."""
RISE, RISE_PROBLEM = 0.03, 0.10
"""Shares of the loss above its own best."""
RISE_DEVIATIONS = 5.0


def does_not_learn(record: RunRecord) -> Iterator[Finding]:
    """A loss that stays near that of guessing all tokens alike."""
    loss = curve(record, "loss", at_least=5)
    vocabulary, last = record.config.model.vocab_size, int(loss.steps[-1])
    if record.imported or vocabulary is None:
        raise CannotTell("the weights were another project's")
    if last < max(GUESSING_STEPS, record.warmup_end):
        raise CannotTell(f"fewer than {max(GUESSING_STEPS, record.warmup_end)} steps")
    now, guessing = float(np.median(loss.values[-5:])), math.log(vocabulary)
    if not _is_guessing(record, now):
        return
    lr = record.config.optimizer.lr
    yield Finding(
        "does not learn",
        "problem",
        (int(loss.steps[0]), last),
        f"After {last:,} steps the loss is {now:.3f}; guessing every token alike is {guessing:.3f} "
        f"(ln {vocabulary:,}).",
        f"Raise optimizer.lr (now {lr:g}) if it is far below 1e-4, lower it if the loss jumps about; otherwise look at "
        "what the model reads: `firstlight train RUN --dry-run` shows the first samples.",
    )


def knows_frequencies_alone(record: RunRecord) -> Iterator[Finding]:
    """Held-out accuracy no better than naming the commonest token everywhere: context is not used yet."""
    least = max(GUESSING_STEPS, 2 * record.warmup_end)
    scored = [line for line in record.metrics if any(key.endswith("/baseline_accuracy") for key in line)]
    if record.imported or not scored or scored[-1]["step"] < least:
        raise CannotTell(f"no validation after {least} steps from zero")
    last = scored[-1]
    pairs = [(number(last.get(key.replace("baseline_", ""))), number(last[key])) for key in last if "/baseline_" in key]
    known = [(accuracy, baseline) for accuracy, baseline in pairs if accuracy is not None and baseline is not None]
    accuracy, baseline = (sum(column) / len(known) for column in zip(*known, strict=True)) if known else (1.0, 0.0)
    if accuracy > BEYOND_BASELINE * baseline or _is_guessing(record, float(curve(record, "loss").values[-1])):
        return
    causal, lr = record.config.model.causal, record.config.optimizer.lr
    yield Finding(
        "knows frequencies alone",
        "warning" if causal else "note",
        (0, last["step"]),
        f"After {last['step']:,} steps {accuracy:.1%} of held-out tokens are predicted; naming the commonest token "
        f"everywhere gets {baseline:.1%}.",
        f"Try another optimizer.lr (now {lr:g}), first a lower one, such as {lr / 10:.2g}."
        if causal
        else f"Masked models stay here for some thousand steps; if it lasts, try another optimizer.lr (now {lr:g}).",
    )


def _is_guessing(record: RunRecord, loss: float) -> bool:
    vocabulary = record.config.model.vocab_size
    return vocabulary is not None and loss >= math.log(vocabulary) - GUESSING_MARGIN


def loss_rises(record: RunRecord) -> Iterator[Finding]:
    """A loss well above its own best, at the end of what is known."""
    loss = curve(record, "loss").since(max(record.stage_start, record.warmup_end))
    if len(loss.steps) < LEAST_LINES:
        raise CannotTell(f"fewer than {LEAST_LINES} lines since the warm-up or a change of the mixture")
    width = max(5, len(loss.values) // 20)
    places, medians = window_medians(loss.values, width)
    best, now = int(np.argmin(medians)), float(medians[-1])
    unsure = RISE_DEVIATIONS * MEDIAN_ERROR * noise(loss.values) / math.sqrt(width)
    rise = now - medians[best]
    if rise <= max(RISE * medians[best], unsure):
        return
    step = int(loss.steps[places[best] + width // 2])
    lr = record.config.optimizer.lr
    yield Finding(
        "rising loss",
        "problem" if rise > RISE_PROBLEM * medians[best] else "warning",
        (step, int(loss.steps[-1])),
        f"The loss was {medians[best]:.3f} around step {step} and is {now:.3f} now (medians of {width} lines).",
        f"Go back to the checkpoint before step {step} and go on with a lower optimizer.lr (now {lr:g}; try "
        f"{lr / 3:.2g}).",
    )


def stalled(record: RunRecord) -> Iterator[Finding]:
    """A loss that has not fallen over the last doubling of the tokens."""
    loss, fall = _last_doubling(record)
    if fall.value > 2 * fall.error or _is_guessing(record, float(loss.values[-1])):
        return
    if fall.error > CLEAR_ERROR:
        raise CannotTell(f"the loss is too noisy (a doubling is known to ±{fall.error:.1%})")
    if fall.value + 2 * fall.error > PLATEAU:
        return
    lr, most = record.config.optimizer.lr, _most_epochs(record)
    if most > NEARLY_NEW_EPOCHS:
        remedy = f"Add text: sources are gone over up to {most:.1f} times; or use a smaller model."
    elif record.decay_end <= loss.steps[0]:
        remedy = "The learning rate is at its lowest: set schedule.decay_steps to training.total_steps."
    else:
        remedy = (
            f"Lower optimizer.lr (now {lr:g}) or let it decay now (schedule.name=linear, schedule.decay_steps); if "
            "that does not help, the model is too small for more."
        )
    yield Finding(
        "plateau",
        "warning",
        (int(loss.steps[0]), int(loss.steps[-1])),
        f"From step {loss.steps[0]} to {loss.steps[-1]}, half of all tokens so far, the loss changed by "
        f"{-fall.value:+.2%} (±{fall.error:.2%}).",
        remedy,
    )


def behind_the_law(record: RunRecord) -> Iterator[Finding]:
    """A loss that falls much more slowly than Chinchilla's law lets a model of this size."""
    if not record.config.model.causal or record.imported:
        raise CannotTell("the law is for causal models from zero")
    if _most_epochs(record) > NEARLY_NEW_EPOCHS:
        raise CannotTell(f"sources are gone over more than {NEARLY_NEW_EPOCHS:g} times")
    parameters = parameter_count(record.config.model)
    if not FITTED_PARAMETERS[0] <= parameters <= FITTED_PARAMETERS[1]:
        raise CannotTell("the law was fitted on models of 70 million to 16 billion parameters")
    tokens = record.last_step * record.step_tokens
    if not FITTED_TOKENS[0] <= tokens <= FITTED_TOKENS[1]:
        raise CannotTell("the law was fitted on 5 to 500 billion tokens")
    loss, fall = _last_doubling(record)
    laws = {name: law_fall(constants, parameters, tokens) for name, constants in LAWS.items()}
    expected = min(laws.values())
    if fall.error * SURE > expected * (1 - BEHIND) or fall.value + SURE * fall.error > BEHIND * expected:
        return
    shown = ", ".join(f"{value:.2%} ({name})" for name, value in laws.items())
    yield Finding(
        "slow convergence",
        "note",
        (int(loss.steps[0]), int(loss.steps[-1])),
        f"Over the last doubling of tokens the loss fell by {fall.value:.2%} (±{fall.error:.2%}); Chinchilla's law has "
        f"{shown} for {parameters / 1e9:.3g}B parameters and {tokens / 1e9:.3g}B tokens.",
        f"A constant learning rate looks like this before its decay; otherwise try another optimizer.lr (now "
        f"{record.config.optimizer.lr:g}) in a short run, and look for repeated or broken text.",
    )


def law_fall(constants: tuple[float, float, float, float, float], parameters: float, tokens: float) -> float:
    """ln L(N, D/2) − ln L(N, D): the share of the loss that the last doubling of tokens takes away."""
    level, a, b, alpha, beta = constants
    before, after = (level + a / parameters**alpha + b / count**beta for count in (tokens / 2, tokens))
    return math.log(before / after)


def _last_doubling(record: RunRecord) -> tuple[Curve, Slope]:
    """The loss over the second half of the tokens, and what a doubling takes from its logarithm."""
    loss = curve(record, "loss", at_least=LEAST_LINES)
    middle = (int(loss.steps[-1]) + 1) // 2
    if middle < max(record.warmup_end, record.stage_start):
        raise CannotTell("the warm-up or a change of the mixture is too near")
    late = loss.since(middle)
    if len(late.steps) < LEAST_LINES or late.values.min() <= 0:
        raise CannotTell(f"fewer than {LEAST_LINES} lines in the second half")
    line = slope(np.log2(late.steps), np.log(late.values))
    return late, Slope(-line.value, line.error)


def _most_epochs(record: RunRecord) -> float:
    return max((source.epochs for source in record.sources.values()), default=0.0)

"""Learning rate, batch and length against what the laws expect for a model and a budget of this size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from firstlight.planning.consistency.situation import Situation
from firstlight.planning.diagnosis import CannotTell, Finding
from firstlight.planning.expectations import Expectations
from firstlight.support.console import human_count

FAR = 3.0
"""Factor beyond every law from which on a setting is worth a second look; the loss is flat around the optimum (Li et
al. 2025, arXiv:2503.04715, figure 1)."""
FEW_TOKENS, MANY_TOKENS = 1 / 4, 10.0
"""Tokens a parameter over the compute-optimal number of every law."""
LARGE_WEIGHT_DECAY = 0.5


def learning_rate(situation: Situation) -> Iterator[Finding]:
    """A peak learning rate far from all laws."""
    laws, rate = _expected(situation).learning_rates, situation.config.optimizer.lr
    low, high = min(laws.values()), max(laws.values())
    if low / FAR <= rate <= high * FAR:
        return
    side, factor = ("above", rate / high) if rate > high else ("below", low / rate)
    yield Finding(
        "learning rate far from the laws",
        "warning",
        None,
        f"optimizer.lr {rate:g} is {factor:.3g} times {side} what the laws have for {_size(situation)}: "
        f"{_listed(laws)}.",
        f"Try optimizer.lr={low:.2g} to {high:.2g}, or say why not: a sweep on a small model costs little.",
    )


def batch(situation: Situation) -> Iterator[Finding]:
    """A global batch far from all laws, or beyond the critical one."""
    expected, tokens = _expected(situation), situation.step_tokens
    laws, length = expected.batch_tokens, situation.config.data.sequence_length
    low, high = min(laws.values()), max(laws.values())
    arithmetic = (
        f"training.global_batch_size {situation.batch.global_batch_size:,} × {length:,} = {human_count(tokens)} tokens"
    )
    if tokens > expected.critical_batch_tokens * FAR:
        yield Finding(
            "batch beyond the critical one",
            "warning",
            None,
            f"{arithmetic} a step; at the expected loss the critical batch is about "
            f"{human_count(expected.critical_batch_tokens)} (Kaplan et al. 2020, arXiv:2001.08361, eq. 1.4): beyond it "
            "more sequences a step hardly save steps.",
            f"Use up to {human_count(expected.critical_batch_tokens)} tokens a step, as in training.global_batch_size="
            f"{max(1, round(expected.critical_batch_tokens / length))}.",
        )
    elif not low / FAR <= tokens <= high * FAR:
        side, factor = ("above", tokens / high) if tokens > high else ("below", low / tokens)
        yield Finding(
            "batch far from the laws",
            "warning" if side == "above" else "note",
            None,
            f"{arithmetic}, {factor:.3g} times {side} what the laws have for {_size(situation)}: "
            f"{_listed(laws, human_count)}.",
            f"Try training.global_batch_size={max(1, round(low / length))} to {max(1, round(high / length))}.",
        )


def tokens_per_parameter(situation: Situation) -> Iterator[Finding]:
    """A budget that is far from compute-optimal; too many tokens are a choice, too few a waste."""
    expected = _expected(situation)
    ratio = expected.tokens / expected.parameters
    best = [optimum.tokens / optimum.parameters for optimum in expected.optimal.values()]
    arithmetic = (
        f"{human_count(expected.tokens)} tokens / {human_count(expected.parameters)} parameters = {ratio:.3g} a "
        f"parameter; the laws have {min(best):.3g} to {max(best):.3g} for this compute"
    )
    sizes = [optimum.parameters for optimum in expected.optimal.values()]
    if ratio < FEW_TOKENS * min(best):
        yield Finding(
            "under-trained",
            "warning",
            None,
            f"{arithmetic}: a smaller model would reach a lower loss with the same compute.",
            f"Train on more tokens, or a model of {human_count(min(sizes))} to {human_count(max(sizes))} parameters.",
        )
    elif ratio > MANY_TOKENS * max(best):
        yield Finding(
            "over-trained",
            "note",
            None,
            f"{arithmetic}: right for a model that is to be small in use, not for the lowest loss of this compute.",
            f"For the lowest loss use {human_count(min(sizes))} to {human_count(max(sizes))} parameters.",
        )


def weight_decay(situation: Situation) -> Iterator[Finding]:
    """Weight decay that is absent or very strong."""
    optimizer = situation.config.optimizer
    if optimizer.weight_decay == 0:
        yield Finding(
            "no weight decay",
            "note",
            None,
            "optimizer.weight_decay is 0; published pretraining runs have 0.01 to 0.1.",
            "Set optimizer.weight_decay=0.1.",
        )
    elif optimizer.weight_decay > LARGE_WEIGHT_DECAY:
        shrink = optimizer.lr * optimizer.weight_decay
        yield Finding(
            "strong weight decay",
            "warning",
            None,
            f"optimizer.weight_decay {optimizer.weight_decay:g} × lr {optimizer.lr:g}: weights shrink by half within "
            f"{human_count(0.693 / shrink)} steps, of {situation.total_steps:,}.",
            "Set optimizer.weight_decay=0.1.",
        )


def clipping(situation: Situation) -> Iterator[Finding]:
    """Gradients of any size."""
    if situation.config.training.max_grad_norm == 0:
        yield Finding(
            "no clipping",
            "note",
            None,
            "training.max_grad_norm is 0: one spoilt batch moves the weights as far as its gradient says.",
            "Set training.max_grad_norm=1.",
        )


def _expected(situation: Situation) -> Expectations:
    if situation.expected is None:
        raise CannotTell("the laws are of models that predict the next token")
    if situation.expected.extrapolated:
        raise CannotTell("the model is smaller than those that the laws were fitted on")
    return situation.expected


def _size(situation: Situation) -> str:
    assert situation.expected is not None
    return f"{human_count(situation.parameters)} parameters and {human_count(situation.expected.tokens)} tokens"


def _listed(laws: Mapping[str, float], written=lambda number: f"{number:.2g}") -> str:
    return ", ".join(f"{name} {written(number)}" for name, number in laws.items())

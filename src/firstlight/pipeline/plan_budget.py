"""A budget in FLOPs, hours, dollars or tokens, and the length of training that it gives."""

from __future__ import annotations

import math
from dataclasses import dataclass

from firstlight.config import RunConfig
from firstlight.pipeline.plan_steps import StepPlanner
from firstlight.planning.division import Ranked
from firstlight.planning.flops import training_flops_per_token
from firstlight.support.console import human_count
from firstlight.support.errors import ConfigError
from firstlight.tokens.mixture_tools import token_count

_MANY_STEPS = 1_000_000
"""Cost is proportional to tokens; of so many steps rounding to whole ones does not show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a run may take, in one of four units; its length follows from it."""

    flops: float | None = None
    """Model FLOPs, in Firstlight's convention."""
    hours: float | None = None
    """From start to end, on the hardware that is planned for."""
    usd: float | None = None
    tokens: str | None = None
    """As 22B or 300_000_000."""

    def __post_init__(self) -> None:
        given = [name for name in ("flops", "hours", "usd", "tokens") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigError(f"a plan has one budget, not {' and '.join(given)}; give one of them.")
        for name in given:
            value = getattr(self, name)
            if name != "tokens" and not 0 < value < math.inf:
                raise ConfigError(f"the budget is {value:g} {name}; a number above 0 is due.")

    @property
    def given(self) -> bool:
        """Whether there is one."""
        return any(value is not None for value in (self.flops, self.hours, self.usd, self.tokens))


def within_budget(
    budget: Budget, config: RunConfig, planner: StepPlanner, pace: Ranked | None, assumptions: list[str]
) -> RunConfig:
    """The configuration with the longest training that a budget allows; what it came to is added to `assumptions`.

    pace: the layout that hours and dollars are of. Raises ConfigError for a budget of less than a step, and for hours
    or dollars where time or price is not known.
    """
    step_tokens = config.batch(planner.machines.devices).global_batch_size * config.data.sequence_length
    if budget.tokens is not None:
        tokens = float(token_count(budget.tokens))
        given = f"{human_count(tokens)} tokens"
        steps = math.ceil(tokens / step_tokens)
    else:
        tokens, given = _tokens(budget, config, planner, pace)
        steps = int(tokens // step_tokens)
    if steps < 1:
        raise ConfigError(
            f"the budget of {given} is {human_count(tokens)} tokens, less than one step of {step_tokens:,}; raise it, "
            "or lower training.global_batch_size."
        )
    assumptions.append(f"The budget of {given} gives {human_count(steps * step_tokens)} tokens in {steps:,} steps.")
    training = config.training.model_copy(update={"total_steps": steps, "total_tokens": None})
    return config.model_copy(update={"training": training})


def _tokens(budget: Budget, config: RunConfig, planner: StepPlanner, pace: Ranked | None) -> tuple[float, str]:
    if budget.flops is not None:
        per_token = training_flops_per_token(config.model, config.data.sequence_length, config.predicted_share)
        return budget.flops / per_token, f"{budget.flops:.3g} FLOPs"
    if pace is None:
        raise ConfigError(
            f"{planner.machines.device.name} has no arithmetic of training.precision {config.training.precision}, so "
            "no time is known; give the budget in FLOPs or tokens, or choose another precision."
        )
    reference = float(_MANY_STEPS * pace.step.tokens)
    cost = planner.cost(pace, reference)
    if budget.hours is not None:
        return reference * budget.hours / cost.hours.typical, f"{budget.hours:,.6g} hours"
    assert budget.usd is not None
    if cost.usd is None:
        raise ConfigError(
            f"no price of {planner.machines.device.name} is known; describe it in a YAML file (like: h100, price: "
            "2.5) and give that as --gpu FILE, or give the budget in hours."
        )
    return reference * budget.usd / cost.usd.typical, f"{budget.usd:,.6g} $"

"""Weights for a mixture, from the sizes of its sources alone: by temperature, or as much of a wish as the text allows.

Both answer the same question from two sides. Temperature flattens the sizes, so that small sources count for more, and
does not ask how often they are then gone over. A proposal starts from wanted weights and gives every source at most so
many epochs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from firstlight.config import SourceConfig
from firstlight.support.console import human_count
from firstlight.support.errors import ConfigError
from firstlight.tokens.mixture import shares
from firstlight.tokens.sources import are_tokens_here, open_source

_SUFFIXES = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def temperature_weights(sizes: Mapping[str, int], temperature: float) -> dict[str, float]:
    """Weights that sum to 1, in proportion to size^(1 / temperature); sizes in tokens.

    1: in proportion to sizes; above it small sources count for more; infinite: all the same. XLM-R and mT5 (Conneau
    et al. 2020, Xue et al. 2021) write alpha = 1 / temperature; mT5's alpha of 0.3 is a temperature of 3.33. Raises
    ConfigError for a temperature that is not above 0, and for a source without tokens.
    """
    if not temperature > 0:
        raise ConfigError(f"the temperature is {temperature:g}; it is above 0, and 1 keeps the proportions of sizes.")
    _check_sizes(sizes)
    logs = {source: math.log(size) / temperature for source, size in sizes.items()}
    largest = max(logs.values())
    powers = {source: math.exp(value - largest) for source, value in logs.items()}
    total = math.fsum(powers[source] for source in sorted(powers))
    weights = {source: power / total for source, power in powers.items()}
    for source, weight in weights.items():
        if not weight:
            raise ConfigError(
                f"at temperature {temperature:g} the weight of '{source}' is too small to be written; raise it."
            )
    return weights


def propose_weights(
    sizes: Mapping[str, int | Fraction],
    budget: int,
    max_epochs: float = 4.0,
    wanted: Mapping[str, float | Fraction] | None = None,
) -> dict[str, Fraction]:
    """Exact weights that sum to 1, as near to the wanted ones as no source is gone over more than `max_epochs` times.

    sizes: tokens of each source. budget: tokens to draw. wanted: weights of some or all sources; unset: all the same,
    which makes this UniMax (Chung et al. 2023). A source whose wanted share of the budget exceeds max_epochs × its
    size gets just that; what it leaves goes to the others in proportion to their wanted weights, until none exceeds.

    Raises ConfigError, with the arithmetic, when the budget is more than max_epochs × all wanted sources.
    """
    if budget <= 0:
        raise ConfigError(f"the budget is {budget:,} tokens; it is above 0.")
    if not 0 < max_epochs < math.inf:
        raise ConfigError(f"max_epochs is {max_epochs:g}; it is above 0 and finite.")
    _check_sizes(sizes)
    wish = shares(wanted or dict.fromkeys(sizes, 1), "wanted")
    for source in wish:
        if source not in sizes:
            raise ConfigError(f"wanted names '{source}', which has no tokens.")
    supply = {source: Fraction(repr(float(max_epochs))) * sizes[source] for source in wish}
    if budget > sum(supply.values()):
        size = sum(sizes[source] for source in wish)
        raise ConfigError(
            f"a budget of {human_count(budget)} tokens is more than max_epochs × all sources = {max_epochs:g} × "
            f"{human_count(float(size))} = {human_count(float(sum(supply.values())))} tokens; train on fewer, add "
            f"text, or allow {math.ceil(100 * budget / size) / 100:g} epochs."
        )
    drawn: dict[str, Fraction] = {}
    while len(drawn) < len(wish):
        rest = budget - sum(drawn.values())
        open_sources = {source: weight for source, weight in wish.items() if source not in drawn}
        total = sum(open_sources.values())
        even = {source: rest * weight / total for source, weight in open_sources.items()}
        over = [source for source, tokens in even.items() if tokens > supply[source]]
        drawn |= {source: supply[source] for source in over} if over else even
    return {source: drawn[source] / budget for source in wish}


def token_count(text: str) -> int:
    """A number of tokens as people write it: "1T", "26B", "1.5M", "300_000", "1e12". ConfigError when it is none."""
    number, suffix = text.strip().replace("_", "").replace(",", ""), ""
    if number and number[-1].upper() in _SUFFIXES:
        number, suffix = number[:-1], number[-1].upper()
    try:
        tokens = Decimal(number) * _SUFFIXES[suffix]
    except ArithmeticError:
        tokens = Decimal("nan")
    if not tokens.is_finite() or tokens <= 0 or tokens != int(tokens):
        raise ConfigError(f"'{text}' is no number of tokens; write it as 1T, 26B, 1.5M, 10k or 300_000.")
    return int(tokens)


def named_tokens(sources: Iterable[str]) -> dict[str, int]:
    """Training tokens by source, from NAME=TOKENS (as "web=700B") or NAME=FOLDER of a token dataset.

    Raises ConfigError for anything else and for a name given twice, DataError for a folder that cannot be read.
    """
    sizes: dict[str, int] = {}
    for given in sources:
        name, equals, value = given.partition("=")
        if not (name and equals and value):
            raise ConfigError(f"'{given}': a source is NAME=TOKENS or NAME=FOLDER, as in web=700B.")
        if name in sizes:
            raise ConfigError(f"source '{name}' is given twice.")
        if are_tokens_here(value):
            sizes[name] = open_source(SourceConfig(tokens=value)).train_tokens
            continue
        try:
            sizes[name] = token_count(value)
        except ConfigError:
            raise ConfigError(
                f"'{given}': '{value}' is neither a number of tokens (as 700B) nor the folder of a token dataset."
            ) from None
    return sizes


def _check_sizes(sizes: Mapping[str, Any]) -> None:
    if not sizes:
        raise ConfigError("there are no sources; name at least one with its tokens.")
    for source, size in sizes.items():
        if size <= 0:
            raise ConfigError(f"source '{source}' has {float(size):,.0f} tokens; give it text or leave it out.")

"""What a mixture does to its sources over a budget, from a recipe or from plain sizes: the verb `mixture`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from firstlight.config import DataConfig, RunConfig
from firstlight.pipeline.mixture_report import mixture_report, reweighted
from firstlight.recipe import load_config
from firstlight.support.errors import ConfigError, did_you_mean
from firstlight.tokens.mixture_tools import named_tokens, token_count
from firstlight.tokens.sources import open_source


def mixture(
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    sources: Sequence[str] = (),
    total_tokens: str | int | None = None,
    temperature: float | None = None,
    propose: bool = False,
) -> dict[str, Any]:
    """The report of `mixture_report`, with the weights in `mixture`.

    recipe: its sources with token datasets, mixture, stages, max_epochs and length of training; unset: `sources`
    alone. sources: "NAME=TOKENS" (as "web=30B") or "NAME=FOLDER" of a token dataset; takes the place of the recipe's.
    total_tokens: the budget; unset: the recipe's. temperature: weights from sizes instead of the recipe's. propose:
    weights that keep every source within max_epochs, as near to the wanted ones as can be.
    """
    config = load_config(recipe, overrides) if recipe else None
    sizes = named_tokens(sources)
    if config:
        sizes = _with_recipe(config, sizes)
    if not sizes:
        raise ConfigError("no sources: name a recipe, or sizes as in --source web=300B --source books=30B.")
    if total_tokens is None:
        if config is None:
            raise ConfigError("no budget: say how many tokens are to be drawn, as in --tokens 1T.")
        ranks = config.declared_world_size
        total_tokens = config.steps(ranks) * config.batch(ranks).global_batch_size * config.data.sequence_length
    budget = total_tokens if isinstance(total_tokens, int) else token_count(total_tokens)
    seed = config.seed if config else RunConfig.model_fields["seed"].default
    data = config.data if config else DataConfig()
    data = reweighted(data, sizes, budget, seed, temperature=temperature, propose=propose)
    return {**mixture_report(data, sizes, budget, seed), "mixture": dict(data.mixture)}


def _with_recipe(config: RunConfig, given: dict[str, int]) -> dict[str, int]:
    """Tokens of the recipe's sources: as given, else those of their token datasets."""
    sources = config.data.sources
    for name in given:
        if name not in sources:
            raise ConfigError(f"--source {name}: data.sources has no such source.{did_you_mean(name, sources)}")
    sizes = {}
    for name, source in sources.items():
        if source.only_validates:
            continue
        if name not in given and not source.tokens:
            raise ConfigError(f"data.sources.{name} names no token dataset; give its size, as in --source {name}=30B.")
        sizes[name] = given.get(name) or open_source(source, config.data.split).train_tokens
    return sizes

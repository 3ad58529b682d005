"""What a mixture does to its sources over a token budget: epochs, what the repetition costs, and weights that fit.

The counts are those of training itself (the same `Mixture` or `Blend`, the same sequences), so that what is shown is
what a run would draw. The value of repeated text is the law of `planning.repeated_data`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from rich.markup import escape
from rich.table import Table

from firstlight.config import DataConfig
from firstlight.planning.repeated_data import NEARLY_NEW_EPOCHS, effective_tokens, value_lost, verdict
from firstlight.support.console import human_count, printable
from firstlight.support.errors import ConfigError
from firstlight.tokens.megatron_blend import Blend, blend_of
from firstlight.tokens.mixture import Mixture, mixture_notes, stages_of, weight_notes
from firstlight.tokens.mixture_tools import propose_weights, temperature_weights

_WRITTEN_DIGITS = 6
_ROUNDS = 16
_VERDICT_WIDTH = 72
"""Columns of a terminal in which the last column has room."""


def mixture_report(
    data: DataConfig, num_tokens: Mapping[str, int], total_tokens: int, seed: int = 1234
) -> dict[str, Any]:
    """What training on `total_tokens` reads of each source; num_tokens: training tokens by source.

    `data` gives mixture (empty: in proportion to tokens), stages, sequence_length and max_epochs. The report has
    `sources` (by name: tokens, share of the samples drawn, tokens_drawn, epochs, effective_tokens, value_lost,
    verdict), the sums of the same, `stages` (first token and shares), and `warnings` and `notes` in sentences. Tokens
    are rounded up to whole samples. Raises ConfigError as training does for a mixture that cannot be drawn.
    """
    if total_tokens <= 0:
        raise ConfigError(f"the budget is {total_tokens:,} tokens; it is above 0.")
    for source, tokens in num_tokens.items():
        if tokens <= data.sequence_length:
            raise ConfigError(
                f"source '{source}' has {tokens:,} tokens, fewer than one sequence of {data.sequence_length:,} and its "
                "last target; give it more text or leave it out."
            )
    length = data.sequence_length
    samples = -(-total_tokens // length)
    mixture = mixture_of(data, num_tokens, samples, seed)
    drawn = mixture.counts(samples)
    sources: dict[str, dict[str, Any]] = {}
    for source in sorted(num_tokens):
        count, available = drawn.get(source, 0), (num_tokens[source] - 1) // length
        epochs = count / available
        sources[source] = {
            "tokens": num_tokens[source],
            "share": count / samples,
            "tokens_drawn": count * length,
            "epochs": epochs,
            "effective_tokens": effective_tokens(available * length, epochs),
            "value_lost": value_lost(epochs),
            "verdict": verdict(epochs),
        }
    effective = sum(source["effective_tokens"] for source in sources.values())
    report = {
        "total_tokens": samples * length,
        "sequence_length": length,
        "max_epochs": data.max_epochs,
        "tokens": sum(num_tokens.values()),
        "effective_tokens": effective,
        "value_lost": 1 - effective / (samples * length),
        "sources": sources,
        "stages": [
            {
                "first_token": stage.first_sample * length,
                "shares": {source: float(share) for source, share in sorted(stage.shares.items())},
            }
            for stage in mixture.stages
        ],
        "notes": mixture_notes(data, mixture, num_tokens)
        if isinstance(mixture, Mixture)
        else weight_notes(data, mixture.stages, num_tokens),
    }
    return {**report, "warnings": _warnings(report, set(drawn))}


def mixture_of(data: DataConfig, num_tokens: Mapping[str, int], samples: int, seed: int) -> Mixture | Blend:
    """What training draws from in `samples` samples; of Megatron-LM's order, the counts are right to a few samples."""
    if data.order == "megatron":
        return blend_of(data, num_tokens, samples)
    return Mixture(stages_of(data, num_tokens), seed, data.mixture_block_size)


def reweighted(
    data: DataConfig,
    num_tokens: Mapping[str, int],
    total_tokens: int,
    seed: int = 1234,
    *,
    temperature: float | None = None,
    propose: bool = False,
) -> DataConfig:
    """`data` with another mixture and no stages: by temperature, as `propose` allows, or both; neither: unchanged."""
    flattened = temperature_weights(num_tokens, temperature) if temperature is not None else None
    mixture = _written({source: Fraction(weight) for source, weight in flattened.items()}) if flattened else None
    if propose:
        mixture = proposed_mixture(data, num_tokens, total_tokens, seed, flattened)
    return data if mixture is None else data.model_copy(update={"mixture": mixture, "mixture_stages": []})


def proposed_mixture(
    data: DataConfig,
    num_tokens: Mapping[str, int],
    total_tokens: int,
    seed: int = 1234,
    wanted: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """A `data.mixture` that draws no source more than `data.max_epochs` times, as near to the wanted one as can be.

    wanted: weights; unset: those of `data.mixture`, or the same for all (see `propose_weights`). Weights have
    six digits; that training with them stays within the limit is checked by counting. Raises ConfigError when the
    budget does not fit into the sources, or fits so tightly that it leaves no room for the order of samples.
    """
    length = data.sequence_length
    samples = -(-total_tokens // length)
    sizes = {source: (tokens - 1) // length for source, tokens in num_tokens.items()}
    wish = wanted or data.mixture or None
    limit = Fraction(repr(data.max_epochs))
    propose_weights(num_tokens, total_tokens, data.max_epochs, wish)  # tokens make the clearer sentence
    spare = dict.fromkeys(sizes, Fraction(0))
    for number in range(_ROUNDS):
        reduced = {source: sizes[source] - spare[source] / limit for source in sizes}
        if scarce := [source for source in sizes if (wish is None or source in wish) and reduced[source] <= 0]:
            raise ConfigError(
                f"source '{scarce[0]}' has {sizes[scarce[0]]:,} sequences of {length:,} tokens: too few to be drawn "
                f"evenly and at most {data.max_epochs:g} times; leave it out, or raise data.max_epochs."
            )
        try:
            exact = propose_weights(reduced, samples, data.max_epochs, wish)
        except ConfigError:
            break
        weights = _written(exact)
        trial = data.model_copy(update={"mixture": weights, "mixture_stages": []})
        counts = mixture_of(trial, num_tokens, samples, seed).counts(samples)
        excess = {source: count - limit * sizes[source] for source, count in counts.items()}
        if max(excess.values()) <= 0:
            return weights
        for source, more in excess.items():
            spare[source] += max(Fraction(0), more) * 2**number  # a weight of few digits moves in steps
    raise ConfigError(
        f"{total_tokens:,} tokens are so near to data.max_epochs {data.max_epochs:g} × {sum(num_tokens.values()):,} "
        "tokens that no mixture draws them evenly; train on a little less, or raise data.max_epochs."
    )


def _written(exact: Mapping[str, Fraction]) -> dict[str, float]:
    """Weights of six digits; the largest takes what the others leave, so that they sum to 1 as decimals."""
    rounded = {source: Decimal(f"{float(weight):.{_WRITTEN_DIGITS}g}") for source, weight in exact.items()}
    largest = max(exact, key=lambda source: exact[source])
    rounded[largest] += 1 - sum(rounded.values())
    return {source: float(weight) for source, weight in rounded.items()}


def mixture_table(report: Mapping[str, Any], width: int = 80) -> Table:
    """The report's sources for a terminal of `width` columns, 60 or more; `worth` is in tokens of new text."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_footer=True)
    table.add_column("source", "all", overflow="fold", max_width=16)
    footers = (
        ("tokens", human_count(report["tokens"])),
        ("share", ""),
        ("drawn", human_count(report["total_tokens"])),
        ("epochs", ""),
        ("worth", human_count(report["effective_tokens"])),
        ("lost", f"{report['value_lost']:.1%}"),
    )
    for name, footer in footers:
        table.add_column(name, footer, justify="right", no_wrap=True)
    if wide := width >= _VERDICT_WIDTH:
        table.add_column("its text is", overflow="fold", max_width=13)
    for name, source in report["sources"].items():
        table.add_row(
            escape(printable(name)),
            human_count(source["tokens"]),
            f"{source['share']:.1%}",
            human_count(source["tokens_drawn"]),
            _epochs(source["epochs"]),
            human_count(source["effective_tokens"]),
            f"{source['value_lost']:.1%}",
            *([source["verdict"]] if wide else []),
        )
    return table


def _warnings(report: Mapping[str, Any], drawn: set[str]) -> list[str]:
    warnings = []
    for name, source in report["sources"].items():
        epochs, limit = source["epochs"], report["max_epochs"]
        if epochs > min(limit, NEARLY_NEW_EPOCHS):
            refused = f"; training refuses more than data.max_epochs {limit:g}" if epochs > limit else ""
            warnings.append(
                f"'{name}' is gone over {_epochs(epochs)} times: by the law of repeated data the "
                f"{human_count(source['tokens_drawn'])} tokens drawn teach as much as "
                f"{human_count(source['effective_tokens'])} new ones{refused}."
            )
        elif epochs == 0 and name in drawn:
            warnings.append(f"'{name}' has a weight, but so short a training draws no sample of it.")
    return warnings


def _epochs(epochs: float) -> str:
    return f"{epochs:,.0f}" if epochs >= 100 else f"{epochs:.3g}"

"""A ladder: small models of a recipe's proportions, each trained for several lengths, to see how loss falls with size
and data.

N is the number of weights that multiply activations (`matmul_parameters`: blocks and the vocabulary's head, not the
look-up in the embedding), so that 6·N·D are the FLOPs of a run up to attention scores. Everything goes through the
recipe: its proportions, its learning rate and its batch are those of its own size and length, and a rung has them
scaled by the ratio of the two. The exponents are those of published fits: the best learning rate falls as C^-0.125, so
as N^-0.25 where tokens grow with parameters (DeepSeek LLM, Bi et al. 2024, arXiv:2401.02954, eq. 1); the best batch
rises as D^0.571 (Step Law, Li et al. 2025, arXiv:2503.04715) or D^0.383 (Bergsma et al. 2025, arXiv:2505.13738). First
weights have a standard deviation ∝ 1/√width, so that activations begin alike at every size (Glorot & Bengio 2010); with
one and the same, narrow models stay on the plateau of word pairs for a time that chance decides, and no law goes
through their losses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from firstlight.config import ModelConfig, RunConfig
from firstlight.config.batch import divisors
from firstlight.config.parallel import ParallelConfig
from firstlight.config.run import LaunchConfig, ScheduleConfig
from firstlight.planning.flops import matmul_parameters, training_flops_per_token
from firstlight.support.console import human_count
from firstlight.support.errors import ConfigError

LEARNING_RATE_EXPONENT = 0.25
BATCH_EXPONENT = 0.5
WIDEST_MISS = 0.15
"""Largest |ln(size made / size asked for)| that is taken."""
CHECKPOINTS = 4
"""Saves of a rung, so that one that is killed does not begin again."""


@dataclass(frozen=True)
class LadderRules:
    """How a rung's learning rate and batch follow from the recipe's."""

    learning_rate_exponent: float = LEARNING_RATE_EXPONENT
    """lr = recipe's lr · (recipe's N / N)^this; 0: the recipe's."""
    batch_exponent: float = BATCH_EXPONENT
    """Batch in tokens = recipe's batch · (D / recipe's D)^this; 0: the recipe's."""


@dataclass(frozen=True)
class Rung:
    """One run of a ladder."""

    config: RunConfig
    """What it trains; the vocabulary may still be unset, as in the recipe."""
    model: ModelConfig = field(repr=False)
    """Its shape, complete."""
    parameters: int
    """N: weights that multiply activations."""
    tokens: int
    """D: tokens read, whole steps."""
    flops: float
    """Model FLOPs of the whole run, attention scores included."""

    @property
    def name(self) -> str:
        """Name of its run folder."""
        return self.config.name

    @property
    def tokens_per_parameter(self) -> float:
        """D / N."""
        return self.tokens / self.parameters


def make_ladder(
    recipe: RunConfig,
    vocab_size: int,
    sizes: Sequence[float],
    tokens_per_parameter: Sequence[float],
    folder: str,
    rules: LadderRules | None = None,
) -> list[Rung]:
    """The rungs of every size and length, cheapest first; they train in one process each, into `folder`.

    vocab_size: of the tokenizer. sizes: in matmul parameters. ConfigError for a size that the recipe's proportions
    cannot give, for two sizes that give one shape, and for a recipe without a length.
    """
    recipe = recipe.model_copy(update={"parallel": ParallelConfig(), "launch": LaunchConfig()})
    rungs: dict[str, Rung] = {}
    shapes: dict[tuple[int, int], float] = {}
    for size in sorted(sizes):
        shape = shape_of_size(recipe.model, size, vocab_size, recipe.data.sequence_length)
        key = shape["hidden_size"], shape["num_hidden_layers"]
        if key in shapes:
            raise ConfigError(
                f"sizes {human_count(shapes[key])} and {human_count(size)} give one shape ({key[1]} blocks of width "
                f"{key[0]}); leave one of them out, or take them further apart."
            )
        shapes[key] = size
        for ratio in sorted(tokens_per_parameter):
            rung = _rung(recipe, vocab_size, shape, ratio, folder, rules or LadderRules())
            rungs[rung.name] = rung
    return sorted(rungs.values(), key=lambda rung: rung.flops)


def sizes_for_budget(count: int, tokens_per_parameter: Sequence[float], budget_flops: float) -> list[float]:
    """`count` sizes, each twice the one before, whose runs of all lengths cost `budget_flops` together (6·N·D)."""
    if count < 1:
        raise ConfigError(f"a ladder of {count} sizes has no rung; ask for at least 1.")
    of_smallest = 6 * sum(tokens_per_parameter) * sum(4.0**step for step in range(count))
    smallest = math.sqrt(budget_flops / of_smallest)
    return [smallest * 2**step for step in range(count)]


def shape_of_size(model: ModelConfig, size: float, vocab_size: int, sequence_length: int) -> dict[str, int]:
    """Settings of `model` that give it about `size` matmul parameters and keep its proportions.

    Kept as nearly as whole numbers allow: width per block, width of a head, query heads per key and value head, width
    of the feed-forward layer over hidden_size. Widths are multiples of a power of two, about an eighth of them or
    finer. Raises ConfigError where no shape comes within 15 %.
    """
    whole = model.resolved(vocab_size, sequence_length)
    aspect = whole.hidden_size / whole.num_hidden_layers
    best: tuple[float, float, dict[str, int]] | None = None
    heads: dict[int, tuple[int, int, float]] = {}
    for layers, width in _candidates(whole, size):
        if width not in heads:
            heads[width] = _heads(whole, width)
        shape, out_of_proportion = _shape(model, whole, layers, width, heads[width])
        miss = math.log(matmul_parameters(whole.model_copy(update=shape)) / size)
        cost = (miss / 0.06) ** 2 + (math.log(width / layers / aspect) / 0.2) ** 2 + (out_of_proportion / 0.3) ** 2
        if best is None or cost < best[0]:
            best = cost, miss, shape
    if best is None or abs(best[1]) > WIDEST_MISS:
        head = matmul_parameters(whole.model_copy(update={"num_hidden_layers": 0, "hidden_size": 8}))
        raise ConfigError(
            f"no shape of the recipe's proportions has about {human_count(size)} matmul parameters with a vocabulary "
            f"of {whole.vocab_size:,} (the head has {human_count(head / 8)} for each unit of width); ask for a larger "
            "size, or take a smaller tokenizer.vocab_size."
        )
    return best[2]


def _candidates(whole: ModelConfig, size: float) -> Iterator[tuple[int, int]]:
    """(blocks, width) within a factor of 3 of the recipe's width per block, and of twice the size at most."""
    aspect = whole.hidden_size / whole.num_hidden_layers
    layers = 0
    while True:
        layers += 1
        width = unit = 8
        found = False
        while width <= 3 * aspect * layers and 4 * layers * width * width <= 2 * size:
            if 3 * width >= aspect * layers:
                found = True
                yield layers, width
            unit = _unit(width)
            width += unit
        if not found and layers > 1 and 4 * layers * (aspect * layers / 3) ** 2 > 2 * size:
            return


def _unit(width: float) -> int:
    """The power of two, 8 to 128, of which a width is a multiple: an eighth of it or finer."""
    return min(128, max(8, 2 ** int(math.log2(max(8.0, width / 8)))))


def _shape(
    model: ModelConfig, whole: ModelConfig, layers: int, width: int, chosen: tuple[int, int, float]
) -> tuple[dict[str, int], float]:
    """Sizes of everything at a width with its heads, and how far those are from the recipe's proportions."""
    heads, shared, out_of_proportion = chosen
    wider = _queries_per_width(whole)
    ratio = 8 / 3 if whole.family.gated else 4.0
    if model.intermediate_size is not None:
        ratio = model.intermediate_size / model.hidden_size
    unit = _unit(width)
    shape = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": shared,
        "head_dim": width // heads if wider == 1 else max(2, 2 * round(width / heads * wider / 2)),
        "intermediate_size": max(unit, unit * round(ratio * width / unit)),
    }
    return shape, out_of_proportion


def _heads(whole: ModelConfig, width: int) -> tuple[int, int, float]:
    """(query heads, key and value heads, |ln| by which they miss the recipe's) nearest to the recipe's proportions."""
    assert whole.num_key_value_heads and whole.head_dim
    head_dim, groups = whole.head_dim, whole.num_attention_heads / whole.num_key_value_heads
    width_of_queries = width * _queries_per_width(whole)

    def miss(heads: int, shared: int) -> float:
        return abs(math.log(width_of_queries / heads / head_dim)) + abs(math.log(heads / shared / groups))

    possible = [heads for heads in divisors(width) if width % (2 * heads) == 0]
    pairs = [(heads, shared) for heads in possible for shared in divisors(heads)]
    heads, shared = min(pairs, key=lambda pair: (miss(*pair), -pair[0]))
    return heads, shared, miss(heads, shared)


def _queries_per_width(whole: ModelConfig) -> float:
    """Width of all query heads over hidden_size; 1 except where the recipe sets head_dim."""
    assert whole.head_dim
    return whole.head_dim * whole.num_attention_heads / whole.hidden_size


def _rung(
    recipe: RunConfig, vocab_size: int, shape: dict[str, int], ratio: float, folder: str, rules: LadderRules
) -> Rung:
    length = recipe.data.sequence_length
    whole = recipe.model.resolved(vocab_size, length)
    model = whole.model_copy(update=shape)
    parameters = matmul_parameters(model)
    batch, steps = recipe.batch(1), recipe.steps(1)
    recipe_tokens = steps * batch.global_batch_size * length
    wished = batch.global_batch_size * (ratio * parameters / recipe_tokens) ** rules.batch_exponent
    micro = min(batch.micro_batch_size, max(1, round(wished)))
    accumulation = max(1, round(wished / micro))
    step_tokens = micro * accumulation * length
    rung_steps = max(1, round(ratio * parameters / step_tokens))
    faster = (matmul_parameters(whole) / parameters) ** rules.learning_rate_exponent
    narrower = recipe.model.hidden_size / shape["hidden_size"]
    interval = -(-rung_steps // CHECKPOINTS)
    changes: dict[str, dict[str, Any]] = {
        "model": {**shape, "initializer_range": recipe.model.initializer_range * math.sqrt(narrower)},
        "optimizer": {"lr": recipe.optimizer.lr * faster, "min_lr": recipe.optimizer.min_lr * faster},
        "schedule": _schedule(recipe.schedule, rung_steps / steps, batch.global_batch_size * length),
        "training": {
            "total_steps": rung_steps,
            "total_tokens": None,
            "micro_batch_size": micro,
            "gradient_accumulation_steps": accumulation,
            "global_batch_size": micro * accumulation,
        },
        "checkpoint": {"interval_steps": interval, "keep_last": 1, "keep_every_steps": None},
        "evaluation": {"interval_steps": rung_steps},
    }
    sections = {name: getattr(recipe, name).model_copy(update=values) for name, values in changes.items()}
    name = f"{human_count(parameters)}-{ratio:g}"
    config = recipe.model_copy(update={**sections, "name": name, "runs_directory": folder})
    config = RunConfig.model_validate(config.model_dump())
    tokens = rung_steps * step_tokens
    flops = training_flops_per_token(model, length, config.predicted_share) * tokens
    return Rung(config, config.model.resolved(vocab_size, length), parameters, tokens, flops)


def _schedule(schedule: ScheduleConfig, shorter: float, step_tokens: int) -> dict[str, int | None]:
    """Warm-up and decay in steps, as large a share of the rung as of the recipe; a cosine ends where the run does."""
    values: dict[str, int | None] = {}
    for what in ("warmup", "decay"):
        steps, tokens = getattr(schedule, f"{what}_steps"), getattr(schedule, f"{what}_tokens")
        if tokens is not None:
            steps = tokens / step_tokens
        from_warmup = schedule.initial_lr > 0 or schedule.name == "inverse_square_root"
        least = 1 if what == "decay" or from_warmup else 0
        values[f"{what}_steps"] = None if steps is None else max(least, int(steps * shorter))
        values[f"{what}_tokens"] = None
    return values

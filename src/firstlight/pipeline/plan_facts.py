"""A plan in short lines of words, as the terminal and the page show it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from firstlight.pipeline.plan_words import STEP_PARTS, Say
from firstlight.planning.division import Division
from firstlight.planning.layout_losses import Loss
from firstlight.planning.memory import RankMemory
from firstlight.planning.plan import Plan
from firstlight.planning.ranges import Range
from firstlight.support.console import human_count

Facts = list[tuple[str, str]]
"""Names, and what is said of each."""
_CONVENTIONS = {
    "firstlight": "firstlight",
    "hardware": "hardware",
    "six_n": "6N",
    "palm": "PaLM",
    "megatron_lm": "Megatron-LM",
}


def plan_facts(plan: Plan, say: Say) -> dict[str, Facts]:
    """Facts by heading."""
    return {
        say("Model"): _model(plan, say),
        say("Run"): _run(plan, say),
        say("What the laws say"): _laws(plan, say),
        say("Time and money"): _cost(plan, say),
    }


def title(plan: Plan, say: Say) -> str:
    """Name and hardware."""
    parts = [
        f"{plan.config.name} "
        + say("on {devices} × {device}").format(devices=f"{plan.devices:,}", device=plan.device.name)
    ]
    nodes = plan.devices // plan.devices_per_node
    if nodes > 1:
        parts.append(say("in {nodes} machines of {each}").format(nodes=nodes, each=plan.devices_per_node))
    return ", ".join(parts)


def layout_words(division: Division, say: Say) -> str:
    """'pipeline 4 × shard 16 × tensor 2, interleaved 2'."""
    layout = division.layout
    if layout.world_size == 1:
        return say("one process")
    several = f" {division.stages_per_rank}" if division.stages_per_rank > 1 else ""
    return f"{layout}{f', {division.schedule}{several}' if layout.pipeline > 1 else ''}"


def loss_words(loss: Loss, say: Say) -> str:
    """Why some layouts lose."""
    if loss.kind == "impossible":
        return say("do not come out: {reason}").format(reason=say(loss.reason))
    if loss.kind == "refused":
        return f"{say('refused')}: {loss.example}"
    if loss.kind == "memory":
        lacks = "–" if loss.lacks_bytes is None else f"{loss.lacks_bytes / 1e9:.3g}"
        return say("do not fit; the nearest lacks {lacks} GB").format(lacks=lacks)
    assert loss.times_slower is not None
    words = say("slower, most by {part}; the nearest takes {times} of the best")
    return words.format(part=say(STEP_PARTS[loss.reason]), times=f"{loss.times_slower:.1%}")


def at_peak(memory: RankMemory) -> dict[str, int]:
    """Bytes by part when a rank needs the most, what is no tensor as the rest; they add up to its total."""
    return {**memory.at_peak(), "rest": memory.fragmentation + memory.device_context}


def _model(plan: Plan, say: Say) -> Facts:
    model, parameters = plan.config.model, plan.parameters
    parts = {
        "embedding": parameters.embedding,
        "blocks": parameters.blocks,
        "head": parameters.head,
        "norms and biases": parameters.norms,
    }
    shown = " + ".join(f"{say(name)} {human_count(count)}" for name, count in parts.items() if count)
    shape = say("{blocks} blocks, {hidden} wide, {heads} heads of {head_dim}, {groups} for keys and values")
    return [
        (say("parameters"), f"{human_count(parameters.total)} = {shown}"),
        (
            say("shape"),
            f"{model.architecture}: "
            + shape.format(
                blocks=model.num_hidden_layers,
                hidden=f"{model.hidden_size:,}",
                heads=model.num_attention_heads,
                head_dim=model.head_dim,
                groups=model.num_key_value_heads,
            ),
        ),
        (
            say("FLOPs a token"),
            ", ".join(f"{_CONVENTIONS[name]} {flops:.3g}" for name, flops in plan.flops_per_token.items()),
        ),
    ]


def _run(plan: Plan, say: Say) -> Facts:
    length = say("{tokens} tokens = {steps} steps × {batch} sequences × {length}").format(
        tokens=human_count(plan.total_tokens),
        steps=f"{plan.total_steps:,}",
        batch=f"{plan.global_batch_size:,}",
        length=f"{plan.config.data.sequence_length:,}",
    )
    data = [
        say("{name} {tokens} tokens, {epochs} times").format(
            name=name, tokens=human_count(tokens), epochs=f"{plan.source_epochs[name]:.3g}"
        )
        for name, tokens in plan.source_tokens.items()
        if name in plan.source_epochs
    ]
    return [
        (say("length"), length),
        (say("compute"), say("{flops} model FLOPs").format(flops=f"{plan.total_flops:.3g}")),
        (say("data"), "; ".join(data) or say("no token datasets here yet")),
    ]


def _laws(plan: Plan, say: Say) -> Facts:
    expected = plan.expected
    if expected is None:
        return [(say("loss"), say("the laws are of models that predict the next token"))]
    best, over = expected.optimal.values(), expected.overtraining
    vocabulary = plan.config.model.vocab_size
    assert vocabulary is not None
    losses = {law: loss for law, loss in expected.losses.items() if loss < math.log(vocabulary)}
    loss = say("the laws have nothing to say of so short a run")
    if losses:  # not above that of guessing
        loss = say("{low} to {high} nats a token ({laws})").format(
            low=f"{min(losses.values()):.2f}",
            high=f"{max(losses.values()):.2f}",
            laws=_listed(losses, ".2f"),
        )
    if expected.effective_tokens < 0.99 * expected.tokens:
        worth = say("these tokens teach as much as {tokens} new ones")
        loss += "; " + worth.format(tokens=human_count(expected.effective_tokens))
    if expected.extrapolated:
        loss += "; " + say("smaller than the models that the laws were fitted on")
    sizes, lengths = [b.parameters for b in best], [b.tokens for b in best]
    optimal = say("{low_n} to {high_n} parameters on {low_d} to {high_d} tokens").format(
        low_n=human_count(min(sizes)),
        high_n=human_count(max(sizes)),
        low_d=human_count(min(lengths)),
        high_d=human_count(max(lengths)),
    )
    here = say(
        "{ratio} tokens a parameter; loss {penalty} above the best for this compute, {wasted} of it spared by the best"
    ).format(
        ratio=f"{expected.tokens / expected.parameters:.3g}",
        penalty=f"{over.loss_penalty:.3f}",
        wasted=f"{over.wasted_compute:.0%}",
    )
    batch = say("{tokens} tokens here; {laws}; critical about {critical}").format(
        tokens=human_count(plan.step_tokens),
        laws=", ".join(f"{law} {human_count(tokens)}" for law, tokens in expected.batch_tokens.items()),
        critical=human_count(expected.critical_batch_tokens),
    )
    rate = say("{rate} here; {laws}").format(
        rate=f"{plan.config.optimizer.lr:.3g}", laws=_listed(expected.learning_rates, ".2g")
    )
    return [
        (say("loss"), loss),
        (say("compute-optimal"), optimal),
        (say("this recipe"), here),
        (say("learning rate"), rate),
        (say("batch"), batch),
    ]


def _cost(plan: Plan, say: Say) -> Facts:
    cost, costed = plan.cost, plan.costed
    if cost is None or costed is None:
        return [(say("time"), say("no time is known for this precision on this device"))]
    step = costed.step
    facts = [
        (say("layout"), layout_words(costed.division, say)),
        (
            say("step"),
            _range(
                "{low} to {high} s, typically {typical}", Range(step.low_seconds, step.seconds, step.high_seconds), say
            ),
        ),
        (
            say("speed"),
            say("{all} tokens/s, {one} each; MFU {mfu}, HFU {hfu}").format(
                all=human_count(step.tokens_per_second),
                one=human_count(step.tokens_per_second_per_device),
                mfu=f"{step.mfu:.1%}",
                hfu=f"{step.hfu:.1%}",
            ),
        ),
    ]
    long = cost.days.typical >= 2
    unit = "{low} to {high} days, typically {typical}" if long else "{low} to {high} hours, typically {typical}"
    facts.append((say("time"), _range(unit, cost.days if long else cost.hours, say)))
    if plan.devices > 1:
        facts.append((say("device-hours"), _range("{low} to {high}, typically {typical}", cost.device_hours, say)))
    if cost.usd is None or cost.price is None:
        facts.append((say("money"), say("no price of this device is known")))
    else:
        price = {
            "low_price": f"{cost.price.low_usd_per_hour:.2f}",
            "high_price": f"{cost.price.high_usd_per_hour:.2f}",
            "date": cost.price.date,
        }
        words = "{low} to {high} $, typically {typical} (at {low_price} to {high_price} $ an hour, {date})"
        facts.append((say("money"), _range(words, cost.usd, say, price)))
    if cost.energy_kwh is not None:
        facts.append((say("energy"), _range("{low} to {high} kWh, typically {typical}", cost.energy_kwh, say)))
    return facts


def _range(words: str, values: Range, say: Say, others: Mapping[str, Any] | None = None) -> str:
    numbers = {name: _number(getattr(values, name)) for name in ("low", "high", "typical")}
    return say(words).format(**numbers, **(others or {}))


def _number(value: float) -> str:
    """Three digits, thousands apart, no exponent below a billion."""
    if value >= 1000:
        digits = len(str(int(value))) - 3
        return f"{round(value, -digits):,.0f}" if value < 1e9 else f"{value:.3g}"
    return f"{value:.3g}"


def _listed(laws: Mapping[str, float], form: str) -> str:
    return ", ".join(f"{law} {value:{form}}" for law, value in laws.items())

"""A plan as one HTML file: no network, no scripts, light and dark, fit for printing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from firstlight.pipeline.plan_facts import at_peak, layout_words, loss_words, plan_facts, title
from firstlight.pipeline.plan_pictures import curves, stacked_bars
from firstlight.pipeline.plan_words import Language, Say, words
from firstlight.planning.division import Ranked
from firstlight.planning.expectations import LOSS_LAWS, Expectations
from firstlight.planning.memory import RankMemory
from firstlight.planning.plan import Plan
from firstlight.report.html import shell, text
from firstlight.support.console import human_count
from firstlight.support.files import atomic_file

_MEMORY_GROUPS = {
    "weights, fp32": ("parameters",),
    "AdamW's moments, fp32": ("optimizer",),
    "gradients, fp32": ("gradients",),
    "weights to multiply with": ("compute_weights", "buffers"),
    "activations": ("activations", "backward"),
    "head and loss": ("head",),
    "device context and margin": ("rest",),
}
_STEP_GROUPS = {
    "matrix products": ("matmul",),
    "attention": ("attention",),
    "memory traffic": ("memory", "launch", "optimizer"),
    "communication": ("tensor", "context", "pipeline", "data"),
    "bubble": ("bubble",),
    "waiting for the slowest": ("straggler",),
}
_POINTS, _DECADES = 60, 1.5


def write_page(plan: Plan, file: Path, language: Language = "en") -> None:
    """Write the page, whole or not at all."""
    with atomic_file(file, "w") as handle:
        handle.write(page(plan, language))


def page(plan: Plan, language: Language = "en") -> str:
    """The page as text."""
    say = words(language)
    heading = text(title(plan, say))
    parts = [
        f"<h1>{heading}</h1>",
        *(f'<p class="dim">{text(sentence)}</p>' for sentence in plan.assumptions),
        _findings(plan, say, language),
    ]
    for name, facts in plan_facts(plan, say).items():
        rows = "".join(f"<tr><th>{text(label)}</th><td>{text(fact)}</td></tr>" for label, fact in facts)
        parts.append(f'<h2>{text(name)}</h2>\n<table class="facts">{rows}</table>')
        if name == say("What the laws say") and plan.expected is not None and not plan.expected.extrapolated:
            parts.append(_loss_picture(plan.expected, say))
    if plan.cost is not None:
        sentence = say("Predictions are ranges: two of three runs like the published ones lie within.")
        parts.append(f'<p class="dim">{text(sentence)}</p>')
    if plan.search is not None and plan.own is not None:
        parts += [_layouts(plan, plan.own, say), _pictures(plan, plan.own, say), _losses(plan, say)]
    return shell(heading, "\n".join(parts), language)


def _findings(plan: Plan, say: Say, language: Language) -> str:
    lines = [f"<h2>{text(say('Consistency'))}</h2>"]
    if language != "en" and plan.consistency.findings:
        lines.append(f'<p class="dim">{text(say("Findings are in English."))}</p>')
    for finding in plan.consistency.findings:
        lines.append(
            f'<div class="finding {finding.severity}"><p><b>{text(say(finding.severity))}</b> '
            f"{text(finding.kind)}</p><p>{text(finding.evidence)}</p><p>→ {text(finding.remedy)}</p></div>"
        )
    if not plan.consistency.findings:
        lines.append(f"<p>{text(say('Nothing found.'))}</p>")
    missing = "; ".join(f"{name} ({reason})" for name, reason in plan.consistency.not_looked_at.items())
    lines.append(f'<p class="dim">{text(say("Looked at"))}: {text(", ".join(plan.consistency.looked_at))}.</p>')
    if missing:
        lines.append(f'<p class="dim">{text(say("Not looked at"))}: {text(missing)}.</p>')
    return "\n".join(lines)


def _layouts(plan: Plan, own: Ranked, say: Say) -> str:
    assert plan.search is not None
    head = "".join(
        f'<th class="number">{text(say(name))}</th>' if number > 1 else f"<th>{text(say(name) if name else '')}</th>"
        for number, name in enumerate(
            ("", "layout", "micro-batch", "recompute", "GB", "seconds", "tokens/s each", "MFU")
        )
    )
    rows = [
        _layout_row(str(number), ranked, " ".join(overrides) or say("as the recipe"), say, "")
        for number, (ranked, overrides) in enumerate(zip(plan.search.best, plan.overrides, strict=True), 1)
    ]
    place = "–" if plan.own_place is None else f"{plan.own_place:,}"
    said = say("the recipe's own") + ("" if plan.own_fits else f": {say('does not fit')}")
    rows.append(_layout_row(place, own, said, say, "own"))
    tried = say("{tried} tried, {fit} fit") if plan.search.fitting else say("none of {tried} fits")
    counts = tried.format(tried=f"{plan.search.candidates:,}", fit=f"{len(plan.search.fitting):,}")
    return (
        f"<h2>{text(say('Layouts'))}: {text(counts)}</h2>\n"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _layout_row(place: str, ranked: Ranked, settings: str, say: Say, kind: str) -> str:
    division, step = ranked.division, ranked.step
    cells = (
        f"{division.micro_batch_size} × {division.accumulation}",
        division.recompute,
        f"{ranked.memory_bytes / 1e9:.1f}",
        f"{step.seconds:.3g}",
        human_count(step.tokens_per_second_per_device),
        f"{step.mfu:.1%}",
    )
    numbers = "".join(f'<td class="number">{text(cell)}</td>' for cell in cells)
    code = f"<br><code>{text(settings)}</code>" if "=" in settings else f"<br>{text(settings)}"
    return f'<tr class="{kind}"><td>{place}</td><td>{text(layout_words(division, say))}{code}</td>{numbers}</tr>'


def _pictures(plan: Plan, own: Ranked, say: Say) -> str:
    assert plan.search is not None
    compared: list[tuple[str, Ranked, Sequence[RankMemory]]] = [(say("recipe"), own, plan.own_memory)]
    for number, (ranked, memory) in enumerate(zip(plan.search.best, plan.memory, strict=True), 1):
        compared.append((f"{number}: {ranked.division.layout}"[:38], ranked, memory))
    fullest = [(label, at_peak(max(memory, key=lambda rank: rank.total))) for label, _, memory in compared]
    bars = [(label, _grouped(parts, _MEMORY_GROUPS, say)) for label, parts in fullest]
    limit = (say("device memory"), plan.device.memory_bytes) if plan.device.memory_bytes else None
    name = say("Memory of a rank")
    pictures = [f"<h2>{text(name)}</h2>", stacked_bars(bars, _gigabytes, name, limit)]
    own_words = say("the recipe's own")
    if len(plan.own_memory) > 1:
        ranks = [
            (say("rank {rank}").format(rank=number), _grouped(at_peak(memory), _MEMORY_GROUPS, say))
            for number, memory in enumerate(plan.own_memory)
        ]
        name += f": {own_words}"
        pictures += [f"<h2>{text(name)}</h2>", stacked_bars(ranks, _gigabytes, name, limit)]
    steps = [(label, _grouped(ranked.step.parts, _STEP_GROUPS, say)) for label, ranked, _ in compared]
    name = say("Where a step's time goes")
    return "\n".join([*pictures, f"<h2>{text(name)}</h2>", stacked_bars(steps, _seconds, name)])


def _grouped(parts: Mapping[str, float], groups: Mapping[str, Sequence[str]], say: Say) -> dict[str, float]:
    return {say(name): sum(parts.get(key, 0.0) for key in keys) for name, keys in groups.items()}


def _loss_picture(expected: Expectations, say: Say) -> str:
    low, high = math.log10(expected.tokens) - _DECADES, math.log10(expected.tokens) + _DECADES / 2
    tokens = [10 ** (low + (high - low) * step / _POINTS) for step in range(_POINTS + 1)]
    lines = {name: [(count, law(expected.shape, count)) for count in tokens] for name, law in LOSS_LAWS.items()}
    at = f"{say('this run')}: {human_count(expected.tokens)}", expected.tokens
    return curves(lines, at, say("tokens"), say("loss"), say("Loss and tokens"))


def _losses(plan: Plan, say: Say) -> str:
    assert plan.search is not None
    if not plan.search.losses:
        return ""
    rows = "".join(
        f'<tr><td class="number">{loss.count:,}</td><td>{text(loss_words(loss, say))}</td></tr>'
        for loss in plan.search.losses
    )
    return f"<h2>{text(say('Why the others lose'))}</h2>\n<table>{rows}</table>"


def _gigabytes(value: float) -> str:
    return f"{value / 1e9:.3g} GB"


def _seconds(value: float) -> str:
    return f"{value:.3g} s"

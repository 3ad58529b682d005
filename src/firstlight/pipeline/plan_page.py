"""A plan as one HTML file: no network, no scripts, light and dark, fit for printing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from firstlight.pipeline.plan_facts import at_peak, layout_words, loss_words, plan_facts, title
from firstlight.pipeline.plan_pictures import curves, stacked_bars
from firstlight.pipeline.plan_words import Language, Say, words
from firstlight.planning.division import Ranked
from firstlight.planning.expectations import LOSS_LAWS, Expectations
from firstlight.planning.memory import RankMemory
from firstlight.planning.plan import Plan
from firstlight.support.console import human_count, printable
from firstlight.support.files import atomic_file

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1c1e; --line: #d8d8dc; --soft: #f4f4f6; --dim: #63636a;
  --problem: #b00020; --warning: #9a5b00; --note: #00607a }
@media (prefers-color-scheme: dark) { :root { --paper: #17181a; --ink: #e8e8ea; --line: #3a3b40; --soft: #212226;
  --dim: #a0a0a8; --problem: #ff7b8a; --warning: #f0b356; --note: #6cc7e0 } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 60rem; padding: 1.5rem }
h1 { font-size: 1.5rem; margin: 0 0 .5rem } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
table { border-collapse: collapse; width: 100% } th, td { border-bottom: 1px solid var(--line); padding: .3rem .6rem;
  text-align: left; vertical-align: top } thead th { color: var(--dim); font-weight: 500 }
.facts th { color: var(--dim); font-weight: 500; width: 10rem } .number { text-align: right;
  font-variant-numeric: tabular-nums; white-space: nowrap }
.own { background: var(--soft) } .scroll { overflow-x: auto } p.dim { color: var(--dim) }
code { background: var(--soft); border-radius: 3px; font-size: .85rem; overflow-wrap: anywhere; padding: .1rem .3rem }
svg { display: block; height: auto; max-width: 100% }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; list-style: none; margin: .3rem 0; padding: 0 }
.legend span { border-radius: 2px; display: inline-block; height: .7rem; margin-right: .35rem; width: .7rem }
.finding { border-left: 4px solid var(--line); margin: .8rem 0; padding: .1rem .8rem }
.finding p { margin: .2rem 0 } .problem { border-color: var(--problem) } .problem b { color: var(--problem) }
.warning { border-color: var(--warning) } .warning b { color: var(--warning) }
.note { border-color: var(--note) } .note b { color: var(--note) }
@media print { body { font-size: 11px; max-width: none; padding: 0 } h2 { break-after: avoid }
  svg, .finding, tr { break-inside: avoid } * { print-color-adjust: exact; -webkit-print-color-adjust: exact } }
"""
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
    heading = _text(title(plan, say))
    parts = [
        f'<!doctype html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{heading}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{heading}</h1>",
        *(f'<p class="dim">{_text(sentence)}</p>' for sentence in plan.assumptions),
        _findings(plan, say, language),
    ]
    for name, facts in plan_facts(plan, say).items():
        rows = "".join(f"<tr><th>{_text(label)}</th><td>{_text(fact)}</td></tr>" for label, fact in facts)
        parts.append(f'<h2>{_text(name)}</h2>\n<table class="facts">{rows}</table>')
        if name == say("What the laws say") and plan.expected is not None and not plan.expected.extrapolated:
            parts.append(_loss_picture(plan.expected, say))
    if plan.cost is not None:
        sentence = say("Predictions are ranges: two of three runs like the published ones lie within.")
        parts.append(f'<p class="dim">{_text(sentence)}</p>')
    if plan.search is not None and plan.own is not None:
        parts += [_layouts(plan, plan.own, say), _pictures(plan, plan.own, say), _losses(plan, say)]
    return "\n".join([*parts, "</body>\n</html>\n"])


def _findings(plan: Plan, say: Say, language: Language) -> str:
    lines = [f"<h2>{_text(say('Consistency'))}</h2>"]
    if language != "en" and plan.consistency.findings:
        lines.append(f'<p class="dim">{_text(say("Findings are in English."))}</p>')
    for finding in plan.consistency.findings:
        lines.append(
            f'<div class="finding {finding.severity}"><p><b>{_text(say(finding.severity))}</b> '
            f"{_text(finding.kind)}</p><p>{_text(finding.evidence)}</p><p>→ {_text(finding.remedy)}</p></div>"
        )
    if not plan.consistency.findings:
        lines.append(f"<p>{_text(say('Nothing found.'))}</p>")
    missing = "; ".join(f"{name} ({reason})" for name, reason in plan.consistency.not_looked_at.items())
    lines.append(f'<p class="dim">{_text(say("Looked at"))}: {_text(", ".join(plan.consistency.looked_at))}.</p>')
    if missing:
        lines.append(f'<p class="dim">{_text(say("Not looked at"))}: {_text(missing)}.</p>')
    return "\n".join(lines)


def _layouts(plan: Plan, own: Ranked, say: Say) -> str:
    assert plan.search is not None
    head = "".join(
        f'<th class="number">{_text(say(name))}</th>' if number > 1 else f"<th>{_text(say(name) if name else '')}</th>"
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
        f"<h2>{_text(say('Layouts'))}: {_text(counts)}</h2>\n"
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
    numbers = "".join(f'<td class="number">{_text(cell)}</td>' for cell in cells)
    code = f"<br><code>{_text(settings)}</code>" if "=" in settings else f"<br>{_text(settings)}"
    return f'<tr class="{kind}"><td>{place}</td><td>{_text(layout_words(division, say))}{code}</td>{numbers}</tr>'


def _pictures(plan: Plan, own: Ranked, say: Say) -> str:
    assert plan.search is not None
    compared: list[tuple[str, Ranked, Sequence[RankMemory]]] = [(say("recipe"), own, plan.own_memory)]
    for number, (ranked, memory) in enumerate(zip(plan.search.best, plan.memory, strict=True), 1):
        compared.append((f"{number}: {ranked.division.layout}"[:38], ranked, memory))
    fullest = [(label, at_peak(max(memory, key=lambda rank: rank.total))) for label, _, memory in compared]
    bars = [(label, _grouped(parts, _MEMORY_GROUPS, say)) for label, parts in fullest]
    limit = (say("device memory"), plan.device.memory_bytes) if plan.device.memory_bytes else None
    name = say("Memory of a rank")
    pictures = [f"<h2>{_text(name)}</h2>", stacked_bars(bars, _gigabytes, name, limit)]
    own_words = say("the recipe's own")
    if len(plan.own_memory) > 1:
        ranks = [
            (say("rank {rank}").format(rank=number), _grouped(at_peak(memory), _MEMORY_GROUPS, say))
            for number, memory in enumerate(plan.own_memory)
        ]
        name += f": {own_words}"
        pictures += [f"<h2>{_text(name)}</h2>", stacked_bars(ranks, _gigabytes, name, limit)]
    steps = [(label, _grouped(ranked.step.parts, _STEP_GROUPS, say)) for label, ranked, _ in compared]
    name = say("Where a step's time goes")
    return "\n".join([*pictures, f"<h2>{_text(name)}</h2>", stacked_bars(steps, _seconds, name)])


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
        f'<tr><td class="number">{loss.count:,}</td><td>{_text(loss_words(loss, say))}</td></tr>'
        for loss in plan.search.losses
    )
    return f"<h2>{_text(say('Why the others lose'))}</h2>\n<table>{rows}</table>"


def _gigabytes(value: float) -> str:
    return f"{value / 1e9:.3g} GB"


def _seconds(value: float) -> str:
    return f"{value:.3g} s"


def _text(text: str) -> str:
    return escape(printable(text))

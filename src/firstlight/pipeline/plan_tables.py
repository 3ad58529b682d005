"""A plan on a terminal: facts, layouts, what is wrong. It fits 100 columns."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from firstlight.pipeline.dry_run_tables import show_lines, show_section
from firstlight.pipeline.plan_facts import layout_words, loss_words, plan_facts, title
from firstlight.pipeline.plan_words import Language, Say, words
from firstlight.planning.consistency import Consistency
from firstlight.planning.division import Ranked
from firstlight.planning.plan import Plan
from firstlight.planning.search import SearchResult
from firstlight.support.console import human_count, out, printable
from firstlight.support.errors import EXIT_PROBLEMS

_COLOURS = {"problem": "bold red", "warning": "yellow", "note": "cyan"}
WIDTH = 100
LOSSES_SHOWN = 8


def show_plan(plan: Plan, language: Language = "en") -> None:
    """Print the whole plan."""
    say = words(language)
    show_section(title(plan, say))
    show_lines(plan.assumptions)
    for heading, facts in plan_facts(plan, say).items():
        show_section(heading)
        _grid(facts)
    if plan.search is not None and plan.own is not None:
        _show_layouts(plan, plan.search, plan.own, say)
    _show_findings(plan.consistency, say)


def exit_code(plan: Plan) -> int:
    """EXIT_PROBLEMS where training would refuse or fail, else 0: what is only unwise does not stop a script."""
    return EXIT_PROBLEMS if plan.consistency.contradicts_itself else 0


def _show_layouts(plan: Plan, search: SearchResult, own: Ranked, say: Say) -> None:
    tried = say("{tried} tried, {fit} fit") if search.fitting else say("none of {tried} fits")
    counts = tried.format(tried=f"{search.candidates:,}", fit=f"{len(search.fitting):,}")
    show_section(f"{say('Layouts')}: {counts}")
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column(say("layout"), overflow="fold")
    wide = out.width >= WIDTH
    for name in ("micro-batch", "recompute", "GB", "seconds", *(("tokens/s each",) if wide else ()), "MFU"):
        table.add_column(say(name), justify="left" if name == "recompute" else "right")
    for number, ranked in enumerate(search.best, 1):
        _row(table, str(number), ranked, wide, say)
    _row(table, "*" if plan.own_place is None else f"{plan.own_place:,}*", own, wide, say)
    _print(table)
    show_lines(["* " + say("the recipe's own") + ("" if plan.own_fits else f": {say('does not fit')}")])
    for number, (ranked, overrides) in enumerate(zip(search.best, plan.overrides, strict=True), 1):
        same = ranked.division == own.division
        show_lines([f"{number}: {say('as the recipe') if same or not overrides else ' '.join(overrides)}"])
    if search.losses:
        show_section(say("Why the others lose"))
        _grid([(f"{loss.count:,}", loss_words(loss, say)) for loss in search.losses[:LOSSES_SHOWN]])


def _row(table: Table, name: str, ranked: Ranked, wide: bool, say: Say) -> None:
    division, step = ranked.division, ranked.step
    table.add_row(
        escape(name),
        escape(layout_words(division, say)),
        f"{division.micro_batch_size} × {division.accumulation}",
        division.recompute,
        f"{ranked.memory_bytes / 1e9:.1f}",
        f"{step.seconds:.3g}",
        *([human_count(step.tokens_per_second_per_device)] if wide else []),
        f"{step.mfu:.1%}",
    )


def _show_findings(consistency: Consistency, say: Say) -> None:
    show_section(say("Consistency"))
    for finding in consistency.findings:
        out.print(f"[{_COLOURS[finding.severity]}]{say(finding.severity)}:[/] [bold]{escape(finding.kind)}[/bold]")
        _grid([(f"  {say('seen')}", finding.evidence), (f"  {say('helps')}", finding.remedy)])
    if not consistency.findings:
        show_lines([say("Nothing found.")])
    show_lines([f"{say('Looked at')}: {', '.join(consistency.looked_at)}."])
    if consistency.not_looked_at:
        missing = "; ".join(f"{name} ({reason})" for name, reason in consistency.not_looked_at.items())
        show_lines([f"{say('Not looked at')}: {missing}."])


def _grid(rows: list[tuple[str, str]]) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(escape(printable(name)), escape(printable(text)))
    _print(table)


def _print(table: Table) -> None:
    """Within 100 columns, also where a terminal is wider."""
    out.print(table, width=min(out.width, WIDTH))

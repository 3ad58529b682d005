"""The page of one run, or of several on top of each other, put together."""

from __future__ import annotations

from collections.abc import Sequence

from firstlight.report import sections
from firstlight.report.charts import chart_data, controls, events_table, figures
from firstlight.report.comparison import comparison
from firstlight.report.facts import RunFacts
from firstlight.report.html import Language, Words, asset, both, json_block, section, shell, text
from firstlight.report.story import story, tiles

NAMED = 3
"""Runs that the title names."""


def page(runs: Sequence[RunFacts], language: Language = "en", *, stamp: str = "", refresh_seconds: int = 0) -> str:
    """The page as text. runs: one or more, with different names. stamp, refresh_seconds: of a page that is served,
    which asks its server so often whether `/stamp` is still the same."""
    assert runs, "a page has at least one run"
    named = " · ".join(run.name for run in runs[:NAMED])
    title = text(named if len(runs) <= NAMED else f"{named} · +{len(runs) - NAMED}")
    data = chart_data(runs)
    curves = (
        section("curves", Words("Curves", "曲线"), controls(runs), figures(runs, language)) if data["charts"] else ""
    )
    if len(runs) == 1:
        parts = [_head(runs[0]), sections.doctor_section(runs[0]), curves, events_table(runs[0]), _details(runs[0])]
    else:
        parts = [comparison(runs), curves, *(_folded(number, run) for number, run in enumerate(runs))]
    follow = f' data-stamp="{text(stamp)}" data-refresh="{refresh_seconds}"' if refresh_seconds else ""
    lost = both("The server does not answer any more; this is its last page.", "服务器已无响应，这是最后一次的页面。")
    scriptless = both("Curves need JavaScript; the tables do not.", "曲线需要 JavaScript；数据表不需要。", "p")
    inner = "\n".join(part for part in parts if part)
    body = (
        f'<header><h1>{title}</h1><div class="choices">'
        '<span class="group" role="group" data-label-en="Language" data-label-zh="语言">'
        '<button type="button" data-language="en">English</button>'
        '<button type="button" data-language="zh">中文</button></span>'
        f'<button type="button" data-control="theme">{both("Light / dark", "浅色 / 深色")}</button></div></header>\n'
        f'<noscript>{scriptless}</noscript>\n<p class="dim" data-control="state" hidden>{lost}</p>\n'
        f"<main{follow}>\n{inner}\n</main>\n{json_block('data', data)}"
    )
    return shell(
        title,
        body,
        language,
        styles=(asset("uPlot.min.css"), asset("report.css")),
        scripts=(asset("uPlot.iife.min.js"), asset("report.js")),
        served=bool(refresh_seconds),
    )


def _head(run: RunFacts) -> str:
    return f"{story(run)}\n{tiles(run)}"


def _details(run: RunFacts) -> str:
    parts = (
        sections.time_section(run),
        sections.outcome_section(run),
        sections.mixture_section(run),
        sections.corpus_section(run),
        sections.tokenizer_section(run),
        sections.samples_section(run),
        sections.provenance_section(run),
    )
    return "\n".join(part for part in parts if part)


def _folded(number: int, run: RunFacts) -> str:
    inner = "\n".join([_head(run), sections.doctor_section(run), events_table(run), _details(run)])
    return f'<details class="run" id="run-{number}"><summary>{text(run.name)}</summary>\n{inner}\n</details>'

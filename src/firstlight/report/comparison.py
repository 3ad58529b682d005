"""Several runs side by side: how each came out, and the settings in which they differ."""

from __future__ import annotations

from collections.abc import Sequence

from firstlight.report.facts import RunFacts
from firstlight.report.html import Words, both, section, table, text
from firstlight.report.sections import written
from firstlight.support.console import human_count, human_seconds

STATES = {
    "running": Words("running", "训练中"),
    "finished": Words("finished", "已完成"),
    "stopped": Words("stopped", "已停止"),
    "diverged": Words("diverged", "已发散"),
    "ended": Words("ended early", "提前结束"),
}
_OWN = ("name", "description", "runs_directory")
"""Settings that say nothing of how a run was trained."""


def comparison(runs: Sequence[RunFacts]) -> str:
    """A table of outcomes and one of differing settings."""
    best = min((loss for run in runs if (loss := run.last("loss")) is not None), default=None)
    rows = []
    for run in runs:
        loss, rate = run.last("loss"), run.last("tokens_per_second")
        findings = sum(note.severity != "note" for note in run.notes)
        rows.append(
            (
                text(run.name),
                f"{run.step:,} / {run.total_steps:,}",
                human_count(run.tokens),
                human_seconds(run.seconds) if run.seconds else "–",
                "–" if loss is None else f"<b>{loss:.4f}</b>" if loss == best else f"{loss:.4f}",
                _validation(run),
                "–" if rate is None else human_count(rate),
                f"{findings}",
                both(*STATES[run.state]),
            )
        )
    head = (
        both("run", "训练"),
        both("steps", "步"),
        both("tokens", "词元"),
        both("time", "时间"),
        both("training loss", "训练损失"),
        both("held-out loss", "留出损失"),
        both("tokens/s", "词元/秒"),
        both("findings", "诊断项"),
        both("state", "状态"),
    )
    lead = both(
        f"{len(runs)} runs; the lowest training loss is bold. Losses compare only between runs with the same tokenizer "
        "and the same data.",
        f"{len(runs)} 次训练；最低的训练损失用粗体标出。只有分词器和数据相同时，损失才可比较。",
        "p",
    )
    outcome = section("outcome", Words("Side by side", "对比"), lead, table(head, rows, (1, 2, 3, 4, 5, 6, 7)))
    return outcome + _differences(runs)


def _validation(run: RunFacts) -> str:
    last = [curve.values[-1] for curve in run.validation.get("loss", {}).values()]
    return f"{sum(last) / len(last):.4f}" if last else "–"


def _differences(runs: Sequence[RunFacts]) -> str:
    keys = list(dict.fromkeys(key for run in runs for key in run.settings if key not in _OWN))
    differing = [key for key in keys if len({_setting(run, key) for run in runs}) > 1]
    title = Words("Settings that differ", "不同的设置")
    if not differing:
        return section("differences", title, both("None.", "没有。", "p"))
    rows = [(text(key), *(f"<code>{text(_setting(run, key))}</code>" for run in runs)) for key in differing]
    return section("differences", title, table((both("setting", "设置"), *(text(run.name) for run in runs)), rows))


def _setting(run: RunFacts, key: str) -> str:
    return written(run.settings[key]) if key in run.settings else "–"

"""The curves of one or several runs: figures with words and a table for those who cannot see them, and their points."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from firstlight.report.facts import Mark, RunFacts
from firstlight.report.html import Language, Words, both, folded, said, table, text
from firstlight.report.thinning import Thinned
from firstlight.support.console import human_bytes, printable

DIGITS = 6
"""Of numbers in the page: more than a screen can show."""
TABLE_ROWS = 24


class Chart(NamedTuple):
    """How one curve of metrics is drawn."""

    key: str
    title: Words
    unit: Words
    written: str = ""
    """How numbers are written: bytes, share, or plain."""
    log: bool = False
    smooth: bool = False


CHARTS = (
    Chart("loss", Words("Training loss", "训练损失"), Words("nats per token", "奈特/词元"), smooth=True),
    Chart("learning_rate", Words("Learning rate", "学习率"), Words("", "")),
    Chart("grad_norm", Words("Gradient norm", "梯度范数"), Words("before clipping", "裁剪前"), log=True, smooth=True),
    Chart("param_norm", Words("Parameter norm", "参数范数"), Words("", "")),
    Chart("tokens_per_second", Words("Throughput", "吞吐量"), Words("tokens per second", "词元/秒"), smooth=True),
    Chart(
        "mfu", Words("Model FLOPs utilisation", "模型算力利用率（MFU）"), Words("share of peak", "占峰值"), "share",
        smooth=True,
    ),
    Chart("peak_memory_bytes", Words("Peak memory", "内存峰值"), Words("of one process", "单个进程"), "bytes"),
    Chart(
        "data_wait_fraction", Words("Waiting for data", "等待数据"), Words("share of time", "占时间"), "share",
        smooth=True,
    ),
    Chart("loss_scale", Words("Loss scale", "损失缩放"), Words("fp16", "fp16"), log=True),
)  # fmt: skip
VALIDATION = {
    "bits_per_byte": Words("bits per byte", "比特/字节"),
    "loss": Words("loss, nats per token", "损失，奈特/词元"),
    "perplexity": Words("perplexity", "困惑度"),
    "accuracy": Words("accuracy", "准确率"),
}
MARK_NAMES = {
    "checkpoint": Words("kept checkpoints", "保留的检查点"),
    "spike": Words("loss spikes", "损失尖峰"),
    "skipped": Words("skipped steps", "跳过的步"),
    "overflow": Words("fp16 overflows", "fp16 溢出"),
    "rolled_back": Words("roll-backs", "回退"),
    "save_failed": Words("failed saves", "保存失败"),
    "hung": Words("hung", "停滞"),
    "diverged": Words("diverged", "发散"),
    "resumed": Words("resumed", "恢复"),
    "stopped": Words("stopped", "停止"),
    "finished": Words("finished", "完成"),
}
_HIDDEN_AT_FIRST = ("checkpoint",)


def chart_data(runs: Sequence[RunFacts]) -> dict[str, Any]:
    """Everything that the page's script draws, ready for JSON."""
    charts: list[dict[str, Any]] = []
    for chart in CHARTS:
        series = [
            _series(number, _run_name(run, runs, chart.title), run.curves[chart.key])
            for number, run in enumerate(runs)
            if chart.key in run.curves
        ]
        if series:
            charts.append(
                {"id": chart.key, "unit": chart.written, "log": chart.log, "smooth": chart.smooth, "series": series}
            )
        if chart.key == "loss" and (variants := _validation(runs)):
            charts.append(
                {"id": "validation", "unit": "", "log": False, "smooth": False, "dots": True, "variants": variants}
            )
    return {"runs": [_about(run) for run in runs], "charts": charts}


def figures(runs: Sequence[RunFacts], language: Language) -> str:
    """The figures of all charts, which the script fills; each with its words and its table."""
    parts = []
    for chart in CHARTS:
        having = [run for run in runs if chart.key in run.curves]
        if having:
            curves = [(run.name if len(runs) > 1 else "", run.curves[chart.key]) for run in having]
            parts.append(_figure(chart.key, chart.title, chart.unit, chart.written, curves, language))
        if chart.key == "loss":
            parts += _validation_figure(runs, language)
    return f'<div class="charts">{"".join(parts)}</div>'


def controls(runs: Sequence[RunFacts]) -> str:
    """What all charts share: the horizontal axis, zoom, smoothing, marks."""
    axes = {
        "step": Words("steps", "步"),
        "tokens": Words("tokens", "词元"),
        "time": Words("time", "时间"),
        "flops": Words("FLOPs", "FLOPs"),
    }
    choose = "".join(
        f'<button type="button" data-x="{name}" aria-pressed="{str(name == "step").lower()}">{said(words)}</button>'
        for name, words in axes.items()
    )
    moves = {
        "in": ("+", "Zoom in", "放大"),
        "out": ("−", "Zoom out", "缩小"),
        "left": ("◀", "Move left", "左移"),
        "right": ("▶", "Move right", "右移"),
    }
    zoom = "".join(
        f'<button type="button" data-move="{name}" data-label-en="{en}" data-label-zh="{zh}">{sign}</button>'
        for name, (sign, en, zh) in moves.items()
    )
    kinds = [kind for kind in MARK_NAMES if any(mark.kind == kind for run in runs for mark in run.marks)]
    marks = "".join(
        f'<label><input type="checkbox" data-mark="{kind}"{"" if kind in _HIDDEN_AT_FIRST else " checked"}>'
        f"{said(MARK_NAMES[kind])}</label>"
        for kind in kinds
    )
    return (
        '<div class="controls">'
        f'<span class="group" role="group" data-label-en="Horizontal axis" data-label-zh="横轴">{choose}</span>'
        f'<label><input type="checkbox" data-control="logx">{both("log", "对数")}</label>'
        f'<span class="group" role="group" data-label-en="Zoom" data-label-zh="缩放">{zoom}'
        f'<button type="button" data-control="whole">{both("all", "全部")}</button></span>'
        f"<label>{both('smoothing', '平滑')}"
        '<input type="range" min="0" max="0.98" step="0.02" data-control="smooth"></label>'
        f"{marks}</div>\n"
        + both(
            "Drag over a chart to zoom, double-click to see all of it. With the keyboard: Tab to a chart, arrow keys "
            "for values, + and − to zoom, 0 for all.",
            "在图上拖动可放大，双击恢复。键盘：用 Tab 选中图，方向键查看数值，+ 和 − 缩放，0 恢复。",
            "p",
            "dim legend-note",
        )
    )


def events_table(run: RunFacts) -> str:
    """What happened, as a list."""
    listed = [mark for mark in run.marks if mark.kind != "checkpoint"]
    if not listed:
        return ""
    rows = [(f"{mark.step:,}", said(MARK_NAMES[mark.kind]), said(mark.said)) for mark in listed]
    head = (both("step", "步"), both("what", "事件"), both("details", "详情"))
    title = Words(f"What happened ({len(rows)})", f"事件列表（{len(rows)}）")
    more = ""
    if run.marks_left_out:
        more = both(
            f"{run.marks_left_out:,} more are in events.jsonl.", f"另有 {run.marks_left_out:,} 条见 events.jsonl。", "p"
        )
    return folded(title, table(head, rows, (0,)) + more, f"events-{run.name}")


def _figure(
    name: str,
    title: Words,
    unit: Words,
    written: str,
    curves: Sequence[tuple[str, Thinned]],
    language: Language,
    choice: str = "",
    wide: bool = False,
) -> str:
    write = _WRITERS[written]
    told = [_told(label, curve, write) for label, curve in curves]
    en = f"{title.en}: {'; '.join(words.en for words in told)}"
    zh = f"{title.zh}：{'；'.join(words.zh for words in told)}"
    label = text(en if language == "en" else zh)
    spoken = f'aria-label="{label}" data-label-en="{text(en)}" data-label-zh="{text(zh)}"'
    units = f' <span class="unit">{said(unit)}</span>' if unit.en else ""
    bucket = max(curve.bucket for _, curve in curves)
    thinned = ""
    if bucket > 1:
        thinned = both(
            f"Of every {bucket:,} points the lowest and the highest are drawn.",
            f"每 {bucket:,} 个点画出其中最低和最高的一个。",
            "p",
            "dim legend-note",
        )
    return (
        f'<figure id="chart-{name}"{" class=wide" if wide or name == "loss" else ""}>'
        f"<figcaption><strong>{said(title)}{units}</strong><span>{choice}"
        f'<label><input type="checkbox" data-log>{both("log", "对数")}</label></span></figcaption>'
        f'<div class="plot" role="img" tabindex="0" {spoken}><div class="tip" hidden></div></div>'
        f'<div class="readout"></div><ul class="keys"></ul>{thinned}'
        + folded(Words("Numbers", "数据表"), _numbers(curves, write), f"numbers-{name}")
        + "</figure>\n"
    )


def _validation_figure(runs: Sequence[RunFacts], language: Language) -> Iterator[str]:
    variants = _validation(runs)
    if not variants:
        return
    options = "".join(
        f'<option value="{key}" data-en="{VALIDATION[key].en}" data-zh="{VALIDATION[key].zh}">'
        f"{VALIDATION[key].en}</option>"
        for key in variants
    )
    choice = f'<select data-variant data-label-en="Measure" data-label-zh="指标">{options}</select> '
    first = next(iter(variants))
    curves = [
        (_domain_name(run, runs, domain), curve)
        for run in runs
        for domain, curve in run.validation.get(first, {}).items()
    ]
    title = Words("Held-out text by domain", "各领域留出文本")
    yield _figure("validation", title, Words("", ""), "", curves, language, choice, wide=True)


def _validation(runs: Sequence[RunFacts]) -> dict[str, list[dict[str, Any]]]:
    return {
        metric: series
        for metric in VALIDATION
        if (
            series := [
                _series(number, Words(*(2 * [_domain_name(run, runs, domain)])), curve)
                for number, run in enumerate(runs)
                for domain, curve in run.validation.get(metric, {}).items()
            ]
        )
    }


def _domain_name(run: RunFacts, runs: Sequence[RunFacts], domain: str) -> str:
    return f"{run.name}: {domain}" if len(runs) > 1 else domain


def _run_name(run: RunFacts, runs: Sequence[RunFacts], title: Words) -> Words:
    return Words(run.name, run.name) if len(runs) > 1 else title


def _about(run: RunFacts) -> dict[str, Any]:
    clock = [[], []] if run.clock is None else [run.clock.steps.tolist(), _rounded(run.clock.values)]
    return {
        "name": printable(run.name),
        "step_tokens": run.step_tokens,
        "step_flops": run.step_tokens * run.flops_per_token,
        "clock": clock,
        "marks": [_mark(mark) for mark in run.marks],
    }


def _mark(mark: Mark) -> dict[str, Any]:
    return {"step": mark.step, "kind": mark.kind, "text": [printable(words) for words in mark.said]}


def _series(run: int, name: Words, curve: Thinned) -> dict[str, Any]:
    return {
        "run": run,
        "name": [printable(words) for words in name],
        "x": curve.steps.tolist(),
        "y": _rounded(curve.values),
        "mean": [curve.mean_steps.tolist(), _rounded(curve.mean_values)] if curve.bucket > 1 else None,
    }


def _rounded(values: Any) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()]


def _told(label: str, curve: Thinned, write: Callable[[float], str]) -> Words:
    """What a curve does, in a sentence."""
    first, last = curve.values[0], curve.values[-1]
    low, high = int(np.argmin(curve.values)), int(np.argmax(curve.values))
    if len(curve.values) == 1:
        en, zh = f"{write(first)} at step {curve.steps[0]:,}", f"第 {curve.steps[0]:,} 步为 {write(first)}"
    else:
        change = ("falls", "降至") if last < first else ("rises", "升至") if last > first else ("stays", "保持")
        en = (
            f"{change[0]} from {write(first)} at step {curve.steps[0]:,} to {write(last)} at step "
            f"{curve.steps[-1]:,}; lowest {write(curve.values[low])} at step {curve.steps[low]:,}, highest "
            f"{write(curve.values[high])} at step {curve.steps[high]:,}"
        )
        zh = (
            f"从第 {curve.steps[0]:,} 步的 {write(first)} {change[1]}第 {curve.steps[-1]:,} 步的 {write(last)}；"
            f"最低 {write(curve.values[low])}（第 {curve.steps[low]:,} 步），最高 {write(curve.values[high])}"
            f"（第 {curve.steps[high]:,} 步）"
        )
    return Words(f"{label} {en}".strip(), f"{label} {zh}".strip())


def _numbers(curves: Sequence[tuple[str, Thinned]], write: Callable[[float], str]) -> str:
    """At most TABLE_ROWS points of each curve, evenly chosen, the first and the last among them."""
    rows = []
    for label, curve in curves:
        chosen = np.unique(np.linspace(0, len(curve.steps) - 1, TABLE_ROWS).round().astype(int))
        rows += [(text(label), f"{curve.steps[at]:,}", text(write(float(curve.values[at])))) for at in chosen]
    several = len(curves) > 1
    head = (both("curve", "曲线"), both("step", "步"), both("value", "数值"))
    if not several:
        return table(head[1:], [row[1:] for row in rows], (0, 1))
    return table(head, rows, (1, 2))


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


_WRITERS: Mapping[str, Callable[[float], str]] = {
    "": _plain,
    "bytes": human_bytes,
    "share": lambda value: f"{value:.1%}",
}

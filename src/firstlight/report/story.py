"""A run in a few plain sentences: what was trained, on what, how long, how well it went, what to do next.

Written for someone who reads such a page for the first time; every number is one of the run's own.
"""

from __future__ import annotations

import math
import shlex

from firstlight.report.facts import RunFacts
from firstlight.report.html import Words, said, text
from firstlight.support.console import human_bytes, human_count, human_seconds

_STATES = {
    "running": Words("It is running", "正在训练"),
    "finished": Words("It reached its last step", "训练已完成"),
    "stopped": Words("It was stopped and saved before its end", "训练中途停止，进度已保存"),
    "diverged": Words("It gave up, because its loss was no longer sound", "损失失控，训练已放弃"),
    "ended": Words("It ended before its last step without saying why", "训练未到最后一步就结束了，原因没有记录"),
}
_LEARNT_LITTLE = 0.5
"""Nats below guessing that a model should have reached to have learnt anything (as in the doctor)."""


def story(run: RunFacts) -> str:
    """The first paragraphs of the page."""
    parts = [_what(run), _how_well(run), _doctor(run), _next(run)]
    return f'<div class="lead">{"".join(said(words, "p") for words in parts if words)}{_commands(run)}</div>'


def tiles(run: RunFacts) -> str:
    """The key figures."""
    loss, rate, mfu = run.last("loss"), run.last("tokens_per_second"), run.last("mfu")
    memory = run.curves["peak_memory_bytes"].values.max() if "peak_memory_bytes" in run.curves else None
    figures = [
        (Words("steps", "步"), f"{run.step:,} / {run.total_steps:,}"),
        (Words("tokens", "词元"), human_count(run.tokens)),
        (Words("model FLOPs", "模型 FLOPs"), f"{run.flops:.3g}"),
        (Words("training loss, nats per token", "训练损失，奈特/词元"), _or_dash(loss, ".3f")),
        (Words("time of training", "训练用时"), human_seconds(run.seconds) if run.seconds else "–"),
        (Words("tokens per second", "词元/秒"), "–" if rate is None else human_count(rate)),
        (Words("MFU", "MFU"), _or_dash(mfu, ".1%")),
        (Words("peak memory of a process", "单进程内存峰值"), "–" if memory is None else human_bytes(memory)),
    ]
    inner = "".join(
        f'<div class="tile"><b>{text(value)}</b><small>{said(name)}</small></div>' for name, value in figures
    )
    return f'<div class="tiles">{inner}</div>'


def _what(run: RunFacts) -> Words:
    sources = ", ".join(run.mixture) if run.mixture else ""
    on_en = f", on {len(run.mixture)} source{'s' * (len(run.mixture) > 1)} ({sources})" if sources else ""
    on_zh = f"，数据来自 {len(run.mixture)} 个来源（{sources}）" if sources else ""
    size = human_count(run.parameters)
    kind_en = "to continue text" if run.causal else "to fill in hidden words"
    kind_zh = "续写文本" if run.causal else "填补被遮住的词"
    time_en = f" in {human_seconds(run.seconds)}" if run.seconds else ""
    time_zh = f"，用时 {human_seconds(run.seconds)}" if run.seconds else ""
    state = _STATES[run.state]
    return Words(
        f"A {run.architecture} model of {size} parameters was trained {kind_en}{on_en}. "
        f"It has read {human_count(run.tokens)} tokens{time_en}. {state.en} "
        f"(step {run.step:,} of {run.total_steps:,}).",
        f"一个 {size} 参数的 {run.architecture} 模型，学习{kind_zh}{on_zh}。"
        f"已读 {human_count(run.tokens)} 词元{time_zh}。{state.zh}（第 {run.step:,} 步，共 {run.total_steps:,} 步）。",
    )


def _how_well(run: RunFacts) -> Words:
    loss = run.last("loss")
    if loss is None:
        return Words("No loss has been written yet.", "还没有损失记录。")
    curve, guess = run.curves["loss"], math.log(run.vocab_size)
    first, start = float(curve.values[0]), int(curve.steps[0])
    choices = f"{math.exp(min(loss, 50)):,.0f}"
    en = (
        f"The loss went from {first:.2f} (step {start:,}) to {loss:.2f} nats per token; guessing among "
        f"all {run.vocab_size:,} tokens has {guess:.2f}. The model is now as unsure as if it chose among "
        f"{choices} tokens. "
    )
    zh = (
        f"损失从 {first:.2f}（第 {start:,} 步）变为 {loss:.2f} 奈特/词元；"
        f"在全部 {run.vocab_size:,} 个词元中乱猜为 {guess:.2f}。"
        f"模型现在的不确定程度相当于在 {choices} 个词元中任选。"
    )
    if loss > guess - _LEARNT_LITTLE:
        en, zh = en + "That is hardly better than guessing. ", zh + "这与乱猜相差无几。"
    accuracy = {name: curve.values[-1] for name, curve in run.validation.get("accuracy", {}).items()}
    baseline = {name: curve.values[-1] for name, curve in run.validation.get("baseline_accuracy", {}).items()}
    if accuracy:
        best, worst = max(accuracy, key=accuracy.__getitem__), min(accuracy, key=accuracy.__getitem__)
        what = ("next token", "下一个词元") if run.causal else ("hidden token", "被遮住的词元")
        en += f"On held-out text it names the right {what[0]} in {accuracy[best]:.1%} of cases ({best})"
        zh += f"在留出文本上，它猜对{what[1]}的比例为 {accuracy[best]:.1%}（{best}）"
        if worst != best:
            en, zh = en + f" to {accuracy[worst]:.1%} ({worst})", zh + f"至 {accuracy[worst]:.1%}（{worst}）"
        if best in baseline:
            en += f"; always naming the commonest token would be right in {baseline[best]:.1%} ({best})"
            zh += f"；总猜最常见的词元为 {baseline[best]:.1%}（{best}）"
        en, zh = en + ".", zh + "。"
    else:
        en, zh = en + "No held-out text was scored.", zh + "没有对留出文本评分。"
    return Words(en, zh)


def _doctor(run: RunFacts) -> Words:
    problems, warnings = (sum(note.severity == kind for note in run.notes) for kind in ("problem", "warning"))
    if not problems and not warnings:
        return Words("The doctor found nothing that needs care.", "诊断没有发现需要处理的问题。")
    counted = [(problems, "problem", "个问题"), (warnings, "warning", "个警告")]
    en = " and ".join(f"{count} {name}{'s' * (count > 1)}" for count, name, _ in counted if count)
    zh = "和 ".join(f"{count} {name}" for count, _, name in counted if count)
    worst = run.notes[0]
    return Words(
        f"The doctor found {en}; first of all: {worst.kind}. What helps stands below.",
        f"诊断发现 {zh}，首要的是：{worst.kind}。处理办法见下文。",
    )


def _next(run: RunFacts) -> Words:
    if run.state == "running":
        return Words("To see it live:", "实时查看：")
    if run.state in ("stopped", "ended"):
        return Words("Next: train it to its end.", "下一步：继续训练到结束。")
    if run.state == "diverged":
        return Words(
            "Next: read the findings, change the setting that they name, and go on.",
            "下一步：阅读诊断，修改其中指出的设置，再继续训练。",
        )
    return Words("Next: try it, score it, or take it to Hugging Face.", "下一步：试用、评测，或导出到 Hugging Face。")


def _commands(run: RunFacts) -> str:
    path = shlex.quote(run.path)
    lines = {
        "running": [f"firstlight watch {path}"],
        "finished": [
            f"firstlight generate {path} --prompt 'The'" if run.causal else f"firstlight fill {path} TEXT",
            f"firstlight eval {path}",
            f"firstlight export {path} DIR",
        ],
        "diverged": [f"firstlight doctor {path}"],
    }.get(run.state, [f"firstlight train {path}"])
    return f"<pre>{text(chr(10).join(lines))}</pre>"


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)

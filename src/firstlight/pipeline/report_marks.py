"""What happened in a run, as marks on its curves: events, spikes of the loss, checkpoints that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from firstlight.planning.diagnosis import RunRecord
from firstlight.planning.diagnosis.record import CannotTell, Line, curve, number, span, stages, whole
from firstlight.planning.diagnosis.spikes import spikes_of
from firstlight.report.charts import MARK_NAMES
from firstlight.report.facts import Mark
from firstlight.report.html import Words

MOST_OF_A_KIND = 300
"""Marks of one kind on a page; of more, evenly chosen ones."""


def marks_of(record: RunRecord) -> tuple[list[Mark], int]:
    """(marks in the order of steps; how many were left out)."""
    marks = [
        Mark(step, "checkpoint", Words(f"checkpoint of step {step:,}", f"第 {step:,} 步的检查点"))
        for step in record.checkpoints
    ]
    marks += _spikes(record)
    for event in record.of_kind(*MARK_NAMES):
        if (step := whole(event.get("step"))) is not None:
            marks.append(Mark(step, event["event"], _told(event["event"], step, event)))
    kept: list[Mark] = []
    for kind in MARK_NAMES:
        kept += _evenly([mark for mark in marks if mark.kind == kind])
    return sorted(kept, key=lambda mark: mark.step), len(marks) - len(kept)


def _spikes(record: RunRecord) -> list[Mark]:
    try:
        loss = curve(record, "loss")
    except CannotTell:
        return []
    return [
        Mark(
            spike.first,
            "spike",
            Words(
                f"step {spike.first:,}: the loss jumped from {spike.before:.3f} to {spike.peak:.3f}",
                f"第 {spike.first:,} 步：损失从 {spike.before:.3f} 跳到 {spike.peak:.3f}",
            ),
        )
        for stage in stages(record, loss)
        for spike in spikes_of(stage)
    ]


def _told(kind: str, step: int, event: Line) -> Words:
    here, there = f"step {step:,}: ", f"第 {step:,} 步："
    match kind:
        case "skipped":
            seen = {"loss": "loss", "grad_norm": "grad_norm"}.get(str(event.get("reason")), "loss")
            name = Words("loss", "损失") if seen == "loss" else Words("gradient norm", "梯度范数")
            value, limit = _figure(event.get(seen)), _figure(event.get("limit"))
            return Words(
                f"{here}skipped, {name.en} {value}, limit {limit}", f"{there}跳过，{name.zh} {value}，上限 {limit}"
            )
        case "overflow":
            scale = _figure(event.get("loss_scale"))
            return Words(f"{here}fp16 overflow at loss scale {scale}", f"{there}fp16 溢出，损失缩放 {scale}")
        case "rolled_back":
            to, samples = whole(event.get("to_step")), span(event.get("skipped_samples"))
            passed = "" if samples is None else f" {samples[1] - samples[0]:,}"
            return Words(
                f"{here}went back to step {'?' if to is None else f'{to:,}'}, passing over{passed} samples",
                f"{there}回退到第 {'?' if to is None else f'{to:,}'} 步，略过{passed} 个样本",
            )
        case "save_failed":
            return Words(f"{here}not saved: {event.get('reason')}", f"{there}保存失败：{event.get('reason')}")
        case "hung":
            message = str(event.get("message", ""))[:200]
            return Words(f"{here}hung: {message}", f"{there}停滞：{message}")
        case "diverged":
            return Words(f"{here}gave up, loss {event.get('loss')}", f"{there}放弃训练，损失 {event.get('loss')}")
        case "stopped":
            return Words(f"{here}stopped by {event.get('signal')}", f"{there}因 {event.get('signal')} 停止")
        case _:
            return Words(f"{here}{MARK_NAMES[kind].en}", f"{there}{MARK_NAMES[kind].zh}")


def _figure(value: Any) -> str:
    known = number(value)
    return "–" if known is None else f"{known:.4g}"


def _evenly(marks: Sequence[Mark]) -> list[Mark]:
    if len(marks) <= MOST_OF_A_KIND:
        return list(marks)
    return [marks[place * (len(marks) - 1) // (MOST_OF_A_KIND - 1)] for place in range(MOST_OF_A_KIND)]

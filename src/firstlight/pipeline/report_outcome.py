"""A run's plan beside what came out, for its page.

The device is the one of this machine when the run was trained here. Of a CPU the plan takes the speed of matrix
products that the run itself has measured: its MFU says what that was.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from firstlight.config import RunConfig
from firstlight.pipeline.plan_machines import Machines, machines_for
from firstlight.pipeline.planning import make_plan
from firstlight.planning.hardware import cpu_device
from firstlight.planning.plan import Plan
from firstlight.report.facts import Outcome
from firstlight.report.html import Words
from firstlight.support.console import human_bytes, human_count, human_seconds
from firstlight.support.errors import FirstlightError
from firstlight.training.device import choose_device

_COMMUNICATION = ("tensor", "context", "pipeline", "data")


@dataclass(frozen=True)
class Measured:
    """What the plan is held against; None: not known."""

    seconds: float | None
    """Of the whole run; None: it is not at its end."""
    tokens_per_second: float | None
    mfu: float | None
    memory_bytes: float | None
    loss: float | None
    peak_flops: float | None
    """Of one process, as its MFU takes it."""


def outcomes(
    config: RunConfig, provenance: Mapping[str, Any], measured: Measured
) -> tuple[list[Outcome], list[Words], Words | None]:
    """(figures; what the plan assumes; why there is none)."""
    assumed: list[str] = []
    try:
        machines = _machines(config, provenance, measured, assumed)
        if machines is None:
            return (
                [],
                [],
                Words(
                    "No plan: the run was trained on another machine. Make the page there.",
                    "没有计划：该训练在另一台机器上进行；请在那台机器上生成报告。",
                ),
            )
        plan = make_plan(config, machines, search=False, assumptions=assumed)
    except (FirstlightError, OSError) as problem:
        return [], [], Words(f"No plan: {problem}", f"没有计划：{problem}")
    sentences = [Words(sentence, sentence) for sentence in plan.assumptions]
    if _as_measured(config, measured):
        speed = f"{(measured.peak_flops or 0.0) / 1e9:.3g} GFLOP/s"
        sentences.append(
            Words(
                f"Planned for this CPU with the {speed} that the run has measured.",
                f"按本机 CPU 规划，矩阵乘速度取训练时实测的 {speed}。",
            )
        )
    return [*_pace(plan, measured), *_memory(plan, measured), *_loss(plan, measured)], sentences, None


def _machines(
    config: RunConfig, provenance: Mapping[str, Any], measured: Measured, assumed: list[str]
) -> Machines | None:
    host = provenance.get("host")
    if not isinstance(host, dict) or host.get("name") != platform.node():
        return None
    processes = config.declared_world_size
    if not _as_measured(config, measured):
        return machines_for(config, None, elsewhere=False, assumptions=assumed)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert measured.peak_flops is not None
    per_node = config.launch.gpus_per_node or processes
    return Machines(cpu_device(measured.peak_flops, memory, processes), processes, per_node)


def _as_measured(config: RunConfig, measured: Measured) -> bool:
    """Whether the run's own MFU says how fast its device is."""
    return measured.peak_flops is not None and choose_device(config.training.device).type == "cpu"


def _pace(plan: Plan, measured: Measured) -> list[Outcome]:
    rows = []
    if plan.cost is not None:
        hours = plan.cost.hours
        low, high = human_seconds(3600 * hours.low), human_seconds(3600 * hours.high)
        taken = "–" if measured.seconds is None else human_seconds(measured.seconds)
        remark = Words("the run is not at its end", "训练尚未结束") if measured.seconds is None else None
        rows.append(Outcome(Words("time of the whole run", "整个训练的时间"), f"{low} – {high}", taken, remark))
    if plan.own is not None:
        step = plan.own.step
        speed, mfu = measured.tokens_per_second, measured.mfu
        rows += [
            Outcome(
                Words("tokens per second", "词元/秒"),
                human_count(step.tokens_per_second),
                "–" if speed is None else human_count(speed),
            ),
            Outcome(Words("MFU", "MFU"), f"{step.mfu:.1%}", "–" if mfu is None else f"{mfu:.1%}"),
        ]
        if plan.devices > 1:
            share = sum(step.parts.get(part, 0.0) for part in _COMMUNICATION) / step.seconds
            not_measured = Words("not measured apart", "没有单独测量")
            rows.append(Outcome(Words("communication", "通信"), f"{share:.1%}", "–", not_measured))
    return rows


def _memory(plan: Plan, measured: Measured) -> list[Outcome]:
    if plan.own is None:
        return []
    taken = "–" if measured.memory_bytes is None else human_bytes(measured.memory_bytes)
    remark = None
    if plan.device.name == "cpu":
        remark = Words("measured: all that the process holds", "实测为进程占用的全部内存")
    what = Words("memory of a process", "单进程内存")
    return [Outcome(what, human_bytes(plan.own.memory_bytes), taken, remark)]


def _loss(plan: Plan, measured: Measured) -> list[Outcome]:
    if plan.expected is None:
        return []
    assert plan.config.model.vocab_size is not None
    guessing = math.log(plan.config.model.vocab_size)
    losses = [loss for loss in plan.expected.losses.values() if loss < guessing]
    if not losses:  # the laws have nothing to say of so short a run
        return []
    remark = Words(
        "laws of finished runs on web text, with another tokenizer: a rough guide",
        "定律来自网页文本上完整训练、使用其他分词器的模型，仅供粗略参考",
    )
    if plan.expected.extrapolated:
        remark = Words(
            "smaller than the models that the laws were fitted on: not to be taken as a forecast",
            "比拟合定律所用的模型还小，不能当作预测",
        )
    taken = "–" if measured.loss is None else f"{measured.loss:.2f}"
    return [Outcome(Words("training loss", "训练损失"), f"{min(losses):.2f} – {max(losses):.2f}", taken, remark)]

"""The parts of a run's page below its curves: time, data, tokenizer, samples, plan, doctor, provenance."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from firstlight.report.facts import Corpus, Outcome, RunFacts
from firstlight.report.html import Words, bar, both, fact_table, folded, said, section, table, text
from firstlight.support.console import human_bytes, human_count, human_seconds

EXCERPT = 500
"""Characters of a dropped document or of a model's text."""
_PURPOSES = {
    "compute": Words("computing", "计算"),
    "data": Words("waiting for data", "等待数据"),
    "evaluation": Words("evaluation", "评测"),
    "checkpoints": Words("saving checkpoints", "保存检查点"),
}
_SEVERITIES = {
    "problem": Words("problem", "问题"),
    "warning": Words("warning", "警告"),
    "note": Words("note", "提示"),
}


def doctor_section(run: RunFacts) -> str:
    """What the doctor found, in its own (English) words."""
    parts = []
    if run.notes:
        parts.append(both("", "诊断内容为英文。", "p", "dim"))
    for note in run.notes:
        where = ""
        if note.steps:
            first, last = note.steps
            en = f" (step {first:,})" if first == last else f" (steps {first:,} to {last:,})"
            zh = f"（第 {first:,} 步）" if first == last else f"（第 {first:,} 至 {last:,} 步）"
            where = both(en, zh)
        examples = "".join(f'<p class="dim">{text(example)}</p>' for example in note.examples)
        parts.append(
            f'<div class="finding {text(note.severity)}"><p><b>{said(_SEVERITIES[note.severity])}</b> '
            f"{text(note.kind)}{where}</p><p>{text(note.evidence)}</p>{examples}"
            f"<p>→ {text(note.remedy.replace(' RUN', f' {run.path}'))}</p></div>"
        )
    if not run.notes:
        parts.append(both("Nothing found.", "没有发现问题。", "p"))
    looked = fact_table(
        [
            (both("looked at", "已检查"), text(", ".join(run.looked_at))),
            *((text(name), text(reason)) for name, reason in run.not_looked_at.items()),
        ]
    )
    parts.append(
        folded(Words("What was looked at, and what was not", "检查了什么，没检查什么"), looked, f"looked-{run.name}")
    )
    return section("doctor", Words("What the doctor says", "诊断"), *parts)


def time_section(run: RunFacts) -> str:
    """Where the time went."""
    total = run.seconds
    if not total:
        return ""
    rows = [
        (said(_PURPOSES[name]), bar(seconds / total), f"{seconds / total:.1%}", human_seconds(seconds))
        for name, seconds in run.shares.items()
    ]
    head = (both("purpose", "用途"), "", both("share", "占比"), both("time", "时间"))
    remark = ""
    if run.processes > 1:
        remark = both(
            "Communication between processes is part of computing: it is not measured apart. The plan below says how "
            "much of a step it should take.",
            "进程间通信包含在“计算”内，没有单独测量；下文“计划与结果”给出它预计所占的比例。",
            "p",
            "dim",
        )
    return section("time", Words("Where the time went", "时间花在哪里"), table(head, rows, (2, 3)), remark)


def mixture_section(run: RunFacts) -> str:
    """Planned and seen shares of sources."""
    rows = [
        (
            text(name),
            human_count(drawn.tokens),
            f"{drawn.wanted:.1%}",
            bar(drawn.seen),
            f"{drawn.seen:.1%}",
            f"{drawn.epochs:.3g}",
            f"{drawn.epochs_at_end:.3g}",
            f"{drawn.skipped:,}",
        )
        for name, drawn in run.mixture.items()
    ]
    head = (
        both("source", "来源"),
        both("its tokens", "词元数"),
        both("planned", "计划占比"),
        "",
        both("seen", "实际占比"),
        both("times read", "已读遍数"),
        both("at the end", "结束时遍数"),
        both("samples skipped", "跳过的样本"),
    )
    return section(
        "mixture",
        Words("Mixture: planned and seen", "数据配比：计划与实际"),
        table(head, rows, (1, 2, 4, 5, 6, 7)) if rows else "",
    )


def corpus_section(run: RunFacts) -> str:
    """The funnel of each corpus, with documents that were dropped."""
    parts: list[str] = []
    for number, corpus in enumerate(run.corpora):
        parts += _corpus(corpus, f"{run.name}-{number}")
    return section("corpus", Words("Corpus: what the filters left", "语料：过滤后剩下什么"), *parts)


def _corpus(corpus: Corpus, name: str) -> Iterator[str]:
    size = corpus.bytes_in
    rows = [(both("read", "读入"), bar(1.0), human_bytes(size), "100%", f"{corpus.documents_in:,}", "")]
    for step in corpus.steps:
        left = step.bytes_out / size if size else 0.0
        worst = sorted(step.dropped.items(), key=lambda item: -item[1])
        reasons = ", ".join(f"−{human_count(count)} {reason}" for reason, count in worst)
        label = f'<span title="{text(step.meaning)}">{text(step.name)}</span>'
        share = f"{left:.1%}"
        rows.append((label, bar(left), human_bytes(step.bytes_out), share, f"{step.documents_out:,}", text(reasons)))
    head = (
        both("step", "步骤"),
        "",
        both("text left", "剩余文本"),
        both("share", "占比"),
        both("documents", "文档数"),
        both("dropped", "丢弃"),
    )
    yield table(head, rows, (2, 3, 4))
    for number, step in enumerate(corpus.steps):
        shown = "".join(
            f'<p class="dim">{text(dropped.source)} · {text(dropped.reason)}</p>'
            f"<pre>{text(_excerpt(dropped.text))}</pre>"
            for dropped in step.examples
        )
        if shown:
            title = Words(f"Dropped by {step.name}: examples", f"被“{step.name}”丢弃的例子")
            yield folded(title, shown, f"dropped-{name}-{number}")


def tokenizer_section(run: RunFacts) -> str:
    """How well the tokenizer spells each domain and language."""
    rows = [
        (
            text(spelled.source),
            both("all", "全部") if spelled.language is None else text(spelled.language),
            f"{spelled.documents:,}",
            human_count(spelled.tokens),
            human_bytes(spelled.text_bytes),
            f"{spelled.text_bytes / spelled.tokens:.3f}" if spelled.tokens else "–",
        )
        for spelled in run.spelled
    ]
    if not rows:
        return ""
    head = (
        both("source", "来源"),
        both("language", "语言"),
        both("documents", "文档数"),
        both("tokens", "词元数"),
        both("text", "文本"),
        both("bytes per token", "字节/词元"),
    )
    trained = run.tokenizer_training.get("bytes_by_source")
    facts = [(both("vocabulary", "词表"), both(f"{run.vocab_size:,} tokens", f"{run.vocab_size:,} 个词元"))]
    if isinstance(trained, dict):
        parts = ", ".join(f"{name} {human_bytes(size)}" for name, size in trained.items() if isinstance(size, int))
        facts.append((both("trained on", "训练文本"), text(parts)))
    return section("tokenizer", Words("Tokenizer", "分词器"), fact_table(facts), table(head, rows, (2, 3, 4, 5)))


def samples_section(run: RunFacts) -> str:
    """What the model wrote, by step."""
    parts = [
        f"<h3>{both(f'step {sample.step:,}', f'第 {sample.step:,} 步')}</h3>"
        f"<pre><b>{text(sample.prompt)}</b>{text(_excerpt(sample.text, 3 * EXCERPT))}</pre>"
        for sample in run.samples
    ]
    return section("samples", Words("What the model writes", "模型生成的文本"), *parts)


def outcome_section(run: RunFacts) -> str:
    """The plan beside what came out."""
    parts = [said(sentence, "p", "dim") for sentence in run.plan_assumptions]
    if run.why_no_plan:
        parts.append(said(run.why_no_plan, "p", "dim"))
    if run.outcomes:
        rows = [(_named(outcome), text(outcome.planned), text(outcome.measured)) for outcome in run.outcomes]
        parts.append(table(("", both("planned", "计划"), both("measured", "实测")), rows, (1, 2)))
    return section("plan", Words("Plan and outcome", "计划与结果"), *parts)


def _named(outcome: Outcome) -> str:
    return said(outcome.what) + (f"<br><small>{said(outcome.remark)}</small>" if outcome.remark else "")


def provenance_section(run: RunFacts) -> str:
    """Where everything came from, and every setting."""
    known = run.provenance
    host, git = known.get("host") or {}, known.get("git") or {}
    facts = [
        (both("folder", "目录"), text(run.path)),
        (both("started", "开始时间"), text(known.get("started", "–"))),
        (both("command", "命令"), f"<code>{text(' '.join(map(str, known.get('command', []))) or '–')}</code>"),
        (both("machine", "机器"), text(", ".join(str(value) for value in host.values() if value) or "–")),
        (
            both("versions", "版本"),
            text(", ".join(f"{name} {number}" for name, number in (known.get("versions") or {}).items()) or "–"),
        ),
        (both("git", "git"), text(f"{git.get('commit', '–')}{' + changes' if git.get('changed') else ''}")),
        (both("tokenizer", "分词器"), f"<code>{text((known.get('tokenizer') or {}).get('fingerprint', '–'))}</code>"),
    ]
    for name, dataset in (known.get("datasets") or {}).items():
        where = f"{dataset.get('path', '–')} ← {', '.join(map(str, dataset.get('text') or [])) or '–'}"
        facts.append((text(name), f"{text(where)}<br><code>{text(dataset.get('fingerprint', '–'))}</code>"))
    settings = fact_table((text(key), f"<code>{text(written(value))}</code>") for key, value in run.settings.items())
    return section(
        "provenance",
        Words("Where it comes from", "来源记录"),
        fact_table(facts),
        folded(Words("All settings", "全部设置"), settings, f"settings-{run.name}"),
    )


def written(value: Any) -> str:
    """A setting as a recipe has it."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _excerpt(long: str, most: int = EXCERPT) -> str:
    return long if len(long) <= most else f"{long[:most]}…"

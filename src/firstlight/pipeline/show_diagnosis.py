"""A diagnosis in words for a terminal, and as plain values for scripts."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from pathlib import Path

from rich.cells import cell_len
from rich.text import Text

from firstlight.planning.diagnosis import SEVERITIES, Diagnosis, Finding, RunRecord
from firstlight.planning.diagnosis.record import number
from firstlight.support.console import human_count, out, printable
from firstlight.support.errors import EXIT_PROBLEMS, EXIT_WARNINGS

_COLOURS = {"problem": "bold red", "warning": "yellow", "note": "cyan"}
_INDENT, _LABELS = 2, 10


def show_diagnosis(run: Path, record: RunRecord, diagnosis: Diagnosis) -> None:
    """Print where the run is, the findings, most severe first, and what was and was not looked at."""
    _paragraph(_state(run, record))
    for finding in diagnosis.findings:
        print()
        _show_finding(finding, run)
    print()
    if not diagnosis.findings:
        _paragraph("Nothing found.")
    _paragraph(f"Looked at: {', '.join(diagnosis.looked_at)}.")
    if diagnosis.not_looked_at:
        missing = "; ".join(f"{name} ({reason})" for name, reason in diagnosis.not_looked_at.items())
        _paragraph(f"Not looked at: {missing}.")


def exit_code(diagnosis: Diagnosis) -> int:
    """0: nothing or notes; EXIT_WARNINGS or EXIT_PROBLEMS by the worst finding."""
    return {"warning": EXIT_WARNINGS, "problem": EXIT_PROBLEMS}.get(diagnosis.worst or "", 0)


def as_json(run: Path, record: RunRecord, diagnosis: Diagnosis) -> str:
    """The same for scripts; ASCII, so that text of documents cannot give orders to a terminal."""
    counts = {severity: sum(f.severity == severity for f in diagnosis.findings) for severity in SEVERITIES}
    values = {
        "run": str(run),
        "step": record.last_step,
        "total_steps": record.total_steps,
        "running": record.running,
        "last_event": record.events[-1].get("event") if record.events else None,
        "counts": counts,
        "findings": [asdict(finding) for finding in diagnosis.findings],
        "looked_at": list(diagnosis.looked_at),
        "not_looked_at": diagnosis.not_looked_at,
    }
    return json.dumps(values, indent=2)


def _state(run: Path, record: RunRecord) -> str:
    losses = [value for line in record.metrics if (value := number(line.get("loss"))) is not None]
    tokens = human_count(record.last_step * record.step_tokens)
    last = record.events[-1]["event"] if record.events else None
    state = "running" if record.running else last if last in ("finished", "stopped", "diverged") else "not running"
    loss = f", loss {losses[-1]:.3f}" if losses else ""
    return f"{run}: step {record.last_step:,} of {record.total_steps:,}, {tokens} tokens{loss}; {state}"


def _show_finding(finding: Finding, run: Path) -> None:
    title = Text()
    title.append(f"{finding.severity}: ", style=_COLOURS[finding.severity])
    title.append(finding.kind, style="bold")
    if finding.where:
        first, last = finding.where
        title.append(f" (step {first:,})" if first == last else f" (steps {first:,} to {last:,})")
    out.print(title)
    _paragraph(finding.evidence, "seen")
    for example in finding.examples:
        _paragraph(example, "")
    _paragraph(finding.remedy.replace(" RUN", f" {run}"), "helps")


def _paragraph(text: str, label: str | None = None) -> None:
    """Text, broken between words on a terminal; with a label in a column before it."""
    text = printable(text).replace("\n", " ")
    indent = "" if label is None else " " * _LABELS
    first = "" if label is None else f"{' ' * _INDENT}{label}".ljust(_LABELS)
    if not out.is_terminal:
        print(first + text)
        return
    for number_of_line, line in enumerate(_lines(text, max(20, out.width - len(indent)))):
        print((indent if number_of_line else first) + line)


def _lines(text: str, width: int) -> list[str]:
    if cell_len(text) == len(text):
        return textwrap.wrap(text, width, break_on_hyphens=False)
    return [line.plain.rstrip() for line in Text(text).wrap(out, width)]

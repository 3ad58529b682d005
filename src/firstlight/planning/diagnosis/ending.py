"""Checkpoints, records, and how the run ended."""

from __future__ import annotations

from collections.abc import Iterator

from firstlight.planning.diagnosis.finding import Finding, listed
from firstlight.planning.diagnosis.record import RunRecord, whole

INTERVALS_WITHOUT = 2
"""Times checkpoint.interval_steps without a checkpoint."""
_ENDS = ("finished", "stopped", "diverged")


def checkpoints(record: RunRecord) -> Iterator[Finding]:
    """Saves that failed, checkpoints that were damaged, work that no checkpoint holds."""
    failed = record.of_kind("save_failed")
    newest = record.checkpoints[-1] if record.checkpoints else None
    steps = [step for event in failed if (step := whole(event.get("step"))) is not None]
    unsaved = record.last_step - (newest or 0)
    interval = record.config.checkpoint.interval_steps
    lasting = bool(steps) and (newest is None or max(steps) > newest)
    if failed:
        reason = str(failed[-1].get("reason")).rstrip(".")
        yield Finding(
            "failed saves",
            "problem" if lasting else "note",
            (min(steps), max(steps)) if steps else None,
            f"{len(failed)} checkpoints could not be written, the last at step {failed[-1].get('step')}: {reason}."
            + ("" if lasting else f" A later one, of step {newest}, is there."),
            f"Mend what the reason names before the run ends: until then {unsaved:,} steps would be lost."
            if lasting
            else "Make sure that it does not come again.",
        )
    if unsaved > INTERVALS_WITHOUT * interval and not lasting:
        yield Finding(
            "no recent checkpoint",
            "problem",
            (newest or 0, record.last_step),
            (f"The newest checkpoint is of step {newest:,}" if newest is not None else "There is no checkpoint")
            + f", the run is at step {record.last_step:,}, and checkpoint.interval_steps is {interval:,}.",
            "Look at its log for why; "
            + (
                "stop it with Ctrl-C or SIGTERM, which saves."
                if record.running
                else "resuming repeats these steps; a smaller checkpoint.interval_steps keeps more."
            ),
        )
    if record.damaged:
        yield Finding(
            "damaged checkpoints",
            "warning",
            None,
            f"{len(record.damaged)} were damaged and set aside: {listed(list(record.damaged))}.",
            "Check the disk; remove these folders when nothing in them is wanted.",
        )


def records(record: RunRecord) -> Iterator[Finding]:
    """Lines that cannot be read."""
    for name, count in record.unreadable.items():
        yield Finding(
            "unreadable lines",
            "note",
            None,
            f"{count} lines of {name} cannot be read and were left out.",
            "A kill or a full disk cuts a line short; more than a few point to the disk.",
        )


def ending(record: RunRecord) -> Iterator[Finding]:
    """How a run that is not running ended, where that was not by reaching its last step or by giving up."""
    if record.running:
        return
    last = record.events[-1] if record.events else {}
    kind, step = last.get("event"), record.last_step
    if kind == "stopped":
        yield Finding(
            "stopped",
            "note",
            (step, step),
            f"{last.get('signal')} stopped it at step {last.get('step')} of {record.total_steps:,}; it is saved.",
            "Go on with: firstlight train RUN",
        )
    elif kind not in _ENDS and record.metrics:
        newest = record.checkpoints[-1] if record.checkpoints else 0
        yield Finding(
            "ended without a word",
            "warning",
            (newest, step),
            f"The last thing known is step {step:,} of {record.total_steps:,}, and no process runs it: it was killed, "
            f"or an error ended it; {f'step {newest:,} is saved' if newest else 'no step is saved'}.",
            "Look at its logs and the machine's (out of memory, time limit); go on with: firstlight train RUN",
        )

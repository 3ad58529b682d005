"""The verb `watch`: where a run is, in a terminal, redrawn as its folder grows.

Only what was appended since the last look is read. A run folder is all that it needs, so it works on a finished run,
and on one that another machine writes to a shared disk.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from firstlight.planning.diagnosis.record import number, whole
from firstlight.support.console import human_bytes, human_count, human_seconds, out, printable
from firstlight.support.files import in_use
from firstlight.training.run_folder import RunFolder

EVENTS_SHOWN = 4
_BLOCKS = "▁▂▃▄▅▆▇█"
_ENDS = ("finished", "stopped", "diverged")


class Growing:
    """The JSON objects of a file of lines, read on from where the last look ended."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines: list[dict[str, Any]] = []
        self._place, self._inode = 0, 0

    def look(self) -> bool:
        """Read what is new; whether there was something. A file that was replaced is read anew."""
        try:
            with self.file.open("rb") as handle:
                about = self.file.stat()
                if about.st_ino != self._inode or about.st_size < self._place:
                    self.lines, self._place, self._inode = [], 0, about.st_ino
                handle.seek(self._place)
                new = handle.read()
        except FileNotFoundError:
            return False
        whole_lines = new[: new.rfind(b"\n") + 1]
        self._place += len(whole_lines)
        for raw in whole_lines.splitlines():
            try:
                line = json.loads(raw)
            except (ValueError, RecursionError):
                continue
            if isinstance(line, dict):
                self.lines.append(line)
        return bool(whole_lines)


class Watched:
    """A run under watch."""

    def __init__(self, path: str | Path) -> None:
        """CheckpointError where it is no run folder."""
        self.run = RunFolder.open(path)
        config = self.run.config
        processes = config.declared_world_size
        self.total_steps = config.steps(processes)
        self.step_tokens = config.batch(processes).global_batch_size * config.data.sequence_length
        self.measure = "bits_per_byte" if config.model.causal else "accuracy"
        self._metrics, self._events = Growing(self.run.metrics), Growing(self.run.events)

    def look(self) -> bool:
        """Whether something was written since the last look."""
        return any([self._metrics.look(), self._events.look()])

    @property
    def running(self) -> bool:
        """Whether a process trains it now."""
        return in_use(self.run.path)

    def picture(self, width: int) -> RenderableType:
        """The run in `width` columns."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(overflow="fold")
        for name, fact in self._facts(max(10, width - 16)):
            table.add_row(name, fact)
        return Group(Text(printable(str(self.run.path)), style="bold"), table)

    def _facts(self, width: int) -> list[tuple[str, RenderableType]]:
        lines = [line for line in self._metrics.lines if number(line.get("tokens_per_second"))]
        last = lines[-1] if lines else {}
        step = whole(last.get("step")) or 0
        facts: list[tuple[str, RenderableType]] = [("state", self._state(step))]
        facts.append(
            ("step", Text(f"{step:,} of {self.total_steps:,}  {_bar(step / self.total_steps, min(30, width - 30))}"))
        )
        facts.append(("tokens", Text(human_count(step * self.step_tokens))))
        losses = [value for line in lines if (value := number(line.get("loss"))) is not None]
        if losses:
            drawn = sparkline(losses, max(1, min(60, width - 8)))
            facts.append(("loss", Text(f"{losses[-1]:.3f}  {drawn}")))
        rate, mfu = number(last.get("tokens_per_second")), number(last.get("mfu"))
        if rate:
            speed = f"{human_count(rate)} tokens/s" + ("" if mfu is None else f", MFU {mfu:.1%}")
            left = (self.total_steps - step) * self.step_tokens / rate
            if self.running and left > 0:
                speed += f", about {human_seconds(left)} left"
            facts.append(("speed", Text(speed)))
        lr, norm, memory = (number(last.get(key)) for key in ("learning_rate", "grad_norm", "peak_memory_bytes"))
        more = [
            f"learning rate {lr:.2e}" if lr is not None else "",
            f"gradient norm {norm:.2f}" if norm is not None else "",
        ]
        more += [f"{whole(last.get('skipped_steps')):,} steps skipped" if whole(last.get("skipped_steps")) else ""]
        more += [f"{human_bytes(memory)} at peak" if memory else ""]
        if any(more):
            facts.append(("also", Text(", ".join(part for part in more if part))))
        facts += self._held_out()
        for event in self._events.lines[-EVENTS_SHOWN:]:
            facts.append(("event", Text(printable(_told(event)))))
        return facts

    def _state(self, step: int) -> Text:
        last = self._events.lines[-1].get("event") if self._events.lines else None
        if self.running:
            return Text("running", style="green") if step else Text("running, no line of metrics yet", style="green")
        if last in _ENDS:
            return Text(str(last), style="green" if last == "finished" else "yellow")
        return Text(f"not running; go on with: firstlight train {printable(str(self.run.path))}", style="yellow")

    def _held_out(self) -> list[tuple[str, RenderableType]]:
        ends = f"/{self.measure}"
        for line in reversed(self._metrics.lines):
            found = {
                key.removeprefix("validation/").removesuffix(ends): value
                for key in line
                if key.startswith("validation/") and key.endswith(ends) and (value := number(line[key])) is not None
            }
            if found:
                scores = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
                step = whole(line.get("step"))
                words = f"{self.measure.replace('_', ' ')} at step {step:,}: {scores}" if step is not None else scores
                return [("held-out", Text(printable(words)))]
        return []


def watch(path: str | Path, *, interval_seconds: float = 2.0) -> None:
    """Show a run until Ctrl-C, or until it ends; where standard output is no terminal, once."""
    watched = Watched(path)
    watched.look()
    if not out.is_terminal or out.is_dumb_terminal or not watched.running:
        out.print(watched.picture(out.width))
        return
    try:
        with Live(watched.picture(out.width), console=out, auto_refresh=False) as live:
            while watched.running:
                time.sleep(interval_seconds)
                watched.look()
                live.update(watched.picture(out.width), refresh=True)
            watched.look()
            live.update(watched.picture(out.width), refresh=True)
    except KeyboardInterrupt:
        out.print(escape("(watching ended; the run goes on)"))


def sparkline(values: Sequence[float], width: int) -> str:
    """Numbers as at most `width` blocks; each shows the highest of its share of them, so that no spike is lost."""
    count = min(width, len(values))
    parts = [max(values[place * len(values) // count : (place + 1) * len(values) // count]) for place in range(count)]
    low, high = min(parts), max(parts)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((part - low) * scale)] for part in parts)


def _bar(share: float, width: int) -> str:
    width = max(4, width)
    done = min(width, max(0, round(share * width)))
    return f"{'━' * done}{'╌' * (width - done)} {share:.0%}"


def _told(event: dict[str, Any]) -> str:
    step, kind = event.get("step"), str(event.get("event", "?")).replace("_", " ")
    details = {
        "rolled back": f" to step {event.get('to_step')}",
        "stopped": f" by {event.get('signal')}",
        "save failed": f": {event.get('reason')}",
        "hung": f": {event.get('message')}",
    }.get(kind, "")
    return f"{_ago(event.get('time'))}{kind}{details}{'' if step is None else f' (step {step})'}"[:300]


def _ago(when: Any) -> str:
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(str(when))).total_seconds()
    except (ValueError, TypeError):
        return ""
    return f"{human_seconds(max(0.0, seconds))} ago: "

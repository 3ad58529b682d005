"""What the user sees: notes, warnings and progress bars with rate and time left, all on standard error.

On a terminal a bar is drawn and redrawn and long lines are broken between words; in a pipe or a log file the same
progress is a plain line now and then and every note is one line, so that nothing is unreadable and nothing is silent.
Results (tables, generated text) go to standard output.

Of a run of many processes only rank 0 does so; what the others would show goes into logs (logs.py).
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO, cast

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from firstlight.support.logs import quiet
from firstlight.support.secrets import without_secrets


def _console(standard_error: bool) -> Console:
    if quiet is None:
        return Console(stderr=standard_error, highlight=False, soft_wrap=True)
    return Console(
        file=cast(TextIO, quiet), width=120, force_terminal=False, color_system=None, highlight=False, soft_wrap=True
    )


err, out = _console(True), _console(False)

LINE_EVERY_SECONDS = 10.0

_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters except line end and tab, changes of writing direction, and what UTF-8 cannot hold."""


def printable(text: str) -> str:
    """Text without keys (secrets.py) and characters that a terminal would act on; line ends and tabs stay, the rest
    become '·'."""
    return _ACTING.sub("·", without_secrets(text))


def speak_up() -> Console:
    """A way to the terminal for a rank that has to tell of a failure because rank 0 cannot."""
    return err if quiet is None else Console(file=sys.__stderr__, highlight=False, soft_wrap=True)


def stop_drawing() -> None:
    """Take bars off the terminal, so that a process about to end leaves it in order."""
    for bar in list(_drawn):
        bar.stop()
    _drawn.clear()


def note(message: str, console: Console | None = None) -> None:
    """One line for the user; text is shown as it is (no markup)."""
    _print(escape(printable(message)), console)


def command(line: str) -> None:
    """A command to copy, indented; a terminal breaks it where it must, so that it stays one line for the clipboard."""
    err.print(f"    {escape(printable(line))}", soft_wrap=True)


def warn(message: str) -> None:
    """One line that the user should not miss."""
    _print(f"[yellow]warning:[/yellow] {escape(printable(message))}")


def fail(message: str, label: str, console: Console | None = None) -> None:
    """The sentence that a command ends with; `label` says in a word what it is."""
    _print(f"[bold red]{label}:[/bold red] {escape(printable(message))}", console)


def heading(message: str) -> None:
    """The name of a stage."""
    _print(f"\n[bold cyan]{escape(printable(message))}[/bold cyan]")


def _print(markup: str, console: Console | None = None) -> None:
    console = console or err
    console.print(markup, soft_wrap=not console.is_terminal)


_ROUNDS_UP = 0.9995
"""From this share of a unit on, three digits make a whole one."""


def human_count(number: float) -> str:
    """1234567 → '1.23M', 0.25 → '0.25'. Decimal prefixes."""
    for limit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= _ROUNDS_UP * limit:
            return f"{number / limit:.3g}{suffix}"
    return f"{number:.0f}" if float(number).is_integer() else f"{number:.2g}" if abs(number) < 10 else f"{number:.0f}"


def human_bytes(number: float) -> str:
    """Bytes with decimal units: 1234567 → '1.23 MB'."""
    for limit, suffix in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(number) >= _ROUNDS_UP * limit:
            return f"{number / limit:.3g} {suffix}"
    return f"{number:.0f} B"


def human_seconds(seconds: float) -> str:
    """75 → '1m15s'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes}m{seconds:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m"


def human_amount(number: float, unit: str) -> str:
    """A count with its unit; bytes get byte prefixes."""
    return human_bytes(number) if unit == "bytes" else f"{human_count(number)} {unit}"


class _Amount(ProgressColumn):
    def render(self, task: Task) -> Text:
        unit = task.fields["unit"]
        speed = task.speed or (task.completed / task.elapsed if task.elapsed else 0.0)
        return Text(f"{_done(task.completed, task.total, unit)}  {human_amount(speed, unit)}/s", style="green")


class _TimeLeft(ProgressColumn):
    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        return Text("" if left is None else f"{human_seconds(left)} left", style="cyan")


class _Lines(Progress):
    """A bar on one line and the remark on the next, so that neither squeezes the other out of a narrow terminal."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if task.fields["remark"]:
                yield Text(f"  {task.fields['remark']}", no_wrap=True, overflow="ellipsis")


_drawn: list[Progress] = []
"""Bars on the terminal now."""


class ProgressBar:
    """Handle that a long step calls: `advance(n)` as work is done, `show(text)` for a remark."""

    def __init__(self, description: str, total: float | None, unit: str, completed: float = 0) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.completed, self.first = completed, completed
        self.remark = ""
        self.started = self.last_line = time.monotonic()
        self._progress: Progress | None = None
        if err.is_terminal and not err.is_dumb_terminal:
            self._progress = _Lines(
                TextColumn("{task.description}"),
                BarColumn(bar_width=max(6, min(30, err.width // 8))),
                _Amount(),
                _TimeLeft(),
                console=err,
                transient=True,
            )
            self._task = self._progress.add_task(
                escape(printable(description)), total=total, completed=int(completed), unit=unit, remark=""
            )

    def start(self) -> None:
        if self._progress:
            _drawn.append(self._progress)
            self._progress.start()

    def advance(self, amount: float = 1) -> None:
        self.completed += amount
        if self._progress:
            self._progress.update(self._task, advance=amount)
        elif time.monotonic() - self.last_line >= LINE_EVERY_SECONDS:
            self.last_line = time.monotonic()
            note(self._line())

    def show(self, remark: str) -> None:
        self.remark = remark
        if self._progress:
            self._progress.update(self._task, remark=printable(remark))

    def _line(self) -> str:
        elapsed = time.monotonic() - self.started
        rate = (self.completed - self.first) / elapsed if elapsed > 0 else 0.0
        left = (self.total - self.completed) / rate if self.total and rate > 0 else None
        eta = "" if left is None else f", {human_seconds(left)} left"
        done = _done(self.completed, self.total, self.unit)
        return f"{self.description}: {done}{eta}, {human_amount(rate, self.unit)}/s{self._remark()}"

    def _remark(self) -> str:
        return f"  {self.remark}" if self.remark else ""

    def close(self, finished: bool) -> None:
        if self._progress:
            self._progress.stop()
            if self._progress in _drawn:
                _drawn.remove(self._progress)
        if finished:
            elapsed = time.monotonic() - self.started
            done = self.completed - self.first
            rate = f", {human_amount(done / elapsed, self.unit)}/s" if elapsed > 0.5 else ""
            seconds = f"{elapsed:.1f}s" if elapsed < 10 else human_seconds(elapsed)
            note(f"{self.description}: {human_amount(done, self.unit)} in {seconds}{rate}{self._remark()}")


def _done(completed: float, total: float | None, unit: str) -> str:
    """'3 of 20 steps', '1.2 MB of 40 MB', '3 steps' when nobody knows of how many."""
    done = human_amount(completed, unit)
    if not total:
        return done
    return f"{done if unit == 'bytes' else done.split()[0]} of {human_amount(total, unit)}"


@contextmanager
def progress(description: str, total: float | None, unit: str, completed: float = 0) -> Iterator[ProgressBar]:
    """Show progress of a long step: `with progress("tokenize", total_bytes, "bytes") as bar: bar.advance(n)`."""
    bar = ProgressBar(description, total, unit, completed)
    finished = False
    try:
        bar.start()
        yield bar
        finished = True
    finally:
        bar.close(finished)

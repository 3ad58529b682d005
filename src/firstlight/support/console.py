"""What the user sees: notes, warnings and progress bars with rate and time left, all on standard error.

On a terminal a bar is drawn and redrawn; in a pipe or a log file the same progress is a plain line now and then,
so that nothing is unreadable and nothing is silent. Results (tables, generated text) go to standard output.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

err = Console(stderr=True, highlight=False, soft_wrap=True)
out = Console(highlight=False, soft_wrap=True)

LINE_EVERY_SECONDS = 10.0


def printable(text: str) -> str:
    """Text without control characters that a terminal would act on; line ends and tabs stay, the rest become '·'."""
    return "".join(c if c in "\n\t" or c.isprintable() or c.isspace() else "·" for c in text)


def note(message: str) -> None:
    """One line for the user; text is shown as it is (no markup)."""
    err.print(escape(message))


def warn(message: str) -> None:
    """One line that the user should not miss."""
    err.print(f"[yellow]warning:[/yellow] {escape(message)}")


def heading(message: str) -> None:
    """The name of a stage."""
    err.print(f"\n[bold cyan]{escape(message)}[/bold cyan]")


def human_count(number: float) -> str:
    """1234567 → '1.23M', 0.25 → '0.25'. Decimal prefixes."""
    for limit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.3g}{suffix}"
    return f"{number:.0f}" if float(number).is_integer() else f"{number:.2g}" if abs(number) < 10 else f"{number:.0f}"


def human_bytes(number: float) -> str:
    """Bytes with decimal units: 1234567 → '1.23 MB'."""
    for limit, suffix in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(number) >= limit:
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
        amount = human_amount(task.completed, unit)
        total = f"/{human_amount(task.total, unit).split()[0]}" if task.total else ""
        speed = task.speed or (task.completed / task.elapsed if task.elapsed else 0.0)
        return Text(f"{amount}{total}  {human_amount(speed, unit)}/s", style="green")


class ProgressBar:
    """Handle that a long step calls: `advance(n)` as work is done, `show(text)` for a trailing remark."""

    def __init__(self, description: str, total: float | None, unit: str, completed: float = 0) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.completed, self.first = completed, completed
        self.remark = ""
        self.started = self.last_line = time.monotonic()
        self._progress: Progress | None = None
        if err.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=max(8, min(30, err.width // 5))),
                _Amount(),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[remark]}"),
                console=err,
                transient=True,
            )
            self._task = self._progress.add_task(
                escape(description), total=total, completed=int(completed), unit=unit, remark=""
            )
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
            self._progress.update(self._task, remark=escape(remark))

    def _line(self) -> str:
        elapsed = time.monotonic() - self.started
        rate = (self.completed - self.first) / elapsed if elapsed > 0 else 0.0
        line = f"{self.description}: {human_amount(self.completed, self.unit)}"
        if self.total:
            left = (self.total - self.completed) / rate if rate > 0 else float("nan")
            eta = f", {human_seconds(left)} left" if left == left else ""
            line = f"{self.description}: {self._done()}{eta}"
        return f"{line}, {human_amount(rate, self.unit)}/s{'  ' + self.remark if self.remark else ''}"

    def _done(self) -> str:
        """'3 of 20 steps', '1.2 MB of 40 MB'."""
        done, total = human_amount(self.completed, self.unit), human_amount(self.total or 0, self.unit)
        return f"{done if self.unit == 'bytes' else done.split()[0]} of {total}"

    def close(self, finished: bool) -> None:
        if self._progress:
            self._progress.stop()
        if finished:
            elapsed = time.monotonic() - self.started
            done = self.completed - self.first
            rate = f", {human_amount(done / elapsed, self.unit)}/s" if elapsed > 0.5 else ""
            remark = f"  {self.remark}" if self.remark else ""
            note(
                f"{self.description}: {human_amount(self.completed, self.unit)}"
                f" in {human_seconds(elapsed)}{rate}{remark}"
            )


@contextmanager
def progress(description: str, total: float | None, unit: str, completed: float = 0) -> Iterator[ProgressBar]:
    """Show progress of a long step: `with progress("tokenize", total_bytes, "bytes") as bar: bar.advance(n)`."""
    bar = ProgressBar(description, total, unit, completed)
    finished = False
    try:
        yield bar
        finished = True
    finally:
        bar.close(finished)

"""Tables for the terminal; they fit 60 columns where the names of domains are short."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping, Sequence

from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

from firstlight.evaluation.fill import Guess
from firstlight.support.console import human_count, out, printable

Numbers = Mapping[str, float | None]
IN_TABLE = ("acc", "acc_norm", "chance", "items")
Column = tuple[str, str, Callable[[float], str]]
"""Heading, key of the number, how it is written."""


def show_scores(scores: Mapping[str, Numbers]) -> None:
    """Print the scores by domain, and below them pseudo-perplexity and intervals where there are any."""
    out.print(score_table(scores))
    if any("pseudo_tokens" in score for score in scores.values()):
        out.print()
        out.print(pseudo_table(scores))
    if any("perplexity_low" in score for score in scores.values()):
        out.print()
        out.print(interval_table(scores))


def show_tasks(scores: Mapping[str, Mapping[str, float]], average: float | None) -> None:
    """Print accuracy by task, its standard error and chance; perplexity and other metrics where a task has them."""
    out.print(task_table(scores))
    rest = {
        name: {key: value for key, value in score.items() if key.removesuffix("_stderr") not in IN_TABLE}
        for name, score in scores.items()
    }
    for name, numbers in rest.items():
        shown = (f"{key} {value:.4g}{_error(numbers, key)}" for key, value in numbers.items() if "_stderr" not in key)
        if line := ", ".join(shown):
            print(printable(f"{name}: {line}"))
    if average is not None:
        print(f"\ncentred accuracy, mean over tasks: {average:.3f} (0: chance, 1: perfect)")


def task_table(scores: Mapping[str, Mapping[str, float]]) -> Table:
    """Accuracy, plain and by the bytes of choices, each ± its standard error; chance and items."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("task", overflow="fold", max_width=24)
    for heading in ("acc", "acc_norm", "chance", "items"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, score in scores.items():
        rates = (
            f"{score[key]:.3f}{_error(score, key)}" if key in score else "–" for key in ("acc", "acc_norm", "chance")
        )
        table.add_row(escape(printable(name)), *rates, human_count(score["items"]) if "items" in score else "–")
    return table


def _error(numbers: Mapping[str, float], key: str) -> str:
    return f" ± {numbers[f'{key}_stderr']:.3g}" if f"{key}_stderr" in numbers else ""


def interval_table(scores: Mapping[str, Numbers]) -> Table:
    """95 % intervals of perplexity and bits per byte by domain, and over how many documents."""
    columns = [("perplexity, 95 %", "perplexity", _perplexity)]
    if any("bits_per_byte_low" in score for score in scores.values()):
        columns.append(("bits/byte, 95 %", "bits_per_byte", _three))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("domain", overflow="fold", max_width=20)
    for heading, _, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("documents", justify="right", no_wrap=True)
    for name, score in scores.items():
        ends = [(score.get(f"{key}_low"), score.get(f"{key}_high"), written) for _, key, written in columns]
        cells = [
            "–" if low is None or high is None else f"{written(low)} to {written(high)}" for low, high, written in ends
        ]
        count = score.get("documents")
        table.add_row(escape(printable(name)), *cells, "–" if count is None else human_count(count))
    return table


def score_table(scores: Mapping[str, Numbers]) -> Table:
    """Loss, perplexity, bits per byte and accuracy by domain; of a masked model the baseline, not bits per byte."""
    causal = any("bits_per_byte" in score for score in scores.values())
    columns: list[Column] = [("loss", "loss", _three), ("perplexity", "perplexity", _perplexity)]
    if causal:
        columns += [("bits/byte", "bits_per_byte", _three), ("accuracy", "accuracy", _percent)]
    else:
        columns += [("accuracy", "accuracy", _percent), ("baseline", "baseline_accuracy", _percent)]
    return _table(scores, [*columns, ("tokens" if causal else "hidden", "tokens", human_count)])


def pseudo_table(scores: Mapping[str, Numbers]) -> Table:
    """Pseudo-perplexity by domain, and over how many tokens."""
    return _table(
        scores,
        [
            ("pseudo-perplexity", "pseudo_perplexity", _perplexity),
            ("bits/byte", "pseudo_bits_per_byte", _three),
            ("hidden alone", "pseudo_tokens", human_count),
        ],
    )


def _table(scores: Mapping[str, Numbers], columns: list[Column]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("domain", overflow="fold", max_width=20)
    for heading, _, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, score in scores.items():
        numbers = ((score.get(key), written) for _, key, written in columns)
        table.add_row(
            escape(printable(name)), *("–" if number is None else written(number) for number, written in numbers)
        )
    return table


def _three(number: float) -> str:
    return f"{number:.3f}"


def _percent(number: float) -> str:
    return f"{100 * number:.1f}%"


def _perplexity(number: float) -> str:
    return f"{number:.1f}" if number < 1e6 else f"{number:.1e}"


def show_guesses(guesses: Sequence[Sequence[Guess]]) -> None:
    """Print the guesses at each hidden token, in quotation marks, since a space may belong to them."""
    quoted = lambda text: json.dumps(text, ensure_ascii=False)  # noqa: E731
    _show_rows([("", "filled in"), *((str(n), _listed(row, quoted)) for n, row in enumerate(guesses, 1))])


def show_words(words: Sequence[str], guesses: Sequence[Sequence[Guess]]) -> None:
    """Print the guesses at each hidden word beside the word."""
    rows = zip(words, guesses, strict=True)
    numbered = ((str(n), word.strip(), _listed(row, str.strip)) for n, (word, row) in enumerate(rows, 1))
    _show_rows([("", "hidden", "filled in"), *numbered])


def _listed(guesses: Sequence[Guess], written: Callable[[str], str]) -> str:
    return ", ".join(f"{written(guess.text)} {_percent(guess.probability)}" for guess in guesses)


def _show_rows(rows: Sequence[Sequence[str]]) -> None:
    """Columns of text; the last one is broken between words on a terminal, and ends without spaces elsewhere."""
    widths = [max(map(cell_len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    indent = " " * (sum(widths) + 2 * len(widths))
    for row in rows:
        cells = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row[:-1], widths, strict=True))
        line = printable("  ".join([*cells, row[-1]]))
        print(textwrap.fill(line, out.width, subsequent_indent=indent) if out.is_terminal else line)

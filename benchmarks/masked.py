"""What a masked model learns in the minutes of a quickstart, against always guessing the commonest token of the domain.

Runs `firstlight quickstart --objective masked` on the packaged text in a temporary folder and scores the run on its
held-out documents: accuracy on the hidden tokens, the share of the commonest among them, pseudo-perplexity. With
--write the table takes its place in docs/benchmarks.md and its translation. On a machine that others use, give the
steps instead of the minutes:

    python benchmarks/masked.py --write training.total_steps=1260
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import tempfile

import torch

from common import machine, write_table
from firstlight import pipeline
from firstlight.pipeline.scoring import Scores
from firstlight.training.run_folder import RunFolder

HEADS = {
    "en": "| held-out text | hidden tokens | accuracy | commonest token | ratio | pseudo-perplexity |",
    "zh": "| 留出文本 | 被遮盖的 token | 准确率 | 最常见的 token | 倍数 | 伪困惑度 |",
}
PAGES = {"en": "benchmarks.md", "zh": "benchmarks.zh.md"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4.0, help="how long to train")
    parser.add_argument("--write", action="store_true", help="put the table into the documentation")
    parser.add_argument("overrides", nargs="*", help="settings to change, as in training.total_steps=1260")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        run, scores = measure(arguments.minutes, arguments.overrides)
        about = describe(run)
    for language, page in PAGES.items():
        text = "\n".join((HEADS[language], "|---|---|---|---|---|---|", *rows(scores), "", about))
        if language == "en":
            print(text)
        if arguments.write:
            write_table(page, "masked", text)


def measure(minutes: float, overrides: list[str]) -> tuple[RunFolder, Scores]:
    """A masked quickstart of so many minutes, and its scores by domain."""
    run = pipeline.quickstart(minutes=minutes, overrides=["model.objective=masked", *overrides])
    return run, pipeline.evaluate(run.path)


def rows(scores: Scores) -> list[str]:
    """The lines of the table, one a domain."""
    lines = []
    for domain, score in scores.items():
        accuracy, baseline = score["accuracy"] or 0.0, score["baseline_accuracy"] or 1.0
        lines.append(
            f"| {domain} | {score['tokens']:,} | **{accuracy:.1%}** | {baseline:.1%} | {accuracy / baseline:.1f} "
            f"| {score['pseudo_perplexity']:.1f} |"
        )
    return lines


def describe(run: RunFolder) -> str:
    """Steps, machine, versions and day, in a line."""
    config = run.config
    size = f"{config.training.total_steps:,} × {config.training.global_batch_size} × {config.data.sequence_length}"
    threads = f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}, " if "OMP_NUM_THREADS" in os.environ else ""
    return (
        f"`benchmarks/masked.py`; {size} tokens, masking.fraction {config.masking.fraction:g}; {machine()}, {threads}"
        f"torch {torch.__version__}; {datetime.date.today()}."
    )


if __name__ == "__main__":
    main()

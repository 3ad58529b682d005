"""A ladder trained here, its law, and what it says of a larger run that it has not seen.

Trains small models on the packaged text (extra `starter`): five sizes at three lengths each, and one of about twice the
largest size. The law is fitted to the fifteen and predicts the sixteenth, once for each way to count parameters; the
published runs of Gadre et al. 2024 are fitted in the same way, without the three that cost most. One core, about 20
minutes; the intervals are tried on ladders whose truth is known. With --work DIR the runs are
kept, and a second start trains what is missing. With --write the table and the picture go into the documentation.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from common import machine, write_table
from firstlight.pipeline.fitting import fit_runs
from firstlight.pipeline.ladder import plan_ladder, train_ladder
from firstlight.pipeline.scaling_picture import draw_fit
from firstlight.pipeline.scaling_report import FitReport
from firstlight.planning.scaling_fit import Interval, MeasuredLoss, fit_scaling_law, hold_out
from firstlight.planning.scaling_laws import ParametricLaw
from firstlight.support.console import human_count

SIZES, LENGTHS = (37e3, 56e3, 80e3, 110e3, 155e3), (5, 10, 20)
HELD_OUT_SIZE, HELD_OUT_LENGTH = 310e3, 10
SETTINGS = (
    *("model.hidden_size=64", "model.num_hidden_layers=4", "model.num_attention_heads=4"),
    "model.initializer_range=0.1",
    *("tokenizer.vocab_size=1024", "data.sequence_length=128", "data.validation_fraction=0.05", "data.mixture={}"),
    *("optimizer.lr=1e-2", "optimizer.min_lr=1e-3", "training.total_steps=2000"),
    *("training.precision=fp32", "training.compile=false", "training.device=cpu", "evaluation.max_tokens=50_000"),
)
"""The quickstart's recipe at another size: deep enough for the smallest to have two blocks, a vocabulary that does not
outweigh them. Every run reads its tokens once."""
COUNTS = {"matmul": ("blocks and head", "层和输出头"), "blocks": ("blocks", "层"), "total": ("all", "全部")}
PUBLISHED = Path(__file__).parent / "planner_cases" / "published.json"
PUBLISHED_COUNTS = {"N_no_embed": "matmul", "N": "total"}
"""What the published runs say of their size: N_no_embed leaves out the look-up and keeps the head."""
PUBLISHED_HELD_OUT = 3
TEXTS = {"c4_original": "C4", "rpj": "RedPajama", "rw_original": "RefinedWeb"}
TRUTH, NOISE = ParametricLaw("made up", 1.5, 90, 250, 0.35, 0.4), 0.003
"""A law whose losses are like those measured here, for ladders whose truth is known."""
FAR_SIZE = 3.1e6
COVERED = {
    "E": ("E", "E"),
    "alpha": ("α", "α"),
    "beta": ("β", "β"),
    "next": ("the loss of a run of twice the largest size", "两倍于最大规模的运行的损失"),
    "far": ("the loss of a run of twenty times the largest size", "二十倍于最大规模的运行的损失"),
}
PAGES = {"en": "ladder.md", "zh": "ladder.zh.md"}
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "scaling-law.svg"


class Row(NamedTuple):
    """One line of the table: a fit and its error on what was held out."""

    runs: str
    counted: str
    fitted: int
    report: FitReport


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder that keeps the runs; unset: a temporary one")
    parser.add_argument("--trials", type=int, default=60, help="made-up ladders that the intervals are tried on")
    parser.add_argument("--write", action="store_true", help="put table and picture into the documentation")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.work or Path(temporary)
        train(folder)
        ours = {counted: fit_runs([folder / "ladder"], counted=counted, held_out=1) for counted in COUNTS}  # type: ignore[arg-type]
    held = coverage(arguments.trials)
    published = {(text, key): fit_published(text, key) for text in TEXTS for key in PUBLISHED_COUNTS}
    about = f"{machine()}; torch {torch.__version__}; {datetime.date.today():%d %B %Y}."
    for language, page in PAGES.items():
        losses = losses_table(ours["matmul"], language)
        errors = errors_table(ours, published, language)
        if language == "en":
            print(f"{losses}\n\n{errors}\n\n{coverage_table(held, arguments.trials, language)}\n\n{about}")
        if arguments.write:
            write_table(page, "scaling-ladder", f"{losses}\n\n{about}")
            write_table(page, "scaling-count", errors)
            write_table(page, "scaling-coverage", coverage_table(held, arguments.trials, language))
    if arguments.write:
        draw_fit(ours["matmul"], PICTURE)
    (_, said), measured = ours["matmul"].held_out[0], ours["matmul"].held_out[0][0]
    error = said.value / measured.loss - 1
    assert abs(error) < 0.02, f"the held-out run's loss was missed by {error:+.2%}"


def train(folder: Path) -> None:
    """The ladder, then the run that it is to predict, into FOLDER/ladder."""
    settings = [*SETTINGS, f"data.directory={folder / 'data'}"]
    for sizes, lengths in ((SIZES, LENGTHS), ((HELD_OUT_SIZE,), (HELD_OUT_LENGTH,))):
        plan = plan_ladder("quickstart", settings, sizes=sizes, tokens_per_parameter=lengths, output=folder / "ladder")
        train_ladder(plan, folder / "ladder")


def coverage(trials: int) -> dict[str, float]:
    """Share of made-up ladders, as large as this one and with noise, whose 90 % intervals hold the truth."""
    held = dict.fromkeys(COVERED, 0)
    for trial in range(trials):
        draw = np.random.default_rng(trial)
        runs = [made_up(size, size * ratio, draw) for size in SIZES for ratio in LENGTHS]
        fit = fit_scaling_law(runs, samples=100, seed=trial)
        for name in ("E", "alpha", "beta"):
            held[name] += inside(getattr(TRUTH, name), fit.interval(name))
        for name, size in (("next", HELD_OUT_SIZE), ("far", FAR_SIZE)):
            run = made_up(size, HELD_OUT_LENGTH * size, draw)
            held[name] += inside(run.loss, fit.predict(run.parameters, run.tokens))
    return {name: count / trials for name, count in held.items()}


def made_up(parameters: float, tokens: float, draw: np.random.Generator) -> MeasuredLoss:
    return MeasuredLoss(parameters, tokens, TRUTH.loss(parameters, tokens) * float(np.exp(NOISE * draw.normal())))


def inside(value: float, interval: Interval) -> bool:
    return interval.low <= value <= interval.high


def coverage_table(held: dict[str, float], trials: int, language: str) -> str:
    """How often each interval held the truth."""
    head = {
        "en": f"| 90 % interval of | held the truth in … of {trials} |",
        "zh": f"| 90 % 区间 | {trials} 次中含真值的比例 |",
    }
    place = ("en", "zh").index(language)
    rows = [f"| {COVERED[name][place]} | {share:.0%} |" for name, share in held.items()]
    return "\n".join((head[language], "|---|---|", *rows))


def fit_published(text: str, key: str) -> FitReport:
    """The runs of Gadre et al. on one text, without those that cost most, which are predicted."""
    cases: list[dict[str, Any]] = json.loads(PUBLISHED.read_text(encoding="utf-8"))["cases"]
    runs = [
        MeasuredLoss(case["inputs"][key], case["inputs"]["D"], case["published"]["c4_val_loss"], case["id"])
        for case in cases
        if case["category"] == "loss-measured" and case["inputs"].get("train") == text and key in case["inputs"]
    ]
    fitted, left_out = hold_out(runs, PUBLISHED_HELD_OUT)
    fit = fit_scaling_law(fitted)
    return FitReport(fit, PUBLISHED_COUNTS[key], [(run, fit.predict(run.parameters, run.tokens)) for run in left_out])


def losses_table(report: FitReport, language: str) -> str:
    """Every run, the law's loss beside the measured one."""
    heads = {
        "en": "| N | D | D/N | measured loss | the law | error |",
        "zh": "| N | D | D/N | 实测损失 | 定律 | 误差 |",
    }
    law = report.fit.law
    held_out = [run for run, _ in report.held_out]
    rows = []
    for run in sorted((*report.fit.measured, *held_out), key=lambda run: (run.parameters, run.tokens)):
        cells = [
            human_count(run.parameters),
            human_count(run.tokens),
            f"{run.tokens / run.parameters:.0f}",
            f"{run.loss:.3f}",
            f"{law.loss(run.parameters, run.tokens):.3f}",
            f"{law.loss(run.parameters, run.tokens) / run.loss - 1:+.2%}",
        ]
        rows.append("| " + " | ".join(f"**{cell}**" if run in held_out else cell for cell in cells) + " |")
    return "\n".join((heads[language], "|---|---|---|---|---|---|", *rows))


def errors_table(ours: dict[str, FitReport], published: dict[tuple[str, str], FitReport], language: str) -> str:
    """Constants and held-out errors by what N counts."""
    here = {"en": "this ladder", "zh": "本页的阶梯"}[language]
    head = {
        "en": "| runs | N counts | runs fitted | E | α | β | typical error | error on those held out |",
        "zh": "| 运行 | N 的计法 | 拟合的运行数 | E | α | β | 典型误差 | 留出运行上的误差 |",
    }[language]
    place = ("en", "zh").index(language)
    rows = [(here, counted, report) for counted, report in ours.items()]
    rows += [(TEXTS[text], PUBLISHED_COUNTS[key], report) for (text, key), report in published.items()]
    lines = []
    for name, counted, report in rows:
        fit = report.fit
        constants = (f"{value.value:.2f} ({value.low:.2f}–{value.high:.2f})" for value in intervals(report))
        errors = ", ".join(f"{said.value / run.loss - 1:+.2%}" for run, said in report.held_out)
        cells = (name, COUNTS[counted][place], str(len(fit.measured)), *constants, f"{fit.typical_error:.2%}", errors)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join((head, "|---|---|---|---|---|---|---|---|", *lines))


def intervals(report: FitReport) -> Sequence[Any]:
    return [report.fit.interval(name) for name in ("E", "alpha", "beta")]


if __name__ == "__main__":
    main()

"""The verbs of one's own scaling law: train a ladder of small models, and fit the law."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from firstlight.cli.options import Overrides
from firstlight.support.errors import ConfigError

scaling_app = typer.Typer(
    help="A scaling law of your own: train a ladder of small models, fit, predict larger ones.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@scaling_app.command()
def ladder(
    recipe: Annotated[str, typer.Argument(help="A recipe or a YAML file: the model to scale down.", metavar="RECIPE")],
    overrides: Overrides = None,
    sizes: Annotated[
        str,
        typer.Option(help="Sizes in matmul parameters, as 10M,20M,40M; or how many, and --budget says how large."),
    ] = "5",
    tokens_per_parameter: Annotated[
        str, typer.Option(help="Lengths of training, in tokens per parameter.")
    ] = "5,10,20",
    budget: Annotated[
        str | None, typer.Option(help="Most compute of all rungs together: FLOPs, as 1e16, or hours, as 2h.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder of the rungs; each is a run folder in it.")] = Path(
        "runs/ladder"
    ),
    learning_rate_exponent: Annotated[
        float | None, typer.Option(help="lr = recipe's lr · (recipe's N / N)^this; 0: the recipe's; unset: 0.25.")
    ] = None,
    batch_exponent: Annotated[
        float | None, typer.Option(help="Batch = recipe's batch · (D / recipe's D)^this; 0: the recipe's; unset: 0.5.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the rungs and their cost.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The table as one JSON object.")] = False,
) -> None:
    """Train small models of a recipe's proportions, several sizes and lengths, one after the other.

    Started again, it skips what is finished and goes on where it was; with other sizes or lengths it adds them.

    Example: [cyan]firstlight scaling ladder mine.yaml --sizes 5 --budget 8h --dry-run[/cyan]
    """
    asked = [_count(size, "--sizes") for size in sizes.split(",")]
    lengths = [_count(length, "--tokens-per-parameter") for length in tokens_per_parameter.split(",")]
    number = int(sizes) if re.fullmatch(r"\d{1,2}", sizes.strip()) else None
    flops, seconds = _budget(budget)

    from firstlight.pipeline import ladder as ladders
    from firstlight.pipeline import scaling_report as report
    from firstlight.planning.ladder import BATCH_EXPONENT, LEARNING_RATE_EXPONENT, LadderRules
    from firstlight.support.console import command, note
    from firstlight.support.files import read_json, to_json

    rules = LadderRules(
        LEARNING_RATE_EXPONENT if learning_rate_exponent is None else learning_rate_exponent,
        BATCH_EXPONENT if batch_exponent is None else batch_exponent,
    )
    plan = ladders.plan_ladder(
        recipe,
        overrides or [],
        sizes=asked if number is None else number,
        tokens_per_parameter=lengths,
        output=output,
        budget_flops=flops,
        budget_seconds=seconds,
        rules=rules,
    )
    if dry_run:
        if json:
            print(to_json(report.plan_as_dict(plan), indent=2))
        else:
            report.show_plan(plan)
        return
    note(ladders.describe_ladder(plan))
    ladders.train_ladder(plan, output)
    table = read_json(output / ladders.TABLE, "ladder table")
    if json:
        print(to_json(table, indent=2))
    else:
        report.show_losses(table["rungs"])
    note(f"\nThe runs are in {output}. Next:")
    command(f"firstlight scaling fit {output} --hold-out 1 --picture {output / 'law.svg'}")


@scaling_app.command()
def fit(
    runs: Annotated[
        list[Path],
        typer.Argument(help="A ladder, run folders, or tables (.json, .csv) of N, D and loss.", metavar="RUNS"),
    ],
    parameters: Annotated[
        Literal["matmul", "blocks", "total"],
        typer.Option(help="What N counts: blocks and head, blocks alone, or all parameters."),
    ] = "matmul",
    hold_out: Annotated[
        int, typer.Option(help="Runs of most compute to leave out and predict, as a test of the law.", min=0)
    ] = 0,
    predict: Annotated[
        list[str] | None, typer.Option(help="N,D of a run to come, as 1B,20B; may be given several times.")
    ] = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="FLOPs to divide between N and D; may be given several times.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="SVG to draw: the fit and iso-FLOP curves.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.", min=0)] = 0,
    json: Annotated[bool, typer.Option("--json", help="The same as one JSON object.")] = False,
) -> None:
    """Fit L(N, D) = E + A/N^α + B/D^β to finished runs, with intervals, and predict others.

    Example: [cyan]firstlight scaling fit runs/ladder --hold-out 1 --predict 1B,20B --budget 1e20[/cyan]
    """
    asked = [_pair(pair) for pair in predict or []]
    budgets = [_flops(text) for text in budget or []]

    from firstlight.pipeline import scaling_report as report
    from firstlight.pipeline.fitting import fit_runs
    from firstlight.support.files import to_json

    found = fit_runs(runs, counted=parameters, held_out=hold_out, predict=asked, budgets=budgets, seed=seed)
    if json:
        print(to_json(report.fit_as_dict(found), indent=2))
    else:
        report.show_fit(found)
    if picture is not None:
        from firstlight.pipeline.scaling_picture import draw_fit

        draw_fit(found, picture)


_PREFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}


def _count(text: str, option: str) -> float:
    """'0.3M' → 300000.0."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?\d+)?)\s*([kmbgt]?)\s*", text, re.IGNORECASE)
    number = float(match[1]) * _PREFIXES[match[2].lower()] if match else 0.0
    if not 0 < number < float("inf"):
        raise ConfigError(f"{option} {text.strip() or '(empty)'}: a number above 0 is due, as 300k, 0.3M or 2.5e9.")
    return number


def _pair(text: str) -> tuple[float, float]:
    parts = text.split(",")
    if len(parts) != 2:
        raise ConfigError(f"--predict {text}: parameters and tokens are due, as in --predict 1B,20B.")
    return _count(parts[0], "--predict"), _count(parts[1], "--predict")


def _flops(text: str) -> float:
    flops, _ = _budget(text)
    if flops is None:
        raise ConfigError(f"--budget {text}: FLOPs are due here, as 1e20; a law knows no machine.")
    return flops


def _budget(text: str | None) -> tuple[float | None, float | None]:
    """(FLOPs, seconds), one of them: '1e16' or '2h'."""
    if text is None:
        return None, None
    if text.strip().lower().endswith("h"):
        return None, 3600 * _count(text.strip()[:-1], "--budget")
    return _count(text, "--budget"), None

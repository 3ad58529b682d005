"""The verb that says what a run would take before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from firstlight.cli.options import Overrides

_BUDGET = "One budget (the length of training follows from it)"


def plan(
    recipe: Annotated[str, typer.Argument(help="A recipe, a YAML file, or a run folder.", metavar="RECIPE")],
    overrides: Overrides = None,
    gpus: Annotated[
        int | None, typer.Option(help="How many devices; unset: those that the recipe is written for.", min=1)
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            help="Which, as a100-80g, h100, mi300x, or a YAML file that describes one; unset: this machine's.",
            metavar="NAME",
        ),
    ] = None,
    tokens: Annotated[str | None, typer.Option(help="As 22B.", metavar="N", rich_help_panel=_BUDGET)] = None,
    budget_flops: Annotated[
        float | None, typer.Option(help="Model FLOPs, as 1e21.", metavar="N", rich_help_panel=_BUDGET)
    ] = None,
    budget_hours: Annotated[
        float | None, typer.Option(help="Hours from start to end.", metavar="N", rich_help_panel=_BUDGET)
    ] = None,
    budget_usd: Annotated[float | None, typer.Option(help="Dollars.", metavar="N", rich_help_panel=_BUDGET)] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(help="A run on the same kind of device whose speed corrects the predictions.", metavar="RUN"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The same as one JSON object.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a page to this file.", metavar="FILE")] = None,
    lang: Annotated[Literal["en", "zh"], typer.Option(help="Language of table and page.")] = "en",
) -> None:
    """What a recipe would take, before it begins: size, compute, expected loss, time, money, memory, the best layouts
    for given devices, and whether its settings agree. Nothing is started.

    Ends with 0, or with 11 where training would refuse or fail.

    Example: [cyan]firstlight plan llama-7b --gpus 128 --gpu a100-80g[/cyan]

    A budget: [cyan]firstlight plan llama-1b --gpus 8 --gpu h100 --budget-usd 5000[/cyan]
    """
    from firstlight import pipeline
    from firstlight.pipeline.plan_budget import Budget
    from firstlight.pipeline.plan_tables import exit_code, show_plan

    budget = Budget(flops=budget_flops, hours=budget_hours, usd=budget_usd, tokens=tokens)
    made = pipeline.plan(recipe, overrides or [], gpus=gpus, gpu=gpu, budget=budget, calibrate=calibrate)
    if html is not None:
        from firstlight.pipeline.plan_page import write_page

        write_page(made, html, lang)
    if json:
        from firstlight.support.files import to_json

        print(to_json(made.to_json(), indent=2))
    else:
        show_plan(made, lang)
    raise typer.Exit(exit_code(made))

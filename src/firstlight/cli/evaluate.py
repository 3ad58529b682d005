"""The verb `eval`."""

from __future__ import annotations

from typing import Annotated

import typer

from firstlight.cli.options import DataOption, DeviceOption, Run, Step, by_name
from firstlight.support.errors import ConfigError


def evaluate(
    run: Run,
    data: DataOption = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            help="Tasks, joined by commas: .jsonl files, folders of them, or names of lm-eval's; may be given several "
            "times. Held-out text is then left out.",
            metavar="TASKS",
        ),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(help="Tokens between the beginnings of windows, which then overlap; unset: a window.", min=1),
    ] = None,
    sequence_length: Annotated[
        int | None, typer.Option(help="Tokens in a window; unset: data.sequence_length.", min=1)
    ] = None,
    step: Step = None,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens per domain; unset: all.", min=1)] = None,
    task_limit: Annotated[int | None, typer.Option(help="Most items per task; unset: all.", min=1)] = None,
    pseudo_tokens: Annotated[
        int,
        typer.Option(help="Masked models: most tokens per domain to hide one at a time; 0: none.", min=0),
    ] = 1000,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object in place of tables.")] = False,
    device: DeviceOption = None,
) -> None:
    """Loss, perplexity and accuracy by domain, on held-out documents or files of yours; or accuracy on tasks.

    RUN may also be the folder of a Hugging Face model. A masked model also gets the accuracy of guessing the commonest
    token everywhere, and pseudo-perplexity.

    Example: [cyan]firstlight eval runs/quickstart --data mine='texts/*.txt' --stride 256[/cyan]

    Tasks: [cyan]firstlight eval runs/quickstart --tasks questions.jsonl,hellaswag[/cyan]
    """
    from firstlight import pipeline
    from firstlight.evaluation.tasks import centred_average
    from firstlight.pipeline.show import show_scores, show_tasks
    from firstlight.support.console import out
    from firstlight.support.files import to_json

    names = [name for entry in tasks or [] for name in entry.split(",") if name]
    if task_limit is not None and not names:
        raise ConfigError("--task-limit goes with --tasks; leave it out.")
    files = by_name(data)
    numbers = {}
    if files or not names:
        scores = pipeline.evaluate(
            run,
            step=step,
            files=files,
            max_tokens=max_tokens,
            sequence_length=sequence_length,
            stride=stride,
            pseudo_tokens=pseudo_tokens,
            device=device,
        )
        numbers["domains"] = scores
        if not json:
            show_scores(scores)
    elif stride or sequence_length or max_tokens:
        raise ConfigError("--stride, --sequence-length and --max-tokens are for text; give --data, or leave them out.")
    if names:
        on_tasks = pipeline.evaluate_tasks(run, names, step=step, limit=task_limit, device=device)
        average = centred_average(on_tasks)
        numbers |= {"tasks": on_tasks, "centred_average": average}
        if not json:
            if files:
                out.print()
            show_tasks(on_tasks, average)
    if json:
        print(to_json(numbers, indent=2))

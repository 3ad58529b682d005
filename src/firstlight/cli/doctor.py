"""The verb that reads a run and says what is wrong with it."""

from __future__ import annotations

from typing import Annotated

import typer

from firstlight.cli.options import Run


def doctor(
    run: Run,
    json: Annotated[bool, typer.Option("--json", help="The same as one JSON object.")] = False,
) -> None:
    """Read a run, running or not, and say in plain words what is wrong and what helps.

    Ends with 0 when there is nothing or only notes, 10 with warnings, 11 with problems.

    Example: [cyan]firstlight doctor runs/quickstart[/cyan]
    """
    from firstlight import pipeline
    from firstlight.pipeline.show_diagnosis import as_json, exit_code, show_diagnosis

    record, diagnosis = pipeline.doctor(run)
    if json:
        print(as_json(run, record, diagnosis))
    else:
        show_diagnosis(run, record, diagnosis)
    raise typer.Exit(exit_code(diagnosis))

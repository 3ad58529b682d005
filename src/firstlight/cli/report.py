"""The verbs that show a run: as a page, and while it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from firstlight.cli.options import Run


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders; several are laid on top of each other.", metavar="RUN")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="The file; unset: report.html in the run folder, of several runs in this one.", metavar="FILE"
        ),
    ] = None,
    language: Annotated[
        Literal["en", "zh"], typer.Option(help="Language that the page opens in; a switch in it changes to the other.")
    ] = "en",
) -> None:
    """Write the page of a run: one HTML file that needs no network, with curves, data, plan and findings.

    Example: [cyan]firstlight report runs/quickstart[/cyan]

    Several: [cyan]firstlight report runs/small runs/large --output both.html[/cyan]
    """
    from firstlight import pipeline
    from firstlight.support.console import note

    note(f"report: {pipeline.report(runs, output, language=language)}")


def watch(
    run: Run,
    serve: Annotated[
        bool, typer.Option("--serve", help="Show the page in a browser of this machine instead, and keep it fresh.")
    ] = False,
    port: Annotated[
        int, typer.Option(help="With --serve: of 127.0.0.1; 0: any that is free.", min=0, max=65535)
    ] = 8321,
    interval: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.2)] = 2.0,
    language: Annotated[Literal["en", "zh"], typer.Option(help="With --serve: language the page opens in.")] = "en",
) -> None:
    """Watch a run while it trains; Ctrl-C ends watching, not the run. In a pipe it prints once.

    Example: [cyan]firstlight watch runs/quickstart[/cyan]

    In a browser: [cyan]firstlight watch runs/quickstart --serve[/cyan]
    """
    from firstlight import pipeline

    if serve:
        from firstlight.pipeline.page_server import serve as serve_page

        serve_page(run, port=port, language=language, interval_seconds=interval)
    else:
        pipeline.watch(run, interval_seconds=interval)

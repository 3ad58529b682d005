"""The verb `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstlight.support.errors import DataError


def verify(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Token datasets, prefixes, checkpoints or run folders (with the datasets they read).", metavar="PATH"
        ),
    ],
    quick: Annotated[bool, typer.Option("--quick", help="Compare sizes only.")] = False,
) -> None:
    """Compare files with the size and SHA-256 that were recorded when they were written; names each that differs.

    Example: [cyan]firstlight verify runs/quickstart tokens/books[/cyan]
    """
    from firstlight import pipeline
    from firstlight.support.console import human_bytes, printable

    results = pipeline.verify(paths, quick=quick)
    for result in results:
        files = f"{result.files} files, {human_bytes(result.size)}"
        print(printable(f"{result.path}: {result.what}, {files}: {'NOT ' if result.faults else ''}{result.claim}"))
        for fault in result.faults:
            print(printable(f"  {fault}"))
    bad = [result for result in results if result.faults]
    if bad:
        raise DataError(
            f"{len(bad)} of {len(results)} are not as they were written: "
            f"{', '.join(str(result.path) for result in bad)}."
        )

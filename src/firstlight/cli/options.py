"""Arguments and options that several verbs have."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from firstlight.support.errors import ConfigError

Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings to change, as in [bold]optimizer.lr=1e-3[/bold].", metavar="KEY=VALUE"),
]
Run = Annotated[Path, typer.Argument(help="A run folder, as in [bold]runs/quickstart[/bold].", metavar="RUN")]
_DATA = typer.Option("--data", help="NAME=FILES; may be given several times.", metavar="NAME=FILES")
DataOption = Annotated[list[str] | None, _DATA]
RequiredData = Annotated[list[str], _DATA]


class DeviceName(StrEnum):
    """Where to compute."""

    auto = "auto"
    cuda = "cuda"
    mps = "mps"
    cpu = "cpu"


class ExportFormat(StrEnum):
    """Formats that a model can be exported to."""

    huggingface = "huggingface"
    megatron = "megatron"
    megatron_checkpoint = "megatron-checkpoint"


class ExportType(StrEnum):
    """Types that exported weights can have."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Digits(StrEnum):
    """How runs of digits are split."""

    single = "single"
    groups_of_three = "groups_of_three"


Files = Annotated[
    list[str],
    typer.Argument(help="Files, globs or folders of plain text, JSON lines or Parquet.", metavar="FILES"),
]
TextField = Annotated[str, typer.Option(help="Field of JSON lines, column of tables, that holds the text.")]
Seed = Annotated[int, typer.Option(help="Seed of the sample.")]
Step = Annotated[int | None, typer.Option(help="Checkpoint of this step; unset: the newest.")]
Workers = Annotated[int | None, typer.Option(help="Programs at a time; unset: one per core.", min=1)]
Ray = Annotated[
    str | None,
    typer.Option(
        help="Work on a Ray cluster: auto, HOST:PORT or ray://HOST:10001; local starts one here. "
        "Its machines must share this one's files.",
        metavar="ADDRESS",
    ),
]
DeviceOption = Annotated[DeviceName | None, typer.Option(help="Where to compute; unset: as in the run.")]


def by_name(data: Sequence[str] | None) -> dict[str, list[str]]:
    """['books=a', 'books=b', 'web=c'] → {'books': ['a', 'b'], 'web': ['c']}."""
    sources: dict[str, list[str]] = {}
    for item in data or []:
        name, equals, files = item.partition("=")
        if not equals or not name or not files:
            raise ConfigError(f"--data {item}: written NAME=FILES, as in --data books='my/*.jsonl.zst'.")
        sources.setdefault(name, []).append(files)
    return sources


def numbers_by_name(given: Sequence[str] | None, option: str) -> dict[str, float] | None:
    """['web=0.7', 'books=0.3'] → {'web': 0.7, 'books': 0.3}; None for none."""
    numbers: dict[str, float] = {}
    for item in given or []:
        name, equals, number = item.partition("=")
        try:
            numbers[name] = float(number)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise ConfigError(f"{option} {item}: written NAME=NUMBER, as in {option} books=0.3.")
    return numbers or None

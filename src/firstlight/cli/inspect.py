"""The verb `inspect`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from firstlight.support.errors import ConfigError

_RUN, _DATA = "Runs", "Token datasets and prefixes"


def inspect(
    target: Annotated[Path, typer.Argument(help="A run folder, a token dataset, or a prefix.", metavar="TARGET")],
    step: Annotated[
        int | None,
        typer.Option(help="The samples and documents that this step read, or will read.", rich_help_panel=_RUN),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="With --step: only what this data-parallel rank read.", rich_help_panel=_RUN)
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(help="With --step: one sample of the batch, from 0, with its whole text.", rich_help_panel=_RUN),
    ] = None,
    samples: Annotated[int, typer.Option(help="With --step: most samples to show.", min=1, rich_help_panel=_RUN)] = 4,
    document: Annotated[
        str | None,
        typer.Option(
            help="Of a run, SOURCE:NUMBER: which steps read it. Of a dataset, NUMBER: its text.", metavar="ID"
        ),
    ] = None,
    documents: Annotated[int, typer.Option(help="Most documents to show, of a sample or of a split.", min=1)] = 3,
    origin: Annotated[
        bool, typer.Option("--origin", help="Also file, line and metadata; the tokenized files are read for it.")
    ] = False,
    split: Annotated[
        Literal["train", "validation"], typer.Option(help="With --document.", rich_help_panel=_DATA)
    ] = "train",
    tokenizer: Annotated[str | None, typer.Option(help="Of a prefix, to see its text.", rich_help_panel=_DATA)] = None,
    json: Annotated[bool, typer.Option("--json", help="The same as one JSON object.")] = False,
) -> None:
    """What did this step read? When was this document read? What is in this dataset?

    Example: [cyan]firstlight inspect runs/quickstart --step 12[/cyan]

    A document: [cyan]firstlight inspect runs/quickstart --document speeches:17[/cyan]

    A dataset: [cyan]firstlight inspect data/tokens-speeches-1a2b3c4d --document 17 --origin[/cyan]
    """
    from firstlight.pipeline import inspect_page as page
    from firstlight.pipeline.inspecting import is_run

    if is_run(target):
        if split != "train" or tokenizer:
            raise ConfigError("--split and --tokenizer are for token datasets; a run knows both.")
        facts, lines = _run(target, step, rank, sample, samples, document, documents, origin)
    else:
        if (step, rank, sample) != (None, None, None):
            raise ConfigError(f"{target}: --step, --rank and --sample are for run folders (with a config.yaml).")
        facts, lines = _data(target, document, documents, origin, split, tokenizer)
    page.show_json(facts) if json else page.show(lines)


def _run(
    target: Path,
    step: int | None,
    rank: int | None,
    sample: int | None,
    samples: int,
    document: str | None,
    documents: int,
    origin: bool,
) -> tuple[Any, Iterator[str]]:
    """Facts of a run, and the lines that tell them."""
    from firstlight.pipeline import inspect_page as page
    from firstlight.pipeline.inspecting import InspectedRun

    if step is None and (rank is not None or sample is not None):
        raise ConfigError("--rank and --sample choose among what a step read; give it with --step N.")
    if step is not None and document is not None:
        raise ConfigError("--step says what a step read, --document which steps read a document; give one of them.")
    if origin and step is None:
        raise ConfigError("--origin goes with --step, or with --document of a token dataset.")
    run = InspectedRun(target)
    if step is not None:
        facts = run.step(step, rank=rank, row=sample, most=samples)
        if origin:
            run.add_origins(facts["rows"])
        return facts, page.step_lines(facts, documents if sample is None else None)
    if document is not None:
        facts = run.document(document)
        return facts, page.reading_lines(facts)
    facts = run.overview()
    return facts, page.overview_lines(facts)


def _data(
    target: Path, document: str | None, documents: int, origin: bool, split: str, tokenizer: str | None
) -> tuple[Any, Iterator[str]]:
    """Facts of a token dataset or prefix, and the lines that tell them."""
    from firstlight.pipeline import inspect_page as page
    from firstlight.pipeline.inspecting_data import dataset_document, inspect_dataset

    if document is None:
        if origin or split != "train":
            raise ConfigError("--origin and --split go with --document.")
        facts = inspect_dataset(target, most=documents, tokenizer=tokenizer)
        return facts, page.dataset_lines(facts)
    facts = dataset_document(target, document, split=split, tokenizer=tokenizer, origin=origin)
    return facts, page.document_lines(facts)

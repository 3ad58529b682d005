"""The verbs that make training data of raw text: `corpus`, `tokenizer`, `tokenize`, `mixture`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstlight.cli.options import (
    DataOption,
    Digits,
    Files,
    Overrides,
    Ray,
    RequiredData,
    Seed,
    TextField,
    Workers,
    by_name,
    numbers_by_name,
)
from firstlight.support.errors import ConfigError

corpus_app = typer.Typer(
    help="Raw files to clean documents.\n\nExample: [cyan]firstlight corpus build my-model.yaml[/cyan]",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
tokenizer_app = typer.Typer(
    help="Train a tokenizer, and see how tokenizers fit a text.\n\n"
    "Example: [cyan]firstlight tokenizer train 'my/*.txt' --output tokenizer[/cyan]",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@corpus_app.command("build")
def corpus_build(
    config: Annotated[
        str, typer.Argument(help="A recipe or a YAML file whose data.sources name text.", metavar="CONFIG")
    ],
    output: Annotated[Path | None, typer.Option(help="Folder to write; unset: data.directory/NAME-corpus.")] = None,
    workers: Workers = None,
    ray: Ray = None,
    overrides: Overrides = None,
) -> None:
    """Raw files through the steps of `corpus:` to documents, with counts, samples of what was dropped and a picture.

    Example: [cyan]firstlight corpus build my-model.yaml --output clean corpus.max_bad_fraction=0.05[/cyan]
    """
    from firstlight import pipeline
    from firstlight.support.console import note

    folder = pipeline.build_corpus(config, output, overrides or [], workers=workers, ray=ray)
    shown = [str(folder / name) for name in ("dropped", "funnel.svg") if (folder / name).exists()]
    note(f"corpus: {folder}{'; what was dropped, and why: ' if shown else ''}{', '.join(shown)}")


@corpus_app.command("classifier")
def corpus_classifier(
    good: Annotated[list[str], typer.Option(help="Files of documents as they should be.", metavar="FILES")],
    bad: Annotated[list[str], typer.Option(help="Files of documents as they should not.", metavar="FILES")],
    output: Annotated[Path, typer.Option(help="Folder to write.")],
    ngrams: Annotated[int, typer.Option(help="Longest run of words that is a feature.", min=1)] = 2,
    max_bytes: Annotated[int, typer.Option(help="Most bytes of text of each class.", min=1)] = 100_000_000,
    seed: Seed = 1234,
    text_field: TextField = "text",
) -> None:
    """Learn to tell good documents from bad ones, for the step `classifier` of a corpus.

    Example: [cyan]firstlight corpus classifier --good 'wiki/*.zst' --bad 'crawl/*.zst' --output quality[/cyan]
    """
    from firstlight import pipeline
    from firstlight.corpus.classifier import classifier_table
    from firstlight.support.console import command, note, out

    report = pipeline.train_classifier(
        good, bad, output, ngrams=ngrams, max_bytes=max_bytes, seed=seed, text_field=text_field
    )
    out.print(classifier_table(report))
    note("Next: add it to corpus.steps of a recipe, with the min_score that you choose,")
    command(f"- {{step: classifier, model: {output}, min_score: 0.5}}")


@tokenizer_app.command("train")
def tokenizer_train(
    output: Annotated[Path, typer.Option(help="Folder to write.")],
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Files, globs or folders of plain text, JSON lines or Parquet.", metavar="FILES"),
    ] = None,
    data: DataOption = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(help="Share of a source in the sample; unset: as much text as it has.", metavar="NAME=NUMBER"),
    ] = None,
    vocab_size: Annotated[int, typer.Option(help="Size of the vocabulary, special tokens included.")] = 32000,
    digits: Annotated[Digits, typer.Option(help="How runs of digits are split.")] = Digits.single,
    sample_bytes: Annotated[int, typer.Option(help="Most bytes of text to train on.", min=1)] = 200_000_000,
    seed: Seed = 1234,
    text_field: TextField = "text",
) -> None:
    """Train a byte-level BPE tokenizer that Hugging Face loads, on files or on a mixture of sources.

    Example: [cyan]firstlight tokenizer train 'my/*.jsonl.zst' --vocab-size 32000 --output tokenizer[/cyan]

    Example: [cyan]firstlight tokenizer train --data web=crawl/ --data books=my/ --weight web=0.7 --weight books=0.3
    --output tokenizer[/cyan]
    """
    from firstlight import pipeline
    from firstlight.support.console import command, note

    if bool(files) == bool(data):
        raise ConfigError("give FILES, or sources with --data NAME=FILES: one of the two.")
    pipeline.train_tokenizer(
        files or by_name(data),
        output,
        vocab_size=vocab_size,
        weights=numbers_by_name(weight, "--weight"),
        digits=digits.value,
        sample_bytes=sample_bytes,
        seed=seed,
        text_field=text_field,
    )
    note("Next:")
    command(f"firstlight tokenize FILES --tokenizer {output} --output FOLDER")


@tokenizer_app.command("compare")
def tokenizer_compare(
    tokenizers: Annotated[
        list[str], typer.Argument(help="tokenizer.json, folders with one, or hub names.", metavar="TOKENIZERS")
    ],
    data: RequiredData,
    sample_bytes: Annotated[int, typer.Option(help="Most bytes of text of each source.", min=1)] = 20_000_000,
    seed: Seed = 1234,
    text_field: TextField = "text",
) -> None:
    """How many tokens tokenizers need for a text, by source and language, what they lose, and how fast they are.

    Example: [cyan]firstlight tokenizer compare tokenizer gpt2 --data web='crawl/*.zst' --data books=my/[/cyan]
    """
    from firstlight import pipeline
    from firstlight.support.console import out
    from firstlight.tokens.tokenizer_comparison import comparison_table

    report = pipeline.compare_tokenizers(
        tokenizers, by_name(data), max_bytes_per_source=sample_bytes, seed=seed, text_field=text_field
    )
    out.print(comparison_table(report))


def tokenize(
    files: Files,
    tokenizer: Annotated[str, typer.Option(help="tokenizer.json, a folder with one, or a hub name.")],
    output: Annotated[Path, typer.Option(help="Folder to write.")],
    source: Annotated[str | None, typer.Option(help="Name of the source; unset: the folder's name.")] = None,
    validation_fraction: Annotated[
        float,
        typer.Option(help="Share of documents held out by a hash of their text.", min=0, max=0.99, metavar="SHARE"),
    ] = 0.01,
    shard_tokens: Annotated[int, typer.Option(help="Most tokens in one shard.", min=1)] = 100_000_000,
    workers: Workers = None,
    ray: Ray = None,
    text_field: TextField = "text",
) -> None:
    """Turn text into a token dataset (Megatron-LM's .bin/.idx and dataset.json).

    Example: [cyan]firstlight tokenize 'my/*.jsonl.zst' --tokenizer tokenizer --output tokens/books[/cyan]
    """
    from firstlight import pipeline
    from firstlight.support.console import command, note

    dataset = pipeline.tokenize(
        files,
        tokenizer,
        output,
        source=source,
        validation_fraction=validation_fraction,
        shard_tokens=shard_tokens,
        workers=workers,
        ray=ray,
        text_field=text_field,
    )
    note("Next:")
    command(f"firstlight train RECIPE data.sources.{dataset.source}.tokens={output}")


def mixture(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe whose sources have tokens; or none.", metavar="[RECIPE]")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(help="Size of a source, or its token dataset; may be given several times.", metavar="NAME=TOKENS"),
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(help="Budget, as 300B or 1T; unset: the recipe's training.", metavar="NUMBER")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Weights from sizes: size^(1/temperature).", min=0.0)
    ] = None,
    propose: Annotated[bool, typer.Option("--propose", help="Weights that keep to data.max_epochs.")] = False,
    overrides: Overrides = None,
) -> None:
    """How often each source is gone over for a budget of tokens, what that is worth, and weights that fit.

    Example: [cyan]firstlight mixture --source web=300B --source books=5B --tokens 400B --propose[/cyan]
    """
    from firstlight import pipeline
    from firstlight.pipeline.mixture_report import mixture_table
    from firstlight.support.console import note, out, warn

    report = pipeline.mixture(
        recipe, overrides or [], sources=source or [], total_tokens=tokens, temperature=temperature, propose=propose
    )
    out.print(mixture_table(report, out.width))
    for sentence in report["notes"]:
        note(sentence)
    for sentence in report["warnings"]:
        warn(sentence)
    if report["mixture"] and (propose or temperature):
        shown = ", ".join(f"{name}: {weight:.6g}" for name, weight in report["mixture"].items())
        out.print(f"data.mixture: {{{shown}}}", markup=False)

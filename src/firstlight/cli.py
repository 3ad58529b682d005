"""The verbs. Each body parses its arguments, calls one function of the pipeline, and prints.

Nothing heavy is imported until a verb needs it, so that `firstlight --help` answers at once.
"""

from __future__ import annotations

import textwrap
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from firstlight import __version__
from firstlight.support.ending import run_to_the_end
from firstlight.support.errors import ConfigError

_ORDER = (
    *("quickstart", "recipes", "init", "corpus", "tokenizer", "tokenize"),
    *("train", "eval", "generate", "export"),
)


class _InOrder(TyperGroup):
    """Lists the verbs in the order of the work."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=_ORDER.index)


app = typer.Typer(
    cls=_InOrder,
    help="Pretrain language models from zero: raw text to an evaluated, exported model.\n\n"
    "Start here: [bold]firstlight quickstart[/bold]",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
corpus_app = typer.Typer(
    help="Raw files to clean documents.\n\nExample: [cyan]firstlight corpus build my-model.yaml[/cyan]",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
tokenizer_app = typer.Typer(
    help="Train a tokenizer.\n\nExample: [cyan]firstlight tokenizer train 'my/*.txt' --output tokenizer[/cyan]",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.add_typer(corpus_app, name="corpus")
app.add_typer(tokenizer_app, name="tokenizer")

Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings to change, as in [bold]optimizer.lr=1e-3[/bold].", metavar="KEY=VALUE"),
]
Run = Annotated[Path, typer.Argument(help="A run folder, as in [bold]runs/quickstart[/bold].", metavar="RUN")]
DataOption = Annotated[
    list[str] | None, typer.Option("--data", help="NAME=FILES; may be given several times.", metavar="NAME=FILES")
]


class DeviceName(StrEnum):
    """Where to compute."""

    auto = "auto"
    cuda = "cuda"
    mps = "mps"
    cpu = "cpu"


class ExportFormat(StrEnum):
    """Formats that a model can be exported to."""

    huggingface = "huggingface"


class ExportType(StrEnum):
    """Types that exported weights can have."""

    float32 = "float32"
    bfloat16 = "bfloat16"


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
DeviceOption = Annotated[DeviceName | None, typer.Option(help="Where to compute; unset: as in the run.")]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"firstlight {__version__}")
        raise typer.Exit


@app.command()
def quickstart(
    data: DataOption = None,
    minutes: Annotated[float, typer.Option(help="About how long to train.", min=0.05, max=100_000)] = 4.0,
    name: Annotated[str, typer.Option(help="Name of the run: runs/NAME.")] = "quickstart",
    prompt: Annotated[
        str, typer.Option(help="How the sample of generated text begins; unset: as a document does.")
    ] = "",
    overrides: Overrides = None,
) -> None:
    """The whole way on one machine, in minutes: text to a trained, evaluated, exported small model.

    Without --data it uses text that comes with Python packages (extra [bold]starter[/bold]).

    Example: [cyan]firstlight quickstart --data books='my/*.jsonl.zst' --data web=crawl/[/cyan]
    """
    from firstlight import pipeline

    sources = _by_name(data)
    pipeline.quickstart(sources, minutes=minutes, name=name, prompt=prompt, overrides=overrides or [])


@app.command()
def recipes() -> None:
    """List the shipped recipes, one line each.

    Example: [cyan]firstlight recipes[/cyan]
    """
    from firstlight.recipe import load_config, recipe_names
    from firstlight.support.console import out

    names = recipe_names()
    indent = max(map(len, names)) + 2
    for name in names:
        line = f"{name:<{indent}}{load_config(name).description}"
        print(textwrap.fill(line, out.width, subsequent_indent=" " * indent) if out.is_terminal else line)


@app.command()
def init(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (see `firstlight recipes`).", metavar="RECIPE")],
    file: Annotated[Path, typer.Argument(help="The YAML file to write.", metavar="FILE.yaml")],
) -> None:
    """Write a shipped recipe, with its comments, to a file to edit.

    Example: [cyan]firstlight init llama-1b my-model.yaml[/cyan]
    """
    from firstlight.recipe import recipe_text
    from firstlight.support.console import command, note
    from firstlight.support.files import atomic_file

    text = recipe_text(recipe)
    if file.exists():
        raise ConfigError(f"{file}: exists already; choose another name.")
    with atomic_file(file, "w") as handle:
        handle.write(text)
    note(f"wrote {file}. Next: edit it, then")
    command(f"firstlight train {file}")


@corpus_app.command("build")
def corpus_build(
    config: Annotated[
        str, typer.Argument(help="A recipe or a YAML file whose data.sources name text.", metavar="CONFIG")
    ],
    output: Annotated[Path | None, typer.Option(help="Folder to write; unset: data.directory/NAME-corpus.")] = None,
    overrides: Overrides = None,
) -> None:
    """Read raw files, drop what is too short or occurred before, write documents and statistics.

    Example: [cyan]firstlight corpus build my-model.yaml corpus.min_characters=200[/cyan]
    """
    from firstlight import pipeline
    from firstlight.support.console import note

    note(f"corpus: {pipeline.build_corpus(config, output, overrides or [])}")


@tokenizer_app.command("train")
def tokenizer_train(
    files: Files,
    output: Annotated[Path, typer.Option(help="Folder to write.")],
    vocab_size: Annotated[int, typer.Option(help="Size of the vocabulary, special tokens included.")] = 32000,
    digits: Annotated[Digits, typer.Option(help="How runs of digits are split.")] = Digits.single,
    sample_bytes: Annotated[int, typer.Option(help="Most bytes of text to train on.", min=1)] = 200_000_000,
    seed: Seed = 1234,
    text_field: TextField = "text",
) -> None:
    """Train a byte-level BPE tokenizer that Hugging Face loads.

    Example: [cyan]firstlight tokenizer train 'my/*.jsonl.zst' --vocab-size 32000 --output tokenizer[/cyan]
    """
    from firstlight import pipeline
    from firstlight.support.console import command, note

    pipeline.train_tokenizer(
        files,
        output,
        vocab_size=vocab_size,
        digits=digits.value,
        sample_bytes=sample_bytes,
        seed=seed,
        text_field=text_field,
    )
    note("Next:")
    command(f"firstlight tokenize FILES --tokenizer {output} --output FOLDER")


@app.command()
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
    workers: Annotated[int | None, typer.Option(help="Processes; unset: one per core.", min=1)] = None,
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
        text_field=text_field,
    )
    note("Next:")
    command(f"firstlight train RECIPE data.sources.{dataset.source}.tokens={output}")


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe, a YAML file, or a run folder to resume.", metavar="RECIPE")],
    overrides: Overrides = None,
) -> None:
    """Train a model, or resume a run. Stages before training run first where text is named, and are kept.

    Example: [cyan]firstlight train quickstart training.total_steps=1000 name=longer[/cyan]

    Resume: [cyan]firstlight train runs/longer[/cyan]
    """
    from firstlight import pipeline
    from firstlight.recipe import load_config
    from firstlight.support.console import command, note

    if not Path(recipe).is_dir():
        load_config(recipe, overrides or [])  # a slip is told at once, not after the seconds that torch takes to load
    run = pipeline.train(recipe, overrides or [])
    note(f"\nThe run is in {run.path}. Next:")
    command(f"firstlight eval {run.path}")
    command(f"firstlight generate {run.path} --prompt 'The'")
    command(f"firstlight export {run.path} DIR")


@app.command("eval")
def evaluate(
    run: Run,
    data: DataOption = None,
    step: Step = None,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens per domain; unset: all.", min=1)] = None,
    device: DeviceOption = None,
) -> None:
    """Loss, perplexity and bits per byte by domain, on held-out documents or on files of yours.

    Example: [cyan]firstlight eval runs/quickstart --data mine='texts/*.txt'[/cyan]
    """
    from firstlight import pipeline
    from firstlight.pipeline.show import score_table
    from firstlight.support.console import out

    files = _by_name(data)
    scores = pipeline.evaluate(run, step=step, files=files, max_tokens=max_tokens, device=device)
    out.print(score_table(scores))


@app.command()
def generate(
    run: Run,
    prompt: Annotated[str, typer.Option(help="Text to go on from; unset: the beginning of a document.")] = "",
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens to write.", min=1)] = 200,
    temperature: Annotated[float, typer.Option(help="0: always the likeliest token.", min=0.0)] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Only among the k likeliest tokens.", min=1)] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Only among the likeliest tokens that together have this probability.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="For the same text again.")] = None,
    step: Step = None,
    device: DeviceOption = None,
) -> None:
    """Let the model write, streaming to the terminal.

    Example: [cyan]firstlight generate runs/quickstart --prompt 'My fellow citizens' --seed 1[/cyan]
    """
    from firstlight import pipeline
    from firstlight.support.console import printable

    pieces = pipeline.generate(
        run,
        prompt,
        step=step,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        device=device,
    )
    first = next(pieces, "")
    try:
        print(printable(prompt + first), end="", flush=True)
        for piece in pieces:
            print(printable(piece), end="", flush=True)
    finally:
        print()


@app.command()
def export(
    run: Run,
    folder: Annotated[Path, typer.Argument(help="Folder to write.", metavar="DIR")],
    format: Annotated[ExportFormat, typer.Option(help="Format.")] = ExportFormat.huggingface,
    step: Step = None,
    dtype: Annotated[ExportType, typer.Option(help="Type of the weights.")] = ExportType.float32,
) -> None:
    """Write the model as a folder that Hugging Face's AutoModelForCausalLM and AutoTokenizer load.

    Example: [cyan]firstlight export runs/quickstart my-model --format huggingface[/cyan]
    """
    from firstlight import pipeline
    from firstlight.support.console import note

    note(f"model: {pipeline.export(run, folder, format=format.value, step=step, dtype=dtype.value)}")


def _by_name(data: list[str] | None) -> dict[str, list[str]]:
    """['books=a', 'books=b', 'web=c'] → {'books': ['a', 'b'], 'web': ['c']}."""
    sources: dict[str, list[str]] = {}
    for item in data or []:
        name, equals, files = item.partition("=")
        if not equals or not name or not files:
            raise ConfigError(f"--data {item}: written NAME=FILES, as in --data books='my/*.jsonl.zst'.")
        sources.setdefault(name, []).append(files)
    return sources


def main() -> None:
    """Run the verb that the command line names."""
    run_to_the_end(app)

"""The verbs. Each body parses its arguments, calls one function of the pipeline, and prints.

Nothing heavy is imported until a verb needs it, so that `firstlight --help` answers at once.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from firstlight import __version__
from firstlight.cli import data as data_verbs
from firstlight.cli.doctor import doctor
from firstlight.cli.evaluate import evaluate
from firstlight.cli.inspect import inspect
from firstlight.cli.launch import launch
from firstlight.cli.megatron import CONTEXT as MEGATRON_CONTEXT
from firstlight.cli.megatron import export_command, import_config, megatron
from firstlight.cli.options import (
    DataOption,
    DeviceOption,
    ExportFormat,
    ExportType,
    Overrides,
    Run,
    Step,
    by_name,
)
from firstlight.cli.plan import plan
from firstlight.cli.report import report, watch
from firstlight.cli.scaling import scaling_app
from firstlight.cli.verify import verify
from firstlight.support.ending import run_to_the_end
from firstlight.support.errors import ConfigError

_ORDER = (
    *("quickstart", "recipes", "init", "corpus", "tokenizer", "tokenize", "mixture"),
    *("build", "classifier", "compare"),
    *("plan", "scaling", "train", "launch", "watch", "doctor", "inspect", "eval", "generate", "fill", "report"),
    *("export", "import", "megatron", "import-config", "verify"),
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


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"firstlight {__version__}")
        raise typer.Exit


@app.command()
def quickstart(
    data: DataOption = None,
    minutes: Annotated[float, typer.Option(help="About how long to train.", min=0.05, max=100_000)] = 4.0,
    name: Annotated[
        str | None, typer.Option(help="Name of the run: runs/NAME; unset: quickstart, or quickstart-masked.")
    ] = None,
    objective: Annotated[
        Literal["causal", "masked"] | None,
        typer.Option(help="What the model learns: to write on, or to fill in hidden words; unset: to write on."),
    ] = None,
    prompt: Annotated[
        str,
        typer.Option(
            help="How the sample of generated text begins, unset: as a document does; of a masked model the text in "
            "which words are hidden, unset: held-out text."
        ),
    ] = "",
    overrides: Overrides = None,
) -> None:
    """The whole way on one machine, in minutes: text to a trained, evaluated, exported small model.

    Without --data it uses text that comes with Python packages (extra [bold]starter[/bold]).

    Example: [cyan]firstlight quickstart --data books='my/*.jsonl.zst' --data web=crawl/[/cyan]

    A masked model: [cyan]firstlight quickstart --objective masked[/cyan]
    """
    from firstlight import pipeline

    chosen = [f"model.objective={objective}"] if objective else []
    pipeline.quickstart(
        by_name(data), minutes=minutes, name=name, prompt=prompt, overrides=[*chosen, *(overrides or [])]
    )


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


app.add_typer(data_verbs.corpus_app, name="corpus")
app.add_typer(data_verbs.tokenizer_app, name="tokenizer")
app.add_typer(scaling_app, name="scaling")
app.command()(data_verbs.tokenize)
app.command()(data_verbs.mixture)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe, a YAML file, or a run folder to resume.", metavar="RECIPE")],
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show layout, memory, pipeline and first samples; start nothing.")
    ] = False,
    world_size: Annotated[
        int | None,
        typer.Option(help="With --dry-run: on so many processes; unset: those that the recipe is written for.", min=1),
    ] = None,
) -> None:
    """Train a model, or resume a run. Stages before training run first where text is named, and are kept.

    Example: [cyan]firstlight train quickstart training.total_steps=1000 name=longer[/cyan]

    Resume: [cyan]firstlight train runs/longer[/cyan]

    Look before: [cyan]firstlight train llama-7b --dry-run[/cyan]
    """
    from firstlight import pipeline
    from firstlight.recipe import load_config
    from firstlight.support.console import command, note

    if dry_run:
        from firstlight.pipeline.dry_run import dry_run as show_plan

        show_plan(recipe, overrides or [], world_size)
        return
    if world_size is not None:
        raise ConfigError("--world-size is for --dry-run; a run has as many processes as torchrun starts.")
    if not Path(recipe).is_dir():
        load_config(recipe, overrides or [])  # a slip is told at once, not after the seconds that torch takes to load
    run = pipeline.train(recipe, overrides or [])
    note(f"\nThe run is in {run.path}. Next:")
    command(f"firstlight eval {run.path}")
    if not run.tokenizer.has_text:
        return
    if run.config.model.causal:
        command(f"firstlight generate {run.path} --prompt 'The'")
    else:
        command(f"firstlight fill {run.path} 'The {run.tokenizer.mask_token} of the'")
    command(f"firstlight export {run.path} DIR")


app.command()(launch)
app.command(context_settings=MEGATRON_CONTEXT)(megatron)
app.command()(plan)
app.command()(watch)
app.command()(report)
app.command()(inspect)
app.command()(doctor)
app.command("eval")(evaluate)


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
def fill(
    run: Run,
    text: Annotated[str, typer.Argument(help="Text with mask tokens in it.", metavar="TEXT")],
    top_k: Annotated[int, typer.Option(help="Likeliest tokens to show at each.", min=1)] = 5,
    step: Step = None,
    device: DeviceOption = None,
) -> None:
    """Let a masked model fill in hidden tokens.

    Example: [cyan]firstlight fill runs/quickstart-masked 'The <|mask|> of the United States'[/cyan]
    """
    from firstlight import pipeline
    from firstlight.pipeline.show import show_guesses

    show_guesses(pipeline.fill(run, text, step=step, top_k=top_k, device=device))


@app.command()
def export(
    run: Run,
    folder: Annotated[Path, typer.Argument(help="Folder to write.", metavar="DIR")],
    format: Annotated[ExportFormat, typer.Option(help="Format.")] = ExportFormat.huggingface,
    step: Step = None,
    dtype: Annotated[
        ExportType, typer.Option(help="Type of the weights; auto: float32, or that of an imported model.")
    ] = ExportType.auto,
) -> None:
    """Write the model as a folder that Hugging Face's AutoModelForCausalLM (or MaskedLM) and AutoTokenizer load.

    Example: [cyan]firstlight export runs/quickstart my-model --format huggingface[/cyan]

    For Megatron-LM's --load: [cyan]firstlight export runs/quickstart DIR --format megatron-checkpoint[/cyan]

    A recipe or run as Megatron-LM's command: [cyan]firstlight export llama-7b DIR --format megatron[/cyan]
    """
    if format == ExportFormat.megatron:
        if step is not None or dtype != ExportType.auto:
            raise ConfigError("--step and --dtype are for weights; --format megatron writes a command, leave them out.")
        export_command(run, folder)
        return
    from firstlight import pipeline
    from firstlight.support.console import note

    note(f"model: {pipeline.export(run, folder, format=format.value, step=step, dtype=dtype.value)}")


@app.command("import")
def import_model(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of a Hugging Face model in safetensors format, or its name on the hub; or of a Megatron-LM "
            "checkpoint in its format torch_dist."
        ),
    ],
    run: Annotated[Path, typer.Argument(help="The run folder to make, as in [bold]runs/bert[/bold].", metavar="RUN")],
    tokenizer: Annotated[
        str | None, typer.Option(help="tokenizer.json, a folder with one, or a hub name; unset: the model's own.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Megatron-LM checkpoints: a recipe whose model section says the shape; unset: the arguments that the "
            "checkpoint keeps.",
        ),
    ] = None,
) -> None:
    """Make a run of another project's model, to evaluate it, train it further and export it again.

    Example: [cyan]firstlight import ./bert-base-uncased runs/bert[/cyan]

    Megatron-LM: [cyan]firstlight import checkpoints/llama runs/llama --tokenizer tokenizer.json[/cyan]

    Train on: [cyan]firstlight train runs/bert data.sources.web.text=[web/] training.total_tokens=1e9[/cyan]
    """
    from firstlight import pipeline
    from firstlight.support.console import command, note

    imported = pipeline.import_model(source, run, tokenizer=tokenizer, recipe=recipe)
    note(f"\nThe run is in {imported.path}. Next:")
    command(f"firstlight eval {imported.path} --data NAME=FILES")
    command(f"firstlight train {imported.path} data.sources.NAME.text=[FILES] training.total_tokens=N")


app.command("import-config")(import_config)
app.command()(verify)


def main() -> None:
    """Run the verb that the command line names."""
    run_to_the_end(app)

"""The verb that understands Megatron-LM's command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstlight.support.errors import ConfigError

CONTEXT = {"ignore_unknown_options": True, "allow_extra_args": True}
"""For the command, so that Megatron-LM's flags come through."""


def megatron(
    flags: Annotated[
        list[str] | None, typer.Argument(help="Megatron-LM's flags, as for its pretrain_gpt.py.", metavar="FLAGS")
    ] = None,
) -> None:
    """Train with the flags of Megatron-LM's pretrain_gpt.py, on Firstlight's own engine.

    Every flag has its meaning of there, or stops the start with its name and the reason. --save names a run folder of
    Firstlight; --load the same folder to go on. --firstlight KEY=VALUE … changes settings that Megatron-LM lacks.

    Example: [cyan]torchrun --nproc-per-node 8 -m firstlight.interop.megatron.pretrain_gpt --num-layers 24 …[/cyan]
    """
    from firstlight.interop.megatron.hints import llama_hint
    from firstlight.interop.megatron.translate import check_folder, translate
    from firstlight.support.console import command, note
    from firstlight.support.ranks import world_size

    translation = translate(flags or [], world_size())
    config = translation.config()
    check_folder(translation, config.run_folder)
    note(f"{translation.sizes}.")
    if translation.always:
        note(f"always so here, or without effect on results: {' '.join(name for name, _ in translation.always)}")
    hint = llama_hint(translation.flags)
    if hint:
        note(f"{hint}.")
    from firstlight import pipeline
    from firstlight.training.device import choose_device

    training = config.training
    if training.precision == "fp16" and not training.fp16_on_cpu and choose_device(training.device).type == "cpu":
        raise ConfigError(
            "--fp16: there is no GPU here, and on a CPU fp16 is hundreds of times slower than --bf16; give --bf16 or "
            "neither for a trial, or insist with --firstlight training.fp16_on_cpu=true."
        )
    run = pipeline.train(config)
    note(f"\nThe run is in {run.path}. Next:")
    command(f"firstlight eval {run.path}")
    command(f"firstlight export {run.path} DIR")


def export_command(recipe: Path, folder: Path) -> None:
    """Write Megatron-LM's command for a recipe (name or file) or a run folder into a new folder."""
    from firstlight.interop.megatron.export import SCRIPT, as_flags, write_export
    from firstlight.recipe import load_config
    from firstlight.support.console import command, note
    from firstlight.training.run_folder import RunFolder

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: exists and is not empty; choose another folder.")
    config = RunFolder.open(recipe).config if recipe.is_dir() else load_config(recipe)
    exported = as_flags(config)
    write_export(exported, folder, config.name)
    if exported.differences:
        note("What differs from the recipe:")
        for line in exported.notes():
            note(f"  {line}")
    for sentence in exported.to_prepare:
        note(f"First: {sentence}")
    note(f"wrote {folder}. On each machine:")
    command(f"MEGATRON=FOLDER NODE_RANK=N MASTER_ADDR=HOST {folder / SCRIPT}")


def import_config(
    file: Annotated[
        Path,
        typer.Argument(
            help="Nanotron's YAML, torchtitan's TOML, Hugging Face's config.json, or a command or script with "
            "Megatron-LM's flags.",
            metavar="FILE",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option(help="The recipe to write; unset: print it.", metavar="FILE.yaml")
    ] = None,
) -> None:
    """Make a recipe of another project's training configuration, and list what it cannot hold.

    Example: [cyan]firstlight import-config config_tiny_llama.yaml --output my-model.yaml[/cyan]
    """
    from firstlight.interop.import_config import import_config as read
    from firstlight.support.console import command, note
    from firstlight.support.files import atomic_file

    if output is not None and output.exists():
        raise ConfigError(f"{output}: exists already; choose another name.")
    imported = read(file)
    if output is None:
        print(imported.recipe(), end="")
        return
    with atomic_file(output, "w") as handle:
        handle.write(imported.recipe())
    note(f"a configuration of {imported.kind}. Not carried:" if imported.left else f"from {imported.kind}, all of it.")
    for left in imported.left:
        note(f"  {left}")
    note(f"wrote {output}. Next: look at it, then")
    command(f"firstlight train {output} --dry-run")

"""Megatron-LM's flags as a configuration of Firstlight: every flag has an effect, or stops with its name.

What the bare command means there (LayerNorm, learned positions, dropout 0.1, weight decay 0.01, beta2 0.999, Megatron's
own order of samples, a learning rate that begins at 0) it means here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstlight.config import RunConfig
from firstlight.interop.megatron.data_flags import data_section, tokenizer_path, vocabulary
from firstlight.interop.megatron.hints import llama_hint
from firstlight.interop.megatron.meanings import meaning
from firstlight.interop.megatron.model_flags import model_section
from firstlight.interop.megatron.optimizer_flags import Length, optimizer_section, precision, schedule_section
from firstlight.interop.megatron.options import Flags, options, parse
from firstlight.interop.megatron.run_flags import (
    Arithmetic,
    arithmetic,
    checkpoint_section,
    evaluation_section,
    logging_section,
    parallel_section,
    recompute,
    run_folder,
    total_steps,
)
from firstlight.recipe import apply_overrides, parse_config
from firstlight.support.errors import ConfigError

ORIGIN = "Megatron-LM's flags"
_LIMITED = {"dataloader_type": ("single",), "rerun_mode": ("disabled",)}


@dataclass(frozen=True)
class Translation:
    """A command line of Megatron-LM, understood."""

    flags: Flags
    sizes: Arithmetic
    tree: dict[str, Any]
    """The recipe."""
    resumes: bool
    """Whether --load lets it go on with a run that is there."""

    def config(self) -> RunConfig:
        """The checked configuration; ConfigError names a field when a combination is not possible."""
        return parse_config(self.tree, ORIGIN)

    @property
    def always(self) -> list[tuple[str, str]]:
        """Given flags that need no setting here, and why."""
        found = [option for option in options().values() if option.key in self.flags.given]
        return [(option.name, meaning(option).text) for option in found if meaning(option).kind == "always"]


def translate(arguments: Sequence[str], world_size: int, *, here: bool = True) -> Translation:
    """Read a command line (without the program's name) for `world_size` processes.

    here: false for a command of another machine: its tokenizer is not read, so that the vocabulary is left to be filled
    in, and data and tokenizer may be missing.
    Raises ConfigError that names the flag when it is unknown, refused, missing or at odds with another.
    """
    flags = parse(arguments)
    refuse(flags)
    sizes = arithmetic(flags, world_size)
    model = model_section(flags)
    steps = total_steps(flags, sizes.batch)
    folder, resumes = run_folder(flags)
    sequence = flags["seq_length"] or 0
    if sequence > flags["max_position_embeddings"]:
        raise ConfigError(
            f"--seq-length {sequence} is above --max-position-embeddings {flags['max_position_embeddings']}."
        )
    tree: dict[str, Any] = {
        "name": folder.name,
        "runs_directory": str(folder.parent),
        "seed": flags["seed"],
        "optimizer": optimizer_section(flags),
        "schedule": schedule_section(flags, Length(steps, sizes.batch, sequence)),
        "training": {
            "total_steps": steps,
            "micro_batch_size": sizes.micro,
            "global_batch_size": sizes.batch,
            "max_grad_norm": flags["clip_grad"],
            "recompute": recompute(flags),
            **precision(flags),
            **_times(flags),
        },
        "parallel": parallel_section(flags, sizes),
        "stability": {"guard": False},
        "checkpoint": checkpoint_section(flags, steps),
        "evaluation": evaluation_section(flags, sizes),
        "logging": logging_section(flags, folder),
    }
    try:
        tree["data"] = data_section(flags, required=here)
        path = tokenizer_path(flags, required=here)
    except ConfigError as problem:
        raise ConfigError(f"{problem}{_asides(flags, sizes)}") from None
    tree["tokenizer"] = {"path": path} if path else {}
    known = here or flags["vocab_size"] or flags["padded_vocab_size"]
    tree["model"] = {**model, **(vocabulary(flags, path, read_tokenizer=here) if known else {})}
    apply_overrides(tree, flags.settings)
    return Translation(flags, sizes, tree, resumes)


def refuse(flags: Flags) -> None:
    """ConfigError for the flags that mean nothing here, all of them in one go; their defaults ask for nothing."""
    refused = []
    for option in options().values():
        value = flags.given.get(option.key)
        if value is None or value == option.default_value():
            continue
        what = meaning(option)
        if what.kind == "refused":
            refused.append(f"{option.name}: {what.text}")
        limited = _LIMITED.get(option.key)
        if limited and value not in limited:
            refused.append(f"{option.name} {value}: {what.text}")
    if refused:
        raise ConfigError(".\n".join(refused) + ".")


def _times(flags: Flags) -> dict[str, Any]:
    times: dict[str, Any] = {}
    if flags["exit_duration_in_mins"]:
        times["max_hours"] = flags["exit_duration_in_mins"] / 60
    if "distributed_timeout_minutes" in flags.given:
        times["hang_seconds"] = 60 * flags["distributed_timeout_minutes"]
    return times


def _asides(flags: Flags, sizes: Arithmetic) -> str:
    """What someone whose command lacks data wants to know besides."""
    hint = llama_hint(flags)
    return f"\n({sizes}. {hint})" if hint else ""


def check_folder(translation: Translation, folder: Path) -> None:
    """ConfigError where --save would write over a run, or --exit-on-missing-checkpoint finds none."""
    there = (folder / "config.yaml").is_file()
    if there and not translation.resumes:
        raise ConfigError(
            f"{folder} holds a run already, and Megatron-LM would begin anew in it; give --load {folder} to go on with "
            "it, or another --save."
        )
    if not there and translation.flags["exit_on_missing_checkpoint"]:
        raise ConfigError(f"--load {folder}: there is no run in it (--exit-on-missing-checkpoint).")

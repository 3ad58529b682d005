"""A recipe or run as a folder that starts Megatron-LM: the flags, one a line, and the script that hands them over.

Every flag is translated back before anything is written: what would then differ is listed with its reason, and a
difference that has none refuses the export (`differences.py`).
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstlight import __version__
from firstlight.config import RunConfig
from firstlight.interop.megatron.differences import differences
from firstlight.interop.megatron.options import VERSION
from firstlight.interop.megatron.to_flags import Flag, number, resolved, to_flags
from firstlight.interop.megatron.translate import translate
from firstlight.support.files import atomic_folder
from firstlight.tokens.dataset import DESCRIPTION, TokenDataset

ARGUMENTS, SCRIPT = "arguments.txt", "pretrain.sh"


@dataclass(frozen=True)
class Exported:
    """A configuration as Megatron-LM's flags."""

    flags: list[Flag]
    """One option with its values in each."""
    differences: list[tuple[str, Any, Any, str]]
    """(setting, in the recipe, in Megatron-LM, why)."""
    to_prepare: list[str]
    """What must be done before the script can run, a sentence each."""
    nodes: int
    gpus_per_node: int

    def notes(self) -> list[str]:
        """What differs from the recipe, a line each; sources and processes in one."""
        lines: dict[str, None] = {}
        for key, before, after, why in self.differences:
            section = next((name for name in ("data.sources", "data.mixture", "launch") if key.startswith(name)), None)
            shown = section or f"{key}: {_shown(before)} in the recipe, {_shown(after)} in Megatron-LM"
            lines[f"{shown}: {why}."] = None
        return list(lines)

    @property
    def words(self) -> list[str]:
        """The command line."""
        return [word for flag in self.flags for word in flag]


def as_flags(config: RunConfig) -> Exported:
    """The flags of a configuration; ConfigError names each field that Megatron-LM cannot express."""
    world = config.declared_world_size
    full = resolved(config)
    to_prepare: list[str] = []
    flags = to_flags(full, _data(full, to_prepare), _tokenizer(full, to_prepare))
    back = translate([word for flag in flags for word in flag], world, here=not to_prepare).config()
    per_node = config.launch.gpus_per_node or world
    return Exported(flags, differences(full, resolved(back)), to_prepare, world // per_node, per_node)


def write_export(exported: Exported, folder: Path, name: str) -> None:
    """Write `arguments.txt` and `pretrain.sh`; the folder appears whole or not at all. name: of the recipe."""
    with atomic_folder(folder) as place:
        (place / ARGUMENTS).write_text("".join(shlex.join(flag) + "\n" for flag in exported.flags), encoding="utf-8")
        script = place / SCRIPT
        script.write_text(_script(exported, name), encoding="utf-8")
        script.chmod(0o755)


def _script(exported: Exported, name: str) -> str:
    notes = [f"# {line}" for line in exported.notes()]
    arguments = "".join(f"  {shlex.join(flag)}\n" for flag in exported.flags)
    return f"""#!/usr/bin/env bash
# {name}, for Megatron-LM's pretrain_gpt.py. Written by Firstlight {__version__} with the options of
# {VERSION}.
{"".join(f"# First: {sentence}" + chr(10) for sentence in exported.to_prepare)}#
# What differs from the recipe:
{chr(10).join(notes) or "# nothing."}
set -euo pipefail
: "${{MEGATRON:?the folder of Megatron-LM}}"
export CUDA_DEVICE_MAX_CONNECTIONS=1

ARGUMENTS=(
{arguments})

exec torchrun \\
  --nnodes "${{NODES:-{exported.nodes}}}" --nproc-per-node "${{GPUS_PER_NODE:-{exported.gpus_per_node}}}" \\
  --node-rank "${{NODE_RANK:-0}}" --master-addr "${{MASTER_ADDR:-localhost}}" --master-port "${{MASTER_PORT:-29500}}" \\
  "$MEGATRON/pretrain_gpt.py" "${{ARGUMENTS[@]}}" "$@"
"""


def _shown(value: Any) -> str:
    text = "unset" if value is None or value == "" else str(value).replace("\n", " ")
    return text if len(text) <= 60 else text[:57] + "..."


def _data(config: RunConfig, to_prepare: list[str]) -> list[Flag]:
    data = config.data
    weights = {name: data.mixture.get(name) for name, source in data.sources.items() if not source.only_validates}
    train: list[tuple[float | None, str]] = []
    valid: list[tuple[float | None, str]] = []
    divided = False
    for name, source in data.sources.items():
        weight = weights.get(name)
        if source.tokens is None and not source.only_validates:
            prefix = f"tokens/{name}_text_document"
            train.append((weight, prefix))
            text = " ".join(source.text) or "FILES"
            to_prepare.append(
                f"make {prefix}.bin and .idx of source {name} ({text}) with Megatron-LM's tools/preprocess_data.py "
                "--append-eod and the tokenizer below."
            )
        elif source.tokens is not None and (Path(source.tokens) / DESCRIPTION).is_file():
            divided = True
            dataset = TokenDataset.described(source.tokens)
            for split, blend in (("train", train), ("validation", valid)):
                shards = dataset.splits[split].shards if split in dataset.splits else ()
                total = sum(shard.tokens for shard in shards)
                # shards of one source share its weight in proportion to their tokens
                blend += [
                    (shard.tokens if weight is None else weight * shard.tokens / total, f"{source.tokens}/{shard.name}")
                    for shard in shards
                ]
        elif source.tokens is not None:
            train.append((weight, source.tokens))
        if source.validation_tokens is not None:
            divided = True
            valid.append((None, source.validation_tokens))
    if not divided:
        flags = [["--data-path", *_blend(train)]]
        return [*flags, ["--split", data.split]] if data.split is not None else flags
    return [["--train-data-path", *_blend(train)], *([["--valid-data-path", *_blend(valid)]] if valid else [])]


def _blend(entries: list[tuple[float | None, str]]) -> list[str]:
    if any(weight is None for weight, _ in entries):
        return [prefix for _, prefix in entries]
    return [word for weight, prefix in entries for word in (number(weight), prefix)]


def _tokenizer(config: RunConfig, to_prepare: list[str]) -> list[Flag]:
    path, model = config.tokenizer.path, config.model
    if path is None and all(source.tokens or source.only_validates for source in config.data.sources.values()):
        made = [source.tokens for source in config.data.sources.values() if source.tokens]
        if (Path(made[0]) / "tokenizer" / "tokenizer.json").is_file():
            path = f"{made[0]}/tokenizer"
        elif model.vocab_size is not None:
            tokens = model.vocab_size - model.vocab_padding - 1
            flags = [["--tokenizer-type", "NullTokenizer"], ["--vocab-size", str(tokens)]]
            return [*flags, ["--padded-vocab-size", str(model.vocab_size)]]
    if path is None:
        path = "tokenizer"
        to_prepare.append(
            f"make the tokenizer of {config.tokenizer.vocab_size} tokens, as with firstlight tokenizer train, in the "
            "folder tokenizer."
        )
    flags = [["--tokenizer-type", "HuggingFaceTokenizer"], ["--tokenizer-model", path]]
    return [*flags, ["--padded-vocab-size", str(model.vocab_size)]] if model.vocab_size is not None else flags

"""A command or shell script with Megatron-LM's flags: translated, and what is refused there is listed here."""

from __future__ import annotations

import re
from typing import Any

from firstlight.interop.import_config.carried import Left
from firstlight.interop.megatron.meanings import meaning
from firstlight.interop.megatron.options import VERSION, Option, command_line, options
from firstlight.interop.megatron.translate import translate
from firstlight.support.errors import ConfigError

_ASSIGNMENT = re.compile(
    r"""^[ \t]*(?:export[ \t]+)?(\w+)=(\((?:[^()])*\)|"(?:[^"\\]|\\.)*"|'[^']*'|[^\s;]*)""", re.MULTILINE
)
_VARIABLE = re.compile(r"\$\{(\w+)(?:\[[@*]\])?(?::-([^}]*))?\}|\$(\w+)")
_DEPTH = 10
"""Variables of variables."""


def read(text: str, origin: str) -> tuple[dict[str, Any], list[Left]]:
    """The recipe, and the flags that are not in it. ConfigError for flags that do not go together."""
    text = re.sub(r"(?m)(^|\s)#.*$", r"\1", text.replace("\\\n", " "))
    words = command_line(_command(text, origin))
    world = _world_size(words)
    flags, left = _kept(_flags(words))
    try:
        translation = translate(flags, world, here=False)
    except ConfigError as problem:
        raise ConfigError(f"{origin}: {problem}") from None
    if "vocab_size" not in translation.tree["model"]:
        unit = translation.flags["make_vocab_size_divisible_by"] * translation.sizes.tensor
        why = f"Megatron-LM pads the vocabulary to a multiple of {unit}, Firstlight of 64; set model.vocab_size"
        left.append(Left("--make-vocab-size-divisible-by", translation.flags["make_vocab_size_divisible_by"], why))
    if not translation.tree["data"].get("sources"):
        left.append(Left("--data-path", None, "it is missing; set data.sources"))
    return translation.tree, left


def _command(text: str, origin: str) -> str:
    """The line that starts training, or the whole text where there is none, with its variables written out."""
    values = {}
    for name, value in _ASSIGNMENT.findall(text):
        values[name] = value[1:-1].replace("\n", " ") if value[:1] in "(\"'" and value else value
    rest = _ASSIGNMENT.sub("", text)
    lines = [line for line in rest.splitlines() if re.search(r"pretrain_\w+", line)]
    command = lines[-1] if lines else rest.replace("\n", " ")
    command = command.replace('"${', "${").replace('}"', "}")
    for _ in range(_DEPTH):
        command = _VARIABLE.sub(lambda found: _value(found, values), command)
    unknown = sorted({found.group(0) for found in re.finditer(r"\$\w+|\$\{[^}]*\}|\$\(", command)} - {"$@"})
    flags = command[command.find("--num-layers") - 200 :] if "--num-layers" in command else command
    unknown = [name for name in unknown if name in flags]
    if "--num-layers" not in command:
        raise ConfigError(f"{origin}: --num-layers is not in the command that starts training; write it out.")
    if unknown:
        raise ConfigError(f"{origin}: {', '.join(unknown)}: a variable whose value is not in the file; write it out.")
    return command.replace("$@", "")


def _value(found: re.Match[str], values: dict[str, str]) -> str:
    name = found.group(1) or found.group(3)
    if name in values:
        return values[name]
    return found.group(2) if found.group(2) is not None else found.group(0)


def _world_size(words: list[str]) -> int:
    """Processes that torchrun in the command starts; else as few as the layout asks for."""
    numbers = {"tensor": 1, "pipeline": 1, "context": 1, "nnodes": 0, "nproc": 0}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        value = value if equals else following
        for key in numbers:
            if name.replace("_", "-").startswith((f"--{key}-model-parallel-size", f"--{key}-parallel-size")) or (
                key in ("nnodes", "nproc") and name.replace("_", "-") in (f"--{key}", f"--{key}-per-node")
            ):
                numbers[key] = int(value) if value.isdecimal() else 0
    started = (numbers["nnodes"] or 1) * numbers["nproc"]
    return started or max(1, numbers["tensor"] * numbers["pipeline"] * numbers["context"])


def _flags(words: list[str]) -> list[str]:
    """What stands after the script's name."""
    for place, word in enumerate(words):
        if re.search(r"pretrain_\w+(\.py)?$", word):
            return words[place + 1 :]
    first = next(place for place, word in enumerate(words) if word.startswith("--num-layers"))
    while first and (words[first - 1].startswith("--") or (first > 1 and words[first - 2].startswith("--"))):
        first -= 1
    return words[first:]


def _kept(words: list[str]) -> tuple[list[str], list[Left]]:
    known: dict[str, Option] = {name: option for option in options().values() for name in option.names}
    kept: list[str] = []
    left: list[Left] = []
    place = 0
    while place < len(words):
        name = words[place].partition("=")[0]
        end = place + 1
        while end < len(words) and not words[end].startswith("--"):
            end += 1
        option = known.get(name)
        value = " ".join(words[place + 1 : end]) or words[place].partition("=")[2] or True
        if option is None:
            left.append(Left(name, value, f"no option of {VERSION}"))
        elif meaning(option).kind == "refused" and str(value) != str(option.default):
            left.append(Left(name, value, meaning(option).text))
        else:
            kept += words[place:end]
            if meaning(option).kind == "always":
                left.append(Left(name, value, meaning(option).text))
        place = end
    return kept, left

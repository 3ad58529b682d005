"""Every option of Megatron-LM's parser as data, and a parser made from it that tells which options were given.

The table is `options.txt`, which names the version it was taken from. As in Megatron-LM there are no abbreviations and
no @files; unlike argparse, a mistake is one sentence with the option's name.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, NoReturn

from firstlight.support.errors import ConfigError, did_you_mean

VERSION = "Megatron-LM at commit 000c4ac24f61 (development of core 0.16)"
"""Where the table comes from."""
SETTINGS = "--firstlight"
"""The one option that is not Megatron-LM's: KEY=VALUE settings of Firstlight, written over what the flags mean."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of Megatron-LM's parser."""

    names: tuple[str, ...]
    """As typed."""
    group: str
    kind: str
    """true, false: switches; toggle: --X or --no-X; int, float, str, bool: with a value."""
    default: str | None = None
    """As it would be typed; None: unset."""
    choices: tuple[str, ...] = ()
    values: str = ""
    """argparse's nargs: "", "*", "+"."""

    @property
    def name(self) -> str:
        """The name used here, as --num-layers: the first without underscores."""
        return next(name for name in self.names if "_" not in name)

    @property
    def key(self) -> str:
        """The name without dashes, as num_layers."""
        return self.name.removeprefix("--").replace("-", "_")

    @property
    def switch(self) -> bool:
        """Whether it takes no value."""
        return self.kind in ("true", "false", "toggle")

    def default_value(self) -> Any:
        """The default, converted; False for switches, which stands for "not given"."""
        if self.switch:
            return False
        if self.default is None:
            return None
        value = _CONVERT[self.kind](self.default)
        return [value] if self.values else value


_CONVERT: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool}


@cache
def options() -> dict[str, Option]:
    """All options by the name used here, in the order of the table."""
    text = (resources.files("firstlight") / "interop" / "megatron" / "options.txt").read_text(encoding="utf-8")
    table: dict[str, Option] = {}
    group = ""
    for line in text.splitlines():
        if line.startswith("["):
            group = line.strip("[]")
        elif line.startswith("--"):
            option = _read(line, group)
            table[option.name] = option
    return table


def _read(line: str, group: str) -> Option:
    fields = line.split()
    names = tuple(field for field in fields if field.startswith("--"))
    kind, *rest = fields[len(names) :]
    found: dict[str, Any] = {}
    for field in rest:
        if field.startswith("="):
            found["default"] = field[1:]
        elif field.startswith("{"):
            found["choices"] = tuple(field.strip("{}").split(","))
        else:
            found["values"] = field.removeprefix("values=")
    return Option(names, group, kind, **found)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}.")


@cache
def build_parser() -> argparse.ArgumentParser:
    """argparse's parser of the table; its namespace holds only what was given."""
    parser = _Parser(prog="pretrain_gpt.py", allow_abbrev=False, add_help=False, argument_default=argparse.SUPPRESS)
    for option in options().values():
        if option.kind == "toggle":
            parser.add_argument(*option.names, action=argparse.BooleanOptionalAction, dest=option.key)
        elif option.switch:
            parser.add_argument(*option.names, action="store_true", dest=option.key)
        else:
            convert = _CONVERT[option.kind]
            extra: dict[str, Any] = {"nargs": option.values} if option.values else {}
            if option.choices:
                extra["choices"] = [convert(choice) for choice in option.choices]
            parser.add_argument(*option.names, type=convert, dest=option.key, **extra)
    parser.add_argument(SETTINGS, nargs="+", action="extend", default=[], dest="firstlight")
    return parser


@dataclass(frozen=True, slots=True)
class Flags:
    """A command line, read. `given` holds what was typed, by key; `flags[key]` also knows Megatron-LM's defaults."""

    given: dict[str, Any]
    settings: tuple[str, ...] = ()
    """KEY=VALUE behind --firstlight."""

    def __getitem__(self, key: str) -> Any:
        if key in self.given:
            return self.given[key]
        return options()["--" + key.replace("_", "-")].default_value()


def parse(arguments: Sequence[str]) -> Flags:
    """Read a command line without its program's name; ConfigError for what Megatron-LM's parser does not know."""
    arguments = list(arguments)
    _check_names(arguments)
    given = vars(build_parser().parse_args(arguments))
    settings = tuple(given.pop("firstlight", ()))
    return Flags(given, settings)


def _check_names(arguments: list[str]) -> None:
    known = {name for option in options().values() for name in option.names} | {SETTINGS}
    known |= {f"--no-{option.name[2:]}" for option in options().values() if option.kind == "toggle"}
    for argument in arguments:
        name = argument.partition("=")[0]
        if argument.startswith("@"):
            raise ConfigError(f"{argument}: Megatron-LM's parser reads no @files; write the options out.")
        if not name.startswith("--") or name in known:
            continue
        longer = sorted(full for full in known if full.startswith(name))
        if longer:
            raise ConfigError(
                f"{name}: Megatron-LM's parser takes no abbreviations; write {' or '.join(longer[:4])} out."
            )
        underscored = name.replace("_", "-")
        hint = f" Did you mean '{underscored}'?" if underscored in known else did_you_mean(name, known)
        raise ConfigError(f"{name}: no option of {VERSION}.{hint}")


def command_line(text: str) -> list[str]:
    """Words of a shell command over several lines; ConfigError for an open quote."""
    try:
        return shlex.split(text.replace("\\\n", " "), comments=True)
    except ValueError as problem:
        raise ConfigError(f"not a shell command ({problem}).") from None

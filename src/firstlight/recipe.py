"""Reading recipes: YAML and `key=value` overrides become a checked `RunConfig`, or one sentence says what is wrong.

The text is read strictly: safe YAML, no key twice, no key that the schema does not know (the nearest known one is
named), every value of its field's type.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from firstlight.config import RunConfig
from firstlight.support.errors import ConfigError, did_you_mean
from firstlight.support.secrets import holds_password, without_secrets
from firstlight.support.strict_yaml import read_yaml


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    folder = resources.files("firstlight") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def recipe_text(name: str) -> str:
    """The commented YAML of a shipped recipe."""
    if name not in recipe_names():
        raise ConfigError(f"no recipe '{name}'.{did_you_mean(name, recipe_names())}")
    return (resources.files("firstlight") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")


def load_config(recipe: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a shipped recipe (by name) or a YAML file, apply `key=value` overrides, validate.

    Raises ConfigError: one sentence that names the file or the field.
    """
    tree, origin = read_recipe(recipe)
    apply_overrides(tree, overrides)
    return parse_config(tree, origin)


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> None:
    """Write `key=value` settings into a recipe's raw settings, in place.

    Where two settings exclude each other (a length in steps and in tokens), the override takes the other one's place.
    """
    written: set[tuple[str, ...]] = set()
    for override in overrides:
        written.add(_apply_override(tree, override, written))


def read_recipe(recipe: str | Path) -> tuple[dict[str, Any], str]:
    """The raw settings of a recipe and a name for error messages."""
    path = Path(recipe)
    if str(recipe) in recipe_names() and not path.is_file():
        return _parse_yaml(recipe_text(str(recipe)), f"recipe {recipe}"), f"recipe {recipe}"
    if path.is_dir():
        raise ConfigError(f"{path}: a folder, where a recipe file (YAML) is due.")
    if not path.exists():
        hint = "" if path.suffix in (".yaml", ".yml") else did_you_mean(str(recipe), recipe_names())
        raise ConfigError(f"{path}: no such recipe or file.{hint}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file; a recipe is YAML in UTF-8.") from None
    return _parse_yaml(text, str(path)), str(path)


def parse_config(tree: dict[str, Any], origin: str) -> RunConfig:
    """Validate raw settings; `origin` names them in errors."""
    try:
        config = RunConfig.model_validate(tree)
    except ConfigError as problem:
        raise ConfigError(f"{origin}: {problem}") from None
    except ValidationError as problem:
        raise ConfigError("\n".join(f"{origin}: {line}" for line in _explain(problem))) from None
    except UnicodeEncodeError as problem:
        half = problem.object[problem.start]
        held = (key for key, value in leaves(tree) if half in f"{key}{value}")
        key, shown = (text.encode("ascii", "backslashreplace").decode() for text in (next(held, "a setting"), half))
        raise ConfigError(f"{origin}: {key} holds {shown}, half of a pair of surrogates; take it out.") from None
    _refuse_passwords(config, origin)
    return config


def _refuse_passwords(config: RunConfig, origin: str) -> None:
    """ConfigError for an address with a password, which would be kept in config.yaml for everybody to read."""
    for key, value in leaves(config.model_dump(mode="json")):
        if holds_password(str(value)):
            raise ConfigError(
                f"{origin}: {key} holds a password in an address; put it where the store's package looks for it (as "
                "AWS_SECRET_ACCESS_KEY in the environment), and write the address without it."
            )


def dump_config(config: RunConfig) -> str:
    """The resolved configuration as YAML, without keys; `load_config` reads it back to an equal one."""
    return yaml.safe_dump(without_secrets(config.model_dump(mode="json")), sort_keys=False, allow_unicode=True)


def config_diff(before: RunConfig, after: RunConfig) -> list[tuple[str, Any, Any]]:
    """Settings that differ: (dotted key, value before, value after)."""
    old, new = dict(leaves(before.model_dump(mode="json"))), dict(leaves(after.model_dump(mode="json")))
    keys = list(new) + [key for key in old if key not in new]
    return [(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)]


def _parse_yaml(text: str, origin: str) -> dict[str, Any]:
    try:
        tree = read_yaml(text)
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = str(getattr(problem, "problem", None) or problem)
        if "'\\t'" in what:
            what = "a tab, where YAML allows only spaces"
        raise ConfigError(f"{origin}{where}: {what}.") from None
    if tree is None:
        raise ConfigError(f"{origin}: empty; a recipe needs at least `name:`. See `firstlight init`.")
    if not isinstance(tree, dict):
        raise ConfigError(f"{origin}: a recipe is a mapping of settings (key: value), not a {type(tree).__name__}.")
    return tree


_EXCLUSIVE = {
    one: other
    for pair in (
        ("total_steps", "total_tokens"),
        ("warmup_steps", "warmup_tokens"),
        ("decay_steps", "decay_tokens"),
        ("text", "tokens"),
    )
    for one, other in (pair, pair[::-1])
}


def _apply_override(tree: dict[str, Any], override: str, written: set[tuple[str, ...]]) -> tuple[str, ...]:
    key, equals, raw = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"'{override}': an override is written key=value, as in training.total_steps=100.")
    try:
        value = read_yaml(raw)
    except yaml.YAMLError:
        value = raw
    *parents, last = key.strip().split(".")
    node: Any = tree
    for depth, part in enumerate(parents):
        place = _place(node, part, override)
        if isinstance(node, dict) and node.get(place) is None:
            node[place] = {}
        if isinstance(node, list) and isinstance(node[place], str):
            node[place] = {"step": node[place]}  # a step without settings is written as its bare name
        node = node[place]
        if not isinstance(node, dict | list):
            raise ConfigError(f"'{override}': {'.'.join(parents[: depth + 1])} is a value, not a section.")
    node[_place(node, last, override)] = value
    other = _EXCLUSIVE.get(last)
    if isinstance(node, dict) and other in node and (*parents, other) not in written:
        del node[other]
    return (*parents, last)


def _place(node: Any, part: str, override: str) -> Any:
    """A key of a section as it is; of a list the number that `part` is."""
    if isinstance(node, dict):
        return part
    if part.isdecimal() and int(part) < len(node):
        return int(part)
    numbers = f"0 to {len(node) - 1}" if node else "none"
    raise ConfigError(f"'{override}': '{part}' is no entry of this list of {len(node)}; its entries are {numbers}.")


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting of a tree with its dotted key."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


_DUE = {
    "int_parsing": "a whole number is due",
    "int_type": "a whole number is due",
    "int_from_float": "a whole number is due",
    "float_parsing": "a number is due",
    "float_type": "a number is due",
    "bool_parsing": "true or false is due",
    "bool_type": "true or false is due",
    "string_type": "text is due",
    "list_type": "a list is due",
    "tuple_type": "a list is due",
    "too_short": "at least one entry is due",
    "dict_type": "a mapping (key: value) is due",
    "model_type": "a section (key: value) is due",
    "model_attributes_type": "a section (key: value) is due",
    "string_pattern_mismatch": "letters, digits, '.', '_' and '-' are due, the first a letter or digit",
}


def _explain(problem: ValidationError) -> list[str]:
    """One sentence an error, in the reader's words."""
    lines = []
    for error in problem.errors():
        location = error["loc"]
        key = ".".join(str(part) for part in location)
        kind, given = error["type"], error["input"]
        if kind == "extra_forbidden":
            lines.append(f"unknown key '{key}'.{_nearest_key(location)}")
        elif kind == "missing":
            lines.append(f"'{key}' is missing.")
        elif kind == "value_error":
            message = str(error["ctx"]["error"])
            end = "" if message.endswith((".", "?")) else "."
            lines.append(f"{key + ': ' if key else ''}{message}{end}")
        elif kind in _DUE:
            lines.append(f"{key}: {_DUE[kind]}, not {_shown(given)}.")
        else:
            message = error["msg"][0].lower() + error["msg"][1:]
            lines.append(f"{key}: {message}, not {_shown(given)}.")
    return lines


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _nearest_key(location: Sequence[Any]) -> str:
    """The known key nearest to an unknown one: in its own section first, then anywhere."""
    last = str(location[-1])
    section = _section_at(location[:-1])
    hint = did_you_mean(last, [field.alias or name for name, field in section.model_fields.items()] if section else [])
    elsewhere = {path.rsplit(".", 1)[-1]: path for path in _all_paths(RunConfig)}
    if "Did you mean" not in hint and last in elsewhere:
        return f" Did you mean '{elsewhere[last]}'?"
    return hint


def _section_at(location: Sequence[Any]) -> type[BaseModel] | None:
    """The section that a key such as ('data', 'sources', 'books') leads to."""
    annotation: Any = RunConfig
    for part in location:
        if _is_section(annotation):
            field = annotation.model_fields.get(str(part))
            annotation = field.annotation if field else None
        else:
            annotation = next((item for item in get_args(annotation) if _is_section(item)), None)
    return annotation if _is_section(annotation) else None


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _all_paths(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        if _is_section(field.annotation):
            yield from _all_paths(field.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            yield prefix + (field.alias or name)

"""A foreign configuration whose fields are taken one by one, so that what nobody took can be told at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Left:
    """A field that is not in the recipe."""

    field: str
    value: Any
    why: str

    def __str__(self) -> str:
        shown = repr(self.value)
        return f"{self.field} = {shown if len(shown) <= 60 else shown[:57] + '...'}: {self.why}."


class Source:
    """The fields of a configuration by dotted name."""

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self._fields = dict(_leaves(tree))
        self._taken: set[str] = set()
        self._left: list[Left] = []

    def take(self, name: str, default: Any = None) -> Any:
        """The value of a field, `default` where it is missing or null; the field is then accounted for."""
        self._taken.add(name)
        value = self._fields.get(name)
        return default if value is None else value

    def leave(self, name: str, why: str) -> None:
        """Account for a field that the recipe cannot hold, if it is there."""
        self._taken.add(name)
        if self._fields.get(name) is not None:
            self._left.append(Left(name, self._fields[name], why))

    def remark(self, name: str, value: Any, why: str) -> None:
        """Something that is carried, but not exactly."""
        self._left.append(Left(name, value, why))

    def rest(self, reasons: Mapping[str, str]) -> list[Left]:
        """All that was left: with its reason by name or beginning of a name, else that nobody knows it.

        Fields that switch nothing on (null, false, empty) are left out.
        """
        unknown = [name for name in self._fields if name not in self._taken]
        for name in unknown:
            value = self._fields[name]
            if value in (None, False, "", [], {}, "null"):
                continue
            why = next((why for key, why in reasons.items() if name == key or name.startswith(f"{key}.")), None)
            self._left.append(Left(name, value, why or "no setting of Firstlight is known for it"))
        return self._left


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def without_none(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section of a recipe without what is unset or empty."""
    return {key: value for key, value in section.items() if value not in (None, {})}


def plain_name(text: str, default: str) -> str:
    """A name that a run may have."""
    name = "".join(
        character if character.isascii() and (character.isalnum() or character in "._-") else "-" for character in text
    )
    return name.strip("-._") or default

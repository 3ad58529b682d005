"""The fields of a config.json, each taken once: what is left at the end was not understood, and may matter."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from firstlight.support.errors import ConfigError


class Fields:
    """The content of a config.json; `origin` names the file in errors."""

    def __init__(self, content: Mapping[str, Any], origin: str) -> None:
        self.origin = origin
        self._left = dict(content)

    def take(self, name: str, default: Any = None) -> Any:
        """The value of a field, `default` where it is missing; null is None."""
        return self._left.pop(name, default)

    def take_section(self, name: str) -> dict[str, Any]:
        """A field that holds fields, as a copy; empty where it is missing or null."""
        value = self.take(name)
        if value is not None and not isinstance(value, Mapping):
            raise self.refusal(name, value, "a section of fields is due")
        return dict(value or {})

    def take_number(self, name: str, default: float | None = None) -> Any:
        """A field that holds a number, `default` where it is missing; null is None."""
        value = self.take(name, default)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise self.refusal(name, value, "a number is due")
        return value

    def take_list(self, name: str) -> list[str]:
        """A field that holds a list of words; empty where it is missing or null."""
        value = self.take(name)
        if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise self.refusal(name, value, "a list of words is due")
        return value or []

    def refusal(self, name: str, value: Any, why: str) -> ConfigError:
        """The error that a field's value is not one that Firstlight can go on with."""
        shown = repr(value)
        return ConfigError(f"{self.origin}: {name} is {shown if len(shown) <= 60 else shown[:57] + '...'}; {why}.")

    def check_rest(self, harmless: Collection[str]) -> None:
        """ConfigError for the first field that is left, is not harmless, and says something.

        One that is null, false, zero or empty switches nothing on.
        """
        for name, value in self._left.items():
            if value and name not in harmless:
                raise self.refusal(
                    name,
                    value,
                    "Firstlight does not know this field, so its model might compute something else; take it out "
                    "if it changes nothing",
                )

"""Safe YAML, read strictly: no object is made but text, numbers, dates, lists and mappings; no key stands twice; a text
cannot unfold into more than it seems to hold. Numbers such as 3e-4 are numbers, as in YAML 1.2."""

from __future__ import annotations

import re
from typing import Any

import yaml

MOST_VALUES = 100_000
"""Values in a text, aliases written out: a few lines of aliases of aliases could fill any memory."""


def read_yaml(text: str) -> Any:
    """What a text in YAML says; YAMLError for whatever it cannot say, and for more values than a recipe ever has."""
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _values(node, {}) > MOST_VALUES:
            raise yaml.constructor.ConstructorError(None, None, f"more than {MOST_VALUES} values", node.start_mark)
        return loader.construct_document(node)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as problem:  # dates, !!int, depth
        deep = isinstance(problem, RecursionError)
        raise yaml.YAMLError("nested too deeply" if deep else f"a value that cannot be read ({problem})") from None
    finally:
        if loader is not None:
            loader.dispose()


def _values(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """Values below a node when every alias is written out; YAMLError for one that stands inside itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if node in known:
        if known[node] < 0:
            raise yaml.constructor.ConstructorError(None, None, "an alias stands inside itself", node.start_mark)
        return known[node]
    known[node] = -1
    children = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
    known[node] = 1 + sum(_values(child, known) for child in children)
    return known[node]


class _Loader(yaml.SafeLoader):
    """Refuses a key given twice, and knows 3e-4."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (list, dict)):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)

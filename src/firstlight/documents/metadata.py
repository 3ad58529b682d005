"""What is known of a document beside its text: one flat mapping, small enough for every later step to carry."""

from __future__ import annotations

from typing import Any

from firstlight.documents.document import Document

MAX_DEPTH = 100
"""Objects and arrays within each other in the line that a document is written as; not every step can go deeper."""
MAX_VALUES = 2_000_000
"""Values inside the objects and arrays of one document: each takes far more memory than its characters."""
TOO_DEEP = "nested too deeply"
TOO_MANY = f"more than {MAX_VALUES:,} values"
_VALUE_WEIGHT = 16
_HOLDERS = (dict, list)


def flat_metadata(fields: dict[str, Any]) -> dict[str, Any]:
    """One flat mapping of the fields beside the text and of those inside "metadata".

    A name in both with different values keeps both: the outer one becomes `outer.NAME`.
    """
    inner = fields.get("metadata")
    if not isinstance(inner, dict):
        return fields
    del fields["metadata"]
    metadata = dict(inner)
    for name, value in fields.items():
        same = name not in inner or inner[name] == value
        metadata[name if same else f"outer.{name}"] = value
    return metadata


def is_too_deep(metadata: dict[str, Any]) -> bool:
    """Whether the document's line, an object with its metadata in an object, would be deeper than MAX_DEPTH."""
    layer = [value for value in metadata.values() if isinstance(value, _HOLDERS)]
    for _ in range(MAX_DEPTH - 2):
        if not layer:
            return False
        items = (item for holder in layer for item in (holder.values() if isinstance(holder, dict) else holder))
        layer = [item for item in items if isinstance(item, _HOLDERS)]
    return bool(layer)


def document_weight(document: Document) -> int:
    """Roughly the characters of text and metadata, to bound what is held together: metadata may outweigh the text."""
    return len(document.text) + sum(map(_weight, document.metadata.values()))


def _weight(value: Any) -> int:
    if isinstance(value, dict):
        return _VALUE_WEIGHT + sum(len(name) + _weight(item) for name, item in value.items())
    if isinstance(value, list):
        return _VALUE_WEIGHT + sum(map(_weight, value))
    return _VALUE_WEIGHT + (len(value) if isinstance(value, str) else 0)

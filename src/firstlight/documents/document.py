"""A document, a line that is not one, a place that rightly holds none, and a document's JSON line on disk.

One JSON object a line, `{"text": …, "metadata": {…}}`: the shape that every step of the pipeline reads and writes.
Metadata that no step knows survives all of them.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Document:
    """A text with what is known about it.

    `text` is always valid Unicode (it can be written as UTF-8). `repaired` says that some of it could not be read
    and now is U+FFFD; it describes the reading, so it is neither compared nor written.
    """

    text: str
    metadata: dict[str, Any]
    repaired: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class BadLine:
    """A place that holds no readable document: file, line (from 1; row of a table; 1 for a whole file) and reason."""

    path: str
    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A place that rightly holds no document: an empty file, an image or a redirect among web pages.

    Nothing was lost there, so that it is counted by reason, apart from bad lines. Place as in `BadLine`.
    """

    path: str
    line: int
    reason: str


Item = Document | BadLine | Skipped
"""What a reader yields."""


def json_line(text: str, metadata: Mapping[str, Any]) -> bytes:
    """The document as one line of strict JSON in UTF-8, newline included.

    What JSON lacks is written as the nearest thing it has: NaN and infinities as null, bytes as base64, dates in
    ISO 8601.
    """
    return (encode_json({"text": text, "metadata": metadata}) + "\n").encode("utf-8")


def encode_json(value: Any) -> str:
    """`value` as strict JSON on one line; text that is no valid Unicode is written in escapes and survives."""
    try:
        encoded = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        value = plain(value)
        encoded = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        encoded.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, ensure_ascii=True, allow_nan=False)
    return encoded


_AS_IT_IS, _OBJECTS, _ARRAYS = (str, int, type(None)), (dict, Mapping), (list, tuple, set)


def plain(value: Any) -> Any:
    """`value` in the types that JSON has (see `json_line`)."""
    if isinstance(value, _AS_IT_IS):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, _OBJECTS):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, _ARRAYS):
        return [plain(item) for item in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)

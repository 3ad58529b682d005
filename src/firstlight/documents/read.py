"""One door to every kind of input: the kind is told by the name, the reader is chosen, documents come out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Literal

from firstlight.documents.document import Item
from firstlight.documents.json_lines import read_json_lines
from firstlight.documents.plain_text import read_plain_text
from firstlight.documents.starter import read_starter
from firstlight.documents.tables import read_arrow, read_hub, read_parquet
from firstlight.documents.warc import read_warc

Kind = Literal["json lines", "parquet", "arrow", "warc", "hub", "starter", "text"]

_JSON = (".jsonl", ".json", ".ndjson")
_WARC = (".warc", ".wet")
_COMPRESSED = (".gz", ".zst", ".zstd", ".bz2", ".xz")


def input_kind(path: str) -> Kind:
    """What a concrete input is, from its name alone. Whatever is not known otherwise is plain text."""
    if path.startswith("starter:"):
        return "starter"
    if path.startswith("hf:") and not path.startswith("hf://"):
        return "hub"
    if path.startswith(("http://", "https://")):
        path = re.split("[?#]", path)[0]
    suffixes = [suffix.lower() for suffix in PurePath(path).suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    if last in _JSON:
        return "json lines"
    if last in _WARC:
        return "warc"
    if last == ".parquet":
        return "parquet"
    return "arrow" if last == ".arrow" else "text"


def read_documents(
    path: str,
    *,
    text_field: str = "text",
    invalid_utf8: Literal["repair", "reject"] = "repair",
    consumed: Callable[[int], None] | None = None,
) -> Iterator[Item]:
    """Stream the documents of one concrete input (see `expand_inputs`), in order; memory stays bounded.

    `text_field` names the field or column of the text. With `invalid_utf8` "repair", what is not valid Unicode
    becomes U+FFFD and the document says `repaired`; with "reject" it becomes a BadLine. `consumed(n)` is called as
    n more bytes are taken from the disk or the network, for progress. Blank lines between JSON lines are no documents.
    What rightly holds no document, an empty file or an image among web pages, is Skipped.

    Raises DataError when the input is missing or unreadable as a whole, or its table lacks the text column.
    """
    path = str(path)
    match input_kind(path):
        case "starter":
            return read_starter(path, consumed)
        case "hub":
            return read_hub(path, text_field, invalid_utf8)
        case "parquet":
            return read_parquet(path, text_field, invalid_utf8, consumed)
        case "arrow":
            return read_arrow(path, text_field, invalid_utf8, consumed)
        case "warc":
            return read_warc(path, invalid_utf8, consumed)
        case "text":
            return read_plain_text(path, invalid_utf8, consumed)
        case _:
            return read_json_lines(path, text_field, invalid_utf8, consumed)

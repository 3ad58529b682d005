"""Documents out of JSON lines, plain or compressed (https://jsonlines.org).

Fields other than the text become metadata. Every way in which a line can fail has its own reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from firstlight.documents.document import BadLine, Document
from firstlight.documents.streams import (
    MAX_LINE_BYTES,
    SNIFFED_BYTES,
    DamagedLine,
    DamagedStream,
    lines,
    open_bytes,
    what_is_wrong,
)
from firstlight.support.console import human_bytes


def read_json_lines(
    path: str, text_field: str, invalid_utf8: str, consumed: Callable[[int], None] | None
) -> Iterator[Document | BadLine]:
    """Every non-blank line of `path` as a Document or a BadLine, in order."""
    with open_bytes(path, consumed) as handle:
        try:
            head = handle.peek(SNIFFED_BYTES)
        except DamagedStream as problem:
            yield BadLine(path, 1, str(problem))
            return
        wrong = None if head.lstrip().startswith(b"{") else what_is_wrong(head)
        if wrong:
            yield BadLine(path, 1, wrong)
            return
        try:
            for number, line in lines(handle):
                result = too_long("line") if line is None else parse_line(line, text_field, invalid_utf8)
                yield BadLine(path, number, result) if isinstance(result, str) else result
        except DamagedLine as problem:
            yield BadLine(path, problem.line, problem.reason)


def too_long(what: str) -> str:
    """The reason for a line or file over the limit."""
    return f"{what} longer than {human_bytes(MAX_LINE_BYTES)}"


def parse_line(line: bytes, text_field: str, invalid_utf8: str) -> Document | str:
    """One JSON object as a Document, or the reason why it is none."""
    decoded = decode(line, invalid_utf8)
    if isinstance(decoded, str):
        return decoded
    content, repaired = decoded
    try:
        value = json.loads(content)
    except RecursionError:
        return "not JSON: nested too deeply"
    except ValueError as problem:
        if content.strip() in ("[", "{", "[{"):
            return (
                "JSON over several lines; one object a line is due (`jq -c` converts an object, `jq -c '.[]'` an array)"
            )
        return f"not JSON: {_first_words(problem, content)}"
    if not isinstance(value, dict):
        hint = " (`jq -c '.[]'` converts)" if isinstance(value, list) else ""
        return f"not a JSON object but {_kind(value)}{hint}"
    if text_field not in value:
        return _no_field(text_field, value)
    text = value.pop(text_field)
    if not isinstance(text, str):
        return f"field '{text_field}' is {_kind(text)}, not text"
    valid = valid_text(text, invalid_utf8)
    if valid is None:
        return "lone surrogate in the text"
    return Document(valid, flat_metadata(value), repaired or valid is not text)


def decode(data: bytes, invalid_utf8: str) -> tuple[str, bool] | str:
    """(text, repaired) of bytes that should be UTF-8, or the reason why they are no text.

    Text of which more than a quarter would be U+FFFD is in another encoding and never repaired.
    """
    try:
        return data.decode("utf-8"), False
    except UnicodeDecodeError:
        if invalid_utf8 == "reject":
            return "invalid UTF-8"
    text = data.decode("utf-8", "replace")
    replaced = text.count("\ufffd")
    if replaced > max(16, len(text) / 4):
        return "mostly invalid UTF-8 (another encoding?)"
    return text, True


def valid_text(text: str, invalid_utf8: str) -> str | None:
    """`text` itself when it is valid Unicode; else with U+FFFD for each lone surrogate, or None ("reject")."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        if invalid_utf8 == "reject":
            return None
        return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
    return text


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


def _no_field(text_field: str, value: dict[str, Any]) -> str:
    names = ", ".join(f"'{name[:30]}'" for name in list(value)[:6])
    return f"no field '{text_field}' among {names}" if names else f"no field '{text_field}' in an empty object"


def _kind(value: Any) -> str:
    kinds = {bool: "a truth value", str: "text", list: "an array", dict: "an object", type(None): "null"}
    return kinds.get(type(value), "a number")


def _first_words(problem: ValueError, content: str) -> str:
    if isinstance(problem, json.JSONDecodeError):
        position = min(problem.pos, len(content.rstrip())) + 1
        return f"{problem.msg[0].lower()}{problem.msg[1:].removesuffix(' at')} at character {position}"
    return str(problem).split(";")[0]

"""Documents out of JSON lines, plain or compressed (https://jsonlines.org).

Fields other than the text become metadata. Every way in which a line can fail has its own reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from firstlight.documents.compression import DamagedStream
from firstlight.documents.document import BadLine, Document, Item, Skipped
from firstlight.documents.metadata import MAX_VALUES, TOO_DEEP, TOO_MANY, flat_metadata, is_too_deep
from firstlight.documents.streams import (
    BINARY,
    SNIFFED_BYTES,
    DamagedLine,
    lines,
    open_bytes,
    too_long,
    what_is_wrong,
)

_UNSUSPECTED_BYTES = 8 * MAX_VALUES
"""A shorter line is parsed without its values being counted first."""
_SIGNS = (b",", b"[", b"{")
_OUTSIDE_OR_STRING = re.compile(rb'([^"]++)|"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_BEGINS_OBJECT = re.compile(rb'^\s*\{\s*"[^"\x00-\x1f]{0,200}"\s*:', re.MULTILINE)


def read_json_lines(
    path: str, text_field: str, invalid_utf8: str, consumed: Callable[[int], None] | None
) -> Iterator[Item]:
    """Every non-blank line of `path` as a Document or a BadLine, in order."""
    with open_bytes(path, consumed) as handle:
        try:
            head = handle.peek(SNIFFED_BYTES)
        except DamagedStream as problem:
            yield BadLine(path, 1, str(problem))
            return
        if not head:
            yield Skipped(path, 1, "empty file")
            return
        wrong = None if _BEGINS_OBJECT.match(head) else what_is_wrong(head)
        if wrong and not (wrong == BINARY and _BEGINS_OBJECT.search(head)):
            yield BadLine(path, 1, wrong)
            return
        number = 0
        try:
            for number, line in lines(handle):
                result = too_long("line") if line is None else parse_line(line, text_field, invalid_utf8)
                yield BadLine(path, number, result) if isinstance(result, str) else result
        except DamagedLine as problem:
            yield BadLine(path, problem.line, problem.reason)
            return
        if not number:
            yield Skipped(path, 1, "only blank lines")


def parse_line(line: bytes, text_field: str, invalid_utf8: str) -> Document | str:
    """One JSON object as a Document, or the reason why it is none."""
    if len(line) > _UNSUSPECTED_BYTES and _has_too_many_values(line):
        return TOO_MANY
    decoded = decode(line, invalid_utf8)
    if isinstance(decoded, str):
        return decoded
    content, repaired = decoded
    try:
        value = json.loads(content)
    except RecursionError:
        return TOO_DEEP
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
    if content.count(f'"{text_field}"') > 1 and _is_twice(text_field, content):
        return f"field '{text_field}' twice"
    metadata = flat_metadata(value)
    if is_too_deep(metadata):
        return TOO_DEEP
    # Only an escape can be a lone surrogate: the bytes were valid UTF-8.
    valid = valid_text(text, invalid_utf8) if "\\u" in content else text
    if valid is None:
        return "lone surrogate in the text"
    return Document(valid, metadata, repaired or valid is not text)


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


def _has_too_many_values(line: bytes) -> bool:
    """Whether commas and brackets outside the strings of a line say that it holds more than MAX_VALUES."""
    count = 0
    if sum(map(line.count, _SIGNS)) > MAX_VALUES:
        for piece in _OUTSIDE_OR_STRING.finditer(line):
            count += sum(map(piece[1].count, _SIGNS)) if piece[1] else 0
            if count > MAX_VALUES:
                return True
    return False


def _is_twice(field: str, content: str) -> bool:
    """Whether the outermost object names `field` more than once; Python would take the last and say nothing."""
    names: list[str] = []

    def note_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names[:] = [name for name, _ in pairs]  # the outermost object comes last
        return {}

    json.loads(content, object_pairs_hook=note_names)
    return names.count(field) > 1


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

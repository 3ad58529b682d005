"""A plain-text file as one document; the file's path is its metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from firstlight.documents.compression import DamagedStream
from firstlight.documents.document import BadLine, Document, Item, Skipped
from firstlight.documents.json_lines import decode
from firstlight.documents.streams import MAX_LINE_BYTES, SNIFFED_BYTES, open_bytes, too_long, what_is_wrong


def read_plain_text(path: str, invalid_utf8: str, consumed: Callable[[int], None] | None) -> Iterator[Item]:
    """The file as one Document (line ends as "\\n", byte-order mark stripped), or one BadLine; Skipped when empty."""
    with open_bytes(path, consumed) as handle:
        try:
            data = handle.read(MAX_LINE_BYTES + 1)
        except DamagedStream as problem:
            yield BadLine(path, 1, str(problem))
            return
    if not data:
        yield Skipped(path, 1, "empty file")
        return
    wrong = too_long("file") if len(data) > MAX_LINE_BYTES else what_is_wrong(data[:SNIFFED_BYTES])
    if wrong:
        yield BadLine(path, 1, wrong)
        return
    decoded = decode(data.removeprefix(b"\xef\xbb\xbf"), invalid_utf8)
    if isinstance(decoded, str):
        yield BadLine(path, 1, decoded)
        return
    text, repaired = decoded
    yield Document(text.replace("\r\n", "\n"), {"path": path}, repaired)

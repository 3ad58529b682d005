"""The documents of one source as compressed JSON lines in shards of bounded size."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import zstandard

from firstlight.documents import Document, json_line

COMPRESSION_LEVEL = 3


class ShardWriter:
    """Writes `folder/documents-00000.jsonl.zst`, `…-00001…`: a new file after every `shard_bytes` of JSON."""

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self._folder, self._shard_bytes = folder, shard_bytes
        self._stream: Any = None
        self._written = 0
        self.files: list[str] = []

    def write(self, document: Document) -> None:
        """Append one document."""
        line = json_line(document.text, document.metadata)
        if self._stream is None or self._written + len(line) > self._shard_bytes:
            self._next()
        self._stream.write(line)
        self._written += len(line)

    def _next(self) -> None:
        self.close()
        name = f"documents-{len(self.files):05d}.jsonl.zst"
        self._folder.mkdir(parents=True, exist_ok=True)
        compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_checksum=True, threads=1)
        self._stream = compressor.stream_writer((self._folder / name).open("wb"))
        self._written = 0
        self.files.append(name)

    def close(self) -> None:
        """Finish the file that is open."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

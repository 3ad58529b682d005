"""Documents between two phases: an Arrow file with id, text and metadata, one record batch a block."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.corpus.step import Block
from firstlight.documents import encode_json


class IntermediateWriter:
    """Writes blocks with the ids of their documents to `path`."""

    def __init__(self, path: Path) -> None:
        import pyarrow

        self._schema = pyarrow.schema(
            [("id", pyarrow.int64()), ("text", pyarrow.large_string()), ("metadata", pyarrow.large_string())]
        )
        options = pyarrow.ipc.IpcWriteOptions(compression=pyarrow.Codec("zstd", compression_level=1))
        self._file = path.open("wb")
        self._writer = pyarrow.ipc.new_file(self._file, self._schema, options=options)

    def write(self, block: Block, ids: NDArray[np.int64]) -> None:
        """Append a block."""
        import pyarrow

        metadata = [encode_json(about) for about in block.metadata]
        self._writer.write_batch(
            pyarrow.record_batch(
                [
                    pyarrow.array(ids, pyarrow.int64()),
                    pyarrow.array(block.texts, pyarrow.large_string()),
                    pyarrow.array(metadata, pyarrow.large_string()),
                ],
                schema=self._schema,
            )
        )

    def __enter__(self) -> IntermediateWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        self._file.close()


def read_intermediate(path: Path, source: str) -> Iterator[tuple[Block, NDArray[np.int64], int]]:
    """(block, ids, bytes of text) of every block in a file, in order."""
    import pyarrow

    with pyarrow.OSFile(str(path), "rb") as file:
        reader = pyarrow.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            metadata: list[dict[str, Any]] = [json.loads(about) for about in batch.column("metadata").to_pylist()]
            block = Block(batch.column("text").to_pylist(), metadata, source)
            yield block, batch.column("id").to_numpy(), batch.column("text").nbytes

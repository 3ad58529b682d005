"""Documents out of Parquet and Arrow files, and Hugging Face datasets, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from firstlight.documents.document import BadLine, Document, plain
from firstlight.documents.json_lines import decode, flat_metadata, valid_text
from firstlight.support.errors import DataError

ROWS_PER_BATCH = 256
TEXT_FIELD_ADVICE = "Name the one that holds the text: corpus.text_field in a recipe, --text-field of a command."


def read_parquet(
    path: str, text_field: str, invalid_utf8: str, consumed: Callable[[int], None] | None
) -> Iterator[Document | BadLine]:
    """Every row of a Parquet file, row group by row group. Raises DataError when there is no such text column."""
    _require_pyarrow(path)
    import pyarrow.parquet

    def batches() -> Iterator[Any]:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_column(path, file.schema_arrow, text_field)
            for group in range(file.num_row_groups):
                yield from file.iter_batches(ROWS_PER_BATCH, row_groups=[group], use_threads=False)
                if consumed:
                    metadata = file.metadata.row_group(group)
                    consumed(sum(metadata.column(n).total_compressed_size for n in range(metadata.num_columns)))

    yield from _rows(path, batches(), text_field, invalid_utf8)


def read_arrow(
    path: str, text_field: str, invalid_utf8: str, consumed: Callable[[int], None] | None
) -> Iterator[Document | BadLine]:
    """Every row of an Arrow file or stream, as `datasets` saves them. DataError when there is no such text column."""
    _require_pyarrow(path)
    import pyarrow

    def batches() -> Iterator[Any]:
        with pyarrow.memory_map(path) as source:
            is_file = source.read(6) == b"ARROW1"
            source.seek(0)
            if is_file:
                reader = pyarrow.ipc.open_file(source)
                read: Iterable[Any] = (reader.get_batch(n) for n in range(reader.num_record_batches))
            else:
                reader = read = pyarrow.ipc.open_stream(source)
            _check_column(path, reader.schema, text_field)
            for batch in read:
                for start in range(0, batch.num_rows, ROWS_PER_BATCH):
                    yield batch.slice(start, ROWS_PER_BATCH)
                if consumed:
                    consumed(batch.nbytes)

    yield from _rows(path, batches(), text_field, invalid_utf8)


def read_hub(name: str, text_field: str, invalid_utf8: str) -> Iterator[Document | BadLine]:
    """Every row of `hf:NAME[:config][:split]`, streamed; the split is `train` unless named."""
    try:
        import datasets
    except ImportError:
        raise DataError(f"{name}: needs the `datasets` package; pip install 'firstlight[huggingface]'.") from None
    dataset, config, split = [*name.removeprefix("hf:").split(":"), "", ""][:3]
    try:
        rows = datasets.load_dataset(dataset, config or None, split=split or "train", streaming=True)
        for number, row in enumerate(rows, 1):
            if text_field not in row:
                raise DataError(_no_column(name, text_field, row))
            yield _document(name, number, row.pop(text_field), row, text_field, invalid_utf8)
    except DataError:
        raise
    except Exception as problem:
        reason = " ".join(str(problem).split())[:200] or type(problem).__name__
        raise DataError(f"{name}: the Hugging Face dataset cannot be read ({reason}).") from None


def _require_pyarrow(path: str) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise DataError(f"{path}: needs the `pyarrow` package; pip install 'firstlight[corpus]'.") from None
    if not Path(path).exists():
        raise DataError(f"{path}: no such file.")


def _rows(path: str, batches: Iterator[Any], text_field: str, invalid_utf8: str) -> Iterator[Document | BadLine]:
    import pyarrow

    row = 0
    try:
        for batch in batches:
            texts = batch.column(text_field)
            if pyarrow.types.is_dictionary(texts.type):
                texts = texts.dictionary_decode()
            texts = texts.cast(pyarrow.large_binary()).to_pylist()
            others = [name for name in batch.schema.names if name != text_field]
            columns = [_values(batch.column(name)) for name in others]
            for text, *values in zip(texts, *columns, strict=True):
                row += 1
                yield _document(path, row, text, dict(zip(others, values, strict=True)), text_field, invalid_utf8)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, ValueError) as problem:
        yield BadLine(path, row + 1, f"cannot be read ({' '.join(str(problem).split())[:160]})")


def _values(column: Any) -> list[Any]:
    import pyarrow

    if pyarrow.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pyarrow.string())
    return [plain(value) for value in column.to_pylist()]


def _document(
    path: str, row: int, text: Any, fields: dict[str, Any], text_field: str, invalid_utf8: str
) -> Document | BadLine:
    repaired = False
    if isinstance(text, bytes):
        decoded = decode(text, invalid_utf8)
        if isinstance(decoded, str):
            return BadLine(path, row, decoded)
        text, repaired = decoded
    if not isinstance(text, str):
        return BadLine(
            path, row, f"field '{text_field}' is {'null' if text is None else type(text).__name__}, not text"
        )
    valid = valid_text(text, invalid_utf8)
    if valid is None:
        return BadLine(path, row, "lone surrogate in the text")
    return Document(valid, flat_metadata(plain(fields)), repaired or valid is not text)


def _check_column(path: str, schema: Any, text_field: str) -> None:
    import pyarrow

    if text_field not in schema.names:
        raise DataError(_no_column(path, text_field, schema.names))
    kind = schema.field(text_field).type
    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    checks = ("is_string", "is_large_string", "is_string_view", "is_binary", "is_large_binary")
    if not any(getattr(pyarrow.types, check)(kind) for check in checks):
        raise DataError(f"{path}: column '{text_field}' holds {kind}, not text. {TEXT_FIELD_ADVICE}")


def _no_column(path: str, text_field: str, names: Iterable[str]) -> str:
    known = ", ".join(f"'{name}'" for name in list(names)[:8])
    return f"{path}: no column '{text_field}'; it has {known}. {TEXT_FIELD_ADVICE}"

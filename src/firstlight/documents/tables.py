"""Documents out of Parquet and Arrow files, and Hugging Face datasets, a batch of rows at a time."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from firstlight.documents.arrow_values import PART_BYTES, Unreadable, cannot_be_read, limited_memory, parts, values
from firstlight.documents.document import BadLine, Document, Item, Skipped, plain
from firstlight.documents.json_lines import decode, valid_text
from firstlight.documents.metadata import TOO_DEEP, flat_metadata, is_too_deep
from firstlight.documents.remote import is_remote, open_remote
from firstlight.support.errors import DataError

ROWS_PER_BATCH = 256
_FAILURES = (OSError, ValueError, LookupError, TypeError, OverflowError, RuntimeError, MemoryError)
"""What pyarrow raises on damage: each of its exceptions for it is also one of these."""
TEXT_FIELD_ADVICE = "Name the one that holds the text: corpus.text_field in a recipe, --text-field of a command."


class NoTextColumn(DataError):
    """A table does not have the column of that name, or it holds something else than text."""


def read_parquet(
    path: str, text_field: str, invalid_utf8: str, consumed: Callable[[int], None] | None
) -> Iterator[Item]:
    """Every row of a Parquet file, row group by row group. Raises DataError when there is no such text column.

    A row group that is damaged is one BadLine which names its rows; the next one is read.
    """
    with _random_access(path) as source:
        import pyarrow.parquet

        if not source.size():
            yield Skipped(path, 1, "empty file")
            return
        try:
            file = pyarrow.parquet.ParquetFile(source, buffer_size=1 << 20, page_checksum_verification=True)
            _check_column(path, file.schema_arrow, text_field)
        except _FAILURES as problem:
            yield BadLine(path, 1, cannot_be_read(problem))
            return
        if not file.metadata.num_rows:
            yield Skipped(path, 1, "no rows")
        before = 0
        for number in range(file.num_row_groups):
            rows = file.metadata.row_group(number).num_rows
            yield from _group(path, before, rows, _batches(file, number), text_field, invalid_utf8)
            before += rows
            if consumed:  # not the sizes that the file states: pyarrow ends the process where those are damaged
                consumed(_share(source.size(), number, file.num_row_groups))
        if before < file.metadata.num_rows:
            yield BadLine(path, before + 1, f"rows {before + 1} to {file.metadata.num_rows} are missing")


def _share(size: int, number: int, parts: int) -> int:
    """Bytes of part `number` of so many equal ones; all of them together are `size`."""
    return size * (number + 1) // parts - size * number // parts


def _batches(file: Any, number: int) -> Iterator[Any]:
    """The rows of a row group, a usual batch of which takes no more than PART_BYTES."""
    group = file.metadata.row_group(number)
    rows = PART_BYTES * group.num_rows // max(1, group.total_byte_size)
    yield from file.iter_batches(max(1, min(ROWS_PER_BATCH, rows)), row_groups=[number], use_threads=False)


def read_arrow(path: str, text_field: str, invalid_utf8: str, consumed: Callable[[int], None] | None) -> Iterator[Item]:
    """Every row of an Arrow file or stream, as `datasets` saves them. DataError when there is no such text column.

    A damaged batch of rows is one BadLine; the next one is read, where the format lets it be found.
    """
    with _random_access(path) as source:
        import pyarrow

        before = done = 0
        is_damaged = False
        if not source.size():
            yield Skipped(path, 1, "empty file")
            return
        try:
            is_file = source.read(6) == b"ARROW1"
            source.seek(0)
            reader = pyarrow.ipc.open_file(source) if is_file else pyarrow.ipc.open_stream(source)
            _check_column(path, reader.schema, text_field)
            last = reader.num_record_batches if is_file else None
        except _FAILURES as problem:
            yield BadLine(path, 1, cannot_be_read(problem))
            return
        for number in itertools.count():
            if number == last:
                break
            try:
                with limited_memory():
                    batch = reader.get_batch(number) if is_file else reader.read_next_batch()
                _check_offsets(batch)
            except StopIteration:
                break
            except _FAILURES as problem:
                yield BadLine(path, before + 1, cannot_be_read(problem))
                if is_file:
                    is_damaged = True
                    continue
                return
            slices = (batch.slice(start, ROWS_PER_BATCH) for start in range(0, batch.num_rows, ROWS_PER_BATCH))
            yield from _group(path, before, batch.num_rows, slices, text_field, invalid_utf8)
            before += batch.num_rows
            if consumed:
                consumed(_share(source.size(), number, last) if last else source.tell() - done)
                done = source.tell()
        if not before and not is_damaged:
            yield Skipped(path, 1, "no rows")


def read_hub(name: str, text_field: str, invalid_utf8: str) -> Iterator[Item]:
    """Every row of `hf:NAME[:config][:split]`, streamed; the split is `train` unless named."""
    try:
        import datasets
    except ImportError:
        raise DataError(f"{name}: needs the `datasets` package; pip install 'firstlight[huggingface]'.") from None
    dataset, config, split = [*name.removeprefix("hf:").split(":"), "", ""][:3]
    try:
        rows = datasets.load_dataset(dataset, config or None, split=split or "train", streaming=True)
        number = 0
        for number, row in enumerate(rows, 1):
            if text_field not in row:
                raise DataError(_no_column(name, text_field, row))
            yield _document(name, number, row.pop(text_field), row, text_field, invalid_utf8)
        if not number:
            yield Skipped(name, 1, "no rows")
    except DataError:
        raise
    except Exception as problem:
        reason = " ".join(str(problem).split())[:200] or type(problem).__name__
        raise DataError(f"{name}: the Hugging Face dataset cannot be read ({reason}).") from None


@contextlib.contextmanager
def _random_access(path: str) -> Iterator[Any]:
    """A file as Arrow reads it: mapped into memory, or by ranges where it is remote."""
    try:
        import pyarrow
    except ImportError:
        raise DataError(f"{path}: needs the `pyarrow` package; pip install 'firstlight[corpus]'.") from None
    if is_remote(path):
        with io.BufferedReader(open_remote(path), 1 << 20) as handle:
            yield pyarrow.PythonFile(handle, "r")
        return
    if not Path(path).exists():
        raise DataError(f"{path}: no such file.")
    if not Path(path).is_file():
        raise DataError(f"{path}: not a regular file.")
    try:
        source = pyarrow.memory_map(path)
    except OSError as problem:
        raise DataError(f"{path}: cannot be read ({problem.strerror or problem}).") from None
    with source:
        yield source


def _group(
    path: str, before: int, rows: int, batches: Iterable[Any], text_field: str, invalid_utf8: str
) -> Iterator[Item]:
    """The next `rows` rows after `before`; where the rest of them cannot be read, one BadLine."""
    done = 0
    try:
        for batch in _carefully(batches):
            for item in _rows(path, before + done, batch, text_field, invalid_utf8):
                done += 1
                yield item
    except _FAILURES as problem:
        lost = f"rows {before + done + 1} to {before + rows}" if rows > done + 1 else "the row"
        yield BadLine(path, before + done + 1, f"{lost} {cannot_be_read(problem)}")
    else:
        if done < rows:
            yield BadLine(path, before + done + 1, f"rows {before + done + 1} to {before + rows} are missing")


def _carefully(batches: Iterable[Any]) -> Iterator[Any]:
    waiting = iter(batches)
    while True:
        with limited_memory():
            batch = next(waiting, None)
        if batch is None:
            return
        yield batch


def _rows(path: str, before: int, batch: Any, text_field: str, invalid_utf8: str) -> Iterator[Item]:
    for part, too_heavy in parts(batch):
        if too_heavy:
            yield BadLine(path, before + 1, too_heavy)
        else:
            yield from _unpacked(path, before, part, text_field, invalid_utf8)
        before += part.num_rows


def _unpacked(path: str, before: int, batch: Any, text_field: str, invalid_utf8: str) -> Iterator[Item]:
    import pyarrow

    texts = batch.column(text_field)
    if pyarrow.types.is_dictionary(texts.type):
        texts = texts.dictionary_decode()
    texts = texts.cast(pyarrow.large_binary()).to_pylist()
    others = [name for name in dict.fromkeys(batch.schema.names) if name != text_field]
    columns = [values(batch.column(batch.schema.names.index(name))) for name in others]
    for row, (text, *fields) in enumerate(zip(texts, *columns, strict=True), before + 1):
        yield _document(path, row, text, dict(zip(others, fields, strict=True)), text_field, invalid_utf8)


def _check_offsets(batch: Any) -> None:
    """Raise ArrowInvalid for a batch whose columns point outside their buffers: reading it could crash."""
    import pyarrow

    for column in batch.columns:
        try:
            column.validate(full=True)
        except pyarrow.ArrowInvalid as problem:
            if "UTF8" not in str(problem):
                raise


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
    for name, value in fields.items():
        if isinstance(value, Unreadable):
            if value.instead is None or invalid_utf8 == "reject":
                return BadLine(path, row, f"field '{name[:30]}' {value.reason}")
            fields[name], repaired = value.instead, True
    metadata = flat_metadata(plain(fields))
    if is_too_deep(metadata):
        return BadLine(path, row, TOO_DEEP)
    return Document(valid, metadata, repaired or valid is not text)


def _check_column(path: str, schema: Any, text_field: str) -> None:
    import pyarrow

    if text_field not in schema.names:
        raise NoTextColumn(_no_column(path, text_field, schema.names))
    if (count := schema.names.count(text_field)) > 1:
        raise DataError(f"{path}: {count} columns are called '{text_field}'. {TEXT_FIELD_ADVICE}")
    kind = schema.field(text_field).type
    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    checks = ("is_string", "is_large_string", "is_string_view", "is_binary", "is_large_binary")
    if not any(getattr(pyarrow.types, check)(kind) for check in checks):
        raise NoTextColumn(f"{path}: column '{text_field}' holds {kind}, not text. {TEXT_FIELD_ADVICE}")


def _no_column(path: str, text_field: str, names: Iterable[str]) -> str:
    known = ", ".join(f"'{name}'" for name in list(names)[:8])
    return f"{path}: no column '{text_field}'; it has {known}. {TEXT_FIELD_ADVICE}"

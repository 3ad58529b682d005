"""Rows and values of Arrow tables in Python, without more memory than they are worth.

A table of a few kilobytes can stand for terabytes: a dictionary names one long text a million times, a run of zeros is
a list of a billion numbers. So rows are weighed before they are unpacked, and taken in parts that are not too heavy.
"""

from __future__ import annotations

import contextlib
import re
import resource
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstlight.documents import streams
from firstlight.documents.document import plain
from firstlight.documents.metadata import MAX_VALUES, TOO_MANY
from firstlight.documents.streams import too_long

PART_BYTES = 32_000_000
"""Rows are unpacked together while their values take no more than this."""
MEMORY_BYTES = 2 << 30
"""Reading a batch of rows may take no more than this."""
_LIMITED = threading.Lock()


@dataclass(frozen=True)
class Unreadable:
    """A value of a table that Python cannot hold; `instead` is what is left of a text that is not valid UTF-8."""

    reason: str
    instead: str | None = None


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """Make reading raise MemoryError where it would take the process more than MEMORY_BYTES above what it has."""
    if sys.platform != "linux":  # others have no such limit, or do not heed it
        yield
        return
    with _LIMITED:
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits = [pages * resource.getpagesize() + MEMORY_BYTES, soft, hard]
        resource.setrlimit(resource.RLIMIT_AS, (min(n for n in limits if n != resource.RLIM_INFINITY), hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def parts(batch: Any) -> Iterator[tuple[Any, str | None]]:
    """The rows of a batch in parts of bounded weight; for a row that is too heavy by itself, also the reason."""
    waiting = [batch]
    while waiting:
        part = waiting.pop()
        weights = [_weight(column) for column in part.columns]
        size, count = sum(size for size, _ in weights), sum(count for _, count in weights)
        if part.num_rows > 1 and (size > PART_BYTES or count > MAX_VALUES):
            half = part.num_rows // 2
            waiting += [part.slice(half), part.slice(0, half)]
        elif part.num_rows == 1 and size > streams.MAX_LINE_BYTES:
            yield part, too_long("row")
        else:
            yield part, TOO_MANY if count > MAX_VALUES else None


def _weight(array: Any) -> tuple[int, int]:
    """(bytes, values inside lists and structs) of a column once everything in it is written out; at least."""
    import pyarrow
    import pyarrow.compute as compute

    types, kind = pyarrow.types, array.type
    if isinstance(array, pyarrow.ExtensionArray):
        return _weight(array.storage)
    if types.is_dictionary(kind):
        if types.is_nested(kind.value_type):
            return len(array) * array.dictionary.nbytes, 0
        if not _is_text(kind.value_type):
            return array.indices.nbytes, 0
        lengths = compute.binary_length(array.dictionary.cast(pyarrow.large_binary()))
        return compute.sum(lengths.take(array.indices)).as_py() or 0, 0
    if types.is_run_end_encoded(kind):
        return len(array) * array.values.nbytes, 0
    if types.is_union(kind):
        return len(array) * sum(array.field(number).nbytes for number in range(kind.num_fields)), 0
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return sum(len(scalar.as_buffer()) for scalar in array if scalar.is_valid), 0
    if types.is_struct(kind):
        inside = [_weight(field) for field in array.flatten()]
        return sum(size for size, _ in inside), sum(count for _, count in inside) + len(array)
    if types.is_map(kind):
        array = array.cast(pyarrow.list_(pyarrow.struct([kind.key_field, kind.item_field])))
    if types.is_nested(kind):
        count = compute.sum(compute.list_value_length(array)).as_py() or 0
        if count > MAX_VALUES:
            return 0, count
        size, below = _weight(array.flatten())
        return size, count + below
    return array.nbytes, 0


def _is_text(kind: Any) -> bool:
    """Whether values of a type are texts or bytes, of any length."""
    from pyarrow import types

    checks = ("is_string", "is_large_string", "is_string_view", "is_binary", "is_large_binary", "is_binary_view")
    return any(getattr(types, check)(kind) for check in checks)


def values(column: Any) -> list[Any]:
    """The values of a column in Python, Unreadable where they do not fit."""
    from pyarrow import types

    kind = column.type
    if (types.is_timestamp(kind) or types.is_time64(kind) or types.is_duration(kind)) and kind.unit == "ns":
        return _nanoseconds(column)
    try:
        found: list[Any] = column.to_pylist()
        return found
    except Exception:  # a date beyond Python's, a string that is not UTF-8, …: the row is found one by one
        return [_value(scalar) for scalar in column]


def cannot_be_read(problem: Exception) -> str:
    """The reason for what pyarrow or Python refuses."""
    return f"cannot be read ({' '.join(str(problem).split())[:160]})"


def _value(scalar: Any) -> Any:
    from pyarrow import types

    if types.is_dictionary(scalar.type) and scalar.is_valid:
        scalar = scalar.value
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        instead = bytes(scalar.as_buffer()).decode("utf-8", "replace") if _is_text(scalar.type) else None
        return Unreadable("is not valid UTF-8", instead)
    except Exception as problem:
        return Unreadable(cannot_be_read(problem))


def _nanoseconds(column: Any) -> list[Any]:
    """Times, which Python holds to the microsecond, in ISO 8601 with nine digits where it takes them."""
    import pyarrow
    import pyarrow.compute as compute

    kind = column.type
    make = {"timestamp": pyarrow.timestamp, "time64": pyarrow.time64, "duration": pyarrow.duration}
    micro = make[str(kind).partition("[")[0]]("us", *([kind.tz] if pyarrow.types.is_timestamp(kind) else []))
    whole = column.cast(pyarrow.int64())
    floor = compute.floor_temporal(whole.cast(pyarrow.timestamp("ns")), unit="microsecond")
    rest = compute.subtract(whole, floor.cast(pyarrow.int64()))
    rounded = floor.cast(pyarrow.timestamp("us")).cast(pyarrow.int64()).cast(micro)
    return [_finer(value, nanoseconds) for value, nanoseconds in zip(values(rounded), rest.to_pylist(), strict=True)]


def _finer(value: Any, nanoseconds: int | None) -> Any:
    if not nanoseconds or isinstance(value, Unreadable):
        return value
    parts = re.fullmatch(r"(.*?\d:\d\d:\d\d)(?:\.(\d{6}))?(.*)", plain(value))
    assert parts is not None
    return f"{parts[1]}.{parts[2] or '000000'}{nanoseconds:03d}{parts[3]}"

"""Tables: rows with their metadata, whatever types they have; damage and weight cost the rows they touch."""

from __future__ import annotations

import datetime
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from firstlight.documents import (
    BadLine,
    Document,
    Item,
    Skipped,
    expand_inputs,
    input_size,
    json_line,
    read_documents,
    streams,
)
from firstlight.support.errors import DataError

GOOD = b'{"text": "good"}\n'
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def read(path: Path, data: bytes | None = None, **options: Any) -> list[Item]:
    if data is not None:
        path.write_bytes(data)
    return list(read_documents(str(path), **options))


def texts(items: list[Item]) -> list[str]:
    return [item.text for item in items if isinstance(item, Document)]


def bad(items: list[Item]) -> list[tuple[int, str]]:
    return [(item.line, item.reason) for item in items if isinstance(item, BadLine)]


def parquet(path: Path, table: Any, **options: Any) -> bytes:
    pq.write_table(pa.table(table) if isinstance(table, dict) else table, path, **options)
    return path.read_bytes()


def arrow(path: Path, table: Any, make: Any = pa.ipc.new_file, **options: Any) -> bytes:
    table = pa.table(table) if isinstance(table, dict) else table
    with make(path, table.schema) as writer:
        writer.write_table(table, **options)
    return path.read_bytes()


WRITERS = {"a.parquet": parquet, "a.arrow": arrow}


def test_parquet_streams_rows_with_their_metadata(tmp_path: Path) -> None:
    rows = 1000
    table = pa.table(
        {
            "id": list(range(rows)),
            "text": pa.array([f"row {n}" for n in range(rows)]).dictionary_encode(),
            "when": pa.array([datetime.datetime(2024, 1, 1)] * rows, pa.timestamp("us")),
            "tags": [["a", "b"]] * rows,
        }
    )
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path, row_group_size=300)
    eaten: list[int] = []
    found = read(path, consumed=eaten.append)
    assert [item.text for item in found if isinstance(item, Document)] == [f"row {n}" for n in range(rows)]
    assert found[0] == Document("row 0", {"id": 0, "when": "2024-01-01T00:00:00", "tags": ["a", "b"]})
    assert len(eaten) == 4 and 0 < sum(eaten) <= input_size(str(path))
    with pytest.raises(DataError, match=r"rows\.parquet: no column 'content'; it has 'id', 'text'"):
        read(path, text_field="content")
    with pytest.raises(DataError, match="column 'id' holds int64, not text"):
        read(path, text_field="id")
    twice = tmp_path / "twice.parquet"
    parquet(twice, pa.table([["a"], ["b"]], names=["text", "text"]))
    with pytest.raises(DataError, match=r"twice\.parquet: 2 columns are called 'text'"):
        read(twice)
    [(line, reason)] = bad(read(tmp_path / "cut.parquet", path.read_bytes()[:-100]))
    assert line == 1 and reason.startswith("cannot be read (")


def test_parquet_rows_can_be_bad_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "bytes.parquet"
    pq.write_table(pa.table({"text": pa.array([b"good", None, b"caf\xe9"], pa.binary())}), path)
    assert read(path, invalid_utf8="reject") == [
        Document("good", {}),
        BadLine(str(path), 2, "field 'text' is null, not text"),
        BadLine(str(path), 3, "invalid UTF-8"),
    ]


def test_datasets_saved_on_disk_and_arrow_files(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"text": [f"t{n}" for n in range(700)], "n": list(range(700))})
    both = datasets.DatasetDict({"train": rows.shuffle(seed=1), "test": rows.select(range(3))})
    both.save_to_disk(str(tmp_path / "saved"))
    paths = expand_inputs([str(tmp_path / "saved")])
    found = [item for path in paths for item in read_documents(path)]
    assert found == [Document(row["text"], {"n": row["n"]}) for row in both["train"]]
    assert len(list(read_documents(expand_inputs([str(tmp_path / "saved" / "test")])[0]))) == 3
    json_folder = tmp_path / "hub"
    json_folder.mkdir()
    (json_folder / "train.jsonl").write_bytes(b'{"text": "one", "n": 1}\n{"text": "two", "n": 2}\n')
    assert list(read_documents(f"hf:{json_folder}")) == [Document("one", {"n": 1}), Document("two", {"n": 2})]
    with pytest.raises(DataError, match=r"hf:.*:default:nosuch: the Hugging Face dataset cannot be read"):
        list(read_documents(f"hf:{json_folder}:default:nosuch"))


def test_a_damaged_page_of_a_table_costs_its_rows(tmp_path: Path) -> None:
    noise = random.Random(0)
    rows = [noise.randbytes(200).hex() for _ in range(3000)]
    path = tmp_path / "a.parquet"
    for options in ({"compression": "zstd"}, {"compression": "none", "write_page_checksum": True}):
        data = bytearray(parquet(path, {"text": rows}, row_group_size=1000, use_dictionary=False, **options))
        middle = len(data) // 2
        data[middle : middle + 64] = bytes(64)
        found = read(path, bytes(data))
        [(line, reason)] = bad(found)
        assert 1001 <= line <= 2000 and reason.startswith(f"rows {line} to 2000 cannot be read (")
        assert texts(found) == rows[: line - 1] + rows[2000:]


def test_every_cut_and_every_flipped_byte_of_a_table_is_survived(tmp_path: Path) -> None:
    data = parquet(tmp_path / "a.parquet", {"text": ["a", "b", None], "n": [1, 2, 3]}, write_page_checksum=True)
    noise = random.Random(0)
    for length in range(1, len(data), 7):
        assert bad(read(tmp_path / "cut.parquet", data[:length]))
    for _ in range(200):
        flipped = bytearray(data)
        flipped[noise.randrange(len(data))] ^= 1 << noise.randrange(8)
        try:
            assert read(tmp_path / "flipped.parquet", bytes(flipped), consumed=lambda size: None)
        except DataError as problem:
            assert "column" in str(problem)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_strange_columns_of_a_table(tmp_path: Path, name: str) -> None:
    offsets, letters = pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"\xffb")
    invalid = pa.Array.from_buffers(pa.string(), 2, [None, offsets, letters])
    late = 10**15 if name.endswith("parquet") else 2**62  # Parquet has no seconds, and milliseconds of 2**62 s overflow
    columns = {
        "text": ["a", "b"],
        "invalid": invalid,
        "deep": [{"x": [1]}, None],
        "map": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
        "ns": pa.array([None, 1], pa.timestamp("ns")),
        "clock": pa.array([1, 2], pa.time64("ns")),
        "span": pa.array([2, -1], pa.duration("ns")),
        "nan": [1.0, float("nan")],
        "bytes": [b"", b"\xff"],
        "decimal": pa.array([None, "-1.50"]).cast(pa.decimal128(5, 2)),
    }
    strange = {
        "huge": (pa.array([late, 0], pa.timestamp("s")), "field 'huge' cannot be read"),
        "nowhere": (pa.array([1, None], pa.timestamp("us", "Mars/Base")), "field 'nowhere' cannot be read"),
        "inside": (pa.ListArray.from_arrays([0, 1, 2], invalid), "field 'inside' is not valid UTF-8"),
        "null": (None, ""),
    }
    for field, (values, reason) in strange.items():
        path = tmp_path / name
        WRITERS[name](path, {**columns, field: pa.nulls(2) if values is None else values})
        first, second = read(path)
        if reason:
            assert isinstance(first, BadLine) and first.line == 1 and first.reason.startswith(reason)
        else:
            assert isinstance(first, Document) and first.repaired and first.metadata["invalid"] == "\ufffd"
            assert isinstance(read(path, invalid_utf8="reject")[0], BadLine)
        assert isinstance(second, Document) and second.text == "b" and not second.repaired
        assert json.loads(json_line(second.text, second.metadata))["metadata"] == {
            "invalid": "b",
            "deep": None,
            "map": [],
            "ns": "1970-01-01T00:00:00.000000001",
            "clock": "00:00:00.000000002",
            "span": "-1 day, 23:59:59.999999999",
            "nan": None,
            "bytes": "/w==",
            "decimal": "-1.50",
            field: {"huge": "1970-01-01T00:00:00", "inside": ["b"]}.get(field),
        }


@pytest.mark.parametrize("name", WRITERS)
def test_a_table_without_rows_is_counted(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path, {"text": pa.array([], pa.string())})
    assert read(path) == [Skipped(str(path), 1, "no rows")]
    assert read(path, b"") == [Skipped(str(path), 1, "empty file")]


@pytest.mark.parametrize("make", [pa.ipc.new_file, pa.ipc.new_stream])
def test_a_damaged_arrow_file_is_survived(tmp_path: Path, make: Any) -> None:
    noise = random.Random(0)
    path = tmp_path / "a.arrow"
    table = {"text": [f"text {n}" for n in range(50)], "tags": [[str(n)] for n in range(50)]}
    data = arrow(path, table, make, max_chunksize=10)
    eaten: list[int] = []
    assert len(texts(read(path, consumed=eaten.append))) == 50 and 0 < sum(eaten) <= len(data)
    for _ in range(200):
        flipped = bytearray(data)
        flipped[noise.randrange(len(data))] ^= 1 << noise.randrange(8)
        try:
            assert read(path, bytes(flipped))
        except DataError as problem:
            assert "column" in str(problem)
    assert bad(read(path, data.replace(b"tags", b"t\xffgs")))[0][1].startswith("cannot be read ('utf-8' codec")


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.binary(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.string_view(),
    ],
)
def test_a_row_over_the_limit_costs_that_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: Any
) -> None:
    monkeypatch.setattr(streams, "MAX_LINE_BYTES", 33_000_000)
    rows = ["a", "x" * 40_000_000, "b", "y" * 34_000_000, "c"]
    heavy = pa.array(rows).cast(kind) if not pa.types.is_dictionary(kind) else pa.array(rows).dictionary_encode()
    WRITERS[name](tmp_path / name, {"text": heavy})
    assert bad(read(tmp_path / name)) == [(2, "row longer than 33 MB"), (4, "row longer than 33 MB")]
    assert texts(read(tmp_path / name)) == ["a", "b", "c"]
    WRITERS[name](tmp_path / name, {"text": ["a", "b", "c", "d", "e"], "more": heavy, "list": [[]] * 5})
    assert texts(read(tmp_path / name)) == ["a", "c", "e"]


@pytest.mark.parametrize("name", WRITERS)
def test_a_row_of_too_many_values_costs_that_row(tmp_path: Path, name: str) -> None:
    lengths = pa.array([0, 1, 2_000_100, 2_000_101], pa.int32())
    many = pa.ListArray.from_arrays(lengths, pa.repeat(0, 2_000_101))
    columns = {
        "list": many,
        "struct": pa.StructArray.from_arrays([many], ["inside"]),
        "nested": pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), many),
        "map": pa.MapArray.from_arrays(lengths, pa.repeat("k", 2_000_101), pa.repeat(1, 2_000_101)),
    }
    for field, column in columns.items():
        WRITERS[name](tmp_path / name, {"text": ["a", "b", "c"], field: column})
        found = read(tmp_path / name)
        assert bad(found) == [(2, "more than 2,000,000 values")] and texts(found) == ["a", "c"]


def test_what_is_nested_deeper_than_the_next_step_reads_is_bad(tmp_path: Path) -> None:
    def deep(levels: int) -> Any:
        return pa.array(["leaf"]) if not levels else pa.ListArray.from_arrays([0, 1], deep(levels - 1))

    for levels, is_bad in ((98, False), (99, True)):
        found = read(tmp_path / "a.parquet", parquet(tmp_path / "b.parquet", {"text": ["a"], "deep": deep(levels)}))
        assert [reason for _, reason in bad(found)] == ["nested too deeply"] * is_bad
        for item in found:
            if isinstance(item, Document):
                assert read(tmp_path / "a.jsonl", json_line(item.text, item.metadata)) == [item]


def test_a_table_made_to_explode_is_refused(tmp_path: Path) -> None:
    """A dictionary names a long text often; a run of zeros is one row's list: kilobytes that stand for gigabytes."""
    zero = pa.scalar(0, pa.int32())
    long = pa.DictionaryArray.from_arrays(pa.repeat(zero, 400), pa.array(["x" * 8_000_000]))
    zeros = pa.ListArray.from_arrays(pa.array([0, 1, 80_000_000], pa.int32()), pa.repeat(zero, 80_000_000))
    plain = {"store_schema": False, "compression": "zstd"}
    parquet(tmp_path / "0.parquet", {"text": long}, dictionary_pagesize_limit=1 << 30, **plain)
    parquet(tmp_path / "1.parquet", {"text": ["a", "b"], "list": zeros}, **plain)
    (tmp_path / "2.jsonl").write_bytes(GOOD)
    code = f"""
from firstlight.documents import arrow_values, expand_inputs, read_documents
arrow_values.MEMORY_BYTES = 300_000_000
for path in expand_inputs([{str(tmp_path)!r}]):
    for item in read_documents(path):
        print(getattr(item, "reason", None) or item.text)
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")][0])
"""
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 20_000
    if sys.platform != "linux":
        pytest.skip("no limit of memory")
    *lines, peak = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    ).stdout.splitlines()
    assert lines[0].startswith("rows 1 to 400 cannot be read (") and lines[-1] == "good"
    assert lines[1].startswith("rows 1 to 2 cannot be read (")
    assert int(peak) * 1024 < 600_000_000


@pytest.mark.parametrize("name", WRITERS)
def test_times_to_the_nanosecond_read_like_those_to_the_microsecond(tmp_path: Path, name: str) -> None:
    noise = random.Random(0)
    micro = [noise.randrange(-(10**15), 4 * 10**15) for _ in range(300)] + [0, -1, None]
    nano = [None if value is None else value * 1000 for value in micro]
    day = [None if value is None else value % 86_400_000_000 for value in micro]
    columns = {
        "naive": (micro, nano, pa.timestamp("us"), pa.timestamp("ns")),
        "zone": (micro, nano, pa.timestamp("us", "Asia/Kolkata"), pa.timestamp("ns", "Asia/Kolkata")),
        "span": (micro, nano, pa.duration("us"), pa.duration("ns")),
        "clock": (day, [None if v is None else v * 1000 for v in day], pa.time64("us"), pa.time64("ns")),
    }
    for kind, (coarse, fine, *types) in columns.items():
        table = {"text": ["t"] * len(micro), "a": pa.array(coarse, types[0]), "b": pa.array(fine, types[1])}
        WRITERS[name](tmp_path / name, table)
        for item in read(tmp_path / name):
            assert isinstance(item, Document)
            about = json.loads(json_line("", item.metadata))["metadata"]
            assert about["a"] == about["b"], kind
            if kind == "naive" and about["a"]:
                assert datetime.datetime.fromisoformat(about["a"])

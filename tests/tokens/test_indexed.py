"""The files are Megatron's byte for byte; what is written is read; no damaged index does worse than be refused."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.support.errors import DataError
from firstlight.tokens.indexed import DTYPES, IndexedReader, IndexedWriter, token_dtype

documents = st.lists(st.lists(st.lists(st.integers(0, 127), max_size=6), max_size=4), max_size=8)


def write(prefix: Path, contents: list[list[list[int]]], dtype: np.dtype = DTYPES[8]) -> IndexedWriter:
    with IndexedWriter(prefix, dtype) as writer:
        for document in contents:
            for sequence in document:
                writer.add_sequence(sequence)
            writer.end_document()
    return writer


def layout(contents: list[list[list[int]]], code: int, element: str) -> tuple[bytes, bytes]:
    """The two files as the format's table says, field by field."""
    sequences = [sequence for document in contents for sequence in document]
    data = b"".join(struct.pack(f"<{len(s)}{element}", *s) for s in sequences)
    size = struct.calcsize(element)
    index = b"MMIDIDX\x00\x00"
    index += struct.pack("<Q", 1)
    index += struct.pack("<B", code)
    index += struct.pack("<Q", len(sequences))
    index += struct.pack("<Q", len(contents) + 1)
    index += b"".join(struct.pack("<i", len(s)) for s in sequences)
    offset = 0
    for sequence in sequences:
        index += struct.pack("<q", offset)
        offset += len(sequence) * size
    first = 0
    for document in [*contents, []]:
        index += struct.pack("<q", first)
        first += len(document)
    return data, index


@pytest.mark.parametrize(("code", "element"), list(enumerate("BbhiqdfH", 1)))
@given(contents=documents)
def test_layout_and_round_trip(
    tmp_path_factory: pytest.TempPathFactory, code: int, element: str, contents: list[list[list[int]]]
) -> None:
    prefix = tmp_path_factory.mktemp("shard") / "shard"
    writer = write(prefix, contents, DTYPES[code])
    data, index = Path(f"{prefix}.bin").read_bytes(), Path(f"{prefix}.idx").read_bytes()
    assert (data, index) == layout(contents, code, element)
    assert (writer.bin_bytes, writer.idx_bytes) == (len(data), len(index))
    assert (writer.bin_sha256, writer.idx_sha256) == tuple(hashlib.sha256(x).hexdigest() for x in (data, index))
    reader = IndexedReader(prefix)
    reader.verify()
    assert reader.dtype == DTYPES[code]
    assert [[s.tolist() for s in reader.document(d)] for d in range(reader.num_documents)] == contents
    assert [reader[i].tolist() for i in range(len(reader))] == [s for document in contents for s in document]
    assert reader.tokens.tolist() == [token for document in contents for s in document for token in s]
    assert reader.modes is None


def test_a_file_cut_short_while_it_is_mapped_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a", [[list(range(1000)) * 50], [[7]]])
    reader = IndexedReader(tmp_path / "a")
    assert reader[1].tolist() == [7]
    os.truncate(tmp_path / "a.bin", 4000)
    with pytest.raises(DataError, match=r"a\.bin: 4000 bytes, but \d+ when it was opened"):
        reader[0]
    (tmp_path / "a.bin").unlink()
    write(tmp_path / "b", [[[1, 2]]])
    reader = IndexedReader(tmp_path / "b")
    assert reader[0].tolist() == [1, 2]
    (tmp_path / "b.bin").unlink()
    assert reader[0].tolist() == [1, 2], "a deleted file stays mapped"


def test_a_shard_opens_after_a_move(tmp_path: Path) -> None:
    write(tmp_path / "a", [[[1, 2]]])
    (tmp_path / "sub").mkdir()
    for suffix in ("bin", "idx"):
        (tmp_path / f"a.{suffix}").rename(tmp_path / "sub" / f"b.{suffix}")
    assert IndexedReader(tmp_path / "sub" / "b")[0].tolist() == [1, 2]


def test_multimodal_modes_are_read(tmp_path: Path) -> None:
    write(tmp_path / "a", [[[1, 2], [3]]])
    with (tmp_path / "a.idx").open("ab") as handle:
        handle.write(bytes([0, 1]))
    reader = IndexedReader(tmp_path / "a")
    assert reader.modes is not None
    assert reader.modes.tolist() == [0, 1]
    assert reader[1].tolist() == [3]


@pytest.mark.parametrize(("size", "name"), [(300, "uint16"), (65499, "uint16"), (65500, "int32"), (200_000, "int32")])
def test_dtype_by_vocabulary_is_megatrons(size: int, name: str) -> None:
    assert token_dtype(size).name == name


def touch_everything(prefix: Path) -> None:
    reader = IndexedReader(prefix)
    for document in range(min(reader.num_documents, 1000)):
        reader.document(document)
    reader.verify()


@given(data=st.data(), contents=documents)
def test_a_damaged_index_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, contents: list[list[list[int]]]
) -> None:
    prefix = tmp_path_factory.mktemp("shard") / "shard"
    write(prefix, contents)
    index = Path(f"{prefix}.idx")
    raw = bytearray(index.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(raw) - 1))
        value = data.draw(st.sampled_from([b"\xff" * 8, b"\x7f" * 8, b"\x00" * 8, b"\x80", b"\x01"]))
        raw[position : position + len(value)] = value
    index.write_bytes(raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw)
    try:
        touch_everything(prefix)
    except DataError as problem:
        assert "shard." in str(problem)


HEADER = 34


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, b"X", "not an index"),
        (9, struct.pack("<Q", 2), "version 2"),
        (17, b"\x00", "dtype code 0"),
        (17, b"\x09", "dtype code 9"),
        (18, struct.pack("<Q", 3), "truncated or damaged"),
        (18, struct.pack("<Q", 2**64 - 1), "truncated or damaged"),
        (26, struct.pack("<Q", 2**63), "truncated or damaged"),
        (26, struct.pack("<Q", 0), "truncated or damaged"),
        (HEADER + 4, struct.pack("<i", -2), "sequence 1 is -2 tokens"),
        (HEADER + 4, struct.pack("<i", 2**31 - 1), "does not fit"),
        (HEADER + 8 + 8, struct.pack("<q", -4), "does not fit"),
        (HEADER + 8 + 8, struct.pack("<q", 2**62), "does not fit"),
        (HEADER + 8 + 16, struct.pack("<q", 1), "document index runs from 1"),
        (HEADER + 8 + 32, struct.pack("<q", 7), "document index runs from 0 to 7"),
    ],
)
def test_each_field_is_checked_at_opening(tmp_path: Path, position: int, value: bytes, message: str) -> None:
    write(tmp_path / "a", [[[1, 2, 3]], [[4, 5]]])
    index = tmp_path / "a.idx"
    raw = bytearray(index.read_bytes())
    raw[position : position + len(value)] = value
    index.write_bytes(raw)
    with pytest.raises(DataError, match=message):
        IndexedReader(tmp_path / "a")


def test_entries_inside_are_checked_at_access_and_by_verify(tmp_path: Path) -> None:
    write(tmp_path / "a", [[[1]], [[2]], [[3]]])
    index = tmp_path / "a.idx"
    good = index.read_bytes()
    offset = HEADER + 3 * 4 + 8
    index.write_bytes(good[:offset] + struct.pack("<q", 2**40) + good[offset + 8 :])
    reader = IndexedReader(tmp_path / "a")
    assert reader[0].tolist() == [1]
    with pytest.raises(DataError, match="sequence 1"):
        reader[1]
    with pytest.raises(DataError, match="sequence 1"):
        reader.verify()
    entry = HEADER + 3 * 12 + 8
    index.write_bytes(good[:entry] + struct.pack("<q", 9) + good[entry + 8 :])
    reader = IndexedReader(tmp_path / "a")
    with pytest.raises(DataError, match="document 0"):
        reader.document(0)
    with pytest.raises(DataError, match="document 1 ends before it begins"):
        reader.verify()


@pytest.mark.parametrize("change", [-1, -2, 1, 2])
def test_data_of_another_size_is_refused(tmp_path: Path, change: int) -> None:
    write(tmp_path / "a", [[[1, 2, 3]]])
    os.truncate(tmp_path / "a.bin", 6 + change)
    with pytest.raises(DataError, match=rf"\b{6 + change} bytes.* (damaged|another shard)"):
        IndexedReader(tmp_path / "a")


@pytest.mark.parametrize("suffix", ["bin", "idx"])
def test_a_missing_file_is_named(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / "a", [[[1]]])
    (tmp_path / f"a.{suffix}").unlink()
    with pytest.raises(DataError, match=rf"a\.{suffix}: cannot be read"):
        IndexedReader(tmp_path / "a")


def test_numbers_past_the_end_are_index_errors(tmp_path: Path) -> None:
    write(tmp_path / "a", [[[1]]])
    reader = IndexedReader(tmp_path / "a")
    for wrong in (-1, 1):
        with pytest.raises(IndexError):
            reader[wrong]
        with pytest.raises(IndexError):
            reader.document(wrong)


@pytest.mark.parametrize("wrong", [[65536], [-1], np.array([0, 2**40]), np.array([0.5])])
def test_ids_that_do_not_fit_leave_nothing_behind(tmp_path: Path, wrong: list[int]) -> None:
    with pytest.raises(DataError, match="does not fit uint16"), IndexedWriter(tmp_path / "a", np.uint16) as writer:
        writer.add_document([1])
        writer.add_document(wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_document_left_open_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not ended"), IndexedWriter(tmp_path / "a", np.uint16) as writer:
        writer.add_sequence([1])
    assert list(tmp_path.iterdir()) == []


def test_a_dtype_without_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no code for uint32"):
        IndexedWriter(tmp_path / "a", np.uint32)

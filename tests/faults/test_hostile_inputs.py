"""Hostile inputs of every kind: what can be read is read, the rest is counted with its place, and nothing is fatal."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import random
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zstandard

from firstlight.documents import (
    BadLine,
    Document,
    Item,
    Skipped,
    document_weight,
    expand_inputs,
    json_line,
    read_documents,
    streams,
)
from firstlight.support.errors import DataError

GOOD = b'{"text": "good"}\n'
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "zst": zstandard.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}


def read(path: Path, data: bytes | None = None, **options: Any) -> list[Item]:
    if data is not None:
        path.write_bytes(data)
    return list(read_documents(str(path), **options))


def texts(items: list[Item]) -> list[str]:
    return [item.text for item in items if isinstance(item, Document)]


def bad(items: list[Item]) -> list[tuple[int, str]]:
    return [(item.line, item.reason) for item in items if isinstance(item, BadLine)]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b'{"text": "a", "metadata": {"n": ' + b"9" * 100_000 + b"}}", None),
        (b'{"text": "a", "n": -1e999}', "a"),
        (b'{"text": "a", "n": [NaN, Infinity]}', "a"),
        (b'{"text": NaN}', None),
        (b'{"text": "a", "text": "b"}', None),
        (b'{"text": "a", "x": 1, "x": 2}', "a"),
        (b'{"text": "say \\"text\\": \\"text\\""}', 'say "text": "text"'),
        (b'{"text": "a", "metadata": {"text": "b"}}', "a"),
        (b"[" * 100_000 + b"]" * 100_000, None),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, None),
        (b'{"text": "a", "m": ' + b"[" * 900 + b"]" * 900 + b"}", None),
        (b'{"text": "a", "m": ' + b"[" * 90 + b"]" * 90 + b"}", "a"),
        (b'{"text": 5}', None),
        (b'{"text": {"text": "a"}}', None),
        (b'{"content": "a"}', None),
        (b'{"text": "a", "metadata": [1]}', "a"),
        (b'{"text": "a", "metadata": null}', "a"),
        (b'{"text": "a", "metadata": "' + b"m" * 10_000_000 + b'"}', "a"),
        (b'{"text": "a", "' + b"k" * 1_000_000 + b'": 1}', "a"),
        (b'{"text": "\\ud800"}', "\ufffd"),
        (b'{"text": "\\uD83D\\uDE00 \\uDE00"}', "😀 \ufffd"),
        (b'{"text": "\xed\xa0\x80 raw surrogate"}', "\ufffd\ufffd\ufffd raw surrogate"),
        (b'{"text": "a", "\\udfff": "\\udfff"}', "a"),
        (b'{"text": "a\\u0000b"}', "a\0b"),
        (b'{"text": "a\0b"}', None),
        (b"\0" * 1000, None),
        (b'\xef\xbb\xbf{"text": "a"}', None),
        ('{"text": "a"}'.encode("utf-16"), None),
        ('{"text": "höflich"}'.encode("latin-1"), "h\ufffdflich"),
        ('{"text": "河水在夜里慢慢上涨，到了早晨，低处的田地都被水盖住了。"}'.encode("gbk"), None),
        ('{"text": "川の水は夜のうちにゆっくりと増え、朝には低い畑が水に浸かった。"}'.encode("shift_jis"), None),
        (b'{"text": "a"}\r{"text": "b"}', None),
        (b'{"text": "a"}\r', "a"),
        (b'{"text": "a"} {"text": "b"}', None),
        (b'[{"text": "a"}, {"text": "b"}]', None),
        (b'{"text": "a",}', None),
        (b"{'text': 'a'}", None),
        (b"\x1b[31mred", None),
        (b'{"text": "a", "m": [' + b"[]," * 6_000_000 + b"1]}", None),
        (b'{"text": "' + b"[,\\n{" * 4_000_000 + b'"}', "[,\n{" * 4_000_000),
    ],
)
def test_a_hostile_line_among_good_ones(tmp_path: Path, line: bytes, text: str | None) -> None:
    found = read(tmp_path / "a.jsonl", GOOD + line + b"\n" + GOOD)
    assert len(found) == 3 and texts(found[::2]) == ["good", "good"]
    assert texts(found[1:2]) == ([] if text is None else [text])
    if text is None:
        [(number, reason)] = bad(found)
        assert number == 2 and 0 < len(reason) < 300 and reason.isprintable()
    for item in found:
        if isinstance(item, Document):
            again = json.loads(json_line(item.text, item.metadata))
            assert again["text"] == item.text and again["metadata"].keys() == item.metadata.keys()


def test_no_depth_is_written_that_is_not_read(tmp_path: Path) -> None:
    for levels in range(95, 102):
        for line in (b'{"text": "a", "m": %s}', b'{"text": "a", "metadata": {"m": %s}}'):
            found = read(tmp_path / "a.jsonl", line % (b"[" * levels + b"]" * levels))
            assert bad(found) == ([] if levels <= 98 else [(1, "nested too deeply")])
            for item in found:
                if isinstance(item, Document):
                    assert read(tmp_path / "b.jsonl", json_line(item.text, item.metadata)) == [item]


def test_a_first_line_of_binary_data_costs_that_line(tmp_path: Path) -> None:
    for first in (b"\0\xff\x01" * 30, bytes(50_000)):
        found = read(tmp_path / "a.jsonl", first + b"\n" + GOOD * 500)
        assert [line for line, _ in bad(found)] == [1] and len(texts(found)) == 500
    noise = random.Random(0).randbytes(100_000)
    for start in (b"", b"{", b'\n{"'):
        assert bad(read(tmp_path / "a.jsonl", start + noise)) == [(1, "binary data, not text")]


@pytest.mark.parametrize("data", [b"\n \n\t\r\n", b"\xef\xbb\xbf", b"\n" * 3_000_000])
def test_a_file_of_blank_lines_is_counted(tmp_path: Path, data: bytes) -> None:
    assert read(tmp_path / "a.jsonl", data) == [Skipped(str(tmp_path / "a.jsonl"), 1, "only blank lines")]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.jsonl"])
def test_an_archive_is_not_taken_for_a_text(tmp_path: Path, name: str) -> None:
    (tmp_path / "inside.jsonl").write_bytes(GOOD * 1000)
    with tarfile.open(tmp_path / name, "w:gz" if name.endswith("gz") else "w") as archive:
        archive.add(tmp_path / "inside.jsonl", "inside.jsonl")
    assert bad(read(tmp_path / name)) == [(1, "a tar archive; unpack it first")]


def test_the_weight_of_a_document_counts_its_metadata() -> None:
    assert document_weight(Document("four", {})) == 4
    light = document_weight(Document("", {"n": [0] * 10, "m": {"k": "v"}}))
    assert light < document_weight(Document("", {"n": [0] * 1000, "m": {"k": "v"}})) - 900
    assert light < document_weight(Document("", {"n": [0] * 10, "m": {"k": "v" * 1000}})) - 900


def test_lines_in_five_encodings_end_where_they_end(tmp_path: Path) -> None:
    lines = ["höflich: äöüß", "河水在夜里慢慢上涨", "川の水は夜のうちに", "plain"]
    charsets = ["latin-1", "gbk", "shift_jis", "utf-8"]
    data = b"\r\n".join(f'{{"text": "{line}"}}'.encode(charset) for line, charset in zip(lines, charsets, strict=True))
    found = read(tmp_path / "a.jsonl", data)
    assert len(found) == 4
    assert all(isinstance(item, BadLine) or item.repaired for item in found[:3] if not isinstance(item, Skipped))
    assert found[3] == Document("plain", {})
    assert len(bad(read(tmp_path / "a.jsonl", invalid_utf8="reject"))) == 3


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.jsonl.gz", "a.warc", "a.warc.gz"])
def test_an_empty_file_is_counted(tmp_path: Path, name: str) -> None:
    for data in (b"", PACKERS["gz"](b""), PACKERS["zst"](b""), PACKERS["bz2"](b""), PACKERS["xz"](b"")):
        assert read(tmp_path / name, data) == [Skipped(str(tmp_path / name), 1, "empty file")]


@pytest.mark.parametrize("kind", PACKERS)
def test_packed_files_cut_short_or_followed_by_garbage(tmp_path: Path, kind: str) -> None:
    noise = random.Random(0)
    lines = [json_line(noise.randbytes(300).hex(), {"n": n}) for n in range(500)]
    whole = PACKERS[kind](b"".join(lines))
    for cut in (1, len(whole) // 2, len(whole) - 1):
        found = read(tmp_path / f"a.jsonl.{kind}", whole[:cut])
        assert len(bad(found)) == 1 and isinstance(found[-1], BadLine)
    for garbage in (b"garbage", b"\0\0\0x", random.Random(0).randbytes(5000), GOOD):
        found = read(tmp_path / f"a.jsonl.{kind}", whole + garbage)
        assert len(texts(found)) == 500
        [(line, reason)] = bad(found)
        assert line == 501 and reason.startswith("compressed stream")
    assert len(read(tmp_path / f"a.jsonl.{kind}", whole + b"\0" * 1024)) == 500
    assert len(read(tmp_path / f"a.jsonl.{kind}", whole + PACKERS[kind](lines[0]))) == 501


MEASURE = """
if sys.platform == "darwin":
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
else:  # where ru_maxrss is no less than what the parent held when it started this process
    [kilobytes] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")]
    peak = int(kilobytes) * 1024
print(json.dumps([answer, peak]))
"""


def measured(code: str, *arguments: str) -> tuple[Any, int]:
    """What `code` leaves in `answer` in a process of its own, and the most memory that process held in bytes."""
    program = f"import json, resource, sys\n{code}\n{MEASURE}"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120, check=True
    )
    answer, memory = json.loads(done.stdout)
    return answer, memory


READ = """
from firstlight.documents import read_documents
answer = [getattr(item, "reason", None) or item.text for item in read_documents(sys.argv[1])]
"""


def test_a_line_of_a_gigabyte_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    with path.open("wb") as handle:
        handle.write(GOOD)
        handle.seek(1_000_000_000, os.SEEK_CUR)
        handle.write(b"\n" + GOOD)
    answer, memory = measured(READ, str(path))
    assert answer == ["good", "line longer than 256 MB", "good"]
    assert memory < 500_000_000


@pytest.mark.parametrize("kind", PACKERS)
def test_a_bomb_is_not_held(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"bomb.jsonl.{kind}"
    size = 300_000_000
    opened: dict[str, Callable[..., Any]] = {
        "gz": partial(gzip.open, compresslevel=1),
        "zst": zstandard.open,
        "bz2": partial(bz2.open, compresslevel=1),
        "xz": partial(lzma.open, preset=0),
    }
    with opened[kind](path, "wb") as handle:
        handle.write(GOOD)
        for _ in range(size // 1_000_000):
            handle.write(b"x" * 1_000_000)
        handle.write(b"\n" + GOOD)
    assert path.stat().st_size < 2_000_000
    answer, memory = measured(READ, str(path))
    assert answer == ["good", "line longer than 256 MB", "good"]
    assert memory < 500_000_000


def test_a_file_that_shrinks_or_goes_away_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD * 1_000_000)
    reading = read_documents(str(path))
    next(reading)
    os.truncate(path, 2_000_000)
    with pytest.raises(DataError, match=r"a\.jsonl: became shorter while it was read"):
        list(reading)
    path.write_bytes(GOOD * 1_000_000)
    reading = read_documents(str(path))
    next(reading)
    path.unlink()
    assert len(list(reading)) == 999_999  # what is open stays readable
    with pytest.raises(DataError, match=r"a\.jsonl: no such file"):
        list(read_documents(str(path)))


@pytest.mark.parametrize("name", ["pipe.jsonl", "pipe.txt", "pipe.parquet", "pipe.warc"])
def test_a_pipe_is_refused_at_once(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    before = time.monotonic()
    for attempt in (lambda: list(read_documents(str(tmp_path / name))), lambda: expand_inputs([str(tmp_path)])):
        with pytest.raises(DataError, match="not a regular file"):
            attempt()
    assert time.monotonic() - before < 30


def test_a_line_over_the_limit_at_every_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_LINE_BYTES", 1000)
    long = b'{"text": "' + b"x" * 3_000_000 + b'"}\n'
    exact = b'{"text": "' + b"x" * 988 + b'"}\n'
    for data, expected in (
        (long + GOOD, [1]),
        (GOOD + long, [2]),
        (GOOD + long.rstrip(), [2]),
        (long + long + GOOD, [1, 2]),
        (exact + exact.replace(b"x", b"xy", 1) + exact, [2]),
    ):
        found = read(tmp_path / "a.jsonl", data)
        assert [line for line, _ in bad(found)] == expected
        assert len(texts(found)) == data.rstrip().count(b"\n") + 1 - len(expected)

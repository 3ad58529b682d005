"""Remote files: the same documents as from the disk, whatever the connection does, or one sentence."""

from __future__ import annotations

import gzip
import http.server
import io
import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firstlight.documents import Document, expand_inputs, input_size, json_line, read_documents, sources_fingerprint
from firstlight.documents import remote as remote_module
from firstlight.support.errors import DataError

LINES = b"".join(json_line(f"text {n} " + "x" * 500, {"n": n}) for n in range(4000))
PACKED = gzip.compress(LINES)


class Server(http.server.ThreadingHTTPServer):
    """Files by name; `habits` of a name say what the server does wrong with it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.habits: dict[str, dict[str, Any]] = {}
        self.requests: Counter[str] = Counter()

    def address(self, name: str, data: bytes, **habits: Any) -> str:
        self.files[name], self.habits[name] = data, habits
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self._answer(False)

    def do_GET(self) -> None:
        self._answer(True)

    def log_message(self, *arguments: Any) -> None:
        pass

    def _answer(self, with_body: bool) -> None:
        name = self.path.lstrip("/").partition("?")[0]
        self.server.requests[f"{self.command} {name}"] += 1
        count = self.server.requests[f"GET {name}"]
        habits = self.server.habits.get(name, {})
        data = self.server.files.get(name)
        if data is None or (habits.get("no_head") and not with_body):
            return self.send_error(404 if data is None else 403)
        if with_body and count <= habits.get("busy", 0):
            return self.send_error(503)
        start = 0
        if (asked := self.headers.get("Range")) and not habits.get("no_range"):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if not habits.get("no_length"):
            self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", f'"{habits.get("tags", ["a"])[min(count, len(habits.get("tags", ["a"]))) - 1]}"')
        self.end_headers()
        if with_body:
            body = data[start:]
            self.wfile.write(body[: habits["breaks_after"]] if "breaks_after" in habits else body)
        return None


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(remote_module, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(remote_module, "_known", {})
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setattr(remote_module, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(remote_module, "_known", {})
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()


def numbers(url: str) -> list[int]:
    found = list(read_documents(url))
    assert all(isinstance(item, Document) for item in found)
    return [item.metadata["n"] for item in found if isinstance(item, Document)]


@pytest.mark.parametrize(
    "habits",
    [
        {},
        {"breaks_after": 700_000},
        {"breaks_after": 700_000, "no_length": False, "busy": 2},
        {"no_head": True},
        {"no_length": True},
        {"busy": 3},
    ],
)
@pytest.mark.parametrize("data", [LINES, PACKED])
def test_every_document_comes_over_a_bad_connection(server: Server, data: bytes, habits: dict[str, Any]) -> None:
    url = server.address("a.jsonl", data, **habits)
    assert expand_inputs([url]) == [url]
    assert input_size(url) == (0 if habits.get("no_length") else len(data))
    eaten: list[int] = []
    assert len(list(read_documents(url, consumed=eaten.append))) == 4000 and sum(eaten) == len(data)
    assert numbers(url) == list(range(4000))
    if "breaks_after" in habits and data is LINES:
        assert server.requests["GET a.jsonl"] > 4


def test_a_server_without_ranges_is_read_on_from_the_start(server: Server) -> None:
    url = server.address("a.jsonl", LINES, no_range=True)
    with remote_module.open_remote(url) as handle:
        handle.seek(1_500_000)
        assert handle.read(10) == LINES[1_500_000:1_500_010]
        handle.seek(7)
        assert handle.read(10) == LINES[7:17]


def test_a_file_that_is_not_there_or_breaks_for_good_is_one_sentence(server: Server) -> None:
    gone = server.address("gone.jsonl", LINES)
    del server.files["gone.jsonl"]
    with pytest.raises(DataError, match=r"gone\.jsonl: the server answers 404"):
        expand_inputs([gone])
    with pytest.raises(DataError, match=r"a\.jsonl: cannot be read \(the connection broke off\), tried 5 times"):
        list(read_documents(server.address("a.jsonl", LINES, breaks_after=0)))
    with pytest.raises(DataError, match=r"b\.jsonl: cannot be read \(.*503.*\), tried 5 times"):
        list(read_documents(server.address("b.jsonl", LINES, busy=1000)))
    changing = server.address("c.jsonl", LINES, breaks_after=700_000, tags=["a", "b"])
    with pytest.raises(DataError, match=r"c\.jsonl: changed while it was read"):
        list(read_documents(changing))


def test_a_signed_address_is_told_by_its_path(server: Server) -> None:
    url = server.address("a.jsonl.gz", PACKED) + "?signature=x.txt"
    assert numbers(expand_inputs([url])[0]) == list(range(4000))


def test_tables_are_read_by_ranges(server: Server, bucket: Any) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table({"text": [f"text {n} " + "x" * (n % 700) for n in range(3000)], "n": list(range(3000))})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=500, compression="none")
    data = sink.getvalue().to_pybytes()
    bucket.pipe("/b/a.parquet", data)
    for url in (server.address("a.parquet", data, breaks_after=300_000), "memory://b/a.parquet"):
        assert numbers(url) == list(range(3000))


def test_folders_and_globs_of_an_object_store(bucket: Any) -> None:
    for name in ("b.jsonl", "a.jsonl", "sub/c.jsonl.gz", "sub/.hidden/d.jsonl", "sub/empty.jsonl", "note.txt"):
        bucket.pipe(f"/corpus/{name}", b"" if "empty" in name else PACKED)
    names = ("a.jsonl", "b.jsonl", "note.txt", "sub/c.jsonl.gz", "sub/empty.jsonl")
    inside = [f"memory://corpus/{name}" for name in names]
    assert expand_inputs(["memory://corpus"]) == expand_inputs(["memory://corpus/"]) == inside
    assert expand_inputs(["memory://corpus/*.jsonl"]) == inside[:2]
    assert expand_inputs(["memory://corpus/**/c.*", inside[3]]) == [inside[3]]
    assert input_size(inside[0]) == len(PACKED) and numbers(inside[0]) == list(range(4000))
    for pattern, sentence in (
        ("memory://corpus/nothing.jsonl", "no such file or folder"),
        ("memory://corpus/*.nothing", "matches no file"),
        ("memory://corpus/sub/empty.jsonl", "empty file"),
    ):
        with pytest.raises(DataError, match=sentence):
            expand_inputs([pattern])


def test_the_fingerprint_changes_with_a_remote_file(
    server: Server, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.pipe("/corpus/a.jsonl", LINES)
    web = server.address("a.jsonl", LINES, tags=["first"])
    before = [sources_fingerprint([url]) for url in ("memory://corpus/*.jsonl", web)]
    assert before == [sources_fingerprint([url]) for url in ("memory://corpus/*.jsonl", web)]
    bucket.pipe("/corpus/a.jsonl", LINES + b"\n")
    server.address("a.jsonl", LINES, tags=["second"])
    monkeypatch.setattr(remote_module, "_known", {})
    after = [sources_fingerprint([url]) for url in ("memory://corpus/*.jsonl", web)]
    assert before[0] != after[0] and before[1] != after[1]


def test_a_store_that_fails_now_and_then(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.pipe("/corpus/a.jsonl", LINES)
    opened = []

    class Unreliable(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > len(opened) * 200_000:
                raise TimeoutError("too slow")
            return super().read(min(size or 0, 100_000))

    def unreliable(self: Any, path: str, mode: str) -> io.BytesIO:
        opened.append(path)
        return Unreliable(LINES)

    monkeypatch.setattr(type(bucket), "open", unreliable)
    assert numbers("memory://corpus/a.jsonl") == list(range(4000))
    assert len(opened) > 5


def test_a_remote_file_that_vanishes_is_one_sentence(bucket: Any) -> None:
    bucket.pipe("/corpus/a.jsonl", LINES)
    [url] = expand_inputs(["memory://corpus/a.jsonl"])
    bucket.rm("/corpus/a.jsonl")
    with pytest.raises(DataError, match=r"memory://corpus/a\.jsonl: no such file"):
        list(read_documents(url))


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("s3://bucket/a.jsonl", "needs the `s3fs` package; pip install s3fs"),
        ("gs://bucket/*.jsonl", "needs the `gcsfs` package; pip install gcsfs"),
        ("az://container/folder", "needs the `adlfs` package; pip install adlfs"),
        ("gopher://bucket/a.jsonl", "no known kind of address"),
        ("zip://a.jsonl::s3://bucket/a.zip", "no known kind of address"),
    ],
)
def test_a_store_that_cannot_be_read_is_one_sentence(url: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("s3fs", "gcsfs", "adlfs"):
        monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(DataError, match=sentence):
        expand_inputs([url])


def test_a_file_address_is_a_local_file(tmp_path: Path) -> None:
    path = tmp_path / "with space.jsonl"
    path.write_bytes(LINES)
    assert expand_inputs([path.as_uri()]) == [str(path)]
    assert expand_inputs([f"file://{tmp_path}/*.jsonl"]) == [str(path)]


def test_a_snapshot_of_a_hub_is_a_folder_of_links(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    (tmp_path / "blobs").mkdir()
    data = tmp_path / "snapshots" / "abc" / "data"
    data.mkdir(parents=True)
    for number in range(3):
        pq.write_table(pa.table({"text": [f"text {number}"], "n": [number]}), tmp_path / "blobs" / f"hash{number}")
        (data / f"train-{number:05d}.parquet").symlink_to(tmp_path / "blobs" / f"hash{number}")
    (tmp_path / "snapshots" / "abc" / ".gitattributes").write_text("x")
    paths = expand_inputs([str(tmp_path / "snapshots" / "abc")])
    assert [number for path in paths for number in numbers(path)] == [0, 1, 2]
    assert json.loads(json_line("", {"paths": paths}))["metadata"]["paths"] == sorted(paths)

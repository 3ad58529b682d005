"""Web archives: every record is a document, rightly none, or bad with a reason; damage costs the records it touches."""

from __future__ import annotations

import bz2
import gzip
import io
import random
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from firstlight.documents import BadLine, Document, Item, Skipped, html_text, read_documents, warc
from firstlight.documents.html_text import decode_html
from firstlight.support.errors import DataError

PROSE = (
    "The river rose slowly through the night, and by morning the lower fields lay under a shallow sheet of water. "
    "Farmers moved their animals to the hill, as their grandparents had done, and waited for the wind to turn."
)


def html(prose: str = PROSE, charset: str = "") -> str:
    meta = f'<meta charset="{charset}">' if charset else ""
    paragraphs = "".join(f"<p>{prose} ({n})</p>" for n in range(3))
    menu = '<nav><ul><li><a href="/">Home</a></li><li><a href="/shop">Shop</a></li></ul></nav>'
    head, body = f"<head>{meta}<title>T</title></head>", f"<body>{menu}<article>{paragraphs}</article></body>"
    return f"<!DOCTYPE html><html>{head}{body}</html>"


def record(kind: str, block: bytes, **headers: str) -> bytes:
    stated = {"WARC-Type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = "".join(f"{name}: {value}\r\n" for name, value in stated.items())
    return f"WARC/1.0\r\n{lines}Content-Length: {len(block)}\r\n\r\n".encode() + block + b"\r\n\r\n"


def page(body: bytes, status: str = "200 OK", content_type: str = "text/html; charset=utf-8", **fields: str) -> bytes:
    stated = {"Content-Type": content_type, **{name.replace("_", "-"): value for name, value in fields.items()}}
    head = "".join(f"{name}: {value}\r\n" for name, value in stated.items() if value)
    block = f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body
    return record("response", block, WARC_Target_URI="https://example.org/")


def wet(text: str, **headers: str) -> bytes:
    return record("conversion", text.encode(), Content_Type="text/plain", **headers)


def read(path: Path, data: bytes, **options: Any) -> list[Item]:
    path.write_bytes(data)
    return list(read_documents(str(path), **options))


def reasons(items: list[Item], kind: type) -> list[tuple[int, str]]:
    return [(item.line, item.reason) for item in items if isinstance(item, kind) and not isinstance(item, Document)]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst", ".bz2"])
def test_text_of_wet_files_keeps_what_the_record_says(tmp_path: Path, suffix: str) -> None:
    pack: dict[str, Callable[[bytes], bytes]] = {
        "": bytes,
        ".gz": gzip.compress,
        ".zst": zstandard.compress,
        ".bz2": bz2.compress,
    }
    one = wet(
        "first\r\nsecond\n",
        WARC_Target_URI="https://example.org/a",
        WARC_Date="2024-05-01T00:00:00Z",
        WARC_Record_ID="<urn:uuid:1>",
        WARC_Identified_Content_Language="eng,fra",
    )
    parts = [record("warcinfo", b"software: x\r\n"), one, wet("  \n"), wet("第三")]
    expected = [
        Document(
            "first\nsecond",
            {
                "url": "https://example.org/a",
                "timestamp": "2024-05-01T00:00:00Z",
                "id": "urn:uuid:1",
                "content_type": "text/plain",
                "identified_language": "eng,fra",
            },
        ),
        Document("第三", {"content_type": "text/plain"}),
    ]
    path = tmp_path / f"a.warc.wet{suffix}"
    for data in (b"".join(map(pack[suffix], parts)), pack[suffix](b"".join(parts))):
        found = read(path, data)
        assert [item for item in found if isinstance(item, Document)] == expected
        assert reasons(found, Skipped) == [(1, "warcinfo record"), (3, "empty page")]


def test_pages_become_their_main_text(tmp_path: Path) -> None:
    pytest.importorskip("trafilatura", exc_type=ImportError)
    chinese = html(
        "河水在夜里慢慢上涨，到了早晨，低处的田地都被浅浅的水盖住了。农民们像祖辈那样把牲口赶到山上，等着风向转变。"
    )
    body = html().encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:90], body[90:])) + b"0\r\n\r\n"
    pages = [
        page(body),
        page(chunks, Transfer_Encoding="chunked"),
        page(gzip.compress(body), Content_Encoding="gzip"),
        page(zlib.compress(body), Content_Encoding="deflate"),
        page(zstandard.compress(body), Content_Encoding="zstd"),
        page(body, Content_Encoding="gzip", Transfer_Encoding="chunked"),
        page(body, content_type=""),
        page(chinese.encode("gbk"), content_type="text/html; charset=GB2312"),
    ]
    found = read(tmp_path / "a.warc.gz", b"".join(map(gzip.compress, pages)))
    texts = [item.text for item in found if isinstance(item, Document)]
    assert len(texts) == len(pages) and len(set(texts[:-1])) == 1
    assert texts[0].count(PROSE) == 3 and "Shop" not in texts[0]
    assert texts[-1].startswith("河水在夜里")
    assert not any(item.repaired for item in found if isinstance(item, Document))


def test_what_is_no_page_is_skipped_with_its_reason(tmp_path: Path) -> None:
    pytest.importorskip("trafilatura", exc_type=ImportError)
    expected = {
        record("request", b"GET / HTTP/1.1\r\n\r\n"): "request record",
        record("metadata", b"{}"): "metadata record",
        record("revisit", b""): "revisit record",
        record("of my own", b"x"): "other record",
        page(b"", status="301 Moved"): "HTTP status 301",
        page(b"\x89PNG", content_type="image/png"): "not a page: image/png",
        page(b"User-agent: *", content_type="text/plain"): "not a page: text/plain",
        page(b"\0\1\2", content_type="<script>"): "not a page: unknown type",
        page(b" \r\n"): "empty page",
        page(b"<html><body></body></html>"): "no text in the page",
        page(b"\x1b\x0c", Content_Encoding="br"): "content encoding: br",
        record("response", b"no head"): "no HTTP response",
    }
    found = read(tmp_path / "a.warc", b"".join(expected))
    assert reasons(found, Skipped) == list(enumerate(expected.values(), 1))
    assert len(found) == len(expected)


def test_a_bad_record_costs_that_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warc, "MAX_PAGE_BYTES", 100_000)
    bad = {
        b"this is no record\r\nat all\r\n": "not a WARC record",
        b"WARC/1.0\r\nWARC-Type: conversion\r\n\r\n": "WARC record without a length",
        b"WARC/1.0\r\nContent-Length: -5\r\n\r\n": "WARC record without a length",
        b"WARC/1.0\r\n" + b"X: " + b"y" * 300_000 + b"\r\n\r\n": "WARC headers over 262 kB",
        wet("x" * 100_001): "page longer than 100 kB",
        page(gzip.compress(b"x" * 1_000_000), Content_Encoding="gzip"): "page longer than 100 kB",
        record("conversion", b"\xff\xfe\xfd" * 30): "mostly invalid UTF-8 (another encoding?)",
    }
    found = read(tmp_path / "a.wet", b"".join(part + wet("good") for part in bad))
    assert reasons(found, BadLine) == [(2 * n + 1, reason) for n, reason in enumerate(bad.values())]
    assert [item.text for item in found if isinstance(item, Document)] == ["good"] * len(bad)


@given(st.floats(0, 1, exclude_max=True))
def test_an_archive_cut_short_keeps_what_came_before(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    whole = [wet(f"text {n}") for n in range(20)]
    for name, parts in (("cut.wet", whole), ("cut.wet.gz", [gzip.compress(part) for part in whole])):
        data = b"".join(parts)
        length = 1 + int(share * (len(data) - 1))
        found = read(tmp_path_factory.getbasetemp() / name, data[:length])
        texts = [item.text for item in found if isinstance(item, Document)]
        assert texts == [f"text {n}" for n in range(len(texts))]
        starts = [sum(map(len, parts[:n])) for n in range(21)]
        complete = sum(start <= length for start in starts[1:])
        assert complete <= len(texts)
        assert reasons(found, BadLine) or length in starts or len(texts) == complete + 1  # only blank lines are gone


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress, bz2.compress])
def test_a_damaged_member_costs_its_record(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    noise = random.Random(0)
    members = [pack(wet(f"{n} {noise.randbytes(500).hex()}")) for n in range(60)]
    cut, flipped, junk = 10, 30, 50
    members[cut] = members[cut][: len(members[cut]) // 2]
    half = len(members[flipped]) // 2
    members[flipped] = members[flipped][:half] + bytes(50) + members[flipped][half + 50 :]
    members[junk] += b"no member at all"
    found = read(tmp_path / "a.warc.wet.gz", b"".join(members))
    lost = {*range(60)} - {int(item.text.split()[0]) for item in found if isinstance(item, Document)}
    assert {cut, flipped} <= lost <= {cut, cut + 1, flipped, flipped + 1}
    assert [reason.startswith("compressed stream is") for _, reason in reasons(found, BadLine)] == [True] * 3


@given(st.binary(max_size=60), st.integers(0, 10**6))
@example(b"", 0)
def test_no_bytes_between_records_hide_the_next_one(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, length: int
) -> None:
    if b"WARC/1." in noise:
        return
    found = read(tmp_path_factory.getbasetemp() / "noise.wet", wet("one") + noise + b"\n" + wet("two"))
    assert [item.text for item in found if isinstance(item, Document)] == ["one", "two"]
    assert bool(reasons(found, BadLine)) == bool(noise.strip())


def test_records_agree_with_warcio(tmp_path: Path) -> None:
    pytest.importorskip("warcio")
    from warcio.archiveiterator import ArchiveIterator
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    path = tmp_path / "theirs.warc.gz"
    with path.open("wb") as handle:
        writer = WARCWriter(handle, gzip=True)
        writer.write_record(writer.create_warcinfo_record("theirs.warc.gz", {"software": "test"}))
        for number in range(20):
            block = io.BytesIO(html(f"page {number}").encode())
            http = StatusAndHeaders("200 OK", [("Content-Type", "text/html")], protocol="HTTP/1.0")
            url = f"http://e.org/{number}"
            writer.write_record(writer.create_warc_record(url, "response", block, http_headers=http))
            text = io.BytesIO(f"text {number}".encode())
            headers = {"Content-Type": "text/plain"}
            writer.write_record(writer.create_warc_record(url, "conversion", text, warc_headers_dict=headers))
    with path.open("rb") as handle:
        theirs = [
            (one.rec_type, one.rec_headers.get_header("WARC-Record-ID"), one.content_stream().read())
            for one in ArchiveIterator(handle)
            if one.rec_type in ("response", "conversion")
        ]
    ours = []
    with gzip.open(path) as unpacked:
        for one in warc.records(io.BufferedReader(unpacked)):  # type: ignore[arg-type]
            assert isinstance(one, warc.Record)
            kind = one.headers["warc-type"]
            if kind in ("response", "conversion"):
                assert one.block is not None
                block = warc._page(one)[0] if kind == "response" else one.block
                ours.append((kind, one.headers["warc-record-id"], block))
    assert ours == theirs and len(ours) == 40


def test_a_page_that_runs_away_or_crashes_costs_that_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trafilatura", exc_type=ImportError)
    source = Path(html_text.__file__).read_text()
    program = tmp_path / "runaway" / "runaway.py"
    program.parent.mkdir()
    program.write_text(
        source.replace("CPU_SECONDS = 30", "CPU_SECONDS = 1").replace(
            '    _send(answers, True, "")\n    while',
            "    real = trafilatura.extract\n\n"
            "    def extract(page, **options):\n"
            "        while 'runaway' in page: pass\n"
            "        if 'crash' in page: os.abort()\n"
            "        if 'error' in page: raise RecursionError\n"
            "        if 'greedy' in page: bytearray(5 << 30)\n"
            "        return real(page, **options)\n\n"
            '    trafilatura.extract = extract\n    _send(answers, True, "")\n    while',
        )
    )
    monkeypatch.setattr(html_text, "_SOURCE_ROOT", str(program.parent))
    monkeypatch.setattr(html_text, "__name__", "runaway")
    monkeypatch.setenv("PYTHONPATH", str(Path(html_text.__file__).parents[2]))
    words = ["runaway", "crash", "error", "greedy" if sys.platform == "linux" else "error"]
    found = read(tmp_path / "a.warc", b"".join(page(html(word).encode()) + page(html().encode()) for word in words))
    assert [line for line, _ in reasons(found, BadLine)] == [1, 3, 5, 7]
    assert [reason.rpartition(":")[0] for _, reason in reasons(found, BadLine)] == ["text extraction failed"] * 4
    assert [item.line for item in found if not isinstance(item, Document)] == [1, 3, 5, 7] and len(found) == 8


def test_without_the_library_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trafilatura.py").write_text("raise ImportError('no such thing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert len(read(tmp_path / "a.wet", wet("needs no library"))) == 1
    sentence = r"a\.warc: needs the `trafilatura` package; pip install 'firstlight\[corpus\]' \(no such thing\)"
    with pytest.raises(DataError, match=sentence):
        read(tmp_path / "a.warc", page(html().encode()))


@pytest.mark.parametrize(
    ("data", "content_type", "expected"),
    [
        ("höher".encode(), "", ("höher", False)),
        ("höher".encode("latin-1"), "text/html; charset=ISO-8859-1", ("höher", False)),
        ("“höher”".encode("cp1252"), "text/html; charset=latin1", ("“höher”", False)),
        ('<meta charset="shift_jis">上り坂'.encode("cp932"), "", ('<meta charset="shift_jis">上り坂', False)),
        ('<META content="charset=gbk">囧'.encode("gbk"), "charset=utf-8", ('<META content="charset=gbk">囧', False)),
        ("\ufeffhöher".encode(), "charset=latin-1", ("höher", False)),
        ("höher".encode("utf-16"), "charset=utf-8", ("höher", False)),
        ("höher".encode("latin-1"), "", ("h\ufffdher", True)),
        ("höher".encode(), "charset=nosuch", ("höher", False)),
        (b"+ADw-", "charset=utf-7", ("+ADw-", False)),
        (b"x", "charset=zip", ("x", False)),
        (b"\\x41", "charset=unicode_escape", ("\\x41", False)),
    ],
)
def test_the_character_set_of_a_page(data: bytes, content_type: str, expected: tuple[str, bool]) -> None:
    assert decode_html(data, content_type) == expected

"""Blocklists: hosts with their subdomains, whole URLs, hashes of texts; a bad line is named with its file."""

from __future__ import annotations

import gzip
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from firstlight.config.text_steps import Blocklist
from firstlight.corpus.step import Block
from firstlight.corpus.text_steps import STEPS
from firstlight.corpus.text_steps.blocklist import BlocklistStep, _Entries, parts_of
from firstlight.support.errors import DataError

LIST = "# sites\n\nBad.example\nhttps://www.shop.example:443/offers/\nnews.example/a?x=1  # one page\n192.0.2.7\n"


def reasons(urls, tmp_path, content=LIST, **options):
    file = tmp_path / "urls.txt"
    file.write_text(content, encoding="utf-8")
    step = STEPS[Blocklist](Blocklist(urls=[str(file)], **options))
    result = step.apply(Block(["text"] * len(urls), [{"url": url} if url is not None else {} for url in urls]))
    return list(result.reasons), dict(result.counts)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://bad.example/x", "blocked host"),
        ("https://a.b.BAD.example.:8080/", "blocked host"),
        ("bad.example", "blocked host"),
        ("https://notbad.example/", None),
        ("https://bad.example.org/", None),
        ("https://other.example/?u=bad.example", None),
        ("http://www.shop.example/offers", "blocked URL"),
        ("http://www.shop.example/offers/#top", "blocked URL"),
        ("http://www.shop.example/offers/1", None),
        ("http://www.shop.example/", None),
        ("http://news.example/a?x=1", "blocked URL"),
        ("http://news.example/a?x=2", None),
        ("http://192.0.2.7/", "blocked host"),
        ("not a url", None),
        ("http://[broken", None),
    ],
)
def test_urls(url, reason, tmp_path):
    assert reasons([url], tmp_path) == ([reason], {})


def test_documents_without_url_are_counted_and_stay(tmp_path):
    assert reasons([None, "", 7, "http://bad.example"], tmp_path) == ([None] * 3 + ["blocked host"], {"without URL": 3})


def test_words_in_urls_are_whole_words(tmp_path):
    urls = [
        "http://a.example/Casino-bonus",
        "http://a.example/casinos",
        "http://casino.example",
        "http://a.example/赌场",
    ]
    found, _ = reasons(urls, tmp_path, words_in_url=["casino", "赌场"])
    assert found == ["blocked word in URL", None, "blocked word in URL", "blocked word in URL"]


names = st.text("abc", min_size=1, max_size=5)


@given(st.lists(names, min_size=1, max_size=20), names)
def test_exactly_the_listed_hosts_are_in_a_list(listed, host):
    entries = _Entries([f"{name}.example" for name in listed])
    assert (f"{host}.example" in entries) == (host in listed)


def test_texts_are_blocked_by_sha256_and_md5(tmp_path):
    texts = ["secret one", "秘密", "public"]
    file = tmp_path / "hashes"
    file.write_text(
        hashlib.sha256(texts[0].encode()).hexdigest().upper()
        + f"\n{hashlib.md5(texts[1].encode()).hexdigest()} # leaked\n",
        encoding="utf-8",
    )
    result = STEPS[Blocklist](Blocklist(hashes=[str(file)])).apply(Block(texts, [{}] * 3))
    assert list(result.reasons) == ["blocked text", "blocked text", None]
    assert not result.counts


@pytest.mark.parametrize(
    ("field", "content", "sentence"),
    [
        ("urls", b"good.example\n0.0.0.0 bad.example\n", r"line 2: '0\.0\.0\.0 bad\.example' is no host .* and no URL"),
        ("urls", b"\n\nhttp:///path\n", "line 3"),
        ("urls", b"ok.example\n\xff\xfe\n", "line 2: not UTF-8"),
        ("hashes", b"# list\nabc\n", "line 2: 'abc' is no hash; 64 hex digits"),
        ("hashes", b"g" * 64, "line 1"),
        ("urls", None, r"blocklist: .*list\.txt: no such file or folder"),
    ],
)
def test_bad_lists_are_one_sentence(field, content, sentence, tmp_path):
    file = tmp_path / "list.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=sentence) as problem:
        STEPS[Blocklist](Blocklist(**{field: [str(file)]}))
    assert str(file) in str(problem.value)


def test_a_blocklist_lists_something():
    with pytest.raises(ValidationError, match="name at least one file"):
        Blocklist()


def test_parts_of_urls():
    assert parts_of("HTTP://Example.COM:80/A/?q=1#f") == ("example.com", "example.com/A?q=1")
    assert parts_of("example.com") == ("example.com", "example.com")


def test_lists_may_be_globs_and_compressed(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one.example\n")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"two.example\n"))
    step = BlocklistStep(Blocklist(urls=[f"{tmp_path}/*.txt*"]))
    block = Block(["a", "b", "c"], [{"url": f"https://{name}.example/"} for name in ("one", "two", "three")])
    assert step.apply(block).reasons == ["blocked host", "blocked host", None]
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"two.example\n" * 999)[:-12])
    with pytest.raises(DataError, match=r"b\.txt\.gz: after line \d+ the compressed list is damaged"):
        BlocklistStep(Blocklist(urls=[f"{tmp_path}/*.txt*"]))

"""A corpus: the counts add up, the same input gives the same bytes, unfinished work goes on, whole or absent."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

pytest.importorskip("daft")

from firstlight.config import CorpusConfig
from firstlight.corpus import build, build_corpus, corpus_table
from firstlight.corpus.statistics import Lengths
from firstlight.documents import BadLine, Document, json_line, read_documents
from firstlight.support.errors import ConfigError, DataError, FirstlightError

WHITE_SPACE = "".join(c for c in map(chr, range(0x10000)) if c.isspace() and not "\x1c" <= c <= "\x1f")
"""Unicode's White_Space, which lacks four control characters that Python's `str.strip` takes along."""

TOLERANT = CorpusConfig(max_bad_fraction=1.0)
TIMES = "timings.json"
"""The one file of a corpus that is not the same every time."""


def source(path: Path, *texts: str) -> list[str]:
    path.write_bytes(b"".join(json_line(text, {"n": n, "from": path.name}) for n, text in enumerate(texts)))
    return [str(path)]


def written(output: Path, name: str) -> list[Document | BadLine]:
    return [item for path in sorted((output / name).iterdir()) for item in read_documents(str(path))]


def tree(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != TIMES)
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


lines = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30).map(lambda text: json_line(text, {"k": 1})),
    st.sampled_from([json_line(text, {}) for text in ("", " \n", "same", "short", "a longer text than the rest")]),
    st.sampled_from([b"broken\n", b'{"text": 3}\n', b'{"text": "caf\xe9"}\n', b"[1]\n", b'{"text": "\\u0000"}\n']),
)
files = st.lists(lines, max_size=30)


@settings(max_examples=8)
@given(st.dictionaries(st.sampled_from(["web", "books", "code"]), files, min_size=1), st.integers(0, 8), st.booleans())
def test_counts_add_up_and_only_first_occurrences_stay(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, list[bytes]], min_characters: int, deduplicate: bool
) -> None:
    folder = tmp_path_factory.mktemp("counts")
    sources: dict[str, list[str]] = {}
    for name, data in content.items():
        (folder / f"{name}.jsonl").write_bytes(json_line(f"always kept {name}", {}) + b"".join(data))
        sources[name] = [str(folder / f"{name}.jsonl")]
    steps: list[Any] = [{"step": "length", "min_characters": min_characters}] + ["exact_duplicates"] * deduplicate
    report = build_corpus(sources, folder / "out", CorpusConfig(max_bad_fraction=1, steps=steps), workers=1)

    for step in report["steps"]:
        assert step["documents_in"] == step["documents_out"] + sum(step["dropped"].values())
        assert step["bytes_in"] == step["bytes_out"] + sum(step["dropped_bytes"].values())
    assert [step["documents_in"] for step in report["steps"][1:]] == [
        step["documents_out"] for step in report["steps"][:-1]
    ]
    assert report["steps"][0]["documents_in"] == sum(s["documents_in"] for s in report["sources"].values())
    assert report["steps"][-1]["documents_out"] == sum(s["documents_out"] for s in report["sources"].values())
    seen: set[str] = set()
    for name, data in content.items():
        counts = report["sources"][name]
        read = list(read_documents(sources[name][0]))
        good = [item for item in read if isinstance(item, Document)]
        assert counts["bad_lines"] == len(read) - len(good)
        assert counts["documents_in"] + counts["bad_lines"] == len(data) + 1
        assert counts["documents_in"] == counts["documents_out"] + sum(counts["dropped"].values())
        assert counts["bytes_in"] == sum(len(item.text.encode()) for item in good)
        assert counts["repaired"] == sum(item.repaired for item in good)
        assert counts["with_nul"] == sum("\0" in item.text for item in good)
        kept = []
        for item in good:
            if len(item.text.strip(WHITE_SPACE)) >= min_characters and not (deduplicate and item.text in seen):
                kept.append(Document(item.text, {**item.metadata, "source": name}))
                seen.add(item.text)
        assert written(folder / "out", name) == kept
        assert counts["bytes_out"] == sum(len(item.text.encode()) for item in kept)


def test_the_first_of_equal_texts_stays_across_files_and_sources(tmp_path: Path) -> None:
    first = source(tmp_path / "b.jsonl", "one", "two", "one") + source(tmp_path / "a.jsonl", "two", "three")
    second = source(tmp_path / "c.jsonl", "three", "four")
    report = build_corpus({"second": second, "first": first}, tmp_path / "out")
    assert list(report["sources"]) == ["second", "first"]
    origins = [
        (d.text, d.metadata["from"], d.metadata["n"])
        for d in written(tmp_path / "out", "first")
        if isinstance(d, Document)
    ]
    assert origins == [("two", "a.jsonl", 0), ("one", "b.jsonl", 0)]
    assert report["sources"]["first"]["dropped"] == {"1. exact_duplicates": 3}
    assert json.loads((tmp_path / "out" / "corpus.json").read_text()) == report


STEPS: list[Any] = [
    {"step": "length", "min_characters": 200},
    "exact_duplicates",
    {"step": "near_duplicates"},
    {"step": "gopher_quality", "except_sources": ["code"]},
]


def test_the_same_input_gives_the_same_bytes_whatever_the_workers(tmp_path: Path, tiny_corpus: dict[str, Path]) -> None:
    sources = {name: [str(path)] for name, path in tiny_corpus.items()}
    chosen = CorpusConfig(steps=STEPS, shard_bytes=50_000)
    one = build_corpus(sources, tmp_path / "one", chosen, workers=1)
    three = build_corpus(sources, tmp_path / "three", chosen, workers=3)
    assert one == three
    assert tree(tmp_path / "one") == tree(tmp_path / "three")
    assert any(len(counts["files"]) > 2 for counts in one["sources"].values())


def test_unknown_metadata_survives_phases(tmp_path: Path) -> None:
    metadata = {"source": "elsewhere", "score": 0.25, "odd": "\ud800", "deep": {"list": [1, None, {"é": "中"}]}}
    (tmp_path / "in.jsonl").write_text(json.dumps({"text": "t", "url": "u", "metadata": metadata}))
    build_corpus({"web": [str(tmp_path / "in.jsonl")]}, tmp_path / "out")
    assert written(tmp_path / "out", "web") == [Document("t", {**metadata, "url": "u"})]


def test_a_step_sees_only_the_sources_and_languages_it_is_for(tmp_path: Path) -> None:
    texts = ["short", "a text that is long enough"]
    for name in ("web", "code"):
        (tmp_path / f"{name}.jsonl").write_bytes(
            b"".join(
                json_line(f"{text} {name} {language}", {"language": language})
                for text in texts
                for language in ("en", "zh")
            )
        )
    sources = {name: [str(tmp_path / f"{name}.jsonl")] for name in ("web", "code")}
    steps = [{"step": "length", "min_characters": 20, "sources": ["web"], "languages": ["en"]}]
    report = build_corpus(sources, tmp_path / "out", CorpusConfig(steps=steps))
    assert report["steps"][0]["looked_at"] == 2 and report["steps"][0]["documents_in"] == 8
    left = [d.text for name in sources for d in written(tmp_path / "out", name) if isinstance(d, Document)]
    assert sorted(left) == sorted(
        f"{text} {name} {language}"
        for text in texts
        for name in sources
        for language in ("en", "zh")
        if (text, name, language) != ("short", "web", "en")
    )
    assert report["sources"]["web"]["languages"] == {
        "zh": {"documents": 2, "bytes": sum(len(f"{text} web zh") for text in texts)},
        "en": {"documents": 1, "bytes": len("a text that is long enough web en")},
    }


def test_samples_of_what_was_dropped_say_why(tmp_path: Path) -> None:
    paths = source(tmp_path / "in.jsonl", "kept for its length", *(f"x{n}" for n in range(30)))
    steps = [{"step": "length", "min_characters": 10}]
    build_corpus({"web": paths}, tmp_path / "out", CorpusConfig(steps=steps, samples_per_step=5))
    samples = [json.loads(line) for line in (tmp_path / "out" / "dropped" / "00-length.jsonl").read_text().splitlines()]
    assert len(samples) == 5
    assert all(s["reason"] == "too short" and s["text"].startswith("x") and s["source"] == "web" for s in samples)


def test_a_changed_step_redoes_only_what_comes_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = source(tmp_path / "in.jsonl", *(f"document {n} with some text" for n in range(40)), "short", "short")
    work = tmp_path / "work"
    first = [{"step": "length", "min_characters": 2}, "exact_duplicates", {"step": "length", "min_characters": 10}]
    build_corpus({"web": paths}, tmp_path / "a", CorpusConfig(steps=first), work=work)
    capsys.readouterr()
    changed = [*first[:2], {"step": "length", "min_characters": 26}]
    report = build_corpus({"web": paths}, tmp_path / "b", CorpusConfig(steps=changed), work=work)
    assert "corpus 1/2: kept from before (length, exact_duplicates)" in capsys.readouterr().err
    fresh = build_corpus({"web": paths}, tmp_path / "c", CorpusConfig(steps=changed))
    assert report == fresh and tree(tmp_path / "b") == tree(tmp_path / "c")
    assert report["steps"][2]["dropped"] == {"too short": 11}
    build_corpus({"web": paths}, tmp_path / "d", CorpusConfig(steps=changed, keep_intermediate=False), work=work)
    assert not work.exists()


def test_bad_lines_are_listed_and_too_many_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(json_line(f"text {n}", {}) for n in range(97)) + b"oops\n" * 3)
    report = build_corpus({"web": [str(path)]}, tmp_path / "out", CorpusConfig(max_bad_fraction=0.03))
    counts = report["sources"]["web"]
    assert counts["bad_lines"] == 3 and counts["bad_lines_by_file"] == {str(path): 3}
    assert [(bad["path"], bad["line"]) for bad in counts["first_bad_lines"]] == [(str(path), n) for n in (98, 99, 100)]
    assert counts["bad_lines_by_reason"] == {"not JSON": 3}
    [warning] = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert "3 of 100 lines (3.00%)" in warning and f"{path}, line 98: not JSON" in warning
    with pytest.raises(DataError, match=r"3 of 100 lines \(3\.00%\) cannot be read.*in\.jsonl, line 98: not JSON"):
        build_corpus({"web": [str(path)]}, tmp_path / "strict")
    assert not (tmp_path / "strict").exists()


def test_a_hopeless_source_is_given_up_early(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"content": "x"}\n' * 30_000)
    with pytest.raises(DataError, match=r"10,000 of 10,000 lines .* no field 'text' among 'content'"):
        build_corpus({"web": [str(path)]}, tmp_path / "out")
    assert names(tmp_path) == ["in.jsonl"]


@pytest.mark.parametrize(
    ("sources", "error", "sentence"),
    [
        ({}, ConfigError, "no sources"),
        ({"../up": ["in.jsonl"]}, ConfigError, "the name of a source"),
        ({".dot": ["in.jsonl"]}, ConfigError, "the name of a source"),
        ({"dropped": ["in.jsonl"]}, ConfigError, "dropped is taken"),
        ({"web": ["nowhere"]}, DataError, "nowhere: no such file"),
        ({"web": []}, DataError, "no inputs"),
        ({"web": ["short.jsonl"]}, DataError, r"no document is left of 2 read \(2 length: too short\)"),
        ({"a": ["in.jsonl"], "b": ["in.jsonl"]}, DataError, r"'b': no document is left of 1 read \(1 exact_dup"),
        ({"web": ["out"]}, DataError, "lies in the output folder"),
    ],
)
def test_a_wrong_request_is_one_sentence_and_leaves_things_as_they_were(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sources: dict[str, list[str]],
    error: type[Exception],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    source(Path("in.jsonl"), "a text")
    source(Path("short.jsonl"), "", "   ")
    build_corpus({"old": ["in.jsonl"]}, Path("out"))
    before = tree(tmp_path / "out")
    with pytest.raises(error, match=sentence):
        build_corpus(sources, Path("out"), work=tmp_path / "work")
    assert tree(tmp_path / "out") == before


def test_a_step_for_a_source_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    paths = source(tmp_path / "in.jsonl", "a text")
    steps = [{"step": "length", "sources": ["wbe"]}]
    with pytest.raises(ConfigError, match=r"corpus\.steps\.0 \(length\): sources names 'wbe'.*Did you mean 'web'"):
        build_corpus({"web": paths}, tmp_path / "out", CorpusConfig(steps=steps))


def test_output_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = source(tmp_path / "in.jsonl", "a text")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="a file, where the folder of the corpus is due"):
        build_corpus({"web": paths}, tmp_path / "file")
    with pytest.raises(DataError, match="cannot be written"):
        build_corpus({"web": paths}, tmp_path / "file" / "inside")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build, "write_report", full)
    with pytest.raises(DataError, match=r"out: the corpus cannot be written \(No space left on device\)"):
        build_corpus({"web": paths}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


PROGRAM = (
    "import sys; from pathlib import Path; from firstlight.corpus import build_corpus;"
    "from firstlight.config import CorpusConfig;"
    "build_corpus({'web': sys.argv[3:]}, Path(sys.argv[1]), CorpusConfig(shard_bytes=int(sys.argv[2])), workers=2)"
)


@pytest.mark.parametrize("sent", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL])
def test_an_interrupted_build_leaves_no_corpus_and_goes_on(tmp_path: Path, sent: signal.Signals) -> None:
    inputs = [tmp_path / f"{n}.jsonl" for n in range(3)]
    for number, path in enumerate(inputs):
        source(path, *(f"{number} {n} " * 400 for n in range(10_000)))
    output = tmp_path / "out"
    command = [sys.executable, "-c", PROGRAM, str(output), "1000000", *map(str, inputs)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob(".out.work/phase-0-*/unit-*/record.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(sent)
    assert process.wait(60) != 0
    assert not output.exists()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "were finished before" in done.stderr or "kept from before" in done.stderr
    build_corpus({"web": [str(path) for path in inputs]}, tmp_path / "whole", CorpusConfig(shard_bytes=1_000_000))
    assert tree(output) == tree(tmp_path / "whole")


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    program = PROGRAM + (
        "; import resource; print(max(resource.getrusage(who).ru_maxrss "
        "for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))"
    )
    peaks = []
    for times in (1, 5):
        path = tmp_path / f"{times}.jsonl"
        with path.open("wb") as handle:
            for number in range(times * 20_000):
                handle.write(json_line(f"document {number} " + "some words to fill it up " * 100, {"n": number}))
        command = [sys.executable, "-c", program, tmp_path / "out", "20000000", path]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert peaks[1] < 1.2 * peaks[0]


def test_a_missing_engine_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = source(tmp_path / "in.jsonl", "a text")
    monkeypatch.setitem(sys.modules, "daft", None)
    with pytest.raises(FirstlightError, match=r"pip install 'firstlight\[corpus\]'"):
        build_corpus({"web": paths}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_tables_fit_eighty_columns(tmp_path: Path) -> None:
    name = "a-source-with-a-very-long-name-indeed"
    path = tmp_path / "in.jsonl"
    path.write_bytes(json_line("text " * 50_000, {}) + b'\n{"text": ""}\n{"text": "caf\xe9"}\noops\n')
    report = build_corpus({name: [str(path)]}, tmp_path / "out", TOLERANT)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(corpus_table(report))
    shown = console.export_text()
    assert max(map(len, shown.splitlines())) <= 80
    for word in ("too short", "bad_lines", "repaired", "250 kB", "250k"):
        assert word in shown


@given(st.lists(st.integers(0, 10**7), min_size=1))
def test_lengths_summarise_within_half_a_percent(lengths: list[int]) -> None:
    histogram = Lengths()
    for length in lengths:
        histogram.add(length)
    summary = histogram.summary()
    median = sorted(lengths)[(len(lengths) - 1) // 2]
    assert (summary["min"], summary["max"]) == (min(lengths), max(lengths))
    assert summary["mean"] == round(sum(lengths) / len(lengths), 1)
    assert abs(summary["median"] - median) <= 0.004 * median
    assert summary["min"] <= summary["median"] <= summary["max"]

"""Every document is there once, in the same bytes, however many workers wrote it and however often they died."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from firstlight.engine.workers import run_jobs
from firstlight.support.errors import ConfigError, DataError
from firstlight.tokens import tokenize
from firstlight.tokens.dataset import TokenDataset
from firstlight.tokens.indexed import IndexedReader
from firstlight.tokens.tokenize import plan_units, tokenize_files
from firstlight.tokens.tokenize_unit import TokenizeSettings, is_held_out
from firstlight.tokens.tokenizer import EOD_TOKEN, Tokenizer

PART_BYTES = 40_000
"""Small units, so that a small corpus has many."""

PROGRAM = f"""
import sys
from firstlight.tokens import tokenize
from firstlight.tokens.tokenizer import Tokenizer
tokenize.UNIT_BYTES = {PART_BYTES}
files, tokenizer, output = sys.argv[1:4]
tokenize.tokenize_files([files], Tokenizer.load(tokenizer), output, source="source", validation_fraction=0.2,
                        shard_tokens=10_000, workers=2)
"""


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenize, "UNIT_BYTES", PART_BYTES)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, tiny_texts: list[str]) -> Path:
    """Twelve files of about 35 kB of documents, among them some that occur twice or spell special tokens."""
    folder = tmp_path_factory.mktemp("documents")
    texts = [*tiny_texts, *tiny_texts[:5], EOD_TOKEN, f"a{EOD_TOKEN}b", "\0", "世界"]
    for number in range(12):
        lines = [json.dumps({"text": text}) for text in texts[number::12]]
        (folder / f"{number:02d}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def saved_tokenizer(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, corpus: Path, saved_tokenizer: Path
) -> tuple[dict[str, bytes], float]:
    """The files of a run that nobody disturbed, and the seconds it took."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    started = time.monotonic()
    with start(corpus, saved_tokenizer, output) as process:
        assert process.wait() == 0
    return tree(output), time.monotonic() - started


def start(corpus: Path, tokenizer: Path, output: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(corpus), str(tokenizer), str(output)], stderr=subprocess.PIPE, text=True
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def run(corpus: Path, tokenizer: Tokenizer, output: Path, **options: object) -> TokenDataset:
    defaults = {"source": "source", "validation_fraction": 0.2, "shard_tokens": 10_000, "workers": 2}
    return tokenize_files([str(corpus)], tokenizer, output, **{**defaults, **options})  # type: ignore[arg-type]


def texts_of(corpus: Path) -> list[str]:
    lines = (line for file in sorted(corpus.iterdir()) for line in file.read_text(encoding="utf-8").splitlines())
    return [json.loads(line)["text"] for line in lines]


def documents_of(dataset: TokenDataset, split: str) -> list[list[int]]:
    return [document.tolist() for document in dataset.splits[split].documents()]


def test_every_document_is_there_once_and_ends_with_eod(
    corpus: Path, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    dataset = run(corpus, tiny_tokenizer, tmp_path / "out")
    dataset.verify()
    written = [*documents_of(dataset, "train"), *documents_of(dataset, "validation")]
    expected = [[*tiny_tokenizer.encode(text), tiny_tokenizer.eod_id] for text in texts_of(corpus)]
    assert Counter(map(tuple, written)) == Counter(map(tuple, expected))
    row = np.concatenate([dataset.splits[name].read(0, dataset.splits[name].num_tokens) for name in dataset.splits])
    assert (row == tiny_tokenizer.eod_id).sum() == len(expected)
    text_bytes = sum(split.text_bytes for split in dataset.splits.values())
    assert text_bytes == sum(len(text.encode("utf-8")) for text in texts_of(corpus))
    assert dataset.tokenizer.fingerprint == tiny_tokenizer.fingerprint


def test_shards_keep_their_limit_unless_a_document_is_longer(
    corpus: Path, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    dataset = run(corpus, tiny_tokenizer, tmp_path / "out", shard_tokens=3_000)
    shards = dataset.splits["train"].shards
    assert len(shards) > 12
    assert any(shard.tokens > 3_000 for shard in shards)
    assert all(shard.tokens <= 3_000 or shard.documents == 1 for shard in shards)


def test_a_shard_is_read_by_its_prefix_alone(corpus: Path, tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    dataset = run(corpus, tiny_tokenizer, tmp_path / "out")
    reader = IndexedReader(tmp_path / "out" / "train-00000")
    assert reader[0].tolist() == documents_of(dataset, "train")[0]


def test_held_out_is_a_matter_of_the_text(corpus: Path, tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    dataset = run(corpus, tiny_tokenizer, tmp_path / "out")
    train, validation = (set(map(tuple, documents_of(dataset, name))) for name in ("train", "validation"))
    assert not train & validation
    alone = tmp_path / "one.jsonl"
    alone.write_text("".join(json.dumps({"text": text}) + "\n" for text in reversed(texts_of(corpus))))
    other = run(alone, tiny_tokenizer, tmp_path / "other")
    assert set(map(tuple, documents_of(other, "validation"))) == validation


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.2, 0.5])
def test_the_held_out_share_is_the_fraction(fraction: float) -> None:
    held_out = sum(is_held_out(f"document {number}".encode(), fraction) for number in range(20_000))
    assert abs(held_out / 20_000 - fraction) <= 5 * (fraction * (1 - fraction) / 20_000) ** 0.5


def test_without_a_fraction_there_is_no_validation_split(
    corpus: Path, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    dataset = run(corpus, tiny_tokenizer, tmp_path / "out", validation_fraction=0)
    assert list(dataset.splits) == ["train"]
    assert dataset.splits["train"].num_documents == len(texts_of(corpus))


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_does_not_show(
    corpus: Path,
    saved_tokenizer: Path,
    tmp_path: Path,
    undisturbed: tuple[dict[str, bytes], float],
    workers: int,
) -> None:
    run(corpus, Tokenizer.load(saved_tokenizer), tmp_path / "out", workers=workers)
    assert tree(tmp_path / "out") == undisturbed[0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_killed_at_random_moments_it_ends_in_the_same_bytes(
    corpus: Path, saved_tokenizer: Path, tmp_path: Path, undisturbed: tuple[dict[str, bytes], float]
) -> None:
    files, seconds = undisturbed
    draw = random.Random(0)
    output = tmp_path / "out"
    for _ in range(5):
        with start(corpus, saved_tokenizer, output) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(draw.uniform(0.3, 1.0) * seconds)
            process.kill()
        if output.exists():
            assert tree(output) == files
            break
    else:
        with start(corpus, saved_tokenizer, output) as process:
            assert process.wait() == 0
    assert tree(output) == files


def interrupt_naming(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """Ctrl-C as the shard number `calls` is about to get its last name."""
    real, left = tokenize._move, calls

    def move(old: Path, new: Path) -> None:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        real(old, new)

    monkeypatch.setattr(tokenize, "_move", move)


@pytest.mark.parametrize("calls", [0, 1, 7])
def test_stopped_while_shards_are_named_it_goes_on(
    corpus: Path,
    saved_tokenizer: Path,
    tmp_path: Path,
    undisturbed: tuple[dict[str, bytes], float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    calls: int,
) -> None:
    tokenizer = Tokenizer.load(saved_tokenizer)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_naming(patch, calls)
        run(corpus, tokenizer, tmp_path / "out")
    assert "the same command goes on from there" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(tokenize, "run_jobs", no_jobs)
    run(corpus, tokenizer, tmp_path / "out")
    assert tree(tmp_path / "out") == undisturbed[0]


@contextlib.contextmanager
def no_jobs(
    module: str, setup: object, jobs: list[object], workers: int | None, ray: str | None
) -> Iterator[Iterator[dict[str, object]]]:
    assert not jobs, "finished units are not done again"
    yield iter([])


def test_leftovers_of_other_inputs_are_not_used(
    corpus: Path, tiny_tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = tmp_path / "documents"
    copied.mkdir()
    for file in corpus.iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_naming(patch, 3)
        run(copied, tiny_tokenizer, tmp_path / "out")
    with (copied / "03.jsonl").open("a") as handle:
        handle.write('{"text": "one more"}\n')
    run(copied, tiny_tokenizer, tmp_path / "out")
    run(copied, tiny_tokenizer, tmp_path / "fresh")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_a_unit_is_named_after_all_that_shapes_it(corpus: Path, tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    inputs = sorted(map(str, corpus.iterdir()))
    base = TokenizeSettings(0.2, 10_000, "text", "repair")
    lower = Tokenizer(json.loads(tiny_tokenizer._rust.to_str()) | {"normalizer": {"type": "Lowercase"}})
    plans = [
        plan_units(inputs, base, tiny_tokenizer),
        plan_units(inputs, base, lower),
        *(
            plan_units(inputs, replace(base, **{name: value}), tiny_tokenizer)
            for name, value in (
                ("validation_fraction", 0.3),
                ("shard_tokens", 20_000),
                ("text_field", "body"),
                ("invalid_utf8", "reject"),
            )
        ),
    ]
    assert [path for unit in plans[0] for path in unit.inputs] == inputs
    assert len(plans[0]) > 1
    names = [unit.name for plan in plans for unit in plan]
    assert len(set(names)) == len(names)
    assert plan_units(inputs, base, tiny_tokenizer) == plans[0]


def worker_pids(output: Path) -> list[int]:
    partial = output.with_name(f".{output.name}.partial")
    return [int(entry.name.rpartition(".")[2]) for entry in partial.glob(".*.*") if entry.is_dir()]


def wait_for_workers(process: subprocess.Popen[str], output: Path) -> list[int]:
    while process.poll() is None:
        pids = worker_pids(output)
        if pids:
            return pids
        time.sleep(0.002)
    pytest.fail(f"the run ended before a worker was seen: {process.communicate()[1]}")


def long_corpus(folder: Path, texts: list[str]) -> Path:
    """Files that take a while."""
    folder.mkdir()
    for number in range(4):
        lines = (json.dumps({"text": f"{number} {text}"}) for _ in range(3) for text in texts)
        (folder / f"{number}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_ctrl_c_ends_the_workers_and_leaves_no_dataset(
    tiny_texts: list[str], saved_tokenizer: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with start(long_corpus(tmp_path / "long", tiny_texts), saved_tokenizer, output) as process:
        pids = wait_for_workers(process, output)
        process.send_signal(signal.SIGINT)
        message = process.communicate()[1]
    assert process.returncode != 0
    assert message.rstrip().endswith("KeyboardInterrupt")
    assert not output.exists()
    assert not any(map(is_running, pids))


def test_a_worker_that_is_killed_is_replaced(tiny_texts: list[str], saved_tokenizer: Path, tmp_path: Path) -> None:
    documents = long_corpus(tmp_path / "long", tiny_texts)
    output = tmp_path / "out"
    with start(documents, saved_tokenizer, output) as process:
        os.kill(wait_for_workers(process, output)[0], signal.SIGKILL)
        message = process.communicate()[1]
    assert process.returncode == 0
    assert "a worker process ended before its work was done (signal 9; memory may have run out)" in message
    run(documents, Tokenizer.load(saved_tokenizer), tmp_path / "undisturbed")
    assert tree(output) == tree(tmp_path / "undisturbed")


def test_workers_end_when_their_parent_is_killed(tiny_texts: list[str], saved_tokenizer: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with start(long_corpus(tmp_path / "long", tiny_texts), saved_tokenizer, output) as process:
        pids = wait_for_workers(process, output)
        process.kill()
    patience = 3000
    while any(map(is_running, pids)) and patience:
        time.sleep(0.02)
        patience -= 1
    assert not any(map(is_running, pids))


def test_a_program_that_is_no_worker_is_noticed() -> None:
    with pytest.raises(DataError, match="exit code 0"), run_jobs("this", {}, [{}], 1) as answers:
        list(answers)


def write_lines(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_lines_that_are_no_documents_are_counted_and_shown(
    tiny_tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [f'{{"text": "document {number}"}}' for number in range(40)]
    path = write_lines(tmp_path / "a.jsonl", *good, "{broken", '{"text": ""}', '{"text": "\\ud800"}')
    dataset = run(path, tiny_tokenizer, tmp_path / "out", max_bad_fraction=0.05)
    shown = capsys.readouterr().err
    assert "1 of 43 lines could not be read" in shown
    assert f"{path}:41:" in shown
    assert "1 empty documents were left out" in shown
    assert "invalid UTF-8 in 1 documents" in shown
    assert sum(split.num_documents for split in dataset.splits.values()) == 41
    reading = dataset.description["reading"]
    assert (reading["documents"], reading["empty_documents"], reading["bad_lines"]) == (41, 1, 1)


def test_too_many_bad_lines_stop(tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", '{"text": "good"}', "bad", '{"text": 3}', '{"other": 1}')
    with pytest.raises(
        DataError, match=r"3 of 4 lines cannot be read, above the allowed share of 0\.01 \(.*a\.jsonl:2"
    ):
        run(path, tiny_tokenizer, tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [(['{"text": ""}'], "no text at all in 1 lines"), (['{"text": "x"}'], "fell into the validation split")],
)
def test_nothing_to_train_on_is_one_sentence(
    tiny_tokenizer: Tokenizer, tmp_path: Path, lines: list[str], message: str
) -> None:
    path = write_lines(tmp_path / "a.jsonl", *lines)
    with pytest.raises(DataError, match=message):
        run(path, tiny_tokenizer, tmp_path / "out", validation_fraction=0.9999)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.jsonl"]


def test_an_empty_validation_split_is_said(
    tiny_tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_lines(tmp_path / "a.jsonl", '{"text": "x"}')
    dataset = run(path, tiny_tokenizer, tmp_path / "out", validation_fraction=1e-9)
    assert list(dataset.splits) == ["train"]
    assert "none of 1 documents fell into the validation split" in capsys.readouterr().err


def test_a_worker_s_sentence_reaches_the_caller(tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"body": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: no column 'text'"):
        run(tmp_path / "a.parquet", tiny_tokenizer, tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.parquet"]
    dataset = run(tmp_path / "a.parquet", tiny_tokenizer, tmp_path / "out", text_field="body", validation_fraction=0)
    assert documents_of(dataset, "train") == [[*tiny_tokenizer.encode("x"), tiny_tokenizer.eod_id]]


def test_what_exists_is_not_replaced_unless_asked(corpus: Path, tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    first = run(corpus, tiny_tokenizer, tmp_path / "out", validation_fraction=0)
    with pytest.raises(DataError, match="exists already"):
        run(corpus, tiny_tokenizer, tmp_path / "out")
    assert TokenDataset.open(tmp_path / "out").fingerprint == first.fingerprint
    second = run(corpus, tiny_tokenizer, tmp_path / "out", overwrite=True)
    assert second.fingerprint != first.fingerprint
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("years of work")
    for target in (tmp_path / "foreign", tmp_path / "foreign" / "thesis.tex"):
        with pytest.raises(DataError, match="exists and is not a token dataset"):
            run(corpus, tiny_tokenizer, target, overwrite=True)


@pytest.mark.parametrize(
    "options", [{"validation_fraction": 1.0}, {"validation_fraction": -0.1}, {"shard_tokens": 0}, {"workers": 0}]
)
def test_settings_out_of_range_are_refused(
    corpus: Path, tiny_tokenizer: Tokenizer, tmp_path: Path, options: dict[str, float]
) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        run(corpus, tiny_tokenizer, tmp_path / "out", **options)


@pytest.mark.parametrize("name", ["missing.jsonl", "*.none"])
def test_missing_inputs_are_refused(tiny_tokenizer: Tokenizer, tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=name.replace("*", r"\*")):
        run(tmp_path / name, tiny_tokenizer, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []

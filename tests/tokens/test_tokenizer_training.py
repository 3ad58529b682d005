"""Training is a function of the set of texts; tokens respect words, digits and spaces; the sample keeps its budget."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.support.errors import ConfigError, DataError
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.tokens.tokenizer_training import sample_texts, train_on_sample, train_tokenizer


def vocabulary(tokenizer: Tokenizer) -> list[str]:
    """Text of every token but the special ones, where the token is whole characters."""
    texts = (tokenizer.decode([index]) for index in range(3, tokenizer.vocab_size))
    return [text for text in texts if "\ufffd" not in text]


def test_order_of_texts_does_not_matter(tiny_texts: list[str], tiny_tokenizer: Tokenizer) -> None:
    shuffled = random.Random(5).sample(tiny_texts, len(tiny_texts))
    assert train_tokenizer(shuffled, 1200, show_progress=False).fingerprint == tiny_tokenizer.fingerprint


def test_size_ids_and_alphabet(tiny_tokenizer: Tokenizer) -> None:
    assert tiny_tokenizer.vocab_size == 1200
    assert (tiny_tokenizer.eod_token, tiny_tokenizer.eod_id) == ("<|endoftext|>", 0)
    assert (tiny_tokenizer.pad_token, tiny_tokenizer.pad_id) == ("<|pad|>", 1)
    assert (tiny_tokenizer.mask_token, tiny_tokenizer.mask_id) == ("<|mask|>", 2)
    assert sorted(tiny_tokenizer.token_bytes()[3:259].tolist()) == [1] * 256


def test_tokens_stay_inside_words_and_spaces_form_tokens(tiny_tokenizer: Tokenizer, tiny_texts: list[str]) -> None:
    tokens = vocabulary(tiny_tokenizer)
    assert not [token for token in tokens if re.search(r"\w\s+\S", token)]
    assert not [token for token in tokens if re.search(r"[^\W\d]\d|\d[^\W\d]", token)]
    assert " the" in tokens
    assert " " * 4 in tokens
    assert len(tiny_tokenizer.encode(" " * 12 + "return")) <= 4


@pytest.mark.parametrize(("digits", "longest"), [("single", 1), ("groups_of_three", 3)])
def test_digits_are_grouped_as_asked(digits: str, longest: int) -> None:
    numbers = [" ".join(str(number) for number in range(1000, 3000))] * 3
    tokenizer = train_tokenizer(numbers, 600, digits=digits, show_progress=False)
    runs = [len(run) for token in vocabulary(tokenizer) for run in re.findall(r"\d+", token)]
    assert max(runs) == longest
    assert len(tokenizer.encode("1234567")) >= 7 / longest


def test_text_too_small_for_the_vocabulary_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = train_tokenizer(["aaaa bbbb"], 5000)
    assert 259 < tokenizer.vocab_size < 300
    assert f"{tokenizer.vocab_size} tokens only, not 5000" in capsys.readouterr().err


@pytest.mark.parametrize("size", [0, 1, 256, 258])
def test_a_vocabulary_without_room_for_bytes_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"vocab_size is {size}.*at least 259"):
        train_tokenizer(["text"], size, show_progress=False)


def test_the_smallest_vocabulary_is_bytes() -> None:
    tokenizer = train_tokenizer(["text text"], 259, show_progress=False)
    assert len(tokenizer.encode("text")) == 4


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_no_text_is_refused(texts: list[str]) -> None:
    with pytest.raises(DataError, match="no text"):
        train_tokenizer(texts, 300, show_progress=False)


def test_unknown_digits_are_refused() -> None:
    with pytest.raises(ConfigError, match="single or groups_of_three"):
        train_tokenizer(["text"], 300, digits="pairs", show_progress=False)


def test_an_error_in_the_texts_reaches_the_caller() -> None:
    def texts() -> Iterator[str]:
        yield "one"
        raise DataError("line 2 is broken")

    with pytest.raises(DataError, match="line 2 is broken"):
        train_tokenizer(texts(), 300, show_progress=False)


def write_documents(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


def numbered(prefix: str, count: int, size: int) -> list[str]:
    return [f"{prefix}{number:04d}".ljust(size, ".") for number in range(count)]


@given(st.integers(100, 40_000), st.integers(1, 9), st.integers(1, 9), st.integers(0, 3))
def test_sources_give_their_share_or_all_they_have(
    tmp_path_factory: pytest.TempPathFactory, max_bytes: int, first: int, second: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("sample")
    files = {
        "a": [write_documents(folder / "a.jsonl", numbered("a", 100, 100))],
        "b": [write_documents(folder / "b.jsonl", numbered("b", 100, 100))],
    }
    texts, taken = sample_texts(files, {"a": first, "b": second}, max_bytes, seed)
    for name, weight in (("a", first), ("b", second)):
        assert taken[name] == min(10_000, int(weight / (first + second) * max_bytes))
    assert sum(len(text) for text in texts) == sum(taken.values())


def test_the_draw_depends_on_documents_and_seed_only(tmp_path: Path) -> None:
    documents = numbered("d", 300, 50)
    whole = {"s": [write_documents(tmp_path / "all.jsonl", documents)]}
    parts = {
        "s": [
            write_documents(tmp_path / "1.jsonl", documents[:70:-1]),
            write_documents(tmp_path / "2.jsonl", documents[70::-1]),
        ]
    }
    drawn = sample_texts(whole, None, 5000, 1)[0]
    assert len(drawn) == 100
    assert drawn == sample_texts(parts, None, 5000, 1)[0]
    assert set(drawn) != set(sample_texts(whole, None, 5000, 2)[0])


def test_without_weights_sources_give_in_proportion_to_their_text(tmp_path: Path) -> None:
    files = {
        "large": [write_documents(tmp_path / "large.jsonl", numbered("l", 2000, 60))],
        "small": [write_documents(tmp_path / "small.jsonl", numbered("s", 500, 60))],
    }
    taken = sample_texts(files, None, 60_000, 7)[1]
    assert sum(taken.values()) == 60_000
    assert 0.15 < taken["small"] / 60_000 < 0.25
    assert sample_texts(files, {"large": 1.0, "small": 0.0}, 60_000, 7)[1] == {"large": 60_000, "small": 0}


def test_the_last_document_is_cut_between_characters(tmp_path: Path) -> None:
    files = {"s": [write_documents(tmp_path / "s.jsonl", ["世" * 100])]}
    texts, taken = sample_texts(files, None, 100, 0)
    assert (texts, taken) == (["世" * 33], {"s": 99})


def test_bad_lines_stop_the_sample(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text('{"text": "good"}\n{"text": 3}\n')
    with pytest.raises(DataError, match=r"1 of 2 lines cannot be read.*s\.jsonl:2"):
        sample_texts({"s": [str(path)]}, None, 100, 0)


def test_train_on_sample_writes_a_tokenizer_folder(tiny_corpus: dict[str, Path], tmp_path: Path) -> None:
    files = {name: [str(path)] for name, path in tiny_corpus.items()}
    weights = {"manual": 3.0, "code": 1.0}
    tokenizer = train_on_sample(files, tmp_path / "out", vocab_size=500, weights=weights, max_bytes=80_000, seed=1)
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["bytes_by_source"] == {"manual": 60_000, "code": 20_000}
    assert Tokenizer.load(tmp_path / "out").fingerprint == tokenizer.fingerprint
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(("small", "warned"), [(0.5, True), (0.05, False)])
def test_a_source_too_small_for_its_weight_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], small: float, warned: bool
) -> None:
    files = {
        "large": [write_documents(tmp_path / "large.jsonl", numbered("l", 500, 100))],
        "small": [write_documents(tmp_path / "small.jsonl", numbered("s", 20, 100))],
    }
    weights = {"large": 1 - small, "small": small}
    train_on_sample(files, tmp_path / "out", vocab_size=300, weights=weights, max_bytes=20_000)
    shown = " ".join(capsys.readouterr().err.split())
    assert ("small: 2 kB of text, all it has, where its weight asks for 10 kB" in shown) == warned
    assert ("at most 4 kB keeps the shares" in shown) == warned
    assert "large:" not in shown

"""The figures of a comparison are those of the text and the tokenizers, and its tables fit a terminal."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import decoders, models, pre_tokenizers

from firstlight.support.errors import ConfigError, DataError
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.tokens.tokenizer_comparison import compare_tokenizers, comparison_table, count_words


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> list[str]:
    """A byte-level one, and one of whole words that knows few of them."""
    folder = tmp_path_factory.mktemp("tokenizers")
    tiny_tokenizer.save(folder / "bytes")
    vocabulary = {"<|endoftext|>": 0, "[UNK]": 1, "the": 2, "a": 3}
    words = RustTokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.decoder = decoders.Fuse()
    (folder / "words").mkdir()
    words.save(str(folder / "words" / "tokenizer.json"))
    return [str(folder / "bytes"), str(folder / "words")]


@pytest.fixture
def sources(tmp_path: Path, tiny_texts: list[str]) -> dict[str, list[str]]:
    lines = [json.dumps({"text": text, "metadata": {"language": "en"}}) for text in tiny_texts]
    (tmp_path / "en.jsonl").write_text("\n".join(lines))
    mixed = [{"text": "the a the", "language": "en"}, {"text": "世界 the", "language": "zh"}, {"text": "龘𠀀"}]
    (tmp_path / "mixed.jsonl").write_text("\n".join(map(json.dumps, mixed)))
    return {"manual": [str(tmp_path / "en.jsonl")], "mixed": [str(tmp_path / "mixed.jsonl")]}


def test_figures_follow_from_text_and_ids(
    tokenizers: list[str], sources: dict[str, list[str]], tiny_texts: list[str], tiny_tokenizer: Tokenizer
) -> None:
    report = compare_tokenizers(tokenizers, sources)
    assert report == json.loads(json.dumps(report))
    groups = [(group["source"], group["language"]) for group in report["groups"]]
    assert groups == [("manual", "en"), ("mixed", "en"), ("mixed", "unknown"), ("mixed", "zh")]
    assert [group["documents"] for group in report["groups"]] == [len(tiny_texts), 1, 1, 1]
    assert [group["words"] for group in report["groups"][1:]] == [3, 2, 3]
    by_bytes, by_words = report["tokenizers"]
    manual = by_bytes["groups"][0]
    ids = [tiny_tokenizer.encode(text) for text in tiny_texts]
    size = sum(len(text.encode()) for text in tiny_texts)
    assert manual["tokens"] == sum(map(len, ids))
    assert manual["bytes_per_token"] == pytest.approx(size / manual["tokens"])
    assert manual["tokens_per_word"] == pytest.approx(manual["tokens"] / sum(map(count_words, tiny_texts)))
    assert manual["exact_documents"] == manual["documents"] == len(tiny_texts)
    assert by_bytes["groups"][2]["byte_share"] == 1.0
    assert by_bytes["groups"][2]["tokens"] == 7
    assert by_bytes["total"]["unknown_share"] == 0
    others = {index for text in ("the a the", "世界 the", "龘𠀀") for index in tiny_tokenizer.encode(text)}
    assert by_bytes["vocabulary_used"] == len({index for row in ids for index in row} | others)
    assert [group["unknown_share"] for group in by_words["groups"][1:]] == [0, 1, 0.5]
    assert by_words["vocabulary_used"] == 3
    assert by_words["total"]["exact_documents"] == 0
    assert by_words["encoder"] == "tokenizers"
    for tokenizer in report["tokenizers"]:
        for name in ("tokens", "exact_documents", "documents"):
            assert tokenizer["total"][name] == sum(group[name] for group in tokenizer["groups"])


def test_the_sample_keeps_its_budget_and_does_not_depend_on_order(
    tokenizers: list[str], sources: dict[str, list[str]], tmp_path: Path
) -> None:
    report = compare_tokenizers(tokenizers[:1], sources, max_bytes_per_source=20_000, seed=3)
    assert 19_990 < report["groups"][0]["text_bytes"] <= 20_000
    lines = Path(sources["manual"][0]).read_text().splitlines()
    (tmp_path / "turned.jsonl").write_text("\n".join(lines[::-1]))
    turned = {"manual": [str(tmp_path / "turned.jsonl")], "mixed": sources["mixed"]}
    again = compare_tokenizers(tokenizers[:1], turned, max_bytes_per_source=20_000, seed=3)
    assert again["groups"] == report["groups"]


def test_tables_fit_a_terminal(tokenizers: list[str], sources: dict[str, list[str]]) -> None:
    named = {"a source with quite a long name [bold]": sources["manual"], **sources}
    report = compare_tokenizers(tokenizers, named, max_bytes_per_source=20_000)
    screen = StringIO()
    Console(file=screen, width=80).print(comparison_table(report))
    shown = screen.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    assert "[bold]" in shown.replace("\n", "")
    for figure in (f"{report['tokenizers'][0]['total']['bytes_per_token']:.2f}", "1,200", "100"):
        assert figure in shown


@given(st.lists(st.sampled_from(["the", "a-b", "世", "界", "𠀀", "kana かな"]), max_size=8))
def test_words_are_runs_and_han_characters(words: list[str]) -> None:
    expected = sum(2 if word == "kana かな" else 1 for word in words)
    assert count_words(" ".join(words)) == expected
    assert count_words("".join(f"{word}\n" for word in words)) == expected


def test_nothing_to_compare_is_refused(tokenizers: list[str], sources: dict[str, list[str]]) -> None:
    with pytest.raises(ConfigError, match="at least one tokenizer"):
        compare_tokenizers([], sources)
    with pytest.raises(ConfigError, match="one source"):
        compare_tokenizers(tokenizers, {})
    with pytest.raises(ConfigError, match="max_bytes_per_source is 0"):
        compare_tokenizers(tokenizers, sources, max_bytes_per_source=0)
    with pytest.raises(DataError, match="no such"):
        compare_tokenizers(["missing-tokenizer/x/y"], sources)

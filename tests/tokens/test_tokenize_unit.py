"""A unit's shards are the same whichever encoder made them; the work of one that gives other ids is redone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firstlight.tokens import tokenize, tokenize_unit
from firstlight.tokens import tokenizer as tokenizer_module
from firstlight.tokens.dataset import TokenDataset
from firstlight.tokens.fast import Arrays, Encode
from firstlight.tokens.split import DESCRIPTION, UNKNOWN_LANGUAGE, LanguageCounts
from firstlight.tokens.tokenize import tokenize_files
from firstlight.tokens.tokenize_unit import RECORD, TokenizeSettings
from firstlight.tokens.tokenizer import EOD_TOKEN, PAD_TOKEN, Tokenizer

SETTINGS = TokenizeSettings(0.2, 20_000, "text", "repair")
LANGUAGES: list[Any] = ["en", "zh", None, "", 7, "x" * 33]


@pytest.fixture
def documents(tmp_path: Path, tiny_texts: list[str]) -> Path:
    path = tmp_path / "documents.jsonl"
    lines = []
    for number, text in enumerate(tiny_texts):
        language = LANGUAGES[number % len(LANGUAGES)]
        metadata = {"n": number} | ({} if language is None else {"language": language})
        lines.append(json.dumps({"text": text, "metadata": metadata}))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def fresh(tokenizer: Tokenizer) -> Tokenizer:
    return Tokenizer(json.loads(tokenizer._rust.to_str()), EOD_TOKEN, PAD_TOKEN)


def run(documents: Path, tokenizer: Tokenizer, folder: Path) -> tuple[dict[str, Any], dict[str, bytes], list[int]]:
    """The record, the shards' bytes, and the progress summed up."""
    progress = [0, 0]

    def report(consumed: int, tokens: int) -> None:
        progress[0] += consumed
        progress[1] += tokens

    record = tokenize_unit.tokenize_unit([str(documents)], fresh(tokenizer), folder, SETTINGS, report)
    assert json.loads((folder / RECORD).read_text()) == record
    return record, {file.name: file.read_bytes() for file in folder.iterdir() if file.name != RECORD}, progress


class Liar:
    """An encoder that gives other ids for texts with a word in them."""

    word = " "

    def __init__(self, content: dict[str, Any], exact: Encode) -> None:
        self._exact = exact

    def encode(self, texts: list[str]) -> Arrays:
        return self._exact([text.replace(self.word, "") for text in texts])


def test_the_encoder_does_not_show(
    documents: Path, tiny_tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gigatoken")
    slow = run(documents, tiny_tokenizer, tmp_path / "slow")
    monkeypatch.setattr(tokenizer_module, "FAST_FROM_CHARACTERS", 1)
    monkeypatch.setattr(tokenize_unit, "BATCH_DOCUMENTS", 7)
    loaded = []
    real = tokenizer_module.FastEncoder
    monkeypatch.setattr(tokenizer_module, "FastEncoder", lambda *given: loaded.append(real(*given)) or loaded[-1])
    fast = run(documents, tiny_tokenizer, tmp_path / "fast")
    assert fast == slow
    assert len(loaded) == 1
    assert (fast[0]["slow_because"], fast[0]["other_ids"]) == (None, None)


@pytest.mark.parametrize("late", [False, True])
def test_other_ids_are_found_and_the_unit_done_again(
    documents: Path, tiny_tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    exact = run(documents, tiny_tokenizer, tmp_path / "exact")
    if late:
        late_text = {"text": "only at the end: xyzzy " * 50}
        with documents.open("a") as handle:
            handle.write("\n" + json.dumps(late_text))
        exact = run(documents, tiny_tokenizer, tmp_path / "exact-late")
        monkeypatch.setattr(Liar, "word", "xyzzy")
        monkeypatch.setattr(tokenize_unit, "COMPARED_SHARE", 1.0)
    monkeypatch.setattr(tokenizer_module, "FastEncoder", Liar)
    monkeypatch.setattr(tokenizer_module, "FAST_FROM_CHARACTERS", 1)
    monkeypatch.setattr(tokenize_unit, "BATCH_DOCUMENTS", 50)
    record, shards, progress = run(documents, tiny_tokenizer, tmp_path / "lied")
    assert shards == exact[1]
    assert progress == exact[2]
    assert "the document that begins with" in record["other_ids"]
    assert {name: record[name] for name in ("splits", "tally", "by_language")} == {
        name: exact[0][name] for name in ("splits", "tally", "by_language")
    }


def test_long_documents_are_compared_by_their_beginning(tiny_tokenizer: Tokenizer) -> None:
    tokenizer = fresh(tiny_tokenizer)
    comparison = tokenize_unit._Comparison(tokenizer)
    texts = ["word " * 20_000, "short"]
    comparison.compare(texts, tokenizer.encode_arrays(texts, exactly=True))
    ids, offsets = tokenizer.encode_arrays(texts, exactly=True)
    ids[offsets[1]] += 1
    with pytest.raises(tokenize_unit._OtherIds, match="short"):
        tokenize_unit._Comparison(tokenizer).compare(texts, (ids, offsets))


@pytest.mark.parametrize("absent", [True, False])
def test_the_whole_says_which_encoder_and_why(
    documents: Path,
    tiny_tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    absent: bool,
) -> None:
    record, *_ = run(documents, tiny_tokenizer, tmp_path / "unit")
    found = {"slow_because": "gigatoken is not installed"} if absent else {"other_ids": "the document that begins"}
    tokenize._show_encoder([record, record | found, record | found], "web")
    shown = " ".join(capsys.readouterr().err.split())
    expected = "encoded with `tokenizers`: gigatoken is not" if absent else "in 2 of 3 parts (for the document that"
    assert shown.count(expected) == 1
    tokenize._show_encoder([record], "web")
    assert capsys.readouterr().err == ""


def test_tokens_are_counted_by_language(
    documents: Path,
    tiny_texts: list[str],
    tiny_tokenizer: Tokenizer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dataset = tokenize_files(
        [str(documents)], tiny_tokenizer, tmp_path / "out", source="web", validation_fraction=0.2, workers=1
    )
    expected: dict[str, LanguageCounts] = {}
    for number, text in enumerate(tiny_texts):
        language = LANGUAGES[number % len(LANGUAGES)]
        counts = expected.setdefault(language if language in ("en", "zh") else UNKNOWN_LANGUAGE, LanguageCounts())
        counts.add(1, len(tiny_tokenizer.encode(text)) + 1, len(text.encode()), len(text))
    assert (
        tokenize._add_languages(
            [json.loads(json.dumps(split.by_language, default=vars)) for split in dataset.splits.values()]
        )
        == expected
    )
    for split in dataset.splits.values():
        assert sum(counts.tokens for counts in split.by_language.values()) == split.num_tokens
        assert sum(counts.documents for counts in split.by_language.values()) == split.num_documents
        assert sum(counts.text_bytes for counts in split.by_language.values()) == split.text_bytes
    shown = capsys.readouterr().err
    assert "web by language" in shown and "characters a token" in shown


def test_datasets_from_before_languages_were_counted_open(
    documents: Path, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tokenize_files([str(documents)], tiny_tokenizer, tmp_path / "out", source="web", workers=1)
    description = json.loads((tmp_path / "out" / DESCRIPTION).read_text())
    for split in description["splits"].values():
        del split["by_language"]
    (tmp_path / "out" / DESCRIPTION).write_text(json.dumps(description))
    dataset = TokenDataset.open(tmp_path / "out")
    assert dataset.splits["train"].by_language == {}


@pytest.mark.parametrize("shard_tokens", [1, 60, 1000, 10**9])
def test_documents_fill_shards_as_one_by_one(tmp_path: Path, tiny_tokenizer: Tokenizer, shard_tokens: int) -> None:
    draw = np.random.default_rng(3)
    lengths = draw.integers(1, 90, 200)
    tokens = draw.integers(0, 1000, lengths.sum()).astype(np.uint16)
    for name, step in (("one", 1), ("some", 17), ("all", 200)):
        (tmp_path / name).mkdir()
        writer = tokenize_unit._ShardWriter(tmp_path / name, "train", tiny_tokenizer, shard_tokens)
        ends = [0, *np.cumsum(lengths).tolist()]
        for first in range(0, 200, step):
            part = slice(first, first + step)
            writer.add(tokens[ends[first] : ends[min(first + step, 200)]], lengths[part], 2 * lengths[part])
        writer.leave(None, None, None)
        assert sum(shard.text_bytes for shard in writer.shards) == 2 * lengths.sum()
        assert all(shard.tokens <= shard_tokens or shard.documents == 1 for shard in writer.shards)
    folders = (tmp_path / name for name in ("one", "some", "all"))
    files = [{file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders]
    assert files[0] == files[1] == files[2]

"""The fast encoder gives the ids of the exact one for any text; where it would not, it is not used and says so."""

from __future__ import annotations

import itertools
import json
import sys
from itertools import chain, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.support.errors import DataError
from firstlight.tokens import fast
from firstlight.tokens import tokenizer as tokenizer_module
from firstlight.tokens.fast import SAMPLE, FastEncoder, NotExact, first_difference, flat
from firstlight.tokens.splitting import pieces
from firstlight.tokens.tokenizer import EOD_TOKEN, PAD_TOKEN, Tokenizer
from firstlight.tokens.tokenizer_training import train_tokenizer

pytest.importorskip("gigatoken")

TAILS = ["'s", "'t", "'re", "'VE", "'m", "'ll", "'d", "'ſ", "’s", "'", "''", "'data", "'tis", "'lla", "'été", "'sé"]
AROUND = ["a", "B", "é", "世", "7", "½", "_", "(", '"', " ", "  ", "\t", "\t\t", "\n", "\r\n", "\x0b", "\xa0", "\u3000"]
RARE = [
    "\u0301",
    "\u200d",
    "\ufe0f",
    "\u202f",
    "ก็",
    "क्ष",
    "가",
    "😀",
    "🏽",
    "…",
    "—",
    "，",
    "\0",
    "\x1c",
    EOD_TOKEN,
    "٣",
]

tricky = st.lists(st.sampled_from([*TAILS, *TAILS, *AROUND, *RARE]), max_size=40).map("".join)


@pytest.fixture(scope="module", params=["single", "groups_of_three"])
def tokenizer(request: pytest.FixtureRequest, tiny_texts: list[str]) -> Tokenizer:
    return train_tokenizer([*tiny_texts, *SAMPLE], 1200, digits=request.param, show_progress=False)


@pytest.fixture(scope="module")
def encoder(tokenizer: Tokenizer) -> FastEncoder:
    return make(content(tokenizer))


def content(tokenizer: Tokenizer) -> dict[str, Any]:
    return json.loads(tokenizer._rust.to_str())


def make(content: dict[str, Any]) -> FastEncoder:
    exact = Tokenizer(content, EOD_TOKEN)
    return FastEncoder(content, lambda texts: exact.encode_arrays(texts, exactly=True))


def assert_same(encoder: FastEncoder, tokenizer: Tokenizer, texts: list[str]) -> None:
    ids, offsets = encoder.encode(texts)
    expected = tokenizer._encode_exactly(texts)
    assert offsets[0] == 0 and offsets[-1] == len(ids)
    for number, (text, row) in enumerate(zip(texts, expected, strict=True)):
        assert ids[offsets[number] : offsets[number + 1]].tolist() == row, text


@given(st.lists(st.one_of(tricky, st.text()), max_size=6))
def test_any_texts_get_the_same_ids(encoder: FastEncoder, tokenizer: Tokenizer, texts: list[str]) -> None:
    assert_same(encoder, tokenizer, texts)


@given(tricky, st.sampled_from(["single", "groups_of_three"]))
def test_pieces_are_the_text(text: str, digits: str) -> None:
    cut = pieces(text, digits)
    assert cut is None or "".join(piece for _, piece in cut) == text


def test_ordinary_prose_is_hardly_cut(tiny_texts: list[str]) -> None:
    cut = [pieces(text, "single") for text in tiny_texts]
    exact = sum(len(piece) for parts in cut if parts for is_fast, piece in parts if not is_fast)
    assert exact < 0.01 * sum(map(len, tiny_texts))
    assert pieces("It's said that we'd 'better' go — don't!", "single") is None


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_every_character_is_split_alike(every: int, encoder: FastEncoder, tokenizer: Tokenizer) -> None:
    """Of those after the first two thousand, every so manieth; of the rarer planes one in thirteen of these."""
    common = (range(0x800), range(0x800, 0xD800, every), range(0xE000, 0x11000, every))
    points = [*itertools.chain(*common), *range(0x11000, 0x110000, 13 * every)]
    texts = [f"a{chr(point)}b {chr(point)}1{chr(point)}\n.{chr(point)}'t{chr(point)}" for point in points]
    assert_same(encoder, tokenizer, texts)


def test_documents_of_the_corpus_get_the_same_ids(
    encoder: FastEncoder, tokenizer: Tokenizer, tiny_texts: list[str]
) -> None:
    assert_same(encoder, tokenizer, tiny_texts)
    assert_same(encoder, tokenizer, ["\n".join(tiny_texts), "", " ".join(tiny_texts[::-1])])


def test_an_engine_that_forgot_gives_the_same(
    encoder: FastEncoder, tokenizer: Tokenizer, tiny_texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast, "RELOAD_CHARACTERS", 1)
    engine = encoder._engine
    assert_same(encoder, tokenizer, tiny_texts[:20])
    assert encoder._engine is not engine


@given(st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=5), max_size=6))
def test_flat_holds_every_row(rows: list[list[int]]) -> None:
    ids, offsets = flat(rows)
    assert [ids[a:b].tolist() for a, b in pairwise(offsets)] == rows


def test_the_first_difference_is_named(tiny_tokenizer: Tokenizer) -> None:
    def exact(texts: Any) -> fast.Arrays:
        return tiny_tokenizer.encode_arrays(texts, exactly=True)

    texts = ["one", "two", "three"]
    assert first_difference(exact, exact, texts) is None
    assert first_difference(lambda given: exact([text.replace("w", "v") for text in given]), exact, texts) == 1
    assert first_difference(lambda given: exact([text + "!" for text in given]), exact, texts) == 0


@pytest.mark.parametrize("name", ["normalizer", "added token", "pattern", "word piece", "prefix space"])
def test_what_is_read_otherwise_is_not_used(tiny_tokenizer: Tokenizer, name: str) -> None:
    changed = content(tiny_tokenizer)
    split, byte_level = changed["pre_tokenizer"]["pretokenizers"]
    match name:
        case "normalizer":
            changed["normalizer"] = {"type": "NFC"}
        case "added token":
            extra = {**changed["added_tokens"][0], "id": 1200, "content": "foo bar", "special": False}
            changed["added_tokens"].append(extra)
        case "pattern":
            split["pattern"] = {"Regex": r"\p{L}{1,3}|[^\p{L}]{1,2}"}
        case "prefix space":
            byte_level["add_prefix_space"] = True
        case "word piece":
            words = {**changed["model"]["vocab"], "[UNK]": 1200}
            changed["model"] = {
                "type": "WordPiece",
                "vocab": words,
                "unk_token": "[UNK]",
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
            }
    with pytest.raises(NotExact, match=r"gigatoken|splitting"):
        make(changed)


@pytest.mark.parametrize("use_regex", [True, False])
@pytest.mark.parametrize("special", [True, False])
def test_a_tokenizer_of_another_kind_is_exact_or_not_used(
    tiny_tokenizer: Tokenizer, tiny_texts: list[str], use_regex: bool, special: bool
) -> None:
    changed = content(tiny_tokenizer)
    changed["pre_tokenizer"] = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }
    changed["added_tokens"].append(
        {**changed["added_tokens"][0], "id": 1200, "content": "the  end", "special": special}
    )
    tokenizer = Tokenizer(changed, EOD_TOKEN)
    try:
        encoder = make(changed)
    except NotExact:
        assert not use_regex or not special
        return
    assert_same(encoder, tokenizer, [*tiny_texts, "a the  end b", "the  endthe  end"])


def test_a_large_batch_is_encoded_fast_and_a_small_one_exactly(
    tiny_tokenizer: Tokenizer, tiny_texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_module, "FAST_FROM_CHARACTERS", 10_000)
    fresh = Tokenizer(content(tiny_tokenizer), EOD_TOKEN, PAD_TOKEN)
    fresh.encode_batch(["a few words"])
    assert not fresh.is_fast
    expected = [tiny_tokenizer.encode(text) for text in tiny_texts]
    assert fresh.encode_batch(tiny_texts) == expected
    assert fresh.is_fast
    ids, offsets = fresh.encode_arrays(tiny_texts)
    assert (ids.dtype, offsets.dtype, len(offsets)) == (np.uint32, np.int64, len(tiny_texts) + 1)
    assert ids.tolist() == list(chain(*expected))
    assert fresh.encode_batch(["", "a", ""]) == [[], tiny_tokenizer.encode("a"), []]
    assert fresh.encode_batch([]) == []
    with pytest.raises(DataError, match="surrogate"):
        fresh.encode_batch([*tiny_texts, "half \ud83d of a pair"])


@pytest.mark.parametrize("absent", [True, False])
def test_why_it_is_slow_is_said_once(
    tiny_tokenizer: Tokenizer,
    tiny_texts: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    absent: bool,
) -> None:
    monkeypatch.setattr(tokenizer_module, "FAST_FROM_CHARACTERS", 10_000)
    changed = content(tiny_tokenizer)
    if absent:
        monkeypatch.setitem(sys.modules, "gigatoken", None)
    else:
        changed["normalizer"] = {"type": "NFC"}
    slow = Tokenizer(changed, EOD_TOKEN, PAD_TOKEN)
    first, second = slow.encode_batch(tiny_texts), slow.encode_batch(tiny_texts)
    assert first == second == [tiny_tokenizer.encode(text) for text in tiny_texts]
    shown = capsys.readouterr().err
    assert shown.count("encoding with `tokenizers`") == 1
    assert ("pip install 'firstlight[corpus]'" in shown) == absent

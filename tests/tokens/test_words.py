"""Words are found by their tokens alone, in byte-level, SentencePiece and WordPiece vocabularies, in every script."""

from __future__ import annotations

import numpy as np
import pytest

from firstlight.support.errors import DataError
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.tokens.tokenizer_training import train_tokenizer
from firstlight.tokens.words import word_numbers

CHINESE = (
    "预训练语言模型从零开始学习文字。我们把文本切成词元，再让模型预测被遮住的词元。"
    "今天天气很好，我们去公园散步；孩子们在湖边放风筝，老人在树下下棋。"
)
ENGLISH = "The quick (brown) fox jumped over 2024 dogs\nand then, naïvely, left."
IN_WORDS = (
    *("The", " quick", " (", "brown", ")", " fox", " jumped", " over", " 2024", " dogs", "\n"),
    *("and", " then", ",", " naïvely", ",", " left", "."),
)


def words_of(tokenizer: Tokenizer, ids: list[int]) -> list[bytes]:
    """The words of a row, each the bytes of its tokens."""
    begins, ends = tokenizer.word_edges
    numbers = word_numbers(begins[None, ids], ends[None, ids])[0]
    words = [b""] * (numbers[-1] + 1)
    spelled = tokenizer.spellings()
    for number, index in zip(numbers, ids, strict=True):
        words[number] += spelled[index]
    return words


def added(*names: str) -> list[dict[str, object]]:
    plain = {"special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [{"id": index, "content": name, **plain} for index, name in enumerate(names)]


def wordpiece() -> Tokenizer:
    """A BERT-like tokenizer, which cuts at signs and around Chinese characters before it looks at its vocabulary."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, "un", "##believ", "##able", "story", "##s", ",", "(", ")", *"预训练语言模型"]
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    return Tokenizer(
        {
            "version": "1.0",
            "added_tokens": added(*special),
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": True,
                "strip_accents": None,
                "lowercase": True,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "model": {
                **model,
                "max_input_chars_per_word": 100,
                "vocab": {piece: index for index, piece in enumerate(pieces)},
            },
        }
    )


def sentencepiece() -> Tokenizer:
    """A Unigram tokenizer with byte fallback."""
    pieces = ["<unk>", "</s>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", "▁new", "s", "paper", ",", "▁and", "语", "言"]
    return Tokenizer(
        {
            "version": "1.0",
            "added_tokens": added("<unk>", "</s>", "<mask>"),
            "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
            "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
            "model": {
                "type": "Unigram",
                "unk_id": 0,
                "byte_fallback": True,
                "vocab": [[piece, -1.0 - index / 1000] for index, piece in enumerate(pieces)],
            },
        }
    )


def test_words_of_english(tiny_tokenizer):
    assert [word.decode() for word in words_of(tiny_tokenizer, tiny_tokenizer.encode(ENGLISH))] == list(IN_WORDS)


def test_words_of_english_cut_into_bytes():
    """The same, but for a space before a sign, which is a token of its own here."""
    tokenizer = train_tokenizer(["bytes"], 259, show_progress=False)
    words = [word.decode().strip(" ") for word in words_of(tokenizer, tokenizer.encode(ENGLISH))]
    assert [word for word in words if word] == [word.strip(" ") for word in IN_WORDS]


def test_a_text_without_spaces_is_not_one_word(tiny_tokenizer):
    """Cut into bytes by a vocabulary of English, every character is a word; by a vocabulary of its own, every token."""
    for text in (CHINESE, "こんにちは世界カタカナ", "สวัสดีชาวโลก", "안녕하세요세계"):
        assert b"".join(words_of(tiny_tokenizer, tiny_tokenizer.encode(text))).decode() == text
        assert [word.decode() for word in words_of(tiny_tokenizer, tiny_tokenizer.encode(text))] == list(text)
    tokenizer = train_tokenizer([CHINESE] * 20, 500, show_progress=False)
    ids = tokenizer.encode(CHINESE)
    assert len(ids) < len(CHINESE)
    words = [word.decode() for word in words_of(tokenizer, ids)]
    assert words == [tokenizer.decode([index]) for index in ids if "\ufffd" not in tokenizer.decode([index])]


def test_scripts_with_spaces_are_cut_at_them(tiny_tokenizer):
    for text in ("Привет мир ещё", "Καλημέρα κόσμε", "naïve Straße façade", "שלום עולם", "مرحبا بالعالم"):
        assert [word.decode() for word in words_of(tiny_tokenizer, tiny_tokenizer.encode(text))] == [
            word if number == 0 else f" {word}" for number, word in enumerate(text.split(" "))
        ]


def test_latin_letters_after_chinese_are_a_word():
    tokenizer = train_tokenizer([CHINESE] * 20, 500, show_progress=False)
    words = [word.decode() for word in words_of(tokenizer, tokenizer.encode("模型transformer。"))]
    assert words == ["模型", "transformer", "。"]


def test_a_special_token_is_a_word_and_a_word_begins_after_it(tiny_tokenizer):
    end, letters = tiny_tokenizer.eod_id, tiny_tokenizer.encode("ing")
    assert words_of(tiny_tokenizer, [*letters, end, *letters, end, end]) == [b"ing", b"", b"ing", b"", b""]


def test_wordpiece_marks_what_goes_on():
    tokenizer = wordpiece()
    words = [word.decode() for word in words_of(tokenizer, tokenizer.encode("Unbelievable stories, (story) 语言模型"))]
    assert words == [" unbelievable", "", " ,", " (", " story", " )", " 语", " 言", " 模", " 型"]


def test_sentencepiece_marks_what_begins():
    tokenizer = sentencepiece()
    words = [word.decode() for word in words_of(tokenizer, tokenizer.encode("newspapers, and 语言é"))]
    assert words == [" newspapers", ",", " and", " ", "语", "言", "é"]


def test_tokens_of_unknown_spelling_are_refused():
    model = {"type": "BPE", "vocab": {"a": 0, "</s>": 1}, "merges": [], "end_of_word_suffix": "</w>"}
    with pytest.raises(DataError, match="how its tokens spell text is not known"):
        _ = Tokenizer({"version": "1.0", "model": model}).word_edges


def test_rows_are_numbered_each_by_itself():
    begins = np.array([[False, True, False], [True, True, False]])
    ends = np.array([[False, False, False], [True, False, True]])
    assert word_numbers(begins, ends).tolist() == [[0, 1, 1], [0, 1, 1]]

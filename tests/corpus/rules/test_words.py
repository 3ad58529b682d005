"""Words are those of a plain program, and the numbers kept of them are those of their characters."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firstlight.corpus.rules.characters import terminal_marks
from firstlight.corpus.rules.words import HAS_LETTER, SOLID, split_words, word_hash, words_of
from firstlight.corpus.step import Block

SPLITS = ("whitespace", "signs_apart", "jieba")
TEXT = st.text(
    st.one_of(st.sampled_from(" \n\t'’.,:/-_#ab1é\u0301中の。…١"), st.characters(codec="utf-8")), max_size=60
)
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@SHARED
@given(text=TEXT, split=st.sampled_from(SPLITS))
def test_words_are_those_of_a_plain_program(text: str, split: str, reference: SimpleNamespace) -> None:
    assert split_words(text, split) == reference.words(text, split)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I don't know, he said.", ["I", "don't", "know", ",", "he", "said", "."]),
        ("U.S. prices: 3.14 at 12:30...", ["U.S", ".", "prices", ":", "3.14", "at", "12:30", "..."]),
        ("'quoted' well-known --- x_y", ["'", "quoted", "'", "well", "-", "known", "---", "x_y"]),
        ("我们2024年在 Paris。", ["我", "们", "2024", "年", "在", "Paris", "。"]),
        ("cafe\u0301 प्रेम", ["cafe\u0301", "प्रेम"]),
    ],
)
def test_signs_are_apart(text: str, words: list[str]) -> None:
    assert split_words(text, "signs_apart") == words


def test_jieba_knows_words() -> None:
    assert split_words("他来到了网易杭研大厦", "jieba") == ["他", "来到", "了", "网易", "杭研", "大厦"]


@SHARED
@given(texts=st.lists(TEXT, min_size=1, max_size=4), split=st.sampled_from(SPLITS))
def test_a_word_is_its_characters_kinds_and_hash(texts: list[str], split: str, reference: SimpleNamespace) -> None:
    signs = {
        *map(chr, terminal_marks()),
        *"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~«´»–—’“”„…∶━►、。〈〉《》「」【】！％（），．１：；？～",
    }
    signs |= {chr(n) for n in (*range(9), *range(11, 32), *range(127, 160))}
    found = words_of(Block(texts, [{}] * len(texts)), split)
    for number, text in enumerate(texts):
        words = reference.words(text, split)
        part = slice(found.offsets[number], found.offsets[number + 1])
        assert found.characters[part].tolist() == [len(word) for word in words]
        assert [bool(kind & HAS_LETTER) for kind in found.kinds[part]] == [any(map(str.isalpha, w)) for w in words]
        assert [bool(kind & SOLID) for kind in found.kinds[part]] == [not signs.issuperset(word) for word in words]
        assert (found.terms[part] * found.fronts[part]).tolist() == [int(word_hash(word)) for word in words]


def test_a_selection_keeps_its_words() -> None:
    texts = ["one two", "", "three", "four five six"]
    chosen = words_of(Block(texts, [{}] * 4), "whitespace").select(np.array([0, 3]))
    again = words_of(Block([texts[0], texts[3]], [{}] * 2), "whitespace")
    assert chosen.offsets.tolist() == again.offsets.tolist() == [0, 2, 5]
    assert (chosen.terms * chosen.fronts).tolist() == (again.terms * again.fronts).tolist()


def test_words_of_equal_letters_and_other_lengths_differ() -> None:
    hashes = {int(word_hash(letter * length)) for letter in "a0\0" for length in range(1, 200)}
    assert len(hashes) == 3 * 199

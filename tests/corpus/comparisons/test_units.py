"""Units are words in lower case without accents and single Han characters, whatever stands between them."""

from __future__ import annotations

import hashlib
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("numba")

from firstlight.corpus.comparisons.units import character_table, hash_units

UNICODE_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


def units(text: str, fold_numbers: bool = True) -> list[int]:
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    found = np.zeros(len(data), dtype=np.uint64)
    return found[: hash_units(data, 0, len(data), character_table(fold_numbers), found)].tolist()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The quick, brown fox!", "the QUICK\n\n brown\tfox"),
        ("café Ångström", "cafe angstrom"),
        ("cafe\u0301", "café"),
        ("Ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("今天，天气很好。", "今天 天气很好"),
        ("a\0b", "a b"),
        ("soft\u00adhyphen", "softhyphen"),
        ("page 12 of 345", "page 7 of 9"),
        ("٣٤ items", "12 items"),
    ],
)
def test_the_same_words_are_the_same_units(one: str, other: str) -> None:
    assert units(one) == units(other)


def test_a_han_character_is_a_unit_and_parts_words() -> None:
    assert len(units("今天天气很好")) == 6
    assert len(units("用Python写代码")) == 5
    assert len(units("カタカナ")) == 4
    assert units("今天") != units("天今")
    assert len(units("𠀀𠀁 👍👍")) == 4


def test_other_words_are_other_units() -> None:
    texts = ["a", "b", "ab", "ba", "one", "on e", "今", "明", "", "..."]
    assert len({tuple(units(text)) for text in texts}) == len(texts) - 1
    assert units("") == units(" .,;\n") == []


def test_numbers_are_equal_only_where_they_are_folded() -> None:
    assert units("costs 12 or 1345", False) != units("costs 13 or 1345", False)
    assert len(units("costs 12 or 1345", False)) == len(units("costs 12 or 1345")) == 4
    assert units("a1b22") == units("a7b3")


@given(UNICODE_TEXT, UNICODE_TEXT)
def test_texts_side_by_side_have_the_units_of_both(first: str, second: str) -> None:
    assert units(first + "\n" + second) == units(first) + units(second)


@given(st.text(st.characters(max_codepoint=0x17F, exclude_categories=["Cs"]), max_size=60))
def test_latin_words_are_those_that_a_simple_split_finds(text: str) -> None:
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if unicodedata.category(c)[0] in "LNPSZC")
    if plain != text:
        return
    spaced = "".join(c.lower() if unicodedata.category(c)[0] in "LN" else " " for c in text)
    assert len(units(text)) == len(spaced.split())


def test_tables_do_not_change() -> None:
    known = [hashlib.sha256(character_table(fold).astype("<u4").tobytes()).hexdigest()[:16] for fold in (True, False)]
    assert known == KNOWN


KNOWN = ["2ebe67d049516e7a", "4180027c6ca7c161"]
"""Hashes of the tables on every Python: signals of one machine are compared with those of another."""

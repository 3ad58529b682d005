"""Widths: letters, digits and katakana come out as NFKC has them, everything else as it was."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.config.text_steps import NormalizeWidth
from firstlight.corpus.step import Block
from firstlight.corpus.text_steps import STEPS

FORMS = st.characters(min_codepoint=0xFF00, max_codepoint=0xFFEF)
texts = st.text(st.one_of(FORMS, st.sampled_from("aA1中，。カ\u3000 \n\u3099")), max_size=30)


def normalized(text: str, **options) -> str:
    return STEPS[NormalizeWidth](NormalizeWidth(**options)).apply(Block([text], [{}])).texts[0]


@given(st.text(st.sampled_from("ＡＺａｚ０９xyz中文，。"), max_size=30))
def test_letters_and_digits_become_ascii_and_signs_stay(text):
    expected = "".join(
        unicodedata.normalize("NFKC", character) if character not in "，。" else character for character in text
    )
    assert normalized(text) == expected


@given(texts)
def test_it_is_idempotent_and_spares_what_it_is_not_for(text):
    once = normalized(text)
    assert normalized(once) == once
    assert not any("０" <= c <= "９" or "Ａ" <= c <= "Ｚ" or "ａ" <= c <= "ｚ" or "ｦ" <= c <= "ﾟ" for c in once)
    assert [c for c in once if "！" <= c <= "／"] == [c for c in text if "！" <= c <= "／"]


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("Ｐｙｔｈｏｎ３　入门，好！", {}, "Python3 入门，好！"),
        ("Ｐｙｔｈｏｎ３　入门，好！", {"punctuation": True}, "Python3 入门,好!"),
        ("甲　乙", {"space": False}, "甲　乙"),
        ("ｶﾞｷﾞﾊﾟ ﾜｰﾄﾞ｡", {}, "ガギパ ワード。"),
        ("ﾞ", {}, "゛"),
        ("￥１００～￣", {"punctuation": True}, "¥100~¯"),
        ("plain", {}, "plain"),
    ],
)
def test_examples(text, options, expected):
    assert normalized(text, **options) == expected

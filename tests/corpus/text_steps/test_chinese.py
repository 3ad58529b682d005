"""Scripts of Chinese: told apart, converted by words, and never spoilt where nothing is to be converted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opencc import OpenCC
from pydantic import ValidationError

from firstlight.config.text_steps import ConvertChinese
from firstlight.corpus.step import Block
from firstlight.corpus.text_steps import STEPS
from firstlight.corpus.text_steps.scripts import script_of

SIMPLIFIED = "计算机软件发展很快，头发却没有变长。皇后在后面读书。"
TRADITIONAL = "計算機軟件發展很快，頭髮卻沒有變長。皇后在後面讀書。"


def convert(texts, metadata=None, **options):
    block = Block(texts, metadata or [{}] * len(texts))
    return STEPS[ConvertChinese](ConvertChinese(**options)).apply(block)


def test_scripts_are_told_apart():
    assert script_of(SIMPLIFIED) == "Hans"
    assert script_of(TRADITIONAL) == "Hant"
    assert script_of("山水之人上下大小") is None
    assert script_of("no Chinese") is None


def test_conversion_goes_by_words():
    assert convert([TRADITIONAL]).texts == [SIMPLIFIED]
    assert convert([SIMPLIFIED], to="traditional").texts == [TRADITIONAL]


def test_regions_have_their_own_words():
    assert convert(["滑鼠與軟體在網路上發現"], region="taiwan", phrases=True).texts == ["鼠标与软件在网络上发现"]
    assert convert(["鼠标与软件在网络上发现"], to="traditional", region="taiwan", phrases=True).texts == [
        "滑鼠與軟體在網路上發現"
    ]
    assert convert(["鼠标里的软件"], to="traditional", region="hong_kong").texts == [
        OpenCC("s2hk").convert("鼠标里的软件")
    ]


def test_what_is_right_already_stays_the_same_object():
    for to, text in (
        ("simplified", SIMPLIFIED),
        ("traditional", TRADITIONAL),
        ("simplified", "ASCII"),
        ("simplified", "é"),
    ):
        block = [text]
        assert convert(block, to=to).texts[0] is text
    assert convert(["程式與公式", "程式和公式，这样说"], region="taiwan", phrases=True).texts == [
        "程序与公式",
        "程式和公式，这样说",
    ]


def test_documents_are_counted_and_their_script_is_kept_true():
    result = convert([TRADITIONAL, SIMPLIFIED], [{"language_script": "Hant", "n": 1}, {"language_script": "Hans"}])
    assert result.counts == {"converted": 1}
    assert result.metadata == [{"language_script": "Hans", "n": 1}, {"language_script": "Hans"}]
    assert convert([TRADITIONAL], [{"n": 1}]).metadata == [{"n": 1}]


@given(st.lists(st.text(st.sampled_from(TRADITIONAL + "\0 a\n𠀀😀"), max_size=40), min_size=1, max_size=4))
def test_to_simplified_is_opencc_on_every_text_and_idempotent(texts):
    opencc = OpenCC("t2s")
    once = convert(texts).texts
    assert once == [opencc.convert(text) for text in texts]
    assert convert(once).texts == once


def test_words_need_a_region():
    with pytest.raises(ValidationError, match="`phrases` needs `region`"):
        ConvertChinese(phrases=True)

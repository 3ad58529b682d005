"""Length counts characters between white space, in Unicode's sense of white space."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from firstlight.config.text_steps import Length
from firstlight.corpus.step import Block
from firstlight.corpus.text_steps import STEPS
from firstlight.corpus.text_steps.length import WHITE_SPACE


def reasons(texts, **settings):
    return list(STEPS[Length](Length(**settings)).apply(Block(texts, [{}] * len(texts))).reasons)


@given(st.lists(st.text(max_size=12), min_size=1, max_size=8), st.integers(0, 12), st.integers(1, 12))
def test_a_document_stays_exactly_when_its_length_is_within_both_bounds(texts, least, more):
    most = least + more
    for text, reason in zip(texts, reasons(texts, min_characters=least, max_characters=most), strict=True):
        length = len(text.strip(WHITE_SPACE))
        assert reason == ("too short" if length < least else "too long" if length > most else None)


def test_white_space_is_that_of_unicode():
    assert reasons(["\u3000\xa0 \n\u2028\t", "\x1c", "\ufeff", " a "]) == ["too short", None, None, None]
    separators = {chr(n) for n in range(0x10000) if unicodedata.category(chr(n)) in ("Zs", "Zl", "Zp")}
    assert set(WHITE_SPACE) == separators | set("\t\n\v\f\r\x85")


def test_bounds_that_no_text_keeps_are_an_error():
    with pytest.raises(ValidationError, match="max_characters 1,000 is below min_characters 2,000"):
        Length(min_characters=2000, max_characters=1000)


def test_by_default_only_empty_documents_go():
    assert reasons(["", "x", "x" * 100_000]) == ["too short", None, None]

"""Lines of many documents go, all others stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("daft")

from firstlight.config.duplicates import RepeatedLines
from firstlight.corpus.comparisons import frames

MENU = "Home | About us | Contact | Imprint"
RIGHTS = "Copyright © 2021 by the authors; all rights reserved."
CHINESE = "本网站所有内容均受版权保护，未经授权不得转载或使用。"


def documents(count: int) -> list[str]:
    return [
        f"{MENU}\nThe story number {chr(97 + n) * 3} begins here and is told nowhere else.\n"
        f"}}\n{CHINESE}\n{RIGHTS.replace('2021', str(2000 + n))}"
        for n in range(count)
    ]


def test_boilerplate_goes_and_the_rest_stays(compare: Callable[..., Any]) -> None:
    texts = documents(8)
    compared = compare(RepeatedLines(), [texts[:3], texts[3:]])
    for n, text in enumerate(compared.texts):
        assert text == f"The story number {chr(97 + n) * 3} begins here and is told nowhere else.\n}}\n"
    assert compared.counts["lines removed"] == 24
    assert compared.counts["bytes removed"] == sum(
        len(old.encode()) - len(new.encode()) for old, new in zip(texts, compared.texts, strict=True)
    )
    assert compared.figures["repeated_lines"] == 3
    assert compared.reasons == [None] * 8


def test_a_line_of_few_documents_stays_however_often_it_stands_there(compare: Callable[..., Any]) -> None:
    texts = [f"{MENU}\n" * 10 + f"other {n}" for n in range(6)]
    compared = compare(RepeatedLines(), [texts])
    assert compared.texts == texts
    assert compare(RepeatedLines(min_documents=6), [texts]).texts == [f"other {n}" for n in range(6)]


def test_the_first_document_may_keep_its_line(compare: Callable[..., Any]) -> None:
    texts = [f"{MENU}\n{MENU}\nx\n{RIGHTS}"] + [f"{n}\n{MENU}\n{RIGHTS}\n" for n in range(9)]
    compared = compare(RepeatedLines(keep_first=True), [texts[:4], texts[4:]])
    assert compared.texts == [f"{MENU}\nx\n{RIGHTS}"] + [f"{n}\n" for n in range(9)]


def test_documents_of_nothing_else_are_dropped(compare: Callable[..., Any]) -> None:
    compared = compare(RepeatedLines(), [[f"{MENU}\n\n", *[f"{MENU}\nword {chr(97 + n)}" for n in range(8)], ""]])
    assert compared.reasons == ["nothing but repeated lines", *[None] * 9]


def test_paragraphs_go_whole(compare: Callable[..., Any]) -> None:
    paragraph = "First line of a paragraph,\nits second line.\n"
    texts = [
        f"Start {chr(97 + n)}\n \n\n{paragraph}\n\nFirst line of a paragraph,\nbut {chr(97 + n)}" for n in range(7)
    ]
    compared = compare(RepeatedLines(unit="paragraph"), [texts])
    assert compared.texts == [
        f"Start {chr(97 + n)}\n \n\nFirst line of a paragraph,\nbut {chr(97 + n)}" for n in range(7)
    ]
    assert compared.counts["paragraphs removed"] == 7


def test_excluded_documents_do_not_count(compare: Callable[..., Any]) -> None:
    texts = [f"{MENU}\nonly {chr(97 + n)}" for n in range(7)]
    assert compare(RepeatedLines(), [texts]).figures["repeated_lines"] == 1
    assert compare(RepeatedLines(), [texts], excluded=[3]).figures["repeated_lines"] == 0


def test_passes_change_nothing(compare: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    units = [documents(20), documents(9)]
    once = compare(RepeatedLines(), units)
    monkeypatch.setattr(frames, "ROWS_AT_ONCE", 5)
    often = compare(RepeatedLines(), units)
    assert often.texts == once.texts != [text for unit in units for text in unit]
    for name in ("lines.npy", "first.npy"):
        assert (often.folder / name).read_bytes() == (once.folder / name).read_bytes()


LINES = st.sampled_from(
    ["", "  ", "}", "same old line", "Same old, line!", "今天天气", "\0\0", "👍👍👍👍👍", "x", "\t"]
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(LINES, max_size=6).map("\n".join), min_size=1, max_size=8))
def test_what_is_left_is_some_of_the_lines_in_order(compare: Callable[..., Any], texts: list[str]) -> None:
    compared = compare(RepeatedLines(min_documents=2, min_characters=3), [texts])
    for old, new in zip(texts, compared.texts, strict=True):
        left = iter(old.splitlines(keepends=True))
        assert all(line in left for line in new.splitlines(keepends=True))
    assert compare(RepeatedLines(min_documents=2, min_characters=3), [compared.texts]).figures["repeated_lines"] == 0


def test_nothing_to_compare(compare: Callable[..., Any]) -> None:
    assert compare(RepeatedLines(), []).figures["repeated_lines"] == 0
    assert compare(RepeatedLines(), [["", "\n\n"]]).texts == ["", "\n\n"]

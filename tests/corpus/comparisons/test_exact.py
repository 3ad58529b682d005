"""Of equal texts the first stays, wherever they are and however the corpus is cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firstlight.config.duplicates import ExactDuplicates
from firstlight.corpus.comparisons import frames

pytest.importorskip("daft")

TEXTS = st.sampled_from(["", "a", "A", "a ", "a\0", "👍", "今天", "今天。", "two words", "two  words", "Two, words!"])


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(TEXTS, max_size=12), min_size=1, max_size=4))
def test_the_first_of_equal_texts_stays(compare: Callable[..., Any], units: list[list[str]]) -> None:
    compared = compare(ExactDuplicates(), units)
    seen: set[str] = set()
    for text, dropped in zip((text for unit in units for text in unit), compared.dropped, strict=True):
        assert dropped == (text in seen)
        seen.add(text)
    assert compared.figures["dropped"] == sum(compared.dropped)
    assert compared.figures["documents"] == sum(map(len, units))


@pytest.mark.parametrize(
    ("normalize", "stay"),
    [("none", [0, 1, 2, 3, 4]), ("whitespace", [0, 2, 3, 4]), ("text", [0, 4])],
)
def test_what_counts_as_equal(compare: Callable[..., Any], normalize: Any, stay: list[int]) -> None:
    texts = ["two words", " two \n words", "Two, words!", "ｔｗｏ words", "twowords"]
    compared = compare(ExactDuplicates(normalize=normalize), [texts])
    assert [n for n, dropped in enumerate(compared.dropped) if not dropped] == stay


def test_excluded_documents_are_not_there(compare: Callable[..., Any]) -> None:
    compared = compare(ExactDuplicates(), [["x", "x", "y"], ["y", "x"]], excluded=[0])
    assert compared.dropped == [False, False, False, True, True]


def test_passes_change_nothing(compare: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    units = [[f"text {n % 37}" for n in range(start, start + 100)] for start in range(3)]
    once = compare(ExactDuplicates(), units)
    monkeypatch.setattr(frames, "ROWS_AT_ONCE", 40)
    often = compare(ExactDuplicates(), units)
    assert sum(once.dropped) == 300 - 37
    assert [file.name for file in sorted(often.folder.iterdir())] == ["dropped-00000.parquet"]
    assert (often.folder / "dropped-00000.parquet").read_bytes() == (once.folder / "dropped-00000.parquet").read_bytes()


def test_the_decision_is_sorted_and_names_who_stays(compare: Callable[..., Any]) -> None:
    import pyarrow.parquet

    compared = compare(ExactDuplicates(), [["b", "a"], ["a", "b", "a"]])
    rows = pyarrow.parquet.read_table(compared.folder / "dropped-00000.parquet").to_pydict()
    assert rows == {"document": [1 << 32, (1 << 32) + 1, (1 << 32) + 2], "kept": [1, 0, 1]}


def test_nothing_to_compare(compare: Callable[..., Any]) -> None:
    assert compare(ExactDuplicates(), []).figures["dropped"] == 0
    assert compare(ExactDuplicates(), [[]]).dropped == []

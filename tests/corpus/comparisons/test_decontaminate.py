"""Documents that hold n words of an evaluation set in a row are found, whatever stands around, and no others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from firstlight.config.duplicates import Decontaminate
from firstlight.corpus.comparisons.decontaminate import DecontaminateStep
from firstlight.corpus.step import Block, Result
from firstlight.support.errors import ConfigError, DataError


def questions(path: Path, examples: Sequence[dict[str, Any]]) -> list[str]:
    path.write_text("".join(json.dumps(example, ensure_ascii=False) + "\n" for example in examples), encoding="utf-8")
    return [str(path)]


def apply(step: DecontaminateStep, *texts: str) -> Result:
    return step.apply(Block(list(texts), [{} for _ in texts]))


def words(count: int, start: int = 0) -> list[str]:
    return [f"{chr(97 + n % 26)}{'xyz'[n // 26 % 3]}{n}" for n in range(start, start + count)]


def test_planted_overlaps_are_found_and_reported_by_set(tmp_path: Path) -> None:
    step = DecontaminateStep(
        Decontaminate(
            against={
                "maths": questions(tmp_path / "m.jsonl", [{"text": " ".join(words(40))}]),
                "chinese": questions(tmp_path / "c.jsonl", [{"text": "下列哪一项不是光合作用的产物？请说明理由。"}]),
            }
        )
    )
    result = apply(
        step,
        "Nothing to see here, " * 20,
        "Prose before. " + ", ".join(words(13, 10)).upper() + ". And after.",
        " ".join(words(12, 10)),
        " ".join(words(12, 10)) + " gap " + " ".join(words(12, 22)),
        "题目：下列 哪一项 不是 光合作用 的产物！",
        "下列哪一项不是光合作用",
        " ".join(words(13)) + "。下列哪一项不是光合作用的产物",
        "",
    )
    assert result.reasons == [
        None,
        "overlaps with maths",
        None,
        None,
        "overlaps with chinese",
        None,
        "overlaps with maths",
        None,
    ]
    assert result.counts == {"set maths": 2, "set chinese": 2}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_exactly_the_documents_that_share_a_run_are_found(tmp_path: Path, data: st.DataObject) -> None:
    word = st.sampled_from(["a", "b", "今", "👍"])
    examples = data.draw(st.lists(st.lists(word, min_size=3, max_size=9), min_size=1, max_size=3))
    documents = data.draw(st.lists(st.lists(word, max_size=12), min_size=1, max_size=6))
    ngram = data.draw(st.integers(3, 6))
    files = questions(tmp_path / "set.jsonl", [{"text": " ".join(example)} for example in examples])
    step = DecontaminateStep(Decontaminate(against={"set": files}, ngram=ngram, min_ngram=3))
    wanted = {tuple(e[n : n + min(ngram, len(e))]) for e in examples for n in range(max(1, len(e) - ngram + 1))}
    for document, reason in zip(documents, apply(step, *map(" ".join, documents)).reasons, strict=True):
        runs = {tuple(document[n : n + size]) for size in range(3, ngram + 1) for n in range(len(document) - size + 1)}
        assert (reason is not None) == bool(runs & wanted)


def test_short_examples_are_looked_for_as_a_whole_or_not_at_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = questions(tmp_path / "s.jsonl", [{"text": " ".join(words(9))}, {"text": "Yes."}])
    step = DecontaminateStep(Decontaminate(against={"short": files}))
    texts = ("Yes.", " ".join(words(8)), "so " + " ".join(words(9)) + " so")
    assert apply(step, *texts).reasons == [None, None, "overlaps with short"]
    assert "1 of 2 texts of 'short' have fewer than 8 words" in capsys.readouterr().err


def test_numbers_must_be_the_same(tmp_path: Path) -> None:
    text = "Anna has {} apples and gives away two of them to each of her friends today"
    step = DecontaminateStep(
        Decontaminate(against={"s": questions(tmp_path / "s.jsonl", [{"text": text.format(12)}])}, ngram=16)
    )
    assert apply(step, text.format(13), text.format(12)).reasons == [None, "overlaps with s"]


def test_a_small_share_may_stay_and_is_counted(tmp_path: Path) -> None:
    files = questions(tmp_path / "s.jsonl", [{"text": " ".join(words(20))}])
    step = DecontaminateStep(Decontaminate(against={"s": files}, max_share=0.5))
    long = " ".join(["before", *words(20), *words(20, 100)])
    result = apply(step, long, " ".join(["before", *words(20), *words(18, 100)]))
    assert result.reasons == [None, "overlaps with s"]
    assert result.counts == {"set s": 2}


def test_fields_and_plain_text(tmp_path: Path) -> None:
    files = questions(
        tmp_path / "qa.jsonl",
        [
            {"question": " ".join(words(15)), "answer": " ".join(words(15, 30))},
            {"question": " ".join(words(15, 60)), "other": " ".join(words(15, 90))},
        ],
    )
    (tmp_path / "notes.txt").write_text(" ".join(words(15, 120)))
    step = DecontaminateStep(
        Decontaminate(against={"qa": files, "notes": [str(tmp_path / "notes.txt")]}, fields=["question", "answer"])
    )
    texts = [" ".join(words(15, start)) for start in (0, 30, 60, 90, 120)]
    assert apply(step, *texts).reasons == [
        "overlaps with qa",
        "overlaps with qa",
        "overlaps with qa",
        None,
        "overlaps with notes",
    ]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ('{"text": "fine here"}\n{"prompt": "lost"}\n', r"s\.jsonl, line 2: .*'quiz' cannot be read .*fields text"),
        ('{"text": "too short"}\n', r"all 1 texts of 'quiz' have fewer than 8 words"),
        ("broken\n", r"s\.jsonl, line 1"),
        ("\n", r"'quiz' holds no text"),
    ],
)
def test_a_set_that_cannot_be_read_whole_is_an_error(tmp_path: Path, lines: str, sentence: str) -> None:
    (tmp_path / "s.jsonl").write_text(lines)
    with pytest.raises(DataError, match=sentence):
        DecontaminateStep(Decontaminate(against={"quiz": [str(tmp_path / "s.jsonl")]}))


def test_lengths_that_contradict_each_other(tmp_path: Path) -> None:
    files = questions(tmp_path / "s.jsonl", [{"text": " ".join(words(20))}])
    with pytest.raises(ConfigError, match="min_ngram"):
        DecontaminateStep(Decontaminate(against={"s": files}, ngram=5))


def test_odd_documents(tmp_path: Path) -> None:
    step = DecontaminateStep(Decontaminate(against={"s": questions(tmp_path / "s.jsonl", [{"text": "a b " * 10}])}))
    texts = ["", "\0", "👍", "word", " \n ", "a\0b " * 10]
    assert apply(step, *texts).reasons == [None] * 5 + ["overlaps with s"]


def test_a_table_needs_one_of_the_fields(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    question = "what is the name of the river that flows through the old town of the king in the north"
    file = tmp_path / "mmlu.parquet"
    parquet.write_table(pa.table({"question": [question], "answer": [3]}), file)
    fields = ["question", "answer", "hint"]
    step = DecontaminateStep(Decontaminate(against={"mmlu": [str(file)]}, fields=fields))
    block = Block([f"They asked {question}?", "Nothing of that kind stands here."], [{}, {}])
    assert step.apply(block).reasons == ["overlaps with mmlu", None]
    with pytest.raises(DataError, match=r"column 'answer' holds int64|no column 'hint'"):
        DecontaminateStep(Decontaminate(against={"mmlu": [str(file)]}, fields=fields[1:]))

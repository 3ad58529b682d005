"""What a build leaves to look at: tables, samples of what was dropped, and the picture of the funnel."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from firstlight.config import CorpusConfig
from firstlight.corpus import build_corpus, corpus_table

ENGLISH = "The river rose slowly during the night, and nobody in the village heard it."
CHINESE = "那天夜里河水慢慢上涨，村子里的人谁也没有听见。早上大家都很惊讶。后来水又退了。"
STEPS = [
    {"step": "length", "min_characters": 20, "sources": ["web"]},
    {"step": "language", "keep": ["zh"], "sources": ["zh"]},
    {"step": "chinese_sentences", "languages": ["zh"]},
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The report of a small corpus, and its folder."""
    folder = tmp_path_factory.mktemp("report")
    for name, texts in {"web": [ENGLISH, "short"], "zh": [CHINESE, f"首页\n{CHINESE}", ENGLISH]}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    sources = {name: [str(folder / f"{name}.jsonl")] for name in ("web", "zh")}
    return build_corpus(sources, folder / "out", CorpusConfig(steps=STEPS), workers=1), folder / "out"


def test_the_table_says_how_many_documents_a_limited_step_looked_at(built: tuple[dict[str, Any], Path]) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(corpus_table(built[0]))
    rows = [re.split(r"\s{2,}", line.strip()) for line in console.export_text().splitlines()]
    assert [row[1] for row in rows if row[0] == "looked at"] == ["2", "3", "2"]
    assert ["lines removed", "1"] in rows
    assert ["other language", "-1"] in rows


def test_a_sample_has_the_text_as_it_came_and_the_score_that_decided(built: tuple[dict[str, Any], Path]) -> None:
    (sample,) = map(json.loads, (built[1] / "dropped" / "01-language.jsonl").read_text().splitlines())
    assert (sample["text"], sample["reason"], sample["source"]) == (ENGLISH, "other language", "zh")
    assert sample["metadata"]["language"] == "en"
    assert sample["metadata"]["language_score"] > 0.5


def test_the_picture_shows_every_step_and_why_documents_went(built: tuple[dict[str, Any], Path]) -> None:
    picture = (built[1] / "funnel.svg").read_text()
    for text in ("read", "length", "language", "chinese sentences", "−1 too short", "−1 other language"):
        assert text in picture
    assert re.search(r"100\.0% · \d+ B · 5 documents", picture)

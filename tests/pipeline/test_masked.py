"""A masked run differs from a causal one in one line of YAML, and every verb knows what to do with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from firstlight import pipeline
from firstlight.pipeline.filling import words_to_hide
from firstlight.recipe import load_config
from firstlight.tokens.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def masked_folder(trained_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained folder with a second run, runs/masked, of the same recipe with one line more."""
    folder = tmp_path_factory.mktemp("masked") / "folder"
    shutil.copytree(trained_folder, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        lines = Path("recipe.yaml").read_text().splitlines(keepends=True)
        lines.insert(lines.index("model:\n") + 1, "  objective: masked\n")
        Path("masked.yaml").write_text("".join(lines))
        pipeline.train("masked.yaml", ["name=masked", "evaluation.interval_steps=2"])
    return folder


@pytest.fixture
def folder(masked_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(masked_folder)
    return masked_folder


def test_both_runs_read_the_same_samples_of_the_same_tokens(folder: Path) -> None:
    one, other = (json.loads(Path(f"runs/{name}/provenance.json").read_text()) for name in ("tiny", "masked"))
    assert one["datasets"] == other["datasets"]
    causal, masked = load_config("recipe.yaml"), load_config("masked.yaml")
    assert causal.model_copy(update={"model": None}) == masked.model_copy(update={"model": None})


def test_validation_hides_the_same_tokens_at_every_step(folder: Path) -> None:
    lines = [json.loads(line) for line in Path("runs/masked/metrics.jsonl").read_text().splitlines()]
    scores = [line for line in lines if "validation/manual/accuracy" in line]
    assert [line["step"] for line in scores] == [2, 4]
    for key in ("tokens", "baseline_accuracy"):
        assert len({line[f"validation/manual/{key}"] for line in scores}) == 1
    assert scores[0]["validation/manual/loss"] > scores[1]["validation/manual/loss"]
    assert "validation/manual/bits_per_byte" not in scores[0]


def test_eval_shows_accuracy_beside_the_baseline_and_pseudo_perplexity(folder: Path, firstlight) -> None:
    result = firstlight("eval", "runs/masked", "--pseudo-tokens", "20")
    assert result.code == 0, result.stderr
    header, *rows = [line.split() for line in result.stdout.splitlines()]
    assert header == ["domain", "loss", "perplexity", "accuracy", "baseline", "hidden"]
    assert [row[0] for row in rows[:2]] == ["manual", "code"]
    assert all(row[3].endswith("%") and row[4].endswith("%") for row in rows[:2])
    assert rows[3] == ["domain", "pseudo-perplexity", "bits/byte", "hidden", "alone"]
    assert [row[-1] for row in rows[4:6]] == ["20", "20"]
    assert rows[7] == ["domain", "perplexity,", "95", "%", "documents"]


def test_eval_of_files_and_without_pseudo_perplexity(folder: Path) -> None:
    scores = pipeline.evaluate("runs/masked", files={"mine": ["code.jsonl"]}, max_tokens=2000, pseudo_tokens=30)
    assert scores["mine"]["pseudo_tokens"] == 30
    assert 100 < scores["mine"]["tokens"] < 1000  # about 15 % of 2,000
    alone = pipeline.evaluate("runs/masked", max_tokens=2000, pseudo_tokens=0)
    assert not any(key.startswith("pseudo") for key in alone["manual"])


def test_fill_gives_a_line_for_each_mask_token(folder: Path, firstlight) -> None:
    result = firstlight("fill", "runs/masked", "The <|mask|> of a <|mask|>\x1b[31m", "--top-k", "3")
    assert result.code == 0, result.stderr
    _, *rows = result.stdout.splitlines()
    assert [row.split()[0] for row in rows] == ["1", "2"]
    assert all(row.count("%") == 3 for row in rows)
    assert "\x1b" not in result.stdout
    assert not any(line != line.rstrip() for line in result.stdout.splitlines())


def test_generate_on_a_masked_run_points_to_fill(folder: Path, firstlight) -> None:
    sentence = firstlight("generate", "runs/masked").sentence()
    assert "firstlight fill RUN 'text with <|mask|>'" in sentence
    assert "has no <|mask|>" in firstlight("fill", "runs/masked", "nothing hidden").sentence()


def test_words_to_hide_are_whole_ordinary_words_in_any_script(tokenizer_folder: Path) -> None:
    tokenizer = Tokenizer.load(tokenizer_folder)
    ids = tokenizer.encode("The value of the function is returned when the class definition is 'executed' at runtime.")
    places = words_to_hide(tokenizer, ids)
    assert 0 < len(places) <= 8
    for place in places:
        word = tokenizer.decode([ids[place]]).strip()
        assert word.isalpha() and len(word) >= 4
        assert not tokenizer.decode(ids[place + 1 : place + 2])[:1].isalpha()
    assert words_to_hide(tokenizer, tokenizer.encode("12, 13; (a)")) == []

"""The whole way on a little text: every stage leaves what it should, a second start repeats nothing."""

from __future__ import annotations

import json

import pytest

from firstlight import pipeline
from firstlight.support.errors import ConfigError
from firstlight.training.checkpoint import checkpoint_steps

SMALL = [
    "tokenizer.vocab_size=400",
    "model.hidden_size=32",
    "model.num_hidden_layers=1",
    "data.sequence_length=64",
    "training.compile=false",
    "data.validation_fraction=0.1",
]


@pytest.fixture
def quickstart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(data, *overrides, name="tiny", **settings):
        return pipeline.quickstart(data, minutes=0.02, name=name, overrides=[*SMALL, *overrides], **settings)

    return run


def test_every_stage_leaves_its_result_and_a_second_start_repeats_none(quickstart, tiny_corpus, capsys):
    data = {source: [str(file)] for source, file in tiny_corpus.items()}
    run = quickstart(data)
    shown = capsys.readouterr()
    for source in data:
        assert f"\n{source} " in shown.out  # its row in the table of scores
    assert "What next:" in shown.err
    assert checkpoint_steps(run.checkpoints)[-1] == run.config.training.total_steps
    assert run.provenance["datasets"]["code"]["text"] == data["code"]
    assert run.config.data.mixture == {}

    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(run.path / "huggingface")
    tokenizer = AutoTokenizer.from_pretrained(run.path / "huggingface")
    assert model.generate(**tokenizer("The", return_tensors="pt"), max_new_tokens=3).shape[1] > 1

    before = run.metrics.read_bytes()
    quickstart(data)
    again = capsys.readouterr().err
    assert again.count("same inputs as before: kept") == 2 + len(data)
    assert "is finished" in again
    assert run.metrics.read_bytes() == before


def test_changed_text_makes_new_stages_and_is_refused_for_the_same_run(quickstart, tmp_path, tiny_corpus):
    file = tmp_path / "mine.jsonl"
    lines = tiny_corpus["manual"].read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:25]))
    quickstart({"mine": [str(file)]})
    stages = set((tmp_path / "data").iterdir())
    file.write_text("".join(lines[:30]))
    with pytest.raises(ConfigError, match="is not the one the run began with"):
        quickstart({"mine": [str(file)]})
    assert len(set((tmp_path / "data").iterdir()) - stages) == 3


def test_one_plain_text_file_is_enough(quickstart, tmp_path, tiny_corpus, capsys):
    texts = [json.loads(line)["text"] for line in tiny_corpus["manual"].open()]
    (tmp_path / "book.txt").write_text("\n\n".join(texts))
    run = quickstart({"book": ["book.txt"]}, "data.validation_fraction=0")
    assert (run.path / "huggingface" / "config.json").is_file()
    assert "no document was held out" in capsys.readouterr().err


def test_a_masked_model_is_named_so_and_shows_hidden_words_beside_its_guesses(quickstart, tiny_corpus, capsys):
    data = {source: [str(file)] for source, file in tiny_corpus.items()}
    run = quickstart(data, "model.objective=masked", name=None)
    shown = capsys.readouterr()
    assert run.path.name == "quickstart-masked"
    assert run.config.masking.fraction == 0.3
    assert "[1]" in shown.out
    table = shown.out[shown.out.index("hidden") :].splitlines()
    assert table[0].split() == ["hidden", "filled", "in"]
    number, word, *guesses = table[1].split()
    assert number == "1"
    assert word.isalpha()
    assert sum(guess.startswith(tuple("0123456789")) and "%" in guess for guess in guesses) == 3
    assert "firstlight fill runs/quickstart-masked 'The <|mask|>" in shown.err
    scores = shown.out[shown.out.index("domain") :].split("\n\n")[0].splitlines()
    assert scores[0].split() == ["domain", "loss", "perplexity", "accuracy", "baseline", "hidden"]
    assert {line.split()[0] for line in scores[1:]} == set(data)


def test_a_prompt_with_mask_tokens_is_filled_in(quickstart, tiny_corpus, capsys):
    data = {"manual": [str(tiny_corpus["manual"])]}
    run = quickstart(data, "model.objective=masked", "masking.fraction=0.2", prompt="The <|mask|> of a <|mask|>")
    assert run.config.masking.fraction == 0.2
    assert "filled in" in capsys.readouterr().out

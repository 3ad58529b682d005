"""Causal and masked runs of a recipe differ in one line and share every stage before training."""

from __future__ import annotations

import json

import pytest

from firstlight.pipeline.dry_run import dry_run
from firstlight.pipeline.stages import prepare
from firstlight.recipe import load_config
from firstlight.support.errors import ConfigError
from firstlight.tokens.tokenizer import Tokenizer

MASKED = ["model.objective=masked"]


@pytest.fixture
def old_tokenizer(tokenizer_folder, tmp_path):
    """A tokenizer as it was trained before there were mask tokens."""
    folder = tmp_path / "old"
    tokenizer = Tokenizer.load(tokenizer_folder)
    content = json.loads((tokenizer_folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != tokenizer.mask_token]
    content["model"]["vocab"]["unused"] = content["model"]["vocab"].pop(tokenizer.mask_token)
    Tokenizer(content).save(folder)
    return folder


def test_both_find_the_same_tokenizer_and_tokens(trained_folder, monkeypatch, tmp_path):
    monkeypatch.chdir(trained_folder)
    directory = [f"data.directory={tmp_path / 'data'}"]
    causal = prepare(load_config("text.yaml", directory))
    masked = prepare(load_config("text.yaml", [*directory, *MASKED]))
    assert masked.tokenizer.fingerprint == causal.tokenizer.fingerprint
    assert masked.tokenizer.mask_token == "<|mask|>"
    assert [dataset.path for dataset in masked.datasets.values()] == [d.path for d in causal.datasets.values()]
    assert masked.config.model.vocab_size == causal.config.model.vocab_size


def test_a_tokenizer_without_a_mask_token_stops_a_masked_run_before_any_work(
    trained_folder, old_tokenizer, monkeypatch, tmp_path
):
    monkeypatch.chdir(trained_folder)
    given = [f"tokenizer.path={old_tokenizer}", f"data.directory={tmp_path / 'data'}"]
    for start in (
        lambda: prepare(load_config("text.yaml", [*given, *MASKED])),
        lambda: dry_run("text.yaml", given + MASKED),
    ):
        with pytest.raises(ConfigError, match=r"old: has no mask token, which model\.objective masked needs"):
            start()
    assert not list(tmp_path.glob("data/*-*"))
    dry_run("text.yaml", given)

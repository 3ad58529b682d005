"""Weights that were exported and imported train at every layout as those that were never away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firstlight import pipeline
from firstlight.interop.huggingface import export_huggingface
from firstlight.model import build_model
from firstlight.recipe import load_config
from firstlight.tokens.dataset import TokenDataset

SHORT = ["training.total_steps=4", "training.micro_batch_size=2", "schedule.warmup_steps=2"]
LAYOUTS = {"one": (1, []), "fsdp2-tp2": (4, ["parallel.tensor=2"]), "pp2": (2, ["parallel.pipeline=2"])}


def test_the_first_weights_of_a_run_may_come_from_an_import(
    recipe: Path, tiny_tokens: Path, train_at: Callable[..., Any], metrics: Callable[..., Any], tmp_path: Path
) -> None:
    config, tokenizer = load_config(recipe), TokenDataset.open(tiny_tokens).tokenizer
    model = build_model(config.model.resolved(tokenizer.vocab_size, config.data.sequence_length), config.seed)
    export_huggingface(model, tokenizer, tmp_path / "model")
    for name in LAYOUTS:
        pipeline.import_model(tmp_path / "model", tmp_path / "runs" / name)
    jobs = {name: (size, SHORT + layout) for name, (size, layout) in LAYOUTS.items()}
    runs = train_at({"never-away": (1, SHORT), **jobs})
    expected = metrics(runs["never-away"])
    assert len(expected) == 4 and metrics(runs["one"]) == expected
    for name in LAYOUTS:
        assert '"resumed", "step": 0' in runs[name].events.read_text()
        assert metrics(runs[name]) == pytest.approx(expected, rel=1e-5), name

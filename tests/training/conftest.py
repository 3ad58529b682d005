"""A tiny token dataset and the configuration of a run on it that takes seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml


@pytest.fixture(scope="session")
def tiny_tokens(tiny_corpus, tmp_path_factory) -> dict[str, Path]:
    """Token datasets of the tiny corpus, {source: folder}, made with one tokenizer of 512 tokens."""
    from firstlight.tokens.tokenize import tokenize_files
    from firstlight.tokens.tokenizer_training import train_tokenizer

    folder = tmp_path_factory.mktemp("tokens")
    texts = [json.loads(line)["text"] for file in tiny_corpus.values() for line in file.open()]
    tokenizer = train_tokenizer(texts, 512)
    for source, file in tiny_corpus.items():
        tokenize_files(
            [str(file)],
            tokenizer,
            folder / source,
            source=source,
            validation_fraction=0.1,
            shard_tokens=30_000,
            workers=1,
        )
    return {source: folder / source for source in tiny_corpus}


@pytest.fixture
def tiny_recipe(tiny_tokens, tmp_path) -> Path:
    """A YAML file: a two-layer LLaMA in fp32 on the tiny datasets, 30 steps, a checkpoint every 5."""
    settings = {
        "name": "tiny",
        "runs_directory": str(tmp_path / "runs"),
        "data": {
            "directory": str(tmp_path / "data"),
            "sources": {source: {"tokens": str(folder)} for source, folder in tiny_tokens.items()},
            "mixture": {"manual": 0.7, "code": 0.3},
            "sequence_length": 64,
            "mixture_block_size": 16,
        },
        "model": {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
        },
        "optimizer": {"lr": 1e-2, "min_lr": 1e-3},
        "schedule": {"warmup_steps": 5},
        "training": {
            "total_steps": 30,
            "micro_batch_size": 4,
            "global_batch_size": 8,
            "precision": "fp32",
            "device": "cpu",
            "compile": False,
        },
        "checkpoint": {"interval_steps": 5},
        "evaluation": {"interval_steps": 10, "max_tokens": 1000},
        "logging": {"interval_steps": 1},
    }
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file

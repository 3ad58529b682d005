"""A small recipe for several processes, and a way to train it at many layouts that takes seconds."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from firstlight.training.run_folder import RunFolder


@pytest.fixture(scope="session")
def tiny_tokens(tiny_corpus: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token dataset of 509 tokens of vocabulary, an odd number."""
    from firstlight.tokens.tokenize import tokenize_files
    from firstlight.tokens.tokenizer_training import train_tokenizer

    folder = tmp_path_factory.mktemp("tokens")
    texts = [json.loads(line)["text"] for line in tiny_corpus["manual"].open()]
    tokenizer = train_tokenizer(texts, 509)
    files = [str(tiny_corpus["manual"])]
    tokenize_files(files, tokenizer, folder / "manual", source="manual", validation_fraction=0.1, workers=1)
    return folder / "manual"


@pytest.fixture
def recipe(tiny_tokens: Path, tmp_path: Path) -> Path:
    """A YAML file: a four-layer LLaMA in fp32, 20 steps of 16 sequences, a checkpoint every 10."""
    settings = {
        "name": "tiny",
        "runs_directory": str(tmp_path / "runs"),
        "data": {
            "directory": str(tmp_path / "data"),
            "sources": {"manual": {"tokens": str(tiny_tokens)}},
            "sequence_length": 32,
            "max_epochs": 1000,
        },
        "model": {
            "vocab_size": 509,
            "hidden_size": 32,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
        },
        "optimizer": {"lr": 2e-3, "min_lr": 2e-4},
        "schedule": {"warmup_steps": 5},
        "training": {
            "total_steps": 20,
            "micro_batch_size": 4,
            "global_batch_size": 16,
            "precision": "fp32",
            "device": "cpu",
            "compile": False,
        },
        "checkpoint": {"interval_steps": 10},
        "evaluation": {"interval_steps": 10, "max_tokens": 500},
        "logging": {"interval_steps": 1},
    }
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


@pytest.fixture
def train_at(recipe: Path, tmp_path: Path) -> Callable[..., dict[str, RunFolder]]:
    """`train_at({name: (processes, overrides)}, recipe=…)` trains each, one after the other; the runs by name.

    A name that was trained before is resumed.
    """

    def train(jobs: dict[str, tuple[int, list[str]]], seconds: float = 60) -> dict[str, RunFolder]:
        todo: list[dict[str, Any]] = [
            {
                "world_size": size,
                "recipe": str(recipe),
                "overrides": [f"name={name}", *overrides],
                "seconds": seconds,
            }
            for name, (size, overrides) in jobs.items()
        ]
        file = tmp_path / "jobs.json"
        file.write_text(json.dumps(todo))
        command = [sys.executable, str(Path(__file__).with_name("train_ranks.py")), str(file)]
        loopback = "lo" if sys.platform == "linux" else "lo0"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": loopback, "NO_COLOR": "1"}
        limit = seconds * len(todo) + 60
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit)
        assert done.returncode == 0, done.stderr[:6000]
        return {name: RunFolder(tmp_path / "runs" / name) for name in jobs}

    return train


@pytest.fixture
def metrics() -> Callable[..., dict[int, float]]:
    """`metrics(run, key="loss")`: the values that metrics.jsonl has, by step."""

    def read(run: RunFolder, key: str = "loss") -> dict[int, float]:
        lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
        return {line["step"]: line[key] for line in lines if key in line}

    return read


@pytest.fixture
def torchrun(recipe: Path, tmp_path: Path) -> Callable[..., RunFolder]:
    """`torchrun(fault, 2, "name=…", …, restarts=3)` trains under torchrun with a fault planted (planted_ranks.py)."""

    def train(fault: dict[str, Any], processes: int, *overrides: str, restarts: int = 0) -> RunFolder:
        file = tmp_path / "fault.json"
        file.write_text(json.dumps(fault))
        command = [
            *(sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"),
            *(f"--max-restarts={restarts}", "--monitor-interval=0.1"),
            *("--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"),
            *(str(Path(__file__).with_name("planted_ranks.py")), str(file), str(recipe), *overrides),
        ]
        loopback = "lo" if sys.platform == "linux" else "lo0"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": loopback, "NO_COLOR": "1"}
        with subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                said, _ = process.communicate(timeout=200)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == 0, said[-6000:]
        name = next(override.removeprefix("name=") for override in overrides if override.startswith("name="))
        return RunFolder(tmp_path / "runs" / name)

    return train

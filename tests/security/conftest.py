"""What an attacker prepares: objects that act when they are unpickled, and files with hashes that fit."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """The file that every attack would make."""
    return tmp_path / "trace"


@pytest.fixture
def run(trained_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`runs/tiny`, a trained run in a working directory of its own, with one checkpoint."""
    shutil.copytree(trained_folder, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    shutil.rmtree("runs/tiny/checkpoints/step_000002")
    return Path("runs/tiny")


@pytest.fixture
def checkpoint(run: Path) -> Path:
    return run / "checkpoints" / "step_000004"


@pytest.fixture
def forge(checkpoint: Path) -> Callable[[str, bytes], None]:
    """`forge(name, content)` replaces a file of the checkpoint and mends the manifest, so that all hashes fit."""

    def write(name: str, content: bytes) -> None:
        (checkpoint / name).write_bytes(content)
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        (checkpoint / "manifest.json").write_text(json.dumps(manifest))

    return write


@pytest.fixture
def model(trained_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the hub has it: a small LLaMA with its tokenizer."""
    from firstlight import pipeline

    monkeypatch.chdir(trained_folder)
    folder = pipeline.export("runs/tiny", tmp_path / "model")
    (folder / "firstlight.json").unlink()
    monkeypatch.chdir(tmp_path)
    return folder


def edit_json(file: Path, **fields: Any) -> None:
    """Set fields of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))

"""A disk that takes no more and folders that may not be written: the file is named, what was there stays as it was.

A limit on the size of files stands for the full disk: it refuses the write in the same place, and needs no root.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from firstlight.training.checkpoint import checkpoint_steps


def limited(size: int) -> Callable[[], None]:
    """No file of the process may grow beyond `size` bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize(
    ("size", "arguments", "named"),
    [
        (100, "init quickstart new.yaml", "new.yaml: File too large; raise the limit on file sizes"),
        (1000, "corpus build text.yaml --output new", "/unit-00000"),
        (1000, "corpus build text.yaml --output new corpus.steps=[length]", "File too large; raise the limit"),
        (1000, "tokenizer train manual.jsonl --vocab-size 300 --output new", "new: File too large"),
        (1000, "tokenize manual.jsonl --tokenizer tokenizer --output new", "File too large"),
        (50_000, "tokenize manual.jsonl --tokenizer tokenizer --output new", "File too large"),
        (60_000, "export runs/tiny new", "new: the weights cannot be written"),
        (500, "train recipe.yaml name=new", "new"),
    ],
)
def test_a_full_disk(size: int, arguments: str, named: str, folder: Path, run_firstlight, tree) -> None:
    before = tree(folder)
    result = run_firstlight(*arguments.split(), limit=limited(size))
    assert named in result.sentence()
    assert "File too large" in result.sentence() or "cannot be written" in result.sentence()
    assert result.stdout == ""
    assert tree(folder) == before


def test_a_disk_that_is_full_when_a_checkpoint_is_due_leaves_the_one_before(
    folder: Path, run_firstlight, firstlight
) -> None:
    checkpoints = folder / "runs" / "tiny" / "checkpoints"
    result = run_firstlight("train", "runs/tiny", "training.total_steps=8", limit=limited(50_000))
    assert f"{Path('runs/tiny/checkpoints/step_000006')}: the checkpoint could not be written" in result.sentence()
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step_000002", "step_000004"]
    result = firstlight("train", "runs/tiny", "training.total_steps=8")
    assert result.code == 0
    assert "resumed at step 4" in result.stderr
    assert checkpoint_steps(checkpoints)[-1] == 8


def test_standard_output_that_takes_nothing() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "firstlight", "recipes"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: No space left on device; make room")
    assert ended.stderr.count("\n") == 1


def without_privileges() -> None:
    """Let file permissions hold for root too: give up CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH for good."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (1, 2):
            if libc.prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
                raise OSError(ctypes.get_errno(), "capabilities cannot be given up")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("init quickstart locked/new.yaml", "locked/new.yaml: Permission denied; change its permissions"),
        ("train secret.yaml", "secret.yaml: Permission denied"),
        ("corpus build text.yaml --output locked/new", "locked: no permission to write in this folder"),
        ("corpus build text.yaml data.sources.manual.text=[secret.jsonl]", "secret.jsonl: no permission to read it"),
        ("tokenizer train manual.jsonl --output locked/new", "locked: no permission to write in this folder"),
        ("tokenizer train secret.jsonl --output new", "secret.jsonl: no permission to read it"),
        ("tokenize manual.jsonl --tokenizer tokenizer --output locked/new", "locked: no permission to write"),
        ("tokenize manual.jsonl --tokenizer secret-tokenizer --output new", "secret-tokenizer/tokenizer.json"),
        ("train recipe.yaml name=new runs_directory=locked", "locked: no permission to write in this folder"),
        ("train recipe.yaml name=new data.sources.code.tokens=secret-tokens", "secret-tokens/train-00000.bin"),
        ("train locked/tiny training.total_steps=6", "locked/tiny"),
        ("eval secret", "secret/checkpoints: Permission denied"),
        ("export runs/tiny locked/new", "locked: no permission to write in this folder"),
    ],
)
def test_no_permission(arguments: str, named: str, folder: Path, run_firstlight, tree) -> None:
    shutil.copytree("runs/tiny", "locked/tiny")
    shutil.copytree("runs/tiny", "secret")
    shutil.copytree("tokenizer", "secret-tokenizer")
    shutil.copytree("tokens/code", "secret-tokens")
    shutil.copy("recipe.yaml", "secret.yaml")
    shutil.copy("manual.jsonl", "secret.jsonl")
    closed = dict.fromkeys(("secret.yaml", "secret.jsonl", "secret/checkpoints"), 0o000)
    closed |= dict.fromkeys(("secret-tokenizer/tokenizer.json", "secret-tokens/train-00000.bin"), 0o000)
    closed |= {"locked/tiny": 0o555, "locked": 0o555}
    before = tree(folder)
    for name, mode in closed.items():
        Path(name).chmod(mode)
    result = run_firstlight(*arguments.split(), limit=without_privileges)
    for name in reversed(closed):
        Path(name).chmod(0o755)
    assert named in result.sentence()
    assert tree(folder) == before


def test_a_run_that_may_only_be_read_can_be_exported(folder: Path, run_firstlight, tree) -> None:
    places = [place for place in (folder / "runs").rglob("*") if place.is_dir()]
    before = tree(folder / "runs")
    for place in places:
        place.chmod(0o555)
    result = run_firstlight("export", "runs/tiny", "new", limit=without_privileges)
    for place in places:
        place.chmod(0o755)
    assert result.code == 0, result.stderr
    assert tree(folder / "runs") == before

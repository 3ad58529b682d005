"""A disk that takes no more and folders that may not be written: the file is named, what was there stays as it was.

A limit on the size of files stands for the full disk: it refuses the write in the same place, and needs no root.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from firstlight.support.errors import EXIT_STOPPED
from firstlight.training.checkpoint import checkpoint_steps, verify_checkpoint


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


def test_a_disk_that_is_full_leaves_the_checkpoint_before_and_the_end_of_a_run_says_so(
    folder: Path, run_firstlight, firstlight
) -> None:
    checkpoints = folder / "runs" / "tiny" / "checkpoints"
    result = run_firstlight("train", "runs/tiny", "training.total_steps=8", limit=limited(50_000))
    assert "step 6 could not be saved" in result.stderr
    assert "the checkpoint of step 4 is safe" in result.stderr
    assert f"{Path('runs/tiny/checkpoints/step_000008')}: the checkpoint could not be written" in result.sentence()
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step_000002", "step_000004"]
    result = firstlight("train", "runs/tiny", "training.total_steps=8")
    assert result.code == 0
    assert "resumed at step 4" in result.stderr
    assert checkpoint_steps(checkpoints)[-1] == 8


class Training:
    """`firstlight train runs/tiny` for long, in a process whose disk can be spoilt and mended."""

    def __init__(self, run: Path) -> None:
        self.run, self.checkpoints = run, run / "checkpoints"
        settings = ["training.total_steps=1000000", "data.max_epochs=1e6", "checkpoint.interval_steps=20"]
        self.log = (run.parent / "log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "firstlight", "train", str(run), *settings, "evaluation.interval_steps=1000000"],
            stderr=self.log,
            env={**os.environ, "NO_COLOR": "1"},
            preexec_fn=without_privileges,
        )

    def wait_for(self, what: Callable[[], object], seconds: float = 100) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.01)

    @property
    def said(self) -> str:
        return Path(self.log.name).read_text()

    def saves(self, more: int = 2) -> None:
        """Until the newest checkpoint is so many intervals on."""
        last = checkpoint_steps(self.checkpoints)[-1]
        self.wait_for(lambda: checkpoint_steps(self.checkpoints)[-1] >= last + 20 * more)

    def limit(self, size: int) -> None:
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()


@pytest.fixture
def training(folder: Path) -> Iterator[Training]:
    training = Training(folder / "runs" / "tiny")
    yield training
    training.checkpoints.chmod(0o755)
    training.close()


SPOIL: dict[str, tuple[Callable[[Training], None], Callable[[Training], None], str]] = {
    "full disk": (lambda run: run.limit(30_000), lambda run: run.limit(resource.RLIM_INFINITY), "File too large"),
    "read-only folder": (
        lambda run: run.checkpoints.chmod(0o555),
        lambda run: run.checkpoints.chmod(0o755),
        "Permission denied",
    ),
    "folder gone": (
        lambda run: run.checkpoints.rename(run.run / "moved") and run.checkpoints.write_text("") and None,
        lambda run: run.checkpoints.unlink() or ((run.run / "moved").rename(run.checkpoints) and None),
        "a file, where a folder is due",
    ),
}


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process are Linux's")
@pytest.mark.parametrize(
    "case", [case if case == "full disk" else pytest.param(case, marks=pytest.mark.slow) for case in SPOIL]
)
def test_training_goes_on_while_nothing_can_be_saved_and_saves_when_it_can(case: str, training: Training) -> None:
    spoil, mend, reason = SPOIL[case]
    training.wait_for(lambda: checkpoint_steps(training.checkpoints)[-1] > 40)
    spoil(training)
    training.wait_for(lambda: training.said.count("could not be saved either") >= 3)
    mend(training)
    training.saves()
    training.process.send_signal(signal.SIGTERM)
    assert training.process.wait(timeout=60) == EXIT_STOPPED, training.said
    said = training.said
    assert said.count("Training goes on; ") == 1 and reason in said and "is saved again" in said
    assert "Traceback" not in said
    lines = [json.loads(line) for line in (training.run / "events.jsonl").read_text().splitlines()]
    failed = [line for line in lines if line["event"] == "save_failed"]
    assert len(failed) >= 4 and all(reason in line["reason"] for line in failed)
    steps = [line["step"] for line in failed]
    assert steps == sorted(set(steps)) and min(b - a for a, b in pairwise(steps)) == 2  # sooner than each 20
    logged = [json.loads(line)["step"] for line in (training.run / "metrics.jsonl").read_text().splitlines()]
    assert logged == sorted(logged)
    assert not any(entry.name.startswith(".step") for entry in training.checkpoints.iterdir())
    for step in checkpoint_steps(training.checkpoints):
        verify_checkpoint(training.checkpoints / f"step_{step:06d}")


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """The run on a disk of its own of 8 MB."""
    run = folder / "runs" / "tiny"
    before = run.rename(folder / "before")
    run.mkdir()
    if (
        shutil.which("mount") is None
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(run)], capture_output=True, timeout=60
        ).returncode
    ):
        pytest.skip("only root can make a small disk")
    shutil.copytree(before, run, dirs_exist_ok=True)
    yield run
    subprocess.run(["umount", "--lazy", str(run)], check=True, timeout=60)


def test_on_a_disk_without_a_free_byte_no_line_and_no_checkpoint_is_lost(small_disk: Path) -> None:
    training = Training(small_disk)
    try:
        training.wait_for(lambda: checkpoint_steps(training.checkpoints)[-1] > 40)
        with (small_disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space left"):
            while True:
                filler.write(bytes(4096))
        training.wait_for(lambda: training.said.count("could not be saved either") >= 3)
        training.wait_for(lambda: "Lines for this file wait in memory" in training.said)
        last = checkpoint_steps(training.checkpoints)[-1]
        verify_checkpoint(training.checkpoints / f"step_{last:06d}")
        (small_disk / "filler").unlink()
        training.saves()
        training.process.send_signal(signal.SIGTERM)
        assert training.process.wait(timeout=60) == EXIT_STOPPED, training.said
    finally:
        training.close()
    assert "the disk has 0 B free; make room" in training.said
    lines = [json.loads(line) for line in (small_disk / "metrics.jsonl").read_text().splitlines()]
    logged = [line["step"] for line in lines if "loss" in line][1:]  # the first is of the run before
    assert logged == list(range(10, logged[-1] + 1, 10))
    events = [json.loads(line)["event"] for line in (small_disk / "events.jsonl").read_text().splitlines()]
    assert events.count("save_failed") >= 4 and events[-1] == "stopped"


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

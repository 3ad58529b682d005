"""A run killed at random moments ends bit for bit like one that was not, and reads the same samples.

Also: what SIGTERM and SIGINT do.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from firstlight.support.errors import EXIT_STOPPED
from firstlight.training.checkpoint import checkpoint_steps
from firstlight.training.load import load_trained
from firstlight.training.run_folder import RunFolder

STEPS = 300
SETTINGS = [f"training.total_steps={STEPS}", "checkpoint.interval_steps=4", "evaluation.interval_steps=50"]


def start(recipe, name):
    return subprocess.Popen(
        [sys.executable, "-m", "firstlight", "train", str(recipe), f"name={name}", *SETTINGS],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=recipe.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
        text=True,
    )


def log(run: RunFolder):
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


def wait_for_step(run: RunFolder, process, step: int = 1, seconds: float = 120) -> None:
    """Until the run has logged a step of this process's life, and `step` at least."""
    began, deadline = time.time(), time.monotonic() + seconds
    while not (run.metrics.exists() and run.metrics.stat().st_mtime >= began and last_step(run) >= step):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "the step was not logged"
        time.sleep(0.01)


def last_step(run: RunFolder) -> int:
    lines = run.metrics.read_text().rpartition("\n")[0].splitlines()
    return json.loads(lines[-1])["step"] if lines else 0


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_at_random_moments_ends_bit_identical(tiny_recipe, kills):
    undisturbed = start(tiny_recipe, "undisturbed")
    _, complaint = undisturbed.communicate(timeout=200)
    assert undisturbed.returncode == 0, complaint
    reference = RunFolder(tiny_recipe.parent / "runs" / "undisturbed")

    seed = int(os.environ.get("FIRSTLIGHT_TEST_SEED", time.time_ns() % 2**32))
    print(f"FIRSTLIGHT_TEST_SEED={seed}")
    draw = random.Random(seed)
    run = RunFolder(tiny_recipe.parent / "runs" / "killed")
    killed_at = []
    # A kill may come before the next checkpoint.
    while len(killed_at) < kills or len(set(killed_at)) < min(kills, 4):
        process = start(tiny_recipe, "killed")
        if draw.random() < 0.8:  # most kills fall into training, saving or validating, some into the start
            wait_for_step(run, process, (killed_at or [0])[-1] + draw.randint(1, 25))
            time.sleep(draw.uniform(0, 0.05))
        else:
            time.sleep(draw.uniform(0.2, 3))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        steps = checkpoint_steps(run.checkpoints)
        killed_at.append(steps[-1] if steps else 0)
        assert killed_at[-1] < STEPS, "the run ended before it was killed often enough; give it more steps"
    last = start(tiny_recipe, "killed")
    _, complaint = last.communicate(timeout=200)
    assert last.returncode == 0, complaint

    one, other = load_trained(reference.path).model, load_trained(run.path).model
    for (name, expected), (_, found) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(expected, found), f"{name} differs after kills at {killed_at}"
    for key in ("loss", "samples_consumed", "validation/code/loss"):
        assert [line[key] for line in log(run) if key in line] == [line[key] for line in log(reference) if key in line]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_saves_and_ends_with_its_own_code(tiny_recipe, number):
    process = start(tiny_recipe, "stopped")
    run = RunFolder(tiny_recipe.parent / "runs" / "stopped")
    wait_for_step(run, process)
    process.send_signal(number)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == EXIT_STOPPED
    assert f"{number.name}: stopped at step" in complaint
    assert "Traceback" not in complaint
    saved = checkpoint_steps(run.checkpoints)[-1]
    assert f"step {saved} of {STEPS}" in complaint
    assert log(run)[-1]["step"] == saved
    again = start(tiny_recipe, "stopped")
    _, complaint = again.communicate(timeout=200)
    assert again.returncode == 0, complaint
    assert f"resumed at step {saved}" in complaint


def test_a_second_process_on_a_live_run_is_refused(tiny_recipe):
    first = start(tiny_recipe, "shared")
    run = RunFolder(tiny_recipe.parent / "runs" / "shared")
    try:
        wait_for_step(run, first)
        second = start(tiny_recipe, "shared")
        _, complaint = second.communicate(timeout=60)
        assert second.returncode == 1
        assert f"in use by process {first.pid}" in complaint
    finally:
        first.kill()
        first.communicate(timeout=30)

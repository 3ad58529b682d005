"""Every signal that asks to stop, and the time limit: the step is finished, saved, and the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from firstlight.support.errors import EXIT_INTERRUPTED, EXIT_STOPPED
from firstlight.training.checkpoint import checkpoint_steps
from firstlight.training.run_folder import RunFolder
from firstlight.training.signals import ASKING, StopRequest

LONG = ("name=long", "training.total_steps=1_000_000", "data.max_epochs=1_000_000", "checkpoint.interval_steps=1000000")


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`start("training.max_hours=1")` begins a long run in the working directory, and waits until it trains."""
    started: list[subprocess.Popen[str]] = []

    def begin(*settings: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "firstlight", "train", "recipe.yaml", *LONG, "logging.interval_steps=1", *settings],
            env={**os.environ, "NO_COLOR": "1", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        metrics, deadline = Path("runs/long/metrics.jsonl"), time.monotonic() + 120
        while not (metrics.exists() and metrics.stat().st_size):
            assert time.monotonic() < deadline and process.poll() is None, process.communicate()
            time.sleep(0.02)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def assert_saved(process: subprocess.Popen[str], by: str) -> None:
    said = process.communicate(timeout=60)[1]
    assert process.returncode == EXIT_STOPPED, said
    run = RunFolder(Path("runs/long"))
    step = checkpoint_steps(run.checkpoints)[-1]
    assert f"stopped: {by}: stopped at step {step} of 1000000, saved." in said
    events = [json.loads(line) for line in run.events.read_text().splitlines()]
    assert [event["step"] for event in events if event["event"] == "stopped"] == [step]


@pytest.mark.parametrize("number", ASKING, ids=lambda number: number.name)
def test_a_signal_saves_and_ends(number: signal.Signals, start, firstlight) -> None:
    process = start()
    process.send_signal(number)
    assert_saved(process, number.name)
    step = checkpoint_steps(Path("runs/long/checkpoints"))[-1]
    result = firstlight("train", "runs/long", f"training.total_steps={step + 1}")
    assert result.code == 0 and f"resumed at step {step}" in result.stderr


def test_the_time_limit_saves_and_ends(start) -> None:
    assert_saved(start("training.max_hours=0.005"), "time limit of 0.005 h")


def test_a_second_interrupt_ends_at_once() -> None:
    with StopRequest() as stop, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        assert stop.signal_name == "SIGINT"
        signal.raise_signal(signal.SIGINT)


def test_the_first_to_ask_is_named_and_a_batch_systems_signal_twice_is_no_interrupt() -> None:
    with StopRequest() as stop:
        for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM):
            signal.raise_signal(number)
        assert stop.signal_name == "SIGUSR1"


def test_afterwards_signals_are_as_before() -> None:
    before = [signal.getsignal(number) for number in ASKING]
    with StopRequest(max_hours=1e-9) as stop:
        assert stop.signal_name == "time limit of 1e-09 h"
        assert all(signal.getsignal(number) != old for number, old in zip(ASKING, before, strict=True))
    assert [signal.getsignal(number) for number in ASKING] == before


def test_a_signal_that_is_ignored_stays_ignored(start) -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        process = start()
    finally:
        signal.signal(signal.SIGUSR1, before)
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGTERM)
    assert_saved(process, "SIGTERM")


def test_exit_codes_are_distinct() -> None:
    from firstlight.support import errors

    codes = [value for name, value in vars(errors).items() if name.startswith("EXIT_")]
    assert len(set(codes)) == len(codes) and {EXIT_STOPPED, EXIT_INTERRUPTED} < set(codes)

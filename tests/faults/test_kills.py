"""Killed at random moments on the way from raw text to an exported model, a run ends bit for bit like one that was not.

Start, corpus build, tokenizer, tokens, training, saving and export, each in the middle. KILLS says how many kills,
KILLS_SEED which.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

pytest.importorskip("daft")

STEPS = 200
SAVE_EVERY = 10
STAGES = ("start", "corpus", "tokenizer", "tokens", "training", "saving", "export")
RECIPE = {
    "name": "killed",
    "corpus": {"steps": ["length", "exact_duplicates", "near_duplicates"]},
    "data": {"validation_fraction": 0.1, "sequence_length": 64, "mixture_block_size": 16, "shard_tokens": 20_000},
    "tokenizer": {"vocab_size": 400},
    "model": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4},
    "schedule": {"warmup_steps": 5},
    "training": {"total_steps": STEPS, "global_batch_size": 8, "precision": "fp32", "device": "cpu", "compile": False},
    "checkpoint": {"interval_steps": SAVE_EVERY},
    "evaluation": {"interval_steps": 50, "max_tokens": 1000},
    "logging": {"interval_steps": 1},
}
COMMAND = "{firstlight} train recipe.yaml && {firstlight} export runs/killed exported"


class Way:
    """From raw text to an exported model, in a folder; started again, it goes on."""

    def __init__(self, folder: Path, texts: dict[str, Path]) -> None:
        self.folder, self.run = folder, folder / "runs" / "killed"
        folder.mkdir()
        sources = {name: {"text": [str(file)]} for name, file in texts.items()}
        recipe = {**RECIPE, "data": {**RECIPE["data"], "sources": sources}}  # type: ignore[dict-item]
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))

    def start(self) -> subprocess.Popen[str]:
        """The way as processes in a group of their own."""
        command = COMMAND.format(firstlight=f"'{sys.executable}' -m firstlight")
        return subprocess.Popen(
            ["sh", "-c", command],
            cwd=self.folder,
            env={**os.environ, "NO_COLOR": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self) -> dict[str, float]:
        """Go to the end, undisturbed; the seconds that each stage took."""
        began, looked = time.time(), time.monotonic()
        deadline = looked + 300
        process = self.start()
        seconds = dict.fromkeys(STAGES, 0.0)
        while process.poll() is None:
            assert looked < deadline
            time.sleep(0.005)
            before, looked = looked, time.monotonic()
            seconds[self.stage(began)] += looked - before
        assert process.returncode == 0, process.communicate()[1]
        return seconds

    @property
    def finished(self) -> bool:
        return (self.folder / "exported").exists()

    def stage(self, since: float = 0.0) -> str:
        """What is being done, as the folder shows it; "start" where nothing was done since a moment (Unix time)."""
        data = self.folder / "data"
        if not self._touched(since):
            return "start"
        if (self.folder / ".exported.tmp").exists() or self._saved(STEPS):
            return "export"
        if any(self.run.glob("checkpoints/.step_*.tmp")):
            return "saving"
        if self.run.joinpath("metrics.jsonl").exists():
            return "training"
        if any(data.glob("tokenizer-*")):
            return "tokens"
        if any(data.glob("corpus-*")):
            return "tokenizer"
        return "corpus"

    def kill_in(self, stage: str, seconds: float) -> str | None:
        """Start, wait for the stage, go on for so long, kill; the stage that was met, None where all ended first."""
        began, deadline = time.time(), time.monotonic() + 300
        process = self.start()
        while process.poll() is None and self.stage(began) != stage:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        try:
            _, said = process.communicate(timeout=seconds)
            assert process.returncode == 0, said
            return None
        except subprocess.TimeoutExpired:
            met = self.stage(began)
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=60)
            return met

    def result(self) -> dict[str, str]:
        """Digests of all results: corpus, tokenizer, tokens, model; and what each step of training read and found."""
        files = [file for part in ("data", "exported") for file in (self.folder / part).rglob("*") if file.is_file()]
        kept = [file for file in files if file.name != "timings.json" and "/." not in str(file)]
        digests = {
            str(file.relative_to(self.folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(kept)
        }
        log = [json.loads(line) for line in (self.run / "metrics.jsonl").read_text().splitlines()]
        keys = ("step", "loss", "grad_norm", "samples_consumed", "validation/code/loss")
        return {**digests, "log": json.dumps([[line.get(key) for key in keys] for line in log])}

    def _touched(self, since: float) -> bool:
        for folder, _, files in os.walk(self.folder):
            for name in files:
                with contextlib.suppress(FileNotFoundError):
                    if name != "recipe.yaml" and (Path(folder) / name).stat().st_mtime >= since:
                        return True
        return False

    def _saved(self, step: int) -> bool:
        return (self.run / "checkpoints" / f"step_{step:06d}").exists()


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(6, marks=pytest.mark.slow),
        pytest.param(int(os.environ.get("KILLS", "40")), marks=[pytest.mark.slow, pytest.mark.timeout(36_000)]),
    ],
)
def test_killed_anywhere_ends_bit_identical(
    kills: int, tiny_corpus: dict[str, Path], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    undisturbed = Way(tmp_path / "undisturbed", tiny_corpus)
    seconds = undisturbed.finish()
    seconds["saving"] /= STEPS / SAVE_EVERY
    expected = undisturbed.result()
    assert json.loads(expected["log"])[-1][0] == STEPS and "exported/model.safetensors" in expected
    seed = int(os.environ.get("KILLS_SEED") or random.randrange(2**32))
    print(f"KILLS_SEED={seed}")
    draw = random.Random(seed)
    killed: Counter[str] = Counter()
    ways: list[Way] = []
    while killed.total() < kills:
        stage = draw.choice(STAGES)
        if ways and stage != "start" and STAGES.index(stage) < STAGES.index(ways[-1].stage()):
            ways[-1].finish()
        if not ways or ways[-1].finished:
            ways.append(Way(tmp_path / f"killed-{len(ways)}", tiny_corpus))
        if met := ways[-1].kill_in(stage, draw.uniform(0, seconds[stage])):
            killed[met] += 1
    ways[-1].finish()
    record_property("tries", kills)
    record_property("remark", ", ".join(f"{stage} {killed[stage]}" for stage in STAGES if killed[stage]))
    for way in ways:
        found = way.result()
        assert found == expected, f"KILLS_SEED={seed}, {way.folder.name}: {_difference(found, expected)}"


def _difference(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))

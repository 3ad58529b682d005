"""Ctrl-C at every stage: one sentence, the exit code, no traceback, nothing half-written, nothing lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from firstlight.support.errors import EXIT_INTERRUPTED, EXIT_STOPPED
from firstlight.training.checkpoint import checkpoint_steps, verify_checkpoint

LONG = ("training.total_steps=100_000", "data.max_epochs=1_000_000", "name=long")
SMALL = (
    *("model.hidden_size=32", "model.num_hidden_layers=1", "model.num_attention_heads=4", "tokenizer.vocab_size=300"),
    *("training.compile=false", "training.device=cpu", "data.sequence_length=64"),
)


def assert_interrupted(command, code: int = EXIT_INTERRUPTED) -> None:
    """The command ended as Ctrl-C ends one, and said so in its last line."""
    assert command.end() == code, command.text
    assert "Traceback" not in command.text
    assert "error:" not in command.text
    last = " ".join(command.text[command.text.rindex("interrupted: ") :].split())
    assert last == "interrupted: nothing half-written was left behind."


@pytest.mark.parametrize(
    ("arguments", "stage"),
    [
        (("corpus", "build", "text.yaml", "data.sources.manual.text=[{long}]", "--output", "new"), "corpus 1/2 ━"),
        (("tokenizer", "train", "{long}", "--output", "new"), "learning merges"),
        (("tokenize", "{long}", "--tokenizer", "tokenizer", "--output", "new"), "tokenize new ━"),
        (("eval", "runs/tiny", "--data", "mine={long}"), "evaluate ━"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_while_a_stage_works(arguments, stage, folder: Path, long_text: Path, terminal, tree) -> None:
    before = tree(folder)
    command = terminal(*(argument.format(long=long_text) for argument in arguments))
    command.wait_for(stage)
    command.press_ctrl_c()
    assert_interrupted(command)
    assert tree(folder) == before


def test_while_modules_are_imported() -> None:
    script = """
import runpy, signal, sys

class PressesCtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, PressesCtrlC())
runpy.run_module("firstlight", run_name="__main__", alter_sys=True)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.returncode == EXIT_INTERRUPTED
    assert ended.stderr == "interrupted: nothing half-written was left behind.\n"


def test_while_a_model_writes(folder: Path, terminal) -> None:
    command = terminal("generate", "runs/tiny", "--prompt", "Once upon", "--max-new-tokens", "2000")
    command.wait_for("Once upon")
    command.press_ctrl_c()
    assert_interrupted(command)


def test_while_a_model_is_exported(folder: Path, firstlight, tree, monkeypatch) -> None:
    before = tree(folder)
    monkeypatch.setattr(
        "firstlight.interop.huggingface.write_safetensors", lambda *_, **__: signal.raise_signal(signal.SIGINT)
    )
    firstlight("export", "runs/tiny", "new").sentence(EXIT_INTERRUPTED, "interrupted")
    assert tree(folder) == before


def test_before_the_first_step(folder: Path, terminal, tree) -> None:
    before = tree(folder)
    command = terminal("train", "recipe.yaml", *LONG)
    command.wait_for("settings that were filled in")
    command.press_ctrl_c()
    assert_interrupted(command)
    assert tree(folder) == before


@pytest.mark.parametrize("moment", [pytest.param("validating …", marks=pytest.mark.slow), "saving"])
def test_while_training(moment: str, folder: Path, terminal, firstlight) -> None:
    often = ["checkpoint.interval_steps=1"] if moment == "saving" else ["checkpoint.interval_steps=1000"]
    often += ["evaluation.interval_steps=1"] if moment.startswith("validating") else ["evaluation.interval_steps=1000"]
    checkpoints = folder / "runs" / "long" / "checkpoints"
    command = terminal("train", "recipe.yaml", *LONG, *often, "logging.interval_steps=1")
    command.wait_for((lambda: any(checkpoints.glob(".step_*.tmp"))) if moment == "saving" else moment)
    command.press_ctrl_c()
    assert command.end() == EXIT_STOPPED, command.text
    assert "Traceback" not in command.text
    assert "stopped: SIGINT: stopped at step" in command.text
    assert "Go on with: firstlight train runs/long" in " ".join(command.text.split())
    saved = checkpoint_steps(checkpoints)
    assert sorted(path.name for path in checkpoints.iterdir()) == [f"step_{step:06d}" for step in saved]
    verify_checkpoint(checkpoints / f"step_{saved[-1]:06d}")
    assert firstlight("train", "runs/long", f"training.total_steps={saved[-1] + 1}").code == 0
    assert checkpoint_steps(checkpoints)[-1] == saved[-1] + 1


def test_twice_while_training_leaves_a_run_that_goes_on(folder: Path, terminal, firstlight) -> None:
    command = terminal("train", "recipe.yaml", *LONG, "checkpoint.interval_steps=2", "logging.interval_steps=1")
    checkpoints = folder / "runs" / "long" / "checkpoints"
    command.wait_for(lambda: checkpoint_steps(checkpoints))
    command.press_ctrl_c()
    command.press_ctrl_c()
    assert command.end() in (EXIT_INTERRUPTED, EXIT_STOPPED), command.text
    assert "Traceback" not in command.text
    step = checkpoint_steps(checkpoints)[-1]
    result = firstlight("train", "runs/long", f"training.total_steps={step + 1}")
    assert result.code == 0, result.stderr
    assert f"resumed at step {step}" in result.stderr
    log = [json.loads(line)["step"] for line in (folder / "runs/long/metrics.jsonl").read_text().splitlines()]
    assert log == sorted(log)
    assert not list(checkpoints.glob(".*"))


@pytest.mark.slow
def test_quickstart_goes_on_where_it_was_interrupted(folder: Path, terminal) -> None:
    arguments = ("quickstart", "--data", "mine=manual.jsonl", "--name", "quick", "--minutes", "1", *SMALL)
    command = terminal(*arguments)
    command.wait_for("pace: ")
    command.press_ctrl_c()
    assert_interrupted(command)
    assert not (folder / "runs" / "quick").exists()
    kept = sorted((folder / "data").iterdir())
    assert [path.name for path in kept if path.name.startswith(".")] == [".corpus-work"]
    command = terminal(*arguments)
    command.wait_for("tok/s")
    command.press_ctrl_c()
    assert command.end() == EXIT_STOPPED, command.text
    assert command.text.count("same inputs as before: kept") == len(kept) - 1 == 3
    assert sorted((folder / "data").iterdir()) == kept

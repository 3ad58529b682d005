"""What is shown: inside 60 columns on a terminal, plain lines in a pipe, no orders to the terminal from any text."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

NEW = ("name=new", "training.total_steps=12", "logging.interval_steps=1", "evaluation.interval_steps=5")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("tokenize", "--help"),
        ("recipes",),
        ("init", "quickstart", "new.yaml"),
        ("corpus", "build", "text.yaml"),
        ("tokenizer", "train", "manual.jsonl", "code.jsonl", "--vocab-size", "300", "--output", "new"),
        ("tokenize", "manual.jsonl", "code.jsonl", "--tokenizer", "tokenizer", "--output", "new"),
        ("train", "text.yaml", *NEW),
        ("eval", "runs/tiny", "--data", "a-domain-with-quite-a-long-name=manual.jsonl", "--max-tokens", "500"),
        ("corpus", "build", "recipe.yaml", "training.micro_batch_size=3"),
    ],
    ids=" ".join,
)
def test_nothing_is_wider_than_a_terminal_of_60_columns(arguments, folder: Path, terminal) -> None:
    command = terminal(*arguments, columns=60)
    command.end()
    assert "Traceback" not in command.text
    path = str(folder)
    for line in command.lines():
        is_command = line.startswith("    firstlight ")  # stays one line, to be copied
        is_path = line.strip() in path or path in line  # cannot be broken between words
        assert len(line.rstrip()) <= 60 or is_command or is_path, command.text
    if arguments[0] == "train":
        drawn = [line for line in command.lines() if line.startswith("train ━")]
        assert any("of 12 steps" in line and "steps/s" in line and line.rstrip().endswith(" left") for line in drawn)
        assert any(re.match("  loss .*  lr .*  norm .* tok/s  mfu ", line) for line in command.lines())
        assert "step 5: held-out bits per byte: manual " in command.text


@pytest.mark.parametrize(
    "arguments",
    [
        ("recipes",),
        ("corpus", "build", "text.yaml"),
        ("tokenizer", "train", "manual.jsonl", "--vocab-size", "300", "--output", "new"),
        ("tokenize", "manual.jsonl", "--tokenizer", "tokenizer", "--output", "new"),
        ("train", "text.yaml", *NEW),
        ("eval", "runs/tiny", "--max-tokens", "500"),
        ("generate", "runs/tiny", "--max-new-tokens", "5"),
        ("export", "runs/tiny", "new"),
        ("train", "nowhere.yaml"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_pipe_gets_plain_lines(arguments, folder: Path, firstlight, run_firstlight, monkeypatch) -> None:
    plain = {"NO_COLOR": "", "TERM": "xterm-256color"}
    for name, value in plain.items():
        monkeypatch.setenv(name, value)
    result = run_firstlight(*arguments, env=plain) if "text.yaml" in arguments else firstlight(*arguments)
    assert result.code == ("nowhere.yaml" in arguments), result.stderr
    for output in (result.stdout, result.stderr):
        assert "\x1b" not in output
        assert "\r" not in output
    if arguments[0] != "generate":
        assert not any(line != line.rstrip() for line in result.stdout.splitlines())


def test_results_go_to_standard_output_and_the_rest_to_standard_error(folder: Path, firstlight) -> None:
    data = ("--data", "[bold]a=manual.jsonl", "--data", "b=code.jsonl")
    result = firstlight("eval", "runs/tiny", *data, "--max-tokens", "500")
    header, *rows = [line.split() for line in result.stdout.splitlines()]
    assert header == ["domain", "loss", "perplexity", "bits/byte", "accuracy", "tokens"]
    assert [row[0] for row in rows] == ["[bold]a", "b"]
    assert "evaluate: " in result.stderr


def test_a_reader_that_has_had_enough_ends_it_in_silence() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-m", "firstlight", "recipes"], stdout=writer, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writer)
    assert ended.returncode != 0
    assert ended.stderr == b""


def test_an_output_without_the_letters_shows_question_marks(run_firstlight) -> None:
    result = run_firstlight("recipes", env={"PYTHONIOENCODING": "ascii"})
    assert result.code == 0, result.stderr
    assert "tensor 2 ? pipeline 4" in result.stdout


def test_text_cannot_give_orders_to_the_terminal(folder: Path, firstlight) -> None:
    order = "\x1b[2J\x1b]0;title\x07\r\x9b31m\u202e"
    Path("orders.jsonl").write_text("".join(json.dumps({order: order, "text": 3}) + "\n" for _ in range(3)))
    Path("text.jsonl").write_text("".join(json.dumps({"text": f"{order} {n}"}) + "\n" for n in range(300)))
    shown = "".join(
        part
        for arguments in (
            ("tokenize", "orders.jsonl", "--tokenizer", "tokenizer", "--output", "new"),
            (
                "eval",
                "runs/tiny",
                "--data",
                f"{order}=manual.jsonl",
                "--data",
                "mine=orders.jsonl",
                "--max-tokens",
                "99",
            ),
            ("generate", "runs/tiny", "--prompt", order, "--max-new-tokens", "20", "--seed", "1"),
            ("train", "recipe.yaml", f"model.{order}=3"),
            ("train", f"{order}.yaml"),
            ("init", order, "new.yaml"),
            ("export", f"runs/{order}", "new"),
        )
        for part in firstlight(*arguments)[1:]
    )
    assert not set(shown) & set("\x1b\x07\r\x9b\u202e")
    assert "·[2J·]0;title" in shown

"""A run folder of which a part is missing, cut short or another's: the verb that needs the part names it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def run(trained_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the trained run to damage, `runs/tiny` below a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained_folder, tmp_path, dirs_exist_ok=True)
    return Path("runs/tiny")


def _without(name: str) -> Callable[[Path], None]:
    def remove(run: Path) -> None:
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


def _with(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda run: (run / name).write_bytes(content) and None


def _damaged_weights(run: Path) -> None:
    for checkpoint in (run / "checkpoints").iterdir():
        weights = next(checkpoint.glob("*.distcp"))
        weights.write_bytes(weights.read_bytes()[:-1] + b"!")


def _as_recipe(run: Path) -> None:
    shutil.copy("recipe.yaml", run / "config.yaml")


def _tokens_moved(run: Path) -> None:
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("/tokens/code", "/tokens/moved"))


VERBS = ("train runs/tiny training.total_steps=6", "eval runs/tiny", "generate runs/tiny", "export runs/tiny new")
DAMAGE = {
    "no config": (_without("config.yaml"), VERBS, "runs/tiny: not a run folder (it has no config.yaml)"),
    "no config, by recipe": (
        _without("config.yaml"),
        ("train recipe.yaml",),
        "runs/tiny: has checkpoints but no config.yaml, so it is not a run that can go on",
    ),
    "garbled config": (
        _with("config.yaml", b"\xff\xfe" * 9),
        (*VERBS, "train recipe.yaml"),
        "runs/tiny/config.yaml: not a text file",
    ),
    "cut config": (
        _with("config.yaml", b"name: tiny\ndata: {seq"),
        (*VERBS, "train recipe.yaml"),
        "runs/tiny/config.yaml, line 2, column",
    ),
    "unresolved config": (_as_recipe, VERBS, "runs/tiny/config.yaml: not what the run wrote"),
    "no provenance": (
        _without("provenance.json"),
        (VERBS[0], VERBS[3]),
        "runs/tiny/provenance.json: no such provenance file",
    ),
    "cut provenance": (
        _with("provenance.json", b"{"),
        (VERBS[0], VERBS[3]),
        "runs/tiny/provenance.json: not a readable provenance file",
    ),
    "other provenance": (
        _with("provenance.json", b"[]"),
        (VERBS[0], VERBS[3]),
        "runs/tiny/provenance.json: not what the run wrote",
    ),
    "no tokenizer": (_without("tokenizer"), VERBS[1:], "runs/tiny/tokenizer: no such tokenizer file or folder"),
    "no checkpoints": (_without("checkpoints"), VERBS[1:], "runs/tiny: no checkpoint yet; train it first"),
    "checkpoint damaged": (
        _damaged_weights,
        [f"{verb} --step 4" for verb in VERBS[1:]],
        "its content is not what was written (SHA-256 differs from manifest.json)",
    ),
    "tokens gone": (_tokens_moved, VERBS[:2], "tokens/moved: no such folder; a finished token dataset"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_is_named_by_every_verb_that_needs_it(damage: str, run: Path, firstlight, tree) -> None:
    harm, verbs, sentence = DAMAGE[damage]
    harm(run)
    before = tree(Path())
    for verb in verbs:
        assert sentence in firstlight(*verb.split()).sentence()
        assert tree(Path()) == before, verb


def test_what_a_resumed_run_can_restore_it_restores(run: Path, firstlight) -> None:
    shutil.rmtree(run / "tokenizer")
    shutil.rmtree(run / "checkpoints")
    code, _, err = firstlight("train", "runs/tiny")
    assert code == 0, err
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert len([step for step in steps if step == 4]) <= 2  # training and validation, each once
    code, _, err = firstlight("generate", "runs/tiny", "--max-new-tokens", "2")
    assert code == 0, err


def test_when_every_checkpoint_is_damaged_nothing_is_thrown_away(run: Path, firstlight) -> None:
    _damaged_weights(run)
    result = firstlight("train", "runs/tiny", "training.total_steps=6")
    assert "no complete checkpoint to load" in result.sentence()
    assert result.stderr.count("Set aside as") == 2
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "damaged_step_000002",
        "damaged_step_000004",
    ]

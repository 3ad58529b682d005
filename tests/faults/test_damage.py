"""A checkpoint of which any one file is damaged is named and set aside, and the run goes on from the one before.

Also what a clock that is wrong changes: nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from firstlight.training.checkpoint import CheckpointTensors, checkpoint_steps, load_checkpoint, verify_checkpoint
from firstlight.training.load import load_trained


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _grow(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


DAMAGE: dict[str, Callable[[Path], None]] = {
    "cut": _cut,
    "flipped": _flip,
    "grown": _grow,
    "empty": lambda file: file.write_bytes(b"") and None,
    "deleted": Path.unlink,
}


def _named(name: str, damage: str) -> str:
    """How the warning names the file; that of a changed hash may be the file that no longer has it."""
    return "step_000004/" if (name, damage) == ("manifest.json", "flipped") else f"step_000004/{name}: "


FILES = (".metadata", "__0_0.distcp", "manifest.json", "state.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_any_file_of_a_checkpoint(damage: str, name: str, folder: Path, firstlight, trained_folder: Path) -> None:
    run = folder / "runs" / "tiny"
    newest = run / "checkpoints" / "step_000004"
    assert sorted(file.name for file in newest.iterdir()) == sorted(FILES)
    DAMAGE[damage](newest / name)
    result = firstlight("train", "runs/tiny", "schedule.name=cosine")
    assert result.code == 0, result.stderr
    assert "resumed at step 2" in result.stderr
    if name == "manifest.json" and damage == "deleted":
        assert checkpoint_steps(run / "checkpoints") == [2, 4]  # without a manifest it was none, and is replaced
    else:
        assert _named(name, damage) in result.stderr
        assert "Set aside as damaged_step_000004" in result.stderr
        assert (run / "checkpoints" / "damaged_step_000004").is_dir()
    verify_checkpoint(newest)
    ours, undisturbed = load_trained(run).model, load_trained(trained_folder / "runs" / "tiny").model
    for (key, found), (_, expected) in zip(ours.named_parameters(), undisturbed.named_parameters(), strict=True):
        assert torch.equal(found, expected), key


@pytest.fixture(scope="module")
def sharded(trained_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The checkpoints of two ranks that each hold a part."""
    import subprocess

    folder = tmp_path_factory.mktemp("sharded")
    jobs = [
        {
            "world_size": 2,
            "recipe": str(trained_folder / "recipe.yaml"),
            "overrides": [f"runs_directory={folder}", "name=two", "parallel.shard=2"],
            "seconds": 60,
        }
    ]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    script = Path(__file__).parent.parent / "distributed" / "train_ranks.py"
    loopback = "lo" if sys.platform == "linux" else "lo0"
    done = subprocess.run(
        [sys.executable, str(script), str(folder / "jobs.json")],
        cwd=trained_folder,
        env={**os.environ, "GLOO_SOCKET_IFNAME": loopback, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    yield folder / "two" / "checkpoints"


@pytest.mark.slow
def test_any_file_of_a_checkpoint_of_two_ranks(sharded: Path, tmp_path: Path, capsys) -> None:
    names = sorted(file.name for file in (sharded / "step_000004").iterdir())
    assert names == [".metadata", "__0_0.distcp", "__1_0.distcp", "manifest.json", "state.json"]

    def weights() -> dict[str, torch.Tensor]:
        shapes = CheckpointTensors(sharded / "step_000002").shapes
        return {key: torch.zeros(shape) for key, shape in shapes.items() if key.startswith("model.")}

    expected = weights()
    load_checkpoint(sharded, expected, step=2)
    for name in names:
        for damage, harm in DAMAGE.items():
            folder = tmp_path / f"{name} {damage}"
            shutil.copytree(sharded, folder)
            harm(folder / "step_000004" / name)
            loaded = weights()
            assert load_checkpoint(folder, loaded)["step"] == 2, (name, damage)
            assert all(torch.equal(loaded[key], expected[key]) for key in expected)
            if not (name == "manifest.json" and damage == "deleted"):
                assert _named(name, damage) in capsys.readouterr().err
                assert (folder / "damaged_step_000004").is_dir()


@pytest.fixture
def own_tokens(folder: Path, trained_folder: Path) -> Path:
    """The run reads the copies of its datasets."""
    config = folder / "runs" / "tiny" / "config.yaml"
    config.write_text(config.read_text().replace(str(trained_folder), str(folder)))
    return folder / "tokens"


@pytest.mark.parametrize("name", ["train-00000.bin", "train-00000.idx", "validation-00000.bin", "validation-00000.idx"])
@pytest.mark.parametrize("damage", ["cut", "grown", "empty", "deleted", "replaced"])
def test_a_shard_of_another_size_stops_training_before_the_first_step(
    damage: str, name: str, own_tokens: Path, folder: Path, firstlight, tree
) -> None:
    file = own_tokens / "code" / name
    if damage == "replaced":
        shutil.copy(own_tokens / "manual" / name, file)
    else:
        DAMAGE[damage](file)
    before = tree(folder)
    sentence = firstlight("train", "runs/tiny", "training.total_steps=6").sentence()
    assert f"{file}: " in sentence
    assert ("missing, though dataset.json names it" if damage == "deleted" else "but dataset.json says") in sentence
    assert tree(folder) == before


@pytest.mark.parametrize(
    ("split", "verb"),
    [
        ("train", "train runs/tiny training.total_steps=6"),
        ("validation", "train runs/tiny training.total_steps=6"),
        ("validation", "eval runs/tiny"),
    ],
)
def test_ids_outside_the_vocabulary_stop_the_verb_that_reads_them(
    split: str, verb: str, own_tokens: Path, firstlight
) -> None:
    file = own_tokens / "code" / f"{split}-00000.bin"
    file.write_bytes(b"\x60\xea" * (file.stat().st_size // 2))
    sentence = firstlight(*verb.split()).sentence()
    assert f"token id 60000 at {file}, token " in sentence
    assert "outside the vocabulary of 512" in sentence


def _parameters(run: Path) -> dict[str, torch.Tensor]:
    return dict(load_trained(run).model.named_parameters())


def test_a_clock_that_was_wrong_changes_nothing(folder: Path, firstlight, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree("runs/tiny", "runs/right")
    run = Path("runs/tiny")
    for file in (*run.rglob("*"), *Path("tokens").rglob("*"), *Path("tokenizer").rglob("*")):
        os.utime(file, (4e9, 4e9))
    os.utime(run / "checkpoints" / "step_000002", (5e9, 5e9))  # the older one has the later time
    provenance = json.loads((run / "provenance.json").read_text())
    (run / "provenance.json").write_text(json.dumps({**provenance, "started": "2096-10-02T07:06:40+00:00"}))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 1e8)
    for name in ("tiny", "right"):
        result = firstlight("train", f"runs/{name}", "training.total_steps=8")
        assert result.code == 0, result.stderr
        assert "resumed at step 4" in result.stderr
    found, expected = _parameters(run), _parameters(Path("runs/right"))
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert checkpoint_steps(run / "checkpoints") == [6, 8]
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)

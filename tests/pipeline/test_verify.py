"""`firstlight verify` finds each file that is not as it was written, and nothing where all are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from firstlight.pipeline.verifying import verify
from firstlight.support.errors import DataError
from firstlight.tokens.dataset import TokenDataset


@pytest.fixture
def run(trained_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the trained run and of its datasets, which its configuration names."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained_folder, tmp_path, dirs_exist_ok=True)
    config = Path("runs/tiny/config.yaml")
    config.write_text(config.read_text().replace(str(trained_folder), str(tmp_path)))
    return Path("runs/tiny")


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def recorded(run: Path) -> list[Path]:
    """Every file that is verified with a run, but the records."""
    files = [*run.glob("checkpoints/step_*/*"), *Path("tokens").glob("*/*.bin"), *Path("tokens").glob("*/*.idx")]
    return sorted(file for file in files if file.name != "manifest.json")


def test_a_sound_run_is_sound(run: Path, firstlight) -> None:
    results = verify([run])
    assert [result.what for result in results] == ["checkpoint"] * 2 + ["token dataset"] * 2
    assert not any(result.faults for result in results)
    assert sum(result.files for result in results) == len(recorded(run)) == 2 * 3 + 2 * 4
    assert sum(result.size for result in results) == sum(file.stat().st_size for file in recorded(run))
    ended = firstlight("verify", run, "tokens/code")
    assert ended.code == 0
    assert ended.stdout.count("sizes and SHA-256 as recorded") == 4  # the dataset that the run names is read once


@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_each_damaged_file_is_named_and_no_other(run: Path, damage: str) -> None:
    for file in recorded(run):
        content = file.read_bytes()
        if damage == "flip":
            flip(file)
        elif damage == "cut":
            file.write_bytes(content[:-1])
        else:
            file.unlink()
        faults = [fault for result in verify([run]) for fault in result.faults]
        assert len(faults) == 1 and file.name in faults[0] and file.parent.name in faults[0], (file, faults)
        quick = [fault for result in verify([run], quick=True) for fault in result.faults]
        assert quick == ([] if damage == "flip" else faults)
        file.write_bytes(content)


def test_all_damaged_files_are_named_and_the_exit_code_says_so(run: Path, firstlight) -> None:
    damaged = [run / "checkpoints/step_000002/state.json", Path("tokens/code/train-00000.bin").resolve()]
    for file in damaged:
        flip(file)
    ended = firstlight("verify", run)
    assert "2 of 4 are not as they were written: runs/tiny/checkpoints/step_000002, " in ended.sentence()
    assert all(f"  {file}: its content is not what was written" in ended.stdout for file in damaged)
    assert firstlight("verify", run, "--quick").code == 0
    assert firstlight("verify", run / "checkpoints" / "step_000004").code == 0
    assert firstlight("verify", run / "checkpoints").code == 1


def test_a_checkpoint_without_manifest_and_a_manifest_that_is_none(run: Path) -> None:
    (run / "checkpoints/step_000002/manifest.json").unlink()
    (run / "checkpoints/step_000004/manifest.json").write_text('{"format_version": 1, "files": {"../x": {}}}')
    first, second, *others = verify([run])
    assert "manifest.json: missing; without it this is no checkpoint" in first.faults[0]
    assert "'../x' is not a file of this checkpoint" in second.faults[0]
    assert not any(result.faults for result in others)


def test_a_dataset_that_is_gone_is_named(run: Path) -> None:
    shutil.rmtree("tokens/code")
    assert any("tokens/code: no such folder" in fault for result in verify([run]) for fault in result.faults)


def test_ids_outside_the_vocabulary_are_found_although_the_hash_is_right(run: Path) -> None:
    folder = Path("tokens/code")
    tokens = np.fromfile(folder / "validation-00000.bin", dtype="<u2")
    tokens[7] = 60_000
    tokens.tofile(folder / "validation-00000.bin")
    description = json.loads((folder / "dataset.json").read_text())
    from firstlight.support.files import sha256_file

    (shard,) = description["splits"]["validation"]["shards"]
    shard["bin_sha256"] = sha256_file(folder / "validation-00000.bin")
    (folder / "dataset.json").write_text(json.dumps(description))
    (result,) = verify([folder])
    (fault,) = result.faults
    assert "token id 60000 at tokens/code/validation-00000.bin, token 7 is outside the vocabulary of 512" in fault
    with pytest.raises(DataError, match="token id 60000"):
        TokenDataset.open(folder).verify()


def test_what_records_no_hashes_is_an_error(run: Path, firstlight) -> None:
    assert "tokenizer: nothing here records hashes" in firstlight("verify", "tokenizer").sentence()
    assert "nowhere: no such folder" in firstlight("verify", "nowhere").sentence()
    assert "manual.jsonl: no such folder" in firstlight("verify", "manual.jsonl").sentence()

"""A checkpoint of any layout loads at any other; a rank that dies or fails takes only the save under way with it."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from firstlight.config import CheckpointConfig
from firstlight.training.checkpoint import (
    CheckpointTensors,
    CheckpointWriter,
    checkpoint_folder,
    checkpoint_steps,
    load_checkpoint,
    verify_checkpoint,
)

SCRIPT = Path(__file__).with_name("checkpoint_ranks.py")
sys.path.insert(0, str(SCRIPT.parent))
from checkpoint_ranks import LAYOUTS, whole_tensors  # noqa: E402


def run_ranks(folder: Path, *tasks: str, ranks: int, timeout: float = 200) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each rank of tasks of `checkpoint_ranks`; none outlives the time limit."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(ranks), "GLOO_SOCKET_IFNAME": "lo"}
    with tempfile.TemporaryDirectory() as meeting:
        processes = [
            subprocess.Popen(
                [sys.executable, str(SCRIPT), f"{meeting}/ranks", str(folder), *tasks],
                env={**environment, "RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(ranks)
        ]
        try:
            said = [process.communicate(timeout=timeout) for process in processes]
        finally:
            for process in processes:
                process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def succeed(folder: Path, *tasks: str, ranks: int) -> list[tuple[int, str, str]]:
    ended = run_ranks(folder, *tasks, ranks=ranks)
    assert [code for code, _, _ in ended] == [0] * ranks, "\n".join(errors for _, _, errors in ended)
    return ended


def save(folder: Path, step: int, state: dict[str, Any]) -> None:
    """A checkpoint of this one process."""
    with CheckpointWriter(folder, CheckpointConfig()) as writer:
        writer.save(step, whole_tensors(step), state)


class Ended(NamedTuple):
    """What four ranks, started once because starts are slow, left behind after the tasks that none of them dies of."""

    folder: Path
    outputs: list[str]
    errors: list[str]

    def sentence(self, task: str) -> str:
        """The one that every rank was given in `task`."""
        said = {line for output in self.outputs for line in output.splitlines() if line.startswith(f"{task}: ")}
        assert len(said) == 1
        assert all(f"{task}: " in output for output in self.outputs)
        return said.pop()


@pytest.fixture(scope="module")
def four_ranks(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    folder = tmp_path_factory.mktemp("checkpoints")
    save(folder / "save_everywhere_and_load_everywhere" / "one process", 5, {"layout": "one process"})
    save(folder / "refuse_another_model", 1, {})
    for step in (1, 2):
        save(folder / "set_damaged_aside", step, {})
    file = checkpoint_folder(folder / "set_damaged_aside", 2) / "__0_0.distcp"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    tasks = ("save_everywhere_and_load_everywhere", "fail_on_one_rank", "set_damaged_aside", "refuse_another_model")
    ended = succeed(folder, *tasks, ranks=4)
    return Ended(folder, [output for _, output, _ in ended], [errors for _, _, errors in ended])


def assert_one_process_loads(folder: Path, ranks: int) -> None:
    """Every checkpoint that `ranks` saved loads here exactly, and holds every element once."""
    whole = whole_tensors(5)
    layouts = [name for name, (shape, _) in LAYOUTS.items() if math.prod(shape) == ranks]
    assert sorted(path.name for path in folder.iterdir()) == sorted(["one process", *layouts])
    for layout in layouts:
        loaded = {name: torch.zeros_like(value) for name, value in whole.items()}
        assert load_checkpoint(folder / layout, loaded) == {"step": 5, "layout": layout}
        for name, value in whole.items():
            assert torch.equal(loaded[name], value), f"{layout} → one process: {name}"
        path = checkpoint_folder(folder / layout, 5)
        assert len(list(path.glob("*.distcp"))) == ranks
        saved = CheckpointTensors(path)
        assert saved.shapes == {name: value.shape for name, value in whole.items()}
        for name, shape in saved.shapes.items():
            assert sum(math.prod(chunk.sizes) for chunk in saved.tensors[name].chunks) == math.prod(shape), name
        assert all(torch.equal(saved.read(name), value) for name, value in whole.items())


def test_saved_at_any_layout_of_four_ranks_loaded_at_any_other(four_ranks: Ended) -> None:
    assert_one_process_loads(four_ranks.folder / "save_everywhere_and_load_everywhere", 4)


def test_rows_that_fsdp_divides_unevenly_after_tensor_parallelism(tmp_path: Path) -> None:
    task = "save_everywhere_and_load_everywhere"
    save(tmp_path / task / "one process", 5, {"layout": "one process"})
    succeed(tmp_path, task, ranks=6)
    assert_one_process_loads(tmp_path / task, 6)


@pytest.mark.slow
def test_a_rank_killed_while_saving_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    folder = tmp_path / "die_while_saving"
    codes = [code for code, _, _ in run_ranks(tmp_path, "die_while_saving", ranks=4)]
    assert codes[1] == -signal.SIGKILL
    assert 0 not in codes
    assert checkpoint_steps(folder) == [1]
    assert not checkpoint_folder(folder, 2).exists()
    verify_checkpoint(checkpoint_folder(folder, 1))
    (folder / ".step_000002.tmp").mkdir(exist_ok=True)
    folder.rename(tmp_path / "resume")
    succeed(tmp_path, "resume", ranks=4)
    assert sorted(path.name for path in (tmp_path / "resume").iterdir()) == ["step_000001", "step_000003"]


def test_a_failure_on_one_rank_is_told_to_all_and_names_it(four_ranks: Ended) -> None:
    sentence = four_ranks.sentence("fail_on_one_rank")
    assert "step_000002: the checkpoint could not be written (rank 1: " in sentence
    folder = four_ranks.folder / "fail_on_one_rank"
    assert sorted(path.name for path in folder.iterdir()) == ["step_000001", "step_000003"]


def test_a_damaged_file_is_found_whichever_rank_looks_at_it(four_ranks: Ended) -> None:
    folder = four_ranks.folder / "set_damaged_aside"
    assert sorted(path.name for path in folder.iterdir()) == ["damaged_step_000002", "step_000001"]
    assert sum("Set aside as damaged_step_000002" in errors for errors in four_ranks.errors) == 1


def test_a_rank_whose_model_is_another_stops_all(four_ranks: Ended) -> None:
    sentence = four_ranks.sentence("refuse_another_model")
    assert "rank 2: " in sentence and "'random' has shape [7], the model expects [8]" in sentence

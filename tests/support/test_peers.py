"""A run of several processes fails once: one voice, one reason, one exit code, and nobody is left hanging.

Real ranks over gloo, in the middle of sums over all of them. The seconds are those of the whole command, the start of
Python and torch on a busy machine included; a collective alone would wait for half an hour.
"""

from __future__ import annotations

from pathlib import Path

import pytest

MODULES = (pytest.param("torch.distributed.run", marks=pytest.mark.slow), "firstlight.launch.torchrun")


@pytest.mark.parametrize("module", MODULES)
def test_a_mistake_of_all_is_told_once_and_without_a_rank(run_ranks, module: str) -> None:
    ended = run_ranks("config", module=module)
    assert ended.lines == ["error: recipe.yaml: unknown key 'modle'. Did you mean 'model'?"]
    assert ended.code == 1


@pytest.mark.parametrize("module", MODULES)
def test_an_error_of_one_rank_is_told_once_and_with_its_rank(run_ranks, tmp_path: Path, module: str) -> None:
    ended = run_ranks("data", module=module)
    assert ended.lines == ["rank 0 works", "error: rank 2: shard_7.bin: the file is cut short."]
    assert ended.code == 1
    assert "cut short" in (tmp_path / "logs" / "rank_00002.log").read_text()


@pytest.mark.parametrize("module", MODULES)
def test_a_bug_of_one_rank_shows_its_traceback_and_no_other(run_ranks, module: str) -> None:
    ended = run_ranks("bug", module=module)
    assert ended.lines[:3] == ["rank 0 works", "rank 2:", "Traceback (most recent call last):"]
    assert ended.lines[-1] == "ZeroDivisionError: division by zero"
    assert ended.said.count("ZeroDivisionError") == 1
    assert "Connection" not in ended.said and "[rank" not in ended.said
    assert ended.code == 1


def test_a_killed_rank_is_missed_and_the_rest_end(run_ranks) -> None:
    ended = run_ranks("killed")
    assert ended.lines == [
        "rank 0 works",
        "error: rank 2 ended without a word: it was killed (as when the machine's memory is full) or crashed.",
    ]
    assert ended.code == 128 + 9


def test_a_stuck_rank_is_ended_from_outside_its_main_thread(run_ranks) -> None:
    ended = run_ranks("stuck")
    assert ended.lines == ["rank 0 works", "error: rank 2: shard_7.bin: the file is cut short."]
    assert ended.seconds < 60, "the other ranks sleep for ten minutes"


def test_a_run_that_succeeds_says_so_once_and_the_rest_in_logs(run_ranks, tmp_path: Path) -> None:
    ended = run_ranks("finish")
    assert ended.lines == ["rank 0 works", "all done", "left in order"]
    assert ended.code == 0
    logs = sorted((tmp_path / "logs").iterdir())
    assert [log.name for log in logs] == ["rank_00001.log", "rank_00002.log"]
    for rank, log in enumerate(logs, 1):
        first, *rest = log.read_text().splitlines()  # plain text, though the terminal had colour
        assert first.endswith(f"rank {rank} of 3, start 1")
        assert rest == [f"rank {rank} works", "all done", "left in order"]

"""What a launch is, before anything starts: sizes that come out, and one sentence where they do not."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from firstlight.launch import node_command, plan_launch
from firstlight.support.errors import ConfigError


def test_options_take_the_place_of_the_recipes_launch_section() -> None:
    written = plan_launch("llama-7b")
    assert (written.nodes, written.gpus_per_node) == (16, 8)
    assert written.arguments[-1] == "llama-7b", "nothing was changed"
    given = plan_launch("llama-7b", nodes=2)
    assert (given.nodes, given.gpus_per_node, given.config.launch.nodes) == (2, 8, 2)
    assert given.arguments[-1] == "launch.nodes=2", "every rank reads the same settings"


def test_unset_means_one_machine_and_what_the_parallel_sizes_ask_for() -> None:
    assert plan_launch("quickstart").gpus_per_node == 1
    assert plan_launch("quickstart", ["parallel.context=4"]).gpus_per_node == 4


def test_several_machines_need_a_number_of_processes() -> None:
    with pytest.raises(ConfigError, match="give --gpus-per-node N"):
        plan_launch("quickstart", nodes=2)


def test_sizes_that_do_not_come_out_are_one_sentence(firstlight) -> None:
    sentence = firstlight(
        "launch", "quickstart", "parallel.context=3", "--nodes", "2", "--gpus-per-node", "2"
    ).sentence()
    assert "context 3" in sentence and "4 processes" in sentence


def test_the_command_for_every_machine(firstlight, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result = firstlight("launch", "llama-7b", "description=two words", "--host", "node-1", "--port", "1234")
    assert result.code == 0
    words = shlex.split(result.stdout)
    assert {"--nnodes=16", "--nproc-per-node=8", "--rdzv-backend=c10d", "--rdzv-endpoint=node-1:1234"} <= set(words)
    assert words[words.index("firstlight") :] == ["firstlight", "train", "llama-7b", "description=two words"]
    assert result.stdout.strip() == node_command(plan_launch("llama-7b", ["description=two words"]), "node-1", 1234)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("--time", "1:00"), "--time"),
        (("--nodes", "8", "--gpus-per-node", "1", "--output", "x"), "--output"),
        (("--host", "me"), "--host"),
        (("--slurm", "--port", "1"), "--port"),
    ],
)
def test_an_option_without_effect_is_refused(firstlight, arguments, option, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert option in firstlight("launch", "quickstart", "training.micro_batch_size=1", *arguments).sentence()
    assert not list(tmp_path.iterdir())

"""A dry run tells what started ranks hold, for any number of them, and leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from firstlight.config import RunConfig
from firstlight.pipeline.dry_run import parameters_by_pipeline_rank, parameters_of_rank
from firstlight.planning.flops import parameter_count
from firstlight.recipe import load_config
from firstlight.tokens.batches import rank_slice

LAYOUTS = ({"shard": 2}, {"tensor": 2}, {"context": 2}, {"pipeline": 2}, {"pipeline": 2, "pipeline_schedule": "zbv"})
"""Of two processes."""
SETTINGS = {
    "name": "uneven",
    "data": {"sequence_length": 32},
    "model": {"vocab_size": 131, "hidden_size": 40, "num_hidden_layers": 5, "num_attention_heads": 4},
    "training": {
        "total_steps": 3,
        "micro_batch_size": 1,
        "global_batch_size": 32,
        "precision": "fp32",
        "device": "cpu",
        "compile": False,
    },
}
"""A model whose vocabulary, width and depth no layout divides evenly."""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "uneven.yaml"
    file.write_text(yaml.safe_dump(SETTINGS))
    return file


def configured(recipe: Path, **parallel: object) -> RunConfig:
    config = load_config(recipe, [f"parallel.{name}={value}" for name, value in parallel.items()])
    return config.model_copy(update={"model": config.model.resolved()})


def test_parameters_of_a_rank_are_those_it_holds_when_started(recipe: Path, run_as_ranks) -> None:
    outputs = run_as_ranks(Path(__file__).with_name("dry_run_rank.py"), 2, recipe, *map(json.dumps, LAYOUTS))
    held = [json.loads(output) for output in outputs]
    for number, parallel in enumerate(LAYOUTS):
        config = configured(recipe, **parallel)
        for rank in range(2):
            found = parameters_of_rank(config, config.layout(2), rank)
            assert found == held[rank][number], (parallel, rank)


@pytest.mark.parametrize(
    ("world_size", "parallel"),
    [(12, {"pipeline": 4}), (8, {"pipeline": 2, "pipeline_schedule": "interleaved", "replicate": 2}), (7, {})],
)
def test_ranks_that_are_sharded_hold_the_model_together(
    recipe: Path, world_size: int, parallel: dict[str, object]
) -> None:
    world = {"training.micro_batch_size": 1, "training.global_batch_size": 8 * world_size}
    config = load_config(
        recipe, [*(f"{k}={v}" for k, v in world.items()), *(f"parallel.{k}={v}" for k, v in parallel.items())]
    )
    config = config.model_copy(update={"model": config.model.resolved()})
    layout = config.layout(world_size)
    counts = [parameters_of_rank(config, layout, rank) for rank in range(world_size)]
    assert sum(counts) == layout.replicate * parameter_count(config.model)
    size = world_size // layout.pipeline
    for stage, extremes in enumerate(parameters_by_pipeline_rank(config, layout)):
        mine = counts[stage * size : (stage + 1) * size]
        assert extremes == (min(mine), max(mine))


def test_the_largest_recipe_is_shown_on_a_laptop(run_firstlight: Callable, tmp_path: Path, tree: Callable) -> None:
    result = run_firstlight("train", "llama-7b", "--dry-run", timeout=60)
    assert result.code == 0, result.stderr
    assert max(map(len, result.stdout.splitlines())) <= 80
    shown = " ".join(result.stdout.split())
    for fact in (
        "128 processes = pipeline 4 × shard 16 × tensor 2",
        "1,024 sequences = 4 micro-batch × 16 accumulation × 16 data-parallel",
        "6,738,415,616",
        "24 to 31, head",
        "Sent by a rank in a step",
        "data.sources.web names no text and no tokens yet",
    ):
        assert fact in shown
    assert tree(tmp_path) == {}


def test_the_number_of_processes_is_a_question(firstlight: Callable, recipe: Path) -> None:
    result = firstlight("train", recipe, "parallel.tensor=2", "--dry-run", "--world-size", "8")
    assert result.code == 0, result.stderr
    assert "8 processes = shard 4 × tensor 2" in result.stdout
    assert "2 processes = tensor 2" in firstlight("train", recipe, "parallel.tensor=2", "--dry-run").stdout
    wrong = firstlight("train", recipe, "parallel.tensor=2", "--dry-run", "--world-size", "3").sentence()
    assert "does not divide the 3 processes" in wrong
    assert "--dry-run" in firstlight("train", recipe, "--world-size", "2").sentence()


def test_what_only_the_hardware_forbids_is_no_matter_here(firstlight: Callable, recipe: Path) -> None:
    for precision in ("fp16", "fp8"):
        result = firstlight("train", recipe, f"training.precision={precision}", "--dry-run")
        assert result.code == 0, result.stderr
        assert precision in result.stdout


def test_first_samples_are_those_that_training_reads(
    trained_folder: Path, firstlight: Callable, monkeypatch: pytest.MonkeyPatch, tree: Callable
) -> None:
    from firstlight.pipeline.run_training import sample_stream
    from firstlight.pipeline.stages import prepare

    monkeypatch.chdir(trained_folder)
    before = tree(trained_folder)
    result = firstlight("train", "recipe.yaml", "--dry-run", "--world-size", "2")
    assert result.code == 0, result.stderr
    stream = sample_stream(prepare(load_config("recipe.yaml")))
    rows = [" ".join(line.split()) for line in result.stdout.splitlines()]
    for step in range(2):
        for rank in range(2):
            first, count = rank_slice(step, 8, rank, 2)
            ids = stream.samples(first, 3)
            names = [
                f"{stream.sources[source]} {epoch}:{sequence}"
                for source, epoch, sequence in zip(ids.source, ids.epoch, ids.sequence, strict=True)
            ]
            assert f"{step + 1} {rank} {first} to {first + count - 1} {', '.join(names)}, …" in rows
    resumed = firstlight("train", "runs/tiny", "--dry-run")
    assert "one process" in resumed.stdout, resumed.stderr
    assert "4 steps × 8 sequences × 64 = 2.05k tokens" in resumed.stdout
    assert tree(trained_folder) == before


def test_stages_that_are_to_come_are_named_and_not_run(
    trained_folder: Path, firstlight: Callable, monkeypatch: pytest.MonkeyPatch, tree: Callable
) -> None:
    monkeypatch.chdir(trained_folder)
    before = tree(trained_folder)
    result = firstlight("train", "text.yaml", "--dry-run")
    assert result.code == 0, result.stderr
    assert "tokenizer: one of 512 tokens" in result.stdout
    assert tree(trained_folder) == before

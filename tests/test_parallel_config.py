"""A layout that does not come out is refused before any start: one sentence, the arithmetic, and what would fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.config import RunConfig
from firstlight.config.parallel import ParallelConfig, resolve_layout
from firstlight.recipe import parse_config
from firstlight.support.errors import ConfigError

MODEL = {"vocab_size": 512, "hidden_size": 96, "num_hidden_layers": 6, "num_attention_heads": 6}
TRAINING = {"total_steps": 1, "micro_batch_size": 1, "global_batch_size": 24}


def config(
    parallel: dict[str, object],
    length: int = 96,
    training: dict[str, int] = TRAINING,
    **model: object,
) -> RunConfig:
    settings = {
        "name": "layout",
        "data": {"sequence_length": length},
        "model": {**MODEL, **model},
        "training": training,
        "parallel": parallel,
    }
    return parse_config(settings, "layout.yaml")


def refused(parallel: dict[str, object], world_size: int | None = None, **settings: object) -> str:
    with pytest.raises(ConfigError) as caught:
        run = config(parallel, **settings)  # type: ignore[arg-type]
        run.layout(world_size or run.declared_world_size)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence


@pytest.mark.parametrize(
    ("parallel", "world_size", "parts"),
    [
        (
            {"tensor": 3},
            4,
            ["pipeline 1 × replicate 1 × context 1 × tensor 3 = 3 does not divide the 4 processes", "one of 1, 2, 4"],
        ),
        ({"tensor": 2, "shard": 2}, 8, ["shard 2 × context 1 × tensor 2 = 4, but there are 8 processes", "shard 4"]),
        ({"tensor": 3, "shard": 2}, 8, ["= 6, but there are 8 processes", "nearest that fit: 6 or 12 processes"]),
        ({"shard": 2}, 1, ["= 2, but there is 1 process;"]),
    ],
)
def test_the_product_is_the_number_of_processes(parallel, world_size, parts):
    sentence = refused(parallel, world_size)
    assert all(part in sentence for part in parts), sentence


@pytest.mark.parametrize(
    ("parallel", "settings", "parts"),
    [
        ({"tensor": 4}, {}, ["parallel.tensor 4 does not divide model.num_attention_heads 6", "valid: 1, 2, 3, 6"]),
        (
            {"tensor": 3},
            {"num_key_value_heads": 2},
            ["parallel.tensor 3 does not divide model.num_key_value_heads 2", "valid: 1, 2"],
        ),
        ({"tensor": 2}, {"intermediate_size": 255}, ["intermediate_size 255", "254 or 256"]),
        (
            {"context": 2, "tensor": 2},
            {"length": 90},
            ["data.sequence_length 90 is not divisible by 2 × context 2 × tensor 2 = 8", "88 or 96"],
        ),
        ({"tensor": 2}, {"length": 95}, ["data.sequence_length 95 is not divisible by tensor 2 = 2", "94 or 96"]),
        ({"pipeline": 8}, {}, ["parallel.pipeline 8 = 8 stages, but model.num_hidden_layers is 6", "at most 6"]),
        (
            {"pipeline": 4, "pipeline_schedule": "interleaved"},
            {},
            ["parallel.pipeline 4 × 2 stages a rank = 8 stages", "model.num_hidden_layers is 6"],
        ),
    ],
)
def test_the_model_can_be_divided(parallel, settings, parts):
    sentence = refused(parallel, **settings)
    assert all(part in sentence for part in parts), sentence


@pytest.mark.parametrize(
    ("schedule", "micro_batches", "parts"),
    [
        ("1f1b", 3, ["1f1b over 4 stages needs at least 4 micro-batches a step", "is 3;", "pipeline_schedule=gpipe"]),
        ("zbv", 7, ["zbv over 8 stages needs at least 8 micro-batches a step", "is 7;"]),
        ("interleaved", 9, ["takes micro-batches in rounds of at least pipeline 4", "nearest that are: 8 or 12"]),
    ],
)
def test_a_schedule_has_the_micro_batches_it_needs(schedule, micro_batches, parts):
    training = {"total_steps": 1, "micro_batch_size": 1, "gradient_accumulation_steps": micro_batches}
    parallel = {"pipeline": 4, "pipeline_schedule": schedule}
    sentence = refused(parallel, training=training, num_hidden_layers=8)
    assert all(part in sentence for part in parts), sentence


@pytest.mark.parametrize(
    ("parallel", "part"),
    [
        ({"pipeline_stages_per_rank": 2}, "pipeline is 1"),
        (
            {"pipeline": 2, "pipeline_schedule": "zbv", "pipeline_stages_per_rank": 3},
            "zbv has 2 stages per rank, not 3",
        ),
        ({"pipeline": 2, "pipeline_stages_per_rank": 2}, "1f1b has 1 stage per rank, not 2"),
        ({"pipeline": 2, "pipeline_schedule": "interleaved", "pipeline_stages_per_rank": 1}, "at least 2"),
        ({"tensor": 0}, "tensor"),
    ],
)
def test_options_that_contradict_each_other_are_refused(parallel, part):
    assert part in refused(parallel)


sizes = st.integers(1, 4)


@given(
    pipeline=sizes, replicate=sizes, shard=st.none() | sizes, context=sizes, tensor=sizes, world_size=st.integers(1, 64)
)
def test_a_layout_uses_every_process_or_says_why_not(pipeline, replicate, shard, context, tensor, world_size):
    parallel = ParallelConfig(pipeline=pipeline, replicate=replicate, shard=shard, context=context, tensor=tensor)
    fixed = pipeline * replicate * context * tensor
    fits = world_size % fixed == 0 if shard is None else world_size == fixed * shard
    if not fits:
        with pytest.raises(ConfigError, match=f"= {fixed * (shard or 1)}"):
            resolve_layout(parallel, world_size)
        return
    layout = resolve_layout(parallel, world_size)
    assert layout.world_size == world_size
    places = [layout.place(rank) for rank in range(world_size)]
    assert len(set(places)) == world_size

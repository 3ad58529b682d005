"""The layout search finds what trying everything finds, keeps to training's arithmetic, and accounts for the rest."""

import math

import pytest

from firstlight.config import Layout, ModelConfig
from firstlight.config.batch import divisors
from firstlight.config.parallel import check_model_fits
from firstlight.planning.division import Division, Problem
from firstlight.planning.hardware import find_device
from firstlight.planning.memory import memory_per_rank
from firstlight.planning.search import RECOMPUTE, search_layouts
from firstlight.planning.step_time import StepPredictor
from firstlight.support.errors import ConfigError

LENGTH, A100 = 2048, find_device("a100-80g")
MODEL = ModelConfig(
    hidden_size=2048, num_hidden_layers=12, num_attention_heads=16, num_key_value_heads=4, vocab_size=32000
).resolved(None, LENGTH)
PREDICTOR = StepPredictor(MODEL, A100, LENGTH)


def problem(memory_bytes=math.inf, **changes):
    given = {"global_batch_size": 64, "devices": 16, "devices_per_node": 8, "schedules": ("1f1b", "interleaved")}
    return Problem(model=MODEL, sequence_length=LENGTH, memory_bytes=memory_bytes, **given | changes)


def arguments(division):
    return {
        "micro_batch_size": division.micro_batch_size,
        "accumulation": division.accumulation,
        "recompute": division.recompute,
        "schedule": division.schedule,
        "stages_per_rank": division.stages_per_rank,
    }


def memory_of(division):
    return max(
        rank.total for rank in memory_per_rank(MODEL, division.layout, sequence_length=LENGTH, **arguments(division))
    )


def step_of(division):
    return PREDICTOR.predict(division.layout, **arguments(division))


def found(memory_bytes=math.inf, **changes):
    return search_layouts(problem(memory_bytes, **changes), memory_of, step_of)


def everything(devices=16, batch=64, node=8):
    """All divisions that training would take, without any of the search's shortcuts."""
    for tensor in divisors(node):
        for context in divisors(node // tensor):
            for pipeline in divisors(devices // (tensor * context)):
                data = devices // (tensor * context * pipeline)
                for shard in divisors(data):
                    layout = Layout(
                        pipeline=pipeline, replicate=data // shard, shard=shard, context=context, tensor=tensor
                    )
                    for micro in divisors(batch // data) if batch % data == 0 else []:
                        for schedule, stages in (("1f1b", 1), ("interleaved", 2), ("interleaved", 4)):
                            if pipeline == 1 and stages > 1:
                                continue
                            for recompute in RECOMPUTE:
                                division = Division(layout, micro, batch // data // micro, recompute, schedule, stages)
                                try:
                                    check_model_fits(division.parallel(), MODEL, LENGTH, division.accumulation)
                                except ConfigError:
                                    continue
                                yield division


ALL = [(division, memory_of(division)) for division in everything()]


@pytest.mark.parametrize("gigabytes", [6, 9, 14, 30, 80])
def test_the_best_is_that_of_trying_everything(gigabytes):
    room = gigabytes * 1e9
    fitting = [step_of(division).seconds for division, memory in ALL if memory <= room]
    result = found(room)
    assert bool(result.best) == bool(fitting)
    if fitting:
        assert result.best[0].step.seconds == pytest.approx(min(fitting), rel=1e-12)
    assert all(ranked.memory_bytes <= room for ranked in result.fitting)


def test_the_best_are_sorted_and_of_different_layouts():
    result = found(40e9)
    seconds = [ranked.step.seconds for ranked in result.best]
    assert seconds == sorted(seconds)
    assert len({ranked.division.layout.sizes for ranked in result.best}) == len(result.best) == 5
    assert result.place(result.best[0]) == 1


def test_every_division_is_one_that_training_takes():
    for ranked in found().fitting:
        division = ranked.division
        layout = division.layout
        assert layout.world_size == 16
        assert division.micro_batch_size * division.accumulation * layout.data == 64
        check_model_fits(division.parallel(), MODEL, LENGTH, division.accumulation)


def test_groups_that_speak_in_every_block_stay_in_a_machine_unless_they_may_not():
    inside = {ranked.division.layout.tensor * ranked.division.layout.context for ranked in found().fitting}
    across = {
        ranked.division.layout.tensor * ranked.division.layout.context for ranked in found(across_nodes=True).fitting
    }
    assert max(inside) == 8 and max(across) == 16


def test_all_that_was_tried_is_best_or_lost():
    result = found(14e9)
    tried = sum(loss.count for loss in result.losses if loss.kind in ("memory", "slower")) + len(result.best)
    lighter = result.candidates - tried  # a heavier recomputation of what fits without it
    assert 0 < tried <= result.candidates
    assert lighter <= 2 * len(result.fitting)


def test_what_does_not_fit_says_by_how_much():
    least = min(memory for _, memory in ALL)
    result = found(least - 1e6)
    assert result.best == () and result.fitting == ()
    (memory,) = [loss for loss in result.losses if loss.kind == "memory"]
    assert memory.lacks_bytes == pytest.approx(1e6, abs=1)


def test_losses_name_the_arithmetic_and_the_part_that_costs_most():
    losses = {(loss.kind, loss.reason): loss for loss in found().losses}
    assert "num_key_value_heads 4" in losses["impossible", "tensor, context"].example
    assert losses["slower", "bubble"].times_slower > 1
    assert all(loss.times_slower is None or loss.times_slower >= 1 for loss in losses.values())


def test_a_batch_that_no_number_of_ranks_divides_is_counted():
    result = found(global_batch_size=4)
    assert ("impossible", "batch") in {(loss.kind, loss.reason) for loss in result.losses}
    assert all(ranked.division.layout.data <= 4 for ranked in result.fitting)


def test_what_training_refuses_is_left_out():
    result = found(refused=lambda division: "no." if division.layout.pipeline > 1 else None)
    assert {ranked.division.layout.pipeline for ranked in result.fitting} == {1}
    assert [loss.example for loss in result.losses if loss.kind == "refused"] == ["no."]

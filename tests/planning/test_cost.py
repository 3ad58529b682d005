"""Hours, dollars and energy follow from the step, and their ranges hold what they are made of."""

import math
from dataclasses import replace

import pytest

from firstlight.config import ModelConfig
from firstlight.config.parallel import Layout
from firstlight.planning.cost import Overheads, cost_of_run, energy_kwh, evaluation_share
from firstlight.planning.devices import DEVICES, Price
from firstlight.planning.hardware import find_device
from firstlight.planning.ranges import Range
from firstlight.planning.step_time import predict_step
from firstlight.planning.typical import RUN_SPREAD, typical_device_hours, typical_model

A100 = find_device("a100")
MODEL = ModelConfig(hidden_size=1024, num_hidden_layers=8, vocab_size=32000).resolved(None, 2048)
STEP = predict_step(MODEL, Layout(shard=8), A100, micro_batch_size=4, sequence_length=2048)


def test_hours_are_the_steps_and_what_comes_with_them():
    cost = cost_of_run(STEP, 1e9, A100, overheads=Overheads(evaluation=0, checkpoints=0, hours_lost_per_failure=0))
    assert cost.steps == math.ceil(1e9 / (8 * 4 * 2048))
    assert cost.hours.typical == pytest.approx(cost.steps * STEP.seconds / 3600)
    assert cost.device_hours.typical == pytest.approx(8 * cost.hours.typical)
    assert cost.days.typical == pytest.approx(cost.hours.typical / 24)
    more = cost_of_run(STEP, 1e9, A100)
    assert more.step_hours == cost.step_hours
    assert cost.hours.typical < more.hours.typical < 1.05 * cost.hours.typical


def test_failures_cost_more_on_more_devices():
    small, large = Overheads().factor(8), Overheads().factor(16384)
    assert 1 < small < 1.02
    assert 1.1 < large < 1.3  # Llama 3: more than 90 % of the time effective
    assert math.isfinite(Overheads().factor(10**9))


def test_dollars_are_hours_times_the_price():
    given = Price(2.0, 2.0, "given", "given")
    cost = cost_of_run(STEP, 1e9, A100, price=given)
    assert cost.price is given
    assert cost.usd.typical == pytest.approx(2 * cost.device_hours.typical)
    usual = cost_of_run(STEP, 1e9, A100)
    assert usual.usd.low < usual.usd.typical < usual.usd.high
    assert usual.usd.high == pytest.approx(usual.device_hours.high * A100.price.high_usd_per_hour)
    assert cost_of_run(STEP, 1e9, replace(A100, price=None)).usd is None


def test_energy_is_more_than_the_boards_draw():
    hours = Range(1.0, 1.0, 1.0)
    energy = energy_kwh(A100, hours)
    assert 0.4 < energy.low < energy.typical < energy.high < 1.0
    assert energy_kwh(replace(A100, power_watts=None), hours) is None


def test_evaluation_is_a_third_of_training_on_as_many_tokens():
    assert evaluation_share(10, 3e6, 1_000_000) == pytest.approx(0.1)


def test_ranges_scale():
    assert Range(1.0, 2.0, 4.0).times(2) == Range(2.0, 4.0, 8.0)
    with pytest.raises(AssertionError):
        Range(2.0, 1.0, 3.0)


@pytest.mark.parametrize("parameters", [7e7, 4.1e8, 1.4e9, 7e9, 1.3e10, 3.3e10, 7e10, 1.8e11, 5.4e11])
def test_a_shape_of_the_usual_proportions_has_about_so_many_parameters(parameters):
    from firstlight.planning.flops import parameter_count

    assert 0.6 < parameter_count(typical_model(parameters)) / parameters <= 1.1


def test_whole_runs_take_the_hours_that_published_ones_took():
    """LLaMA-7B took 82,432 A100-hours for a trillion tokens, Llama 2 7B half of 184,320."""
    hours = typical_device_hours(6.7e9, 1e12, A100)
    assert hours.low < 82_432 < hours.high
    assert hours.low < 92_160 < hours.high
    assert hours.high / hours.typical == pytest.approx(math.exp(RUN_SPREAD))
    assert typical_device_hours(6.7e9, 2e12, A100).typical == pytest.approx(2 * hours.typical)


@pytest.mark.parametrize("name", DEVICES)
def test_every_device_has_an_estimate_and_faster_ones_take_fewer_hours(name):
    hours = typical_device_hours(1e9, 1e11, find_device(name))
    assert 0 < hours.low < hours.typical < hours.high < 1e6


def test_newer_devices_take_fewer_hours():
    names = ["v100", "a100", "h100", "b200"]
    hours = [typical_device_hours(7e9, 1e12, find_device(name)).typical for name in names]
    assert hours == sorted(hours, reverse=True)

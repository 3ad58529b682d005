"""The two functions of the tutorial: right units, right figures, and one sentence for what cannot be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import firstlight
from firstlight.planning.estimates import chinchilla_optimal, estimate_training_resources, training_seconds
from firstlight.planning.hardware import find_device
from firstlight.support.errors import ConfigError

billions = st.floats(0.01, 1000)


def test_seven_billion_parameters_want_140_billion_tokens():
    best = chinchilla_optimal(14)
    assert (best.parameters, best.tokens, best.flops) == (7e9, 140e9, 5.88e21)
    assert str(best) == "7 billion parameters (14 GB of weights): 140 billion tokens, 5.88e+21 FLOPs"
    assert chinchilla_optimal(28, bytes_per_param=4).parameters == 7e9
    assert chinchilla_optimal(14, 200).tokens == 1.4e12


def test_seven_billion_on_a_trillion_tokens():
    """LLaMA 7B took 82,432 hours of an A100 (arXiv 2302.13971, table 15)."""
    estimate = estimate_training_resources(7, 1)
    assert estimate.flops == 4.2e22
    assert 74_000 < estimate.gpu_hours.low < 82_432 < estimate.gpu_hours.high < 94_000
    assert estimate.days(128).typical == pytest.approx(27, abs=0.1)
    assert estimate.gpus_for(30) == 116


@pytest.mark.parametrize(
    ("size", "tokens", "hours", "gpus", "usd"),
    [(7, 0.14, 11633, 17, 23267), (13, 0.26, 40123, 56, 80247), (70, 2, 1661918, 2309, 3323837)],
)
def test_what_the_tutorial_should_have_said(size, tokens, hours, gpus, usd):
    estimate = estimate_training_resources(size, tokens, utilization=0.45, usd_per_gpu_hour=2)
    assert estimate.gpu_hours.low == estimate.gpu_hours.high == pytest.approx(hours, abs=0.5)
    assert estimate.gpus_for(30) == gpus
    assert estimate.usd is not None
    assert estimate.usd.typical == pytest.approx(usd, abs=0.5)


@given(billions, st.floats(0.001, 100), st.integers(1, 10**5))
def test_devices_and_days_are_devices_hours(size, tokens, gpus):
    estimate = estimate_training_resources(size, tokens)
    assert estimate.days(gpus).typical * 24 * gpus == pytest.approx(estimate.gpu_hours.typical)
    enough = estimate.gpus_for(30)
    assert estimate.days(enough).typical <= 30 * (1 + 1e-9)
    assert enough == 1 or estimate.days(enough - 1).typical > 30 * (1 - 1e-9)


@given(billions)
def test_the_two_functions_agree_on_flops(size):
    best = chinchilla_optimal(2 * size)
    assert estimate_training_resources(size, best.tokens / 1e12).flops == pytest.approx(best.flops)


def test_time_of_a_run_by_equation_4_of_narayanan():
    """GPT-3 on 1,024 A100 at 140 TFLOP/s: 34 days; a trillion parameters on 3,072 at 163: 84 days."""
    assert training_seconds(8 * 175e9, 300e9, 1024, 140e12) / 86400 == pytest.approx(34, abs=0.5)
    assert training_seconds(8 * 1008e9, 450e9, 3072, 163e12) / 86400 == pytest.approx(84, abs=0.5)


def test_a_faster_device_takes_fewer_hours():
    a100, h100 = estimate_training_resources(7, 1), estimate_training_resources(7, 1, gpu="h100")
    assert h100.gpu_hours.high < a100.gpu_hours.low
    assert estimate_training_resources(7, 1, gpu=find_device("h100")) == h100


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: chinchilla_optimal(0), "model_size_gb 0 must be a number above 0"),
        (lambda: chinchilla_optimal(14, tokens_per_param=-1), "tokens_per_param"),
        (lambda: estimate_training_resources(float("nan"), 1), "model_size_b nan"),
        (lambda: estimate_training_resources(7, 1, gpu="abacus"), "abacus"),
        (lambda: estimate_training_resources(7, 1, utilization=45), "utilization 45 must be a share"),
        (lambda: estimate_training_resources(7, 1, utilization=(0.5, 0.4, 0.3)), "three that rise"),
        (lambda: estimate_training_resources(7, 1).days(0), "gpus 0"),
    ],
)
def test_mistakes_are_said_in_one_sentence(call, words):
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        call()


def test_they_are_public():
    assert firstlight.chinchilla_optimal is chinchilla_optimal
    assert firstlight.estimate_training_resources is estimate_training_resources

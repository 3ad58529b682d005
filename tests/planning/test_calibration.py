"""A run's own speed corrects the model, whatever was off, and the shipped constants are those that were fitted."""

import json
import math
import random
from dataclasses import asdict
from pathlib import Path

import pytest

from firstlight.config import ModelConfig
from firstlight.config.parallel import Layout
from firstlight.planning.calibration import DEFAULT, calibrate_from_run
from firstlight.planning.hardware import cpu_device
from firstlight.planning.step_time import predict_step
from firstlight.support.errors import DataError

MODEL = ModelConfig(hidden_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=512).resolved(None, 256)
CPU = cpu_device(5e10, 8e9)


def predicted(calibration=DEFAULT, **arguments):
    arguments = {"micro_batch_size": 8, "sequence_length": 256, "precision": "fp32", **arguments}
    return predict_step(MODEL, Layout(), CPU, calibration=calibration, **arguments)


def lines(speeds):
    return [{"step": 10 * i, "tokens_per_second": speed} for i, speed in enumerate(speeds)]


def test_after_calibration_the_run_itself_is_predicted():
    speed = 0.4 * predicted().tokens_per_second
    calibrated = calibrate_from_run(lines([1.0, *[speed] * 9]), predicted().tokens_per_second)
    assert predicted(calibrated).tokens_per_second == pytest.approx(speed)
    assert predicted(calibrated).seconds == pytest.approx(sum(predicted(calibrated).parts.values()))
    other = predicted(calibrated, micro_batch_size=1)
    assert other.tokens_per_second == pytest.approx(0.4 * predicted(micro_batch_size=1).tokens_per_second)
    again = calibrate_from_run(lines([speed] * 5), predicted(calibrated).tokens_per_second, calibrated)
    assert again.scale == pytest.approx(calibrated.scale)


def test_pauses_and_compilation_do_not_count_and_noise_widens_the_range():
    steady = calibrate_from_run(lines([1.0, *[500.0] * 20, 3.0, 1.0]), 1000.0)
    assert steady.scale == pytest.approx(2.0)
    assert steady.spread == pytest.approx(DEFAULT.layout_spread)
    draw = random.Random(1)
    noisy = calibrate_from_run(lines([500 * math.exp(draw.gauss(0, 0.3)) for _ in range(200)]), 1000.0)
    assert noisy.spread == pytest.approx(math.hypot(DEFAULT.layout_spread, 0.3), rel=0.2)


def test_lines_without_a_speed_are_passed_over():
    odd = [{"step": 1}, {"tokens_per_second": None}, {"tokens_per_second": math.nan}, {"tokens_per_second": True}]
    assert calibrate_from_run([*odd, *lines([9.0, 500.0, 500.0, 500.0])], 500.0).scale == 1.0


@pytest.mark.parametrize("speeds", [[], [1.0], [1.0, 2.0, 3.0]])
def test_too_few_lines_are_refused(speeds):
    with pytest.raises(DataError, match=r"at least 3 are needed"):
        calibrate_from_run(lines(speeds), 1.0)


def test_the_shipped_constants_are_the_fitted_ones():
    file = Path(__file__).parents[2] / "benchmarks" / "planner_cases" / "left_out.json"
    assert json.loads(file.read_text(encoding="utf-8"))["everything"] == asdict(DEFAULT)

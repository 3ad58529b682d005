"""How long a run of N parameters and D tokens takes on some hardware, when nothing else is known.

A shape of the usual proportions stands for N, and the faster of two usual layouts for the machines; the step-time model
says how fast a step is, of eager software, which most published runs had. Whole runs were slower than such a step:
machines failed, evaluations ran, layouts were not the best. One figure says by how much, and its spread makes the
range. It is the middle of the half of the published runs that agree best (least median of squares: Rousseeuw 1984,
doi:10.1080/01621459.1984.10477105), because some of them count more than the run in their hours.
"""

from __future__ import annotations

import functools
import math

from firstlight.config import ModelConfig
from firstlight.config.parallel import Layout
from firstlight.planning.calibration import DEFAULT, Calibration
from firstlight.planning.devices import Device
from firstlight.planning.flops import parameter_count
from firstlight.planning.hardware import Precision
from firstlight.planning.ranges import Range
from firstlight.planning.step_time import StepPredictor, StepTime
from firstlight.planning.work import Software

RUN_SHARE = 0.718
"""Speed of a published whole run over that of the predicted step (`benchmarks/calibrate_throughput.py`)."""
RUN_SPREAD = 0.168
"""Standard deviation of its logarithm, as the half of the runs that agree best has it."""
SOFTWARE = Software(compiled=False)
HIDDEN_PER_LAYER = 128
STATE_BYTES, STATE_SHARE = 18, 0.6
"""For each parameter where nothing is sharded but by tensor and pipeline; how much of the memory they may take."""


def typical_device_hours(
    parameters: float,
    tokens: float,
    device: Device,
    *,
    sequence_length: int = 2048,
    precision: Precision | None = None,
    calibration: Calibration = DEFAULT,
) -> Range:
    """Device-hours of a whole run. parameters: those that a token passes (of a mixture of experts the active ones).

    precision: unset, bf16, or fp16 where the device has no bf16.
    """
    precision = precision or ("bf16" if device.bf16_flops else "fp16")
    model = typical_model(parameters, sequence_length)
    step = typical_step(model, device, sequence_length, precision, calibration)
    # What the shape's parameters are off is made good in proportion.
    per_second = step.tokens_per_second_per_device * parameter_count(model) / parameters * RUN_SHARE
    hours = tokens / per_second / 3600
    return Range(hours * math.exp(-RUN_SPREAD), hours, hours * math.exp(RUN_SPREAD))


@functools.cache
def typical_model(parameters: float, sequence_length: int = 2048) -> ModelConfig:
    """A LLaMA whose width is 128 times its depth, with about so many parameters, and 32,000 tokens."""
    blocks = max(2, round((max(parameters, 8e6) / (12 * HIDDEN_PER_LAYER**2)) ** (1 / 3)))
    while True:
        hidden = HIDDEN_PER_LAYER * blocks
        model = ModelConfig(
            architecture="llama",
            vocab_size=32000,
            hidden_size=hidden,
            num_hidden_layers=blocks,
            num_attention_heads=max(1, hidden // 128),
        ).resolved(None, sequence_length)
        if blocks == 2 or parameter_count(model) <= 1.1 * parameters:
            return model
        blocks -= 1


def typical_step(
    model: ModelConfig,
    device: Device,
    sequence_length: int,
    precision: Precision,
    calibration: Calibration = DEFAULT,
) -> StepTime:
    """A step in the faster of two usual layouts.

    Either everything is sharded (FSDP), with 8,192 tokens in a micro-batch, over 8 machines, or more for a larger
    model. Or tensor parallelism fills a machine and as many pipeline
    ranks as the states ask for follow, with 64 micro-batches of one sequence. Either recomputes what costs little.
    """
    parameters, node = parameter_count(model), min(8, device.devices_per_node)
    predictor = StepPredictor(model, device, sequence_length, precision, software=SOFTWARE, calibration=calibration)
    machines = max(8, 2 ** round(math.log2(parameters / 1e9)))
    sharded = predictor.predict(
        Layout(shard=machines * node),
        micro_batch_size=max(1, 8192 // sequence_length),
        recompute="selective",
    )
    memory = device.memory_bytes or 80e9
    stages = max(1, 2 ** math.ceil(math.log2(STATE_BYTES * parameters / (node * STATE_SHARE * memory))))
    if stages > model.num_hidden_layers or model.num_attention_heads % node:
        return sharded
    divided = predictor.predict(
        Layout(pipeline=stages, replicate=8, tensor=node),
        micro_batch_size=1,
        accumulation=64,
        recompute="selective",
    )
    return min(sharded, divided, key=lambda step: step.seconds / step.tokens * step.devices)

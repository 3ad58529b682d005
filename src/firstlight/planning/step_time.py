"""How long a training step takes, from the shape of the model, its layout and the hardware alone.

A micro-batch on a rank takes the sum of its matrix products at the rate of the device's best one, of attention at the
rate of its kernel, and of all bytes moved at the memory's bandwidth, each times a calibrated share. Communication is
what `firstlight.planning.communication` counts, over the links between the ranks of a group; tensor, context and
pipeline parallelism wait for theirs, FSDP's runs beside computation as far as there is any. A pipeline's ranks idle
as long as closed forms say (Narayanan et al. 2021, arXiv:2104.04473, §2.2; Qi et al. 2023, arXiv:2401.10241, §2.3),
which for equal stages is what `firstlight.planning.schedules` plays. Every step waits for its slowest machine.

Not modelled: reading data (it runs ahead), evaluation and checkpoints (`firstlight.planning.cost` adds them), expert
parallelism, a network that others use too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from firstlight.config import ModelConfig
from firstlight.config.parallel import Layout, Schedule
from firstlight.planning.calibration import DEFAULT, Calibration
from firstlight.planning.communication import StepTraffic, traffic_per_rank
from firstlight.planning.devices import Device
from firstlight.planning.flops import head_matrices, training_flops_per_token
from firstlight.planning.hardware import Precision, attention_rate, matmul_rate, peak_of
from firstlight.planning.links import links_of
from firstlight.planning.memory import Recompute
from firstlight.planning.pipeline_pace import bubble_micro_batches, costliest_rank
from firstlight.planning.sizes import FP32, RankSizes
from firstlight.planning.work import OPTIMIZER_BYTES, Software, Work, block_work, head_work

DEFAULT_BANDWIDTH = 1e12
"""Bytes a second of a memory of which nobody says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Seconds of an optimizer step on its slowest rank, by what they go to; the parts add up to `seconds`."""

    matmul_seconds: float
    attention_seconds: float
    memory_seconds: float
    """Element-wise operations, and the bytes that matrix products move."""
    launch_seconds: float
    """Waiting for the processor to start kernels."""
    optimizer_seconds: float
    tensor_seconds: float
    """Communication that computation waits for, as the following three."""
    context_seconds: float
    pipeline_seconds: float
    data_seconds: float
    """FSDP's gathering and reducing, and sums over copies."""
    bubble_seconds: float
    """A pipeline's idle time."""
    straggler_seconds: float
    """Waiting for the slowest machine."""
    tokens: int
    """In a step, over all devices."""
    devices: int
    model_flops: float
    """Of the step, over all devices, in the convention of `firstlight.planning.flops`."""
    hardware_flops: float
    """With recomputation."""
    peak_flops: float
    """Of one device: what MFU is a share of."""
    spread: float

    @property
    def seconds(self) -> float:
        """All of them."""
        return sum(getattr(self, name) for name in _PARTS)

    @property
    def low_seconds(self) -> float:
        """Two of three steps lie between this and `high_seconds`, as far as published runs are like this one."""
        return self.seconds * math.exp(-self.spread)

    @property
    def high_seconds(self) -> float:
        """See `low_seconds`."""
        return self.seconds * math.exp(self.spread)

    @property
    def parts(self) -> dict[str, float]:
        """Seconds by name, without the ending."""
        return {name.removesuffix("_seconds"): getattr(self, name) for name in _PARTS}

    @property
    def tokens_per_second(self) -> float:
        """Over all devices."""
        return self.tokens / self.seconds

    @property
    def tokens_per_second_per_device(self) -> float:
        """Of one."""
        return self.tokens_per_second / self.devices

    @property
    def mfu(self) -> float:
        """Share of the peak that the model's own FLOPs use."""
        return self.model_flops / (self.seconds * self.devices * self.peak_flops)

    @property
    def hfu(self) -> float:
        """Share of the peak that all matrix products use, recomputed ones too."""
        return self.hardware_flops / (self.seconds * self.devices * self.peak_flops)


_PARTS = tuple(field.name for field in fields(StepTime) if field.name.endswith("_seconds"))


def predict_step(
    model: ModelConfig,
    layout: Layout,
    device: Device,
    *,
    micro_batch_size: int,
    sequence_length: int,
    accumulation: int = 1,
    precision: Precision = "bf16",
    recompute: Recompute = "none",
    schedule: Schedule = "1f1b",
    stages_per_rank: int = 1,
    reshard_after_forward: bool | None = None,
    predicted: float = 1.0,
    software: Software = Software(),  # noqa: B008
    calibration: Calibration = DEFAULT,
) -> StepTime:
    """One step of a resolved `model`.

    micro_batch_size: sequences on a data-parallel rank. accumulation: micro-batches a step. Other arguments as for
    `firstlight.planning.memory.memory_per_rank`. For many layouts of one model make a `StepPredictor` once.
    """
    predictor = StepPredictor(
        model, device, sequence_length, precision, predicted=predicted, software=software, calibration=calibration
    )
    return predictor.predict(
        layout,
        micro_batch_size=micro_batch_size,
        accumulation=accumulation,
        recompute=recompute,
        schedule=schedule,
        stages_per_rank=stages_per_rank,
        reshard_after_forward=reshard_after_forward,
    )


class StepPredictor:
    """`predict_step` for many layouts: what depends on the model and a few sizes is worked out once."""

    def __init__(
        self,
        model: ModelConfig,
        device: Device,
        sequence_length: int,
        precision: Precision = "bf16",
        *,
        predicted: float = 1.0,
        software: Software = Software(),  # noqa: B008
        calibration: Calibration = DEFAULT,
    ) -> None:
        """model: resolved. ConfigError when the device lacks `precision`."""
        self.model, self.device, self.sequence_length, self.precision = model, device, sequence_length, precision
        self.predicted, self.software = predicted, software
        self._works: dict[tuple[str, int, str], Work] = {}
        self._traffics: dict[tuple[int, int, int, int, str], tuple[StepTraffic, StepTraffic]] = {}
        self._elements: dict[int, tuple[float, float]] = {}
        self.peak = peak_of(device, precision)
        self.flops_per_token = training_flops_per_token(model, sequence_length, predicted)
        self.calibrate(calibration)

    def calibrate(self, calibration: Calibration) -> None:
        """Go on with other constants; what does not depend on them is kept."""
        self.calibration = calibration
        device, precision = self.device, self.precision
        sixteen: Precision = "bf16" if precision == "fp8" else precision
        head_rate = calibration.matmul * matmul_rate(device, sixteen)
        self._matmul_rates = {"block": calibration.matmul * matmul_rate(device, precision), "head": head_rate}
        self._attention_rate = calibration.attention * attention_rate(device, precision)
        if not self.software.fused_attention:
            self._attention_rate = head_rate
        self._memory_rate = calibration.memory * (device.memory_bytes_per_second or DEFAULT_BANDWIDTH)
        self._element_factor = 1.0 if self.software.compiled else calibration.eager
        launch = 0.0 if device.name == "cpu" else calibration.launch_seconds
        self._launch = {"block": launch * self._element_factor, "head": 0.0}

    def predict(
        self,
        layout: Layout,
        *,
        micro_batch_size: int,
        accumulation: int = 1,
        recompute: Recompute = "none",
        schedule: Schedule = "1f1b",
        stages_per_rank: int = 1,
        reshard_after_forward: bool | None = None,
    ) -> StepTime:
        """One step; arguments as for `predict_step`."""
        ranks, cost = layout.pipeline, self.calibration
        tokens = micro_batch_size * self.sequence_length / layout.context
        block, head = (
            self._seconds("block", layout, recompute, tokens),
            self._seconds("head", layout, recompute, tokens),
        )
        blocks, has_head = costliest_rank(self.model.num_hidden_layers, ranks, sum(block), sum(head))
        computing = [blocks * of_block + has_head * of_head for of_block, of_head in zip(block, head, strict=True)]

        # What is sent is counted for one sequence, which tells what grows with them, and once a step.
        of_block, of_ends = self._traffic(layout, recompute)
        links = links_of(layout, self.device)

        def seconds(what: str, link: float) -> float:
            sent = blocks * getattr(of_block, what) + has_head * getattr(of_ends, what)
            return sent / (cost.network * link)

        tensor = micro_batch_size * seconds("tensor", links.tensor) * (1 - self.software.tensor_overlap)
        context = micro_batch_size * seconds("context", links.context)
        message = FP32 * tokens * self.model.hidden_size / layout.tensor if ranks > 1 else 0.0
        pipeline = 2 * stages_per_rank * message / (cost.network * links.pipeline)
        idle = bubble_micro_batches(schedule, ranks, stages_per_rank)
        mean_rank = (self.model.num_hidden_layers * sum(block) + sum(head)) / ranks
        reshard = ranks == 1 if reshard_after_forward is None else reshard_after_forward
        gatherings = accumulation * (1 + reshard) if ranks == 1 or reshard else 1
        data = gatherings * seconds("gather", links.data) + seconds("reduce", links.data)
        data += seconds("replicate", links.replicate)
        matmul, attention, memory, launch = (accumulation * part for part in computing)
        parts = {
            "matmul_seconds": matmul,
            "attention_seconds": attention,
            "memory_seconds": memory,
            "launch_seconds": launch,
            "optimizer_seconds": self._optimizer(layout, blocks, has_head),
            "tensor_seconds": accumulation * tensor,
            "context_seconds": accumulation * context,
            "pipeline_seconds": accumulation * pipeline,
            "data_seconds": max((1 - cost.overlap) * data, data - accumulation * sum(computing)),
            "bubble_seconds": idle * (mean_rank + tensor + context + pipeline),
        }
        machines = max(1.0, layout.world_size / self.device.devices_per_node)
        parts["straggler_seconds"] = cost.straggling * math.log2(machines) * sum(parts.values())
        step_tokens = micro_batch_size * accumulation * layout.data * self.sequence_length
        return StepTime(
            **{name: cost.scale * part for name, part in parts.items()},
            tokens=step_tokens,
            devices=layout.world_size,
            model_flops=step_tokens * self.flops_per_token,
            hardware_flops=step_tokens * (self.flops_per_token + self._recomputed_flops(recompute)),
            peak_flops=self.peak,
            spread=cost.spread,
        )

    def _seconds(
        self, part: str, layout: Layout, recompute: Recompute, tokens: float
    ) -> tuple[float, float, float, float]:
        """(matrix products, attention, memory, waiting for the processor) of a part for a micro-batch of tokens."""
        key = part, layout.tensor, recompute
        work = self._works.get(key)
        if work is None:
            if part == "block":
                work = block_work(
                    self.model, self.sequence_length, layout.tensor, self.precision, recompute, self.software
                )
            else:
                work = head_work(self.model, layout.tensor, self.precision, self.software, self.predicted)
            self._works[key] = work
        matmul = tokens * work.matmul_flops / self._matmul_rates[part]
        attention = tokens * work.attention_flops / self._attention_rate
        moved = tokens * (work.matmul_bytes + self._element_factor * work.element_bytes) + work.weight_bytes
        memory = moved / self._memory_rate
        return matmul, attention, memory, max(0.0, self._launch[part] - matmul - attention - memory)

    def _traffic(self, layout: Layout, recompute: Recompute) -> tuple[StepTraffic, StepTraffic]:
        """What one sequence sends in (a block, embedding and head), from models of one and of two blocks."""
        key = layout.replicate, layout.shard, layout.context, layout.tensor, recompute
        if key not in self._traffics:
            flat = layout.model_copy(update={"pipeline": 1})
            one, two = (
                traffic_per_rank(
                    self.model.model_copy(update={"num_hidden_layers": blocks}),
                    flat,
                    micro_batch_size=1,
                    sequence_length=self.sequence_length,
                    precision=self.precision,
                    recompute=recompute,
                    reshard_after_forward=False,
                    predicted=self.predicted,
                )[0]
                for blocks in (1, 2)
            )
            names = [field.name for field in fields(StepTraffic)]
            of_block = StepTraffic(**{name: getattr(two, name) - getattr(one, name) for name in names})
            ends = StepTraffic(**{name: getattr(one, name) - getattr(of_block, name) for name in names})
            self._traffics[key] = of_block, ends
        return self._traffics[key]

    def _optimizer(self, layout: Layout, blocks: int, has_head: bool) -> float:
        """Seconds of the update, and of the 16-bit copies."""
        if layout.tensor not in self._elements:
            sizes = RankSizes(self.model, Layout(tensor=layout.tensor), self.precision)
            ends = sum(map(sum, sizes.units(True, True, pipeline=False)))
            self._elements[layout.tensor] = sizes.block, ends
        of_block, of_ends = self._elements[layout.tensor]
        parameters = (blocks * of_block + has_head * of_ends) / (layout.shard * layout.context)
        return OPTIMIZER_BYTES * parameters / self._memory_rate

    def _recomputed_flops(self, recompute: Recompute) -> float:
        """For each token: of full recomputation a forward pass of every block, a third of its FLOPs."""
        if recompute != "full":
            return 0.0
        return (self.flops_per_token - 6.0 * self.predicted * head_matrices(self.model)) / 3

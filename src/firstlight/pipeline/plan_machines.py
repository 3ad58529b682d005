"""What a plan is for: the devices that are named, this machine's, or an assumption that is said."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from firstlight.config import RunConfig
from firstlight.pipeline.diagnosing import read_lines
from firstlight.planning.calibration import Calibration, calibrate_from_run
from firstlight.planning.devices import Device
from firstlight.planning.hardware import cpu_device, device_from, find_device
from firstlight.planning.step_time import predict_step
from firstlight.planning.work import Software
from firstlight.support.errors import ConfigError
from firstlight.training.device import choose_device, device_name, peak_flops
from firstlight.training.run_folder import RunFolder

ASSUMED = "a100-80gb-sxm"
"""What several processes are planned on where nobody says, and this machine has no accelerator."""
UNKNOWN_BANDWIDTH = 5e11
"""Bytes a second from the memory of an accelerator that is in no table."""


@dataclass(frozen=True, slots=True)
class Machines:
    """What is planned on."""

    device: Device
    devices: int
    devices_per_node: int

    @property
    def device_type(self) -> str:
        """As torch calls it, where memory depends on it."""
        return "cpu" if self.device.name == "cpu" else "cuda"


def cluster_settings(gpus: int, device: Device | None) -> list[str]:
    """Settings of a recipe for so many devices, in machines as large as is usual for them."""
    each = (device or find_device(ASSUMED)).devices_per_node
    per_node = gpus if gpus <= each else math.gcd(gpus, each)
    return [f"launch.nodes={gpus // per_node}", f"launch.gpus_per_node={per_node}"]


def machines_for(config: RunConfig, chosen: Device | None, *, elsewhere: bool, assumptions: list[str]) -> Machines:
    """Machines for the processes that a recipe is written for; what nobody said is added to `assumptions`.

    chosen: which device. elsewhere: where no device is named, it is not this machine's CPU that is meant.
    """
    devices, setting = config.declared_world_size, config.training.device
    accelerator = torch.cuda.is_available() or torch.backends.mps.is_available()
    here = setting == "cpu" or (accelerator if elsewhere or devices > 1 else setting != "cuda" or accelerator)
    if chosen is None and here:
        chosen = this_device(config.training.precision, setting, devices)
        peak = (chosen.bf16_flops or 0.0) * (devices if chosen.name == "cpu" else 1)
        name = device_name(choose_device(setting))
        assumptions.append(f"Planned for this machine ({name}, {peak / 1e12:.3g} TFLOP/s); --gpu names another.")
    elif chosen is None:
        chosen = find_device(ASSUMED)
        assumptions.append(f"Nothing says which devices: {chosen.name} are taken; --gpu names others.")
    per_node = config.launch.gpus_per_node or min(devices, chosen.devices_per_node)
    return Machines(chosen, devices, per_node)


def this_device(precision: str, setting: str = "auto", processes: int = 1) -> Device:
    """This machine's device: a known accelerator, or what its own matrix products show (a second)."""
    device = choose_device(setting)
    if device.type == "cuda":
        try:
            return find_device(torch.cuda.get_device_name(device))
        except ConfigError:  # not in the table: measured
            memory = torch.cuda.get_device_properties(device).total_memory
    else:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    peak = peak_flops(device, "bf16" if precision == "fp16" and device.type == "cpu" else precision)[0]
    if device.type == "cpu":
        fp32 = peak if precision == "fp32" else peak_flops(device, "fp32")[0]
        return replace(cpu_device(peak, memory, processes), fp32_flops=fp32 / processes)
    return device_from(
        {"bf16_flops": peak, "fp16_flops": peak, "memory_bytes": memory, "memory_bytes_per_second": UNKNOWN_BANDWIDTH},
        name=device.type,
    )


def calibration_of(run: str | Path, machines: Machines) -> Calibration:
    """What the measured speed of a run on the same kind of device says of predictions.

    CheckpointError where it is no run folder, DataError where it has too few lines of metrics.
    """
    folder = RunFolder.open(run)
    config = folder.config
    processes = config.declared_world_size
    batch, parallel, training = config.batch(processes), config.parallel, config.training
    device = machines.device
    if device.name == "cpu" and processes != machines.devices:  # processes share the machine
        assert device.bf16_flops is not None and device.memory_bytes is not None
        device = cpu_device(device.bf16_flops * machines.devices, device.memory_bytes * machines.devices, processes)
    predicted = predict_step(
        config.model.resolved(config.model.vocab_size, config.data.sequence_length),
        config.layout(processes),
        device,
        micro_batch_size=batch.micro_batch_size,
        sequence_length=config.data.sequence_length,
        accumulation=batch.gradient_accumulation_steps,
        precision=training.precision,
        recompute=training.recompute,
        schedule=parallel.pipeline_schedule,
        stages_per_rank=parallel.stages_per_rank,
        reshard_after_forward=parallel.reshard_after_forward,
        predicted=config.predicted_share,
        software=Software(compiled=training.compile),
    )
    return calibrate_from_run(read_lines(folder.metrics)[0], predicted.tokens_per_second)

"""Choosing the device, and what it can do: the first of CUDA, Apple MPS and CPU that works, always shown."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from firstlight.parallel.precision import COMPUTE_TYPES
from firstlight.planning.hardware import measured_peak_flops, published_peak_flops
from firstlight.support.errors import ConfigError


def choose_device(setting: str) -> torch.device:
    """`auto`, `cuda`, `mps` or `cpu` → a device that works; ConfigError when the one asked for does not."""
    works = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if setting == "auto":
        setting = next(name for name, available in works.items() if available)
    if not works.get(setting):
        there = ", ".join(name for name, available in works.items() if available)
        raise ConfigError(f"device '{setting}' is not available on this machine; available: {there}.")
    return torch.device(setting)


def device_name(device: torch.device) -> str:
    """Name of the device as its maker gives it, with threads for a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"Apple MPS ({platform.processor() or platform.machine()})"
    threads = torch.get_num_threads()
    return f"{_cpu_name()}, {threads} thread{'s' if threads > 1 else ''}"


def peak_flops(device: torch.device, precision: str) -> tuple[float, str]:
    """(FLOP/s that MFU is a share of, where the figure comes from)."""
    if device.type == "cuda" and precision != "fp32":
        published = published_peak_flops(torch.cuda.get_device_name(device))
        if published:
            return published, "data sheet, dense bf16"
    measured = "bf16" if precision == "fp8" else precision  # the data sheets' figure, for all that is 16 bits or less
    return measured_peak_flops(device, COMPUTE_TYPES[measured]), f"measured {measured} matrix product"


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory used so far: allocated on the accelerator, or resident in this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    import resource

    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

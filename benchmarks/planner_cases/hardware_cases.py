"""Answers to data sheets, best matrix products and prices, all from the table of devices."""

from __future__ import annotations

import math
import re

from firstlight.planning.devices import Price
from firstlight.planning.hardware import find_device, matmul_rate
from firstlight.support.errors import ConfigError
from planner_cases.answer import Answer, Case, Comparison, UnansweredError


def hardware(case: Case) -> list[Comparison]:
    """Data sheets."""
    device = find_device(case["inputs"]["device"])
    figures = {
        "bf16_dense_tflops": (device.bf16_flops, 1e12),
        "fp16_dense_tflops": (device.fp16_flops, 1e12),
        "fp8_dense_tflops": (device.fp8_flops, 1e12),
        "mem_GB": (device.memory_bytes, 1e9),
        "bw_TBps": (device.memory_bytes_per_second, 1e12),
    }
    return _known(case, figures, tolerance=0.01)


def hardware_achievable(case: Case) -> list[Comparison]:
    """Best matrix products: those that were measured are data, the others an estimate."""
    device = find_device(case["inputs"]["device"])
    measured = {"bf16": device.matmul_flops, "fp8": device.matmul_fp8_flops}
    found = []
    for precision, known in measured.items():
        name = f"{precision}_matmul_tflops"
        expected = case["published"].get(name)
        if expected is not None:
            rate = matmul_rate(device, "fp8" if precision == "fp8" else "bf16") / 1e12
            estimated = "" if known else " (predicted)"
            found.append(Comparison(f"published.{name}{estimated}", expected, rate, 0.001 if known else None))
    if not found:
        raise UnansweredError("it prints no figure that a device has")
    return found


def price(case: Case) -> list[Comparison]:
    """What an hour costs: the middle of what the source asks beside that of the planner's range. Sources differ."""
    found = []
    for name, (low, high) in case["published"]["usd_per_gpu_h_range"].items():
        several = re.search(r"(\d+)x(\w+)-per-node", name)
        count, device_name = (int(several[1]), several[2]) if several else (1, name.split("-tier")[0])
        try:
            asked = find_device(device_name).price
        except ConfigError:
            continue
        if asked is not None:
            found.append(Comparison(f"published.{name}", math.sqrt(low * high) / count, _middle(asked)))
    if not found:
        raise UnansweredError("no price is known for its devices")
    return found


def _known(case: Case, figures: dict[str, tuple[float | None, float]], tolerance: float) -> list[Comparison]:
    found = []
    for name, (value, unit) in figures.items():
        expected = case["published"].get(name)
        if expected is None:
            continue
        if value is None:
            raise UnansweredError(f"{name} is not known")
        found.append(Comparison(f"published.{name}", expected, value / unit, tolerance))
    if not found:
        raise UnansweredError("it prints no figure that a device has")
    return found


def _middle(price: Price) -> float:
    return math.sqrt(price.low_usd_per_hour * price.high_usd_per_hour)


ANSWERS: dict[str, Answer] = {
    "hardware": hardware,
    "hardware-achievable": hardware_achievable,
    "price": price,
}

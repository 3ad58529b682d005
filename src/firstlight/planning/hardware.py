"""Which accelerator is meant, what it can do, and what the machine at hand can do.

Published figures are in `firstlight.planning.devices`. A CPU has none that holds, so its peak is the best matrix
product it shows here and now; MFU on a CPU is a share of that.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from firstlight.planning.devices import DEVICES, Device, Price
from firstlight.support.errors import ConfigError, did_you_mean

Precision = Literal["fp32", "bf16", "fp16", "fp8"]

MATMUL_SHARE = 0.79
"""Share of the peak that the best matrix product reaches where nobody measured it: the middle of the NVIDIA devices
that somebody did measure (73 % to 87 %)."""
ATTENTION_SHARE = 0.5
"""The same of fused attention, as a share of the best matrix product (41 % to 66 %)."""
CPU_BYTES_PER_SECOND = 10e9
"""From memory, for a CPU, whose bandwidth is not measured."""

_NOISE = frozenset(
    ["nvidia", "tesla", "geforce", "amd", "instinct", "google", "intel", "gpu", "hbm2", "hbm2e", "hbm3", "hbm3e", "oam"]
)


def find_device(name: str) -> Device:
    """The accelerator of a name: a100, A100-SXM4-80GB, a100-80g, h200, mi300x, tpu-v5e, rtx-4090, …

    Where a family has several and the name does not say which, the one of large machines is taken (a100: 80 GB SXM).
    ConfigError with the names that are known when it is none of them.
    """
    device = _match(name, strict=True)
    if device is None:
        families = list(dict.fromkeys(_family(known) for known in DEVICES))
        guess = did_you_mean(name.lower(), [*DEVICES, *families])
        raise ConfigError(
            f"gpu '{name}' is not known.{guess} Known: {', '.join(DEVICES)}; any other can be described in a YAML "
            "file: like: h100, and the figures that differ."
        )
    return device


def load_device(name: str) -> Device:
    """`find_device`, or the device that a YAML file describes (a name that ends in .yaml, .yml or .json)."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml", ".json"):
        return find_device(name)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(f"gpu file {name}: {problem.strerror}.") from problem
    except yaml.YAMLError as problem:
        raise ConfigError(f"gpu file {name} is not YAML: {str(problem).splitlines()[0]}.") from problem
    if not isinstance(values, Mapping):
        raise ConfigError(f"gpu file {name} is not a list of 'field: value' lines.")
    return device_from(values, name=path.stem, where=f"gpu file {name}")


def device_from(values: Mapping[str, Any], *, name: str, where: str = "gpu") -> Device:
    """A device from figures: `like`, the name of a known one, and the fields of `Device` that differ, in FLOP/s, bytes
    and watts; `price` as one number or [low, high] in dollars an hour. Without `like`: bf16_flops, memory_bytes and
    memory_bytes_per_second are due, the links are those of PCIe and 10 Gbit/s.

    ConfigError names a field that is unknown, missing or not a positive number.
    """
    given = dict(values)
    known = {field.name for field in fields(Device)}
    for key, value in given.items():
        if key not in known | {"like"}:
            raise ConfigError(
                f"{where}: {key} is not a field of a device.{did_you_mean(key, sorted(known | {'like'}))}"
            )
        if key in ("like", "name", "price"):
            continue
        given[key] = _positive(value, f"{where}: {key}")
    if "devices_per_node" in given:
        given["devices_per_node"] = int(given["devices_per_node"])
    if "price" in given:
        given["price"] = _price(given["price"], where)
    like = given.pop("like", None)
    given = {"name": name, **given}
    if like is not None:
        return replace(find_device(str(like)), **given)
    for key in ("bf16_flops", "memory_bytes", "memory_bytes_per_second"):
        if key not in given:
            raise ConfigError(f"{where}: {key} is missing; give it, or 'like: h100' to start from a known device.")
    links = {"link_bytes_per_second": 32e9, "network_bytes_per_second": 1.25e9}
    return Device(**links | given)


def peak_of(device: Device, precision: Precision) -> float:
    """Dense FLOP/s that MFU is a share of: of bf16 for all that has 16 bits or less (the data sheets' figure, also for
    fp8), else of fp32. ConfigError where the device has no such arithmetic."""
    if precision == "fp32":
        return _or(device.fp32_flops, _sixteen_bits(device) / 16)
    if precision == "bf16" and device.bf16_flops is None:
        raise ConfigError(f"{device.name} has no bf16 arithmetic; use training.precision=fp16.")
    if precision == "fp8" and device.fp8_flops is None:
        raise ConfigError(f"{device.name} has no fp8 arithmetic; use training.precision=bf16.")
    return _sixteen_bits(device)


def matmul_rate(device: Device, precision: Precision) -> float:
    """FLOP/s of the best matrix product in `precision`: as measured, or `MATMUL_SHARE` of the peak where nobody did."""
    peak = peak_of(device, precision)
    if precision == "fp32":
        return MATMUL_SHARE * peak
    sixteen = _or(device.matmul_flops, MATMUL_SHARE * peak)
    if precision != "fp8":
        return sixteen
    assert device.fp8_flops is not None
    return _or(device.matmul_fp8_flops, sixteen * device.fp8_flops / peak)


def attention_rate(device: Device, precision: Precision) -> float:
    """FLOP/s of fused attention, which fp8 training leaves in bf16."""
    if precision == "fp32":
        return ATTENTION_SHARE * matmul_rate(device, "fp32")
    return _or(device.attention_flops, ATTENTION_SHARE * _or(device.matmul_flops, MATMUL_SHARE * _sixteen_bits(device)))


def published_peak_flops(device_name: str) -> float | None:
    """Dense bf16 (fp16 where there is none) FLOP/s of an accelerator by the name its driver gives, or None when it is
    not known."""
    device = _match(device_name, strict=False)
    return None if device is None else _sixteen_bits(device)


def measured_peak_flops(device: torch.device, dtype: torch.dtype, seconds: float = 0.4) -> float:
    """Best FLOP/s of square matrix products in `dtype` within about `seconds`: of 1024³, or of fewer rows where that
    would take too long, as bf16 does on a processor without it."""
    size, best, deadline = 128, 0.0, time.perf_counter() + seconds
    while best == 0 or time.perf_counter() < deadline:
        a = torch.randn(size, size, device=device).to(dtype)
        b = torch.randn(size, size, device=device).to(dtype)
        for _ in range(4):
            start = time.perf_counter()
            product = a @ b
            product[0, 0].item()
            took = time.perf_counter() - start
            best = max(best, 2 * size**3 / took)
        if size < 1024 and 8 * 4 * took < seconds / 2:
            size *= 2
    return best


def cpu_device(flops: float, memory_bytes: float, processes: int = 1) -> Device:
    """One of `processes` on a CPU, whose matrix products reach `flops` (`measured_peak_flops`) when it has them alone.

    They share cores and memory, and speak through memory. Attention, which has no fast kernel for training here, is
    given the share of an accelerator; a run's own metrics (`calibrate_from_run`) say what is true.
    """
    share = 1 / processes
    return Device(
        name="cpu",
        bf16_flops=share * flops,
        fp16_flops=share * flops,
        fp32_flops=share * flops,
        matmul_flops=share * flops,
        memory_bytes=share * memory_bytes,
        memory_bytes_per_second=share * CPU_BYTES_PER_SECOND,
        link_bytes_per_second=share * CPU_BYTES_PER_SECOND / 2,
        devices_per_node=processes,
        network_bytes_per_second=1.25e9 * share,
    )


def _sixteen_bits(device: Device) -> float:
    peak = device.bf16_flops or device.fp16_flops
    assert peak is not None, "every device has 16-bit products"
    return peak


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _match(name: str, strict: bool) -> Device | None:
    """The first device that has all the words of a name; strict: a word that says nothing is a mistake."""
    words = set(_words(name))
    if "laptop" in words:
        return None  # another chip under the same name
    for device in DEVICES.values():
        family, *qualities = _words(device.name)
        said = words & {family, family.removeprefix("rtx")}
        if not said:
            continue
        others = words - said
        if not strict:
            others &= {word for known in DEVICES for word in _words(known)[1:]}
        if others <= set(qualities):
            return device
    return None


def _words(name: str) -> list[str]:
    """What a name says: a100_80G, A100-SXM4-80GB → a100 80gb, a100 sxm 80gb; without makers and kinds of memory."""
    text = re.sub(r"\b[\d.]+\s*(tb/s|tbps|gb/s|w)\b", " ", name.lower())
    text = re.sub(r"\b(rtx|tpu|gaudi|mi|dgx)[\s_-]*(?=[va]?\d)", r"\1", text)
    words = []
    for word in re.split(r"[\s_/,()-]+", text):
        word = re.sub(r"^(\d+)gi?b?$", r"\1gb", word)
        word = re.sub(r"^(sxm|pcie)\d?$", r"\1", word)
        if word and word not in _NOISE:
            words.append(word)
    return words


def _family(name: str) -> str:
    """a100-80gb-sxm → a100; rtx-4090 stays."""
    return re.sub(r"-(\d+gb|sxm|pcie|nvl)\b", "", name)


def _positive(value: Any, what: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if isinstance(value, bool) or not 0 < number < float("inf"):
        raise ConfigError(f"{what} is {value!r}; a number above 0 is due.")
    return number


def _price(value: Any, where: str) -> Price:
    low, high = value if isinstance(value, list) and len(value) == 2 else (value, value)
    prices = _positive(low, f"{where}: price"), _positive(high, f"{where}: price")
    if prices[0] > prices[1]:
        raise ConfigError(f"{where}: price {value!r} has its low end above its high end; swap them.")
    return Price(*prices, date="given", source="given")
